//! Which parts of which models are behind what flows between stages: latents must be decoded, and
//! trained and sampled with, by the autoencoder that made them, and prompts must come from the text
//! encoder that the transformer was trained with. A mixture gives noise or dull pictures, and no
//! other sign.

use std::{collections::BTreeMap, rc::Rc};

use super::super::{KnownModels, Surroundings};
use crate::models::{Likeness, ModelRef};

/// The folders of parts.
const VAE: &str = "vae";
const TEXT: &str = "text_encoder";
const TRANSFORMER: &str = "transformer";

/// A part of a model, as far as it can be told before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// That of a model which the file names.
    Named(ModelRef),
    /// What a stage makes, by its place among the pipeline's.
    Made(usize),
}

/// A part and the stage that names or makes it.
#[derive(Clone, Debug)]
struct PartOf {
    /// None where it is not known.
    identity: Option<Identity>,
    /// The stage, by its place among the pipeline's.
    stage: usize,
    /// The name of the stage.
    name: Rc<str>,
}

/// The parts behind what a stage gives.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    /// Parts of a model that stages of this pipeline made.
    made: BTreeMap<&'static str, PartOf>,
    /// The autoencoder of its latents, or of those that it was trained on.
    vae: Option<PartOf>,
    /// The text encoder of its prompt, or of those that it was trained with.
    text: Option<PartOf>,
    /// The transformer that an adapter was trained on, or that adapters were merged into.
    base: Option<PartOf>,
}

/// Two parts that do not go together, or may not.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Whether it is known that they do not.
    pub is_known: bool,
    /// What was found.
    pub message: String,
    /// What to do.
    pub help: &'static str,
    /// The stages that name or make the parts, by their places among the pipeline's, and what is
    /// there.
    pub places: Vec<(usize, String)>,
}

/// What meets a part.
struct Meeting<'a> {
    /// The folder of the part.
    part: &'static str,
    /// What has the other part, and how: that latents were encoded by it.
    told: String,
    /// The other part.
    found: &'a PartOf,
    /// What the part here is for: `but are decoded by`.
    use_here: &'static str,
    /// The part here.
    wanted: &'a PartOf,
    help: &'static str,
}

const ONE_VAE: &str =
    "name one model in both stages, or another one whose `vae` holds the same files";
const ONE_TEXT: &str = "encode the prompt with the model that it is for";

impl PartOf {
    /// What stands for it in messages, as the owner of the part.
    fn owner(&self) -> String {
        match &self.identity {
            Some(Identity::Named(model)) => format!("`{}`", model.0),
            _ => format!("the stage `{}`", self.name),
        }
    }
}

impl Surroundings<'_> {
    fn lineage(&self, port: &str) -> Option<&Lineage> {
        self.lineages.iter().find(|(of, _)| *of == port).map(|(_, lineage)| &**lineage)
    }

    /// A part of the model of this stage, which the port `model` may give.
    fn own_part<'m>(&self, model: impl Into<Option<&'m ModelRef>>, part: &str) -> PartOf {
        let model = model.into();
        let named = || self.part_here(model.cloned().map(Identity::Named));
        if !self.has("model") {
            return named();
        }
        let Some(given) = self.lineage("model") else { return self.part_here(None) };
        given.made.get(part).cloned().unwrap_or_else(named)
    }

    fn part_here(&self, identity: Option<Identity>) -> PartOf {
        PartOf { identity, stage: self.index, name: self.stage.into() }
    }

    /// What this stage makes.
    fn made_here(&self) -> PartOf {
        self.part_here(Some(Identity::Made(self.twin)))
    }

    /// The transformer of this stage without the adapters that were merged into it.
    fn own_base(&self, model: &ModelRef) -> PartOf {
        let transformer = self.own_part(model, TRANSFORMER);
        let base = self.lineage("model").and_then(|given| given.base.clone());
        base.filter(|_| matches!(transformer.identity, Some(Identity::Made(_))))
            .unwrap_or(transformer)
    }

    /// The autoencoder whose latents the transformer of this stage knows.
    fn vae_of_transformer(&self, model: &ModelRef) -> PartOf {
        let trained = self.lineage("model").and_then(|given| given.vae.clone());
        trained.unwrap_or_else(|| self.own_part(model, VAE))
    }

    /// The text encoder whose prompts the transformer of this stage knows.
    fn text_of_transformer(&self, model: &ModelRef) -> PartOf {
        let trained = self.lineage("model").and_then(|given| given.text.clone());
        trained.unwrap_or_else(|| self.own_part(model, TEXT))
    }

    fn meet(&self, meeting: &Meeting<'_>) -> Option<Mismatch> {
        let Meeting { part, told, found, use_here, wanted, help } = meeting;
        let likeness = self.likeness(part, found, wanted);
        let what = named(part);
        let (a, b) = (found.owner(), wanted.owner());
        let message = match likeness {
            Likeness::Same => return None,
            Likeness::Different => format!("{told} {what} of {a}, but {use_here} that of {b}"),
            Likeness::Unknown(why) => format!(
                "{told} {what} of {a}, but {use_here} that of {b}; whether they are the same cannot be \
                 known here: {why}"
            ),
        };
        let is_known = likeness == Likeness::Different;
        let places =
            [wanted, found].map(|part| (part.stage, format!("{what} of {}", part.owner())));
        Some(Mismatch { is_known, message, help, places: places.into() })
    }

    fn likeness(&self, part: &str, a: &PartOf, b: &PartOf) -> Likeness {
        match (&a.identity, &b.identity) {
            (None, _) | (_, None) => Likeness::Same,
            (Some(a), Some(b)) if a == b => Likeness::Same,
            (Some(Identity::Named(a)), Some(Identity::Named(b))) => {
                self.models.likeness(part, (a, b))
            }
            _ => Likeness::Different,
        }
    }

    fn latents(
        &self,
        port: &'static str,
        use_here: &'static str,
        wanted: &PartOf,
    ) -> Option<Mismatch> {
        let how = match port {
            "samples" => "samples on `samples` were made with".to_owned(),
            _ => format!("latents on `{port}` were encoded by"),
        };
        self.autoencoders(port, &how, use_here, wanted)
    }

    /// What was trained on latents of another autoencoder.
    fn trained(
        &self,
        port: &'static str,
        use_here: &'static str,
        wanted: &PartOf,
    ) -> Option<Mismatch> {
        let what = if port == "model" { "transformer" } else { "adapter" };
        let how = format!("{what} on `{port}` was trained on latents of");
        self.autoencoders(port, &how, use_here, wanted)
    }

    /// Another autoencoder behind a port; `how` says what is there, and that it comes from one.
    fn autoencoders(
        &self,
        port: &str,
        how: &str,
        use_here: &'static str,
        wanted: &PartOf,
    ) -> Option<Mismatch> {
        let found = self.lineage(port)?.vae.as_ref()?;
        let told = format!("the {how}");
        self.meet(&Meeting { part: VAE, told, found, use_here, wanted, help: ONE_VAE })
    }

    /// Prompts of another text encoder than the transformer of `model` knows.
    fn prompts(&self, ports: &[&'static str], model: &ModelRef) -> Vec<Mismatch> {
        let wanted = self.text_of_transformer(model);
        let met = ports.iter().filter_map(|port| {
            let found = self.lineage(port)?.text.as_ref()?;
            if let Some(other) = self.other_family(port, found, &wanted) {
                return Some(other);
            }
            let told = format!("the prompt on `{port}` was encoded by");
            let use_here = "is read by a transformer that knows";
            self.meet(&Meeting {
                part: TEXT,
                told,
                found,
                use_here,
                wanted: &wanted,
                help: ONE_TEXT,
            })
        });
        met.collect()
    }

    /// A prompt in the form of another family of models.
    fn other_family(&self, port: &str, found: &PartOf, wanted: &PartOf) -> Option<Mismatch> {
        let class = |part: &PartOf| match &part.identity {
            Some(Identity::Named(model)) => Some((self.models.class(model)?, part.owner())),
            _ => None,
        };
        let ((theirs, a), (ours, b)) = (class(found)?, class(wanted)?);
        (theirs != ours).then(|| Mismatch {
            is_known: true,
            message: format!(
                "the prompt on `{port}` was encoded as for {a}, a model of the class `{theirs}`, but {b} is of \
                 the class `{ours}`"
            ),
            help: ONE_TEXT,
            places: vec![(wanted.stage, b.clone()), (found.stage, format!("encoded as for {a}"))],
        })
    }

    /// An adapter of another transformer, of the same class.
    fn adapter(
        &self,
        port: &'static str,
        use_here: &'static str,
        base: &PartOf,
    ) -> Option<Mismatch> {
        let found = self.lineage(port)?.base.as_ref()?;
        let told = format!("the adapter on `{port}` was trained on");
        let mut met = self.meet(&Meeting {
            part: TRANSFORMER,
            told,
            found,
            use_here,
            wanted: base,
            help: "an adapter does what it was trained to on its own transformer alone; name that one",
        })?;
        // Adapters are used on finetunes of their base.
        met.is_known = false;
        Some(met)
    }
}

/// A part in messages.
fn named(part: &str) -> &'static str {
    match part {
        VAE => "the autoencoder",
        TEXT => "the text encoder",
        _ => "the transformer",
    }
}

impl Lineage {
    /// What an encoder of clips gives.
    pub fn of_latents<'m>(
        around: &Surroundings<'_>,
        model: impl Into<Option<&'m ModelRef>>,
    ) -> Self {
        Self { vae: Some(around.own_part(model, VAE)), ..Self::default() }
    }

    /// What an encoder of prompts gives.
    pub fn of_text(around: &Surroundings<'_>, model: &ModelRef) -> Self {
        Self { text: Some(around.own_part(model, TEXT)), ..Self::default() }
    }

    /// What a training of an adapter gives.
    pub fn of_training(around: &Surroundings<'_>, model: &ModelRef) -> Self {
        let on = |port: &str| around.lineage(port).cloned().unwrap_or_default();
        let vae = on("latents").vae.or_else(|| Some(around.vae_of_transformer(model)));
        let text = on("text").text.or_else(|| Some(around.text_of_transformer(model)));
        Self { vae, text, base: Some(around.own_base(model)), ..Self::default() }
    }

    /// What a training of all parameters of a part gives; one of no steps has weights that are not
    /// known.
    pub fn of_pretraining(around: &Surroundings<'_>, part: &'static str, steps: usize) -> Self {
        let on = |port: &str| around.lineage(port).cloned().unwrap_or_default();
        let given = on("model");
        let here = if steps == 0 { around.part_here(None) } else { around.made_here() };
        let mut made = given.made;
        made.insert(part, here.clone());
        if part == VAE {
            return Self { made, ..given };
        }
        if steps == 0 {
            let unknown = || Some(around.part_here(None));
            return Self { made, vae: unknown(), text: unknown(), base: unknown() };
        }
        Self { made, vae: on("latents").vae, text: on("text").text, base: Some(here) }
    }

    /// What a merge of the adapters on these ports gives, into a model or not.
    pub fn of_merge(around: &Surroundings<'_>, ports: &[&str], model: Option<&ModelRef>) -> Self {
        let adapters = || ports.iter().filter_map(|port| around.lineage(port));
        let mut merged = Self {
            vae: adapters().find_map(|adapter| adapter.vae.clone()),
            text: adapters().find_map(|adapter| adapter.text.clone()),
            base: adapters().find_map(|adapter| adapter.base.clone()),
            made: BTreeMap::new(),
        };
        if let Some(model) = model {
            let given = around.lineage("model").cloned().unwrap_or_default();
            merged.made = given.made;
            merged.made.insert(TRANSFORMER, around.made_here());
            merged.base = Some(around.own_base(model));
            merged.vae = merged.vae.or(given.vae);
            merged.text = merged.text.or(given.text);
        }
        merged
    }

    /// What does not go together in a training of an adapter.
    pub fn training(around: &Surroundings<'_>, model: &ModelRef) -> Vec<Mismatch> {
        let vae = around.vae_of_transformer(model);
        let use_here = "train a transformer that knows";
        let latents = ["latents", "held_out"].map(|port| around.latents(port, use_here, &vae));
        latents.into_iter().flatten().chain(around.prompts(&["text"], model)).collect()
    }

    /// What does not go together in the latents of a training of all parameters.
    pub fn pretraining(around: &Surroundings<'_>) -> Vec<Mismatch> {
        let Some(latents) = around.lineage("latents").and_then(|on| on.vae.as_ref()) else {
            return Vec::new();
        };
        let held_out = around.latents("held_out", "`latents` were encoded by", latents);
        held_out.into_iter().collect()
    }

    /// What does not go together in a merge of the adapters on these ports.
    pub fn merge(
        around: &Surroundings<'_>,
        ports: &[&'static str],
        model: Option<&ModelRef>,
    ) -> Vec<Mismatch> {
        let first = ports.iter().find_map(|port| around.lineage(port));
        let vae = match (model, first) {
            (Some(model), _) => Some(around.vae_of_transformer(model)),
            (None, first) => first.and_then(|adapter| adapter.vae.clone()),
        };
        let base = match (model, first) {
            (Some(model), _) => Some(around.own_base(model)),
            (None, first) => first.and_then(|adapter| adapter.base.clone()),
        };
        let use_here = if model.is_some() { "the transformer knows" } else { "another one on" };
        let met = ports.iter().flat_map(|port| {
            let vae = vae.as_ref().and_then(|vae| around.trained(port, use_here, vae));
            let on = if model.is_some() { "is merged into" } else { "another one on" };
            let base = base.as_ref().and_then(|base| around.adapter(port, on, base));
            [vae, base]
        });
        met.flatten().collect()
    }

    /// What does not go together where a clip is sampled.
    pub fn sampling(around: &Surroundings<'_>, model: &ModelRef) -> Vec<Mismatch> {
        let vae = around.own_part(model, VAE);
        let use_here = "the image is encoded by";
        let trained = ["lora", "model"].map(|port| around.trained(port, use_here, &vae));
        let adapter = around.adapter("lora", "is sampled with on", &around.own_base(model));
        let prompts = around.prompts(&["text", "negative"], model);
        trained.into_iter().flatten().chain(prompts).chain(adapter).collect()
    }

    /// What does not go together where samples are decoded.
    pub fn decoding<'m>(
        around: &Surroundings<'_>,
        model: impl Into<Option<&'m ModelRef>>,
    ) -> Vec<Mismatch> {
        let vae = around.own_part(model, VAE);
        around.latents("samples", "are decoded by", &vae).into_iter().collect()
    }
}

impl KnownModels {
    /// How the parts of two models compare, looked at once.
    fn likeness(&self, part: &str, (a, b): (&ModelRef, &ModelRef)) -> Likeness {
        match (self.look(a, part), self.look(b, part)) {
            (Some(a), Some(b)) => a.compare(&b),
            _ => Likeness::Unknown("one of them is not on this machine"),
        }
    }
}
