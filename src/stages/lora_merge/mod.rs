//! `lora_merge`: adapters to one, or into the model; also how adapters of other programs come in.

mod files;
mod into_model;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Bulk, Cause, CheckError, CheckWarning, Examined, IdleParam, ImageRecord, Inputs, Lineage,
    MODEL_PARAMS, Mismatch, ModelParts, Output, ParamError, Port, Ports, Stage, StageContext,
    StageError, StageKind, Surroundings, Trainings, WeightsUsed, Workload,
    check::{agreement::FOLDER, refuse},
    model::{pass_parts_on, record_of_model},
    pretrain::WeightType,
    rules,
};
use crate::{
    artifact::{
        ArtifactKind,
        adapter::AdapterArtifact,
        model::{resolve_model, write_part},
    },
    models::{
        Adapter, LoadError, Memory, ModelRef, PartRead,
        lora::{Combination, Combined},
        memory::{AdapterSize, merging},
        sampling::ImageLatentScale,
    },
    store::SourceReader,
};
use files::read_file;

/// Copies of adapters from files in memory: as they are, as factors, and combined.
const COPIES_OF_FILES: u64 = 4;

/// An adapter and its weight.
type Weighted = (Adapter, f64);
/// A port, or `files`, with how the image was given in the trainings behind it.
type Recorded = (&'static str, ImageRecord);

/// The ports of adapters, in the order of `weights`.
const ADAPTERS: [&str; 4] = ["first", "second", "third", "fourth"];
/// The same and that of the model, behind all of which there are trainings.
const PORTS: [&str; 5] = ["first", "second", "third", "fourth", "model"];

/// Makes one adapter of several, each with its weight. With `model`, the sum goes into the model's
/// transformer instead, and the output takes its place on the port `model` of other stages.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraMerge {
    /// The model that the adapters are merged into; without it they become one adapter.
    #[serde(default)]
    pub model: Option<ModelRef>,
    /// The weight of each adapter: those on `first` to `fourth`, then those of `files`; by default
    /// 1.
    #[serde(default)]
    pub weights: Vec<f64>,
    /// How the factors become those of one adapter.
    #[serde(default)]
    pub method: Combination,
    /// The rank of the result; for `svd` alone.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub rank: Option<usize>,
    /// Files of other programs below `root`: of diffusers, of ComfyUI, or
    /// `adapter_model.safetensors` of peft with its `adapter_config.json` beside it.
    #[serde(default)]
    pub files: Vec<String>,
    /// The folder of `files`.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub root: Option<String>,
    /// Multiple of the conditioning image's latent that `files` were trained with, as in
    /// `lora_train`. It goes into the log, by which sampling is checked; without it, a mismatch
    /// would not be noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_latent_scale: Option<ImageLatentScale>,
    /// Whether `files` were trained with `causal_time`, as in `lora_train` (LTX-Video); it goes
    /// into the log, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal_time: Option<bool>,
    /// Frames per second of the clips that `files` were trained on, as in `lora_train` (LTX-Video);
    /// it goes into the log, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub frame_rate: Option<f64>,
    /// The type of a merged model's weights; by default that of the model's, tensor by tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<WeightType>,
}

const PORT: Port = Port { name: "", kinds: &[ArtifactKind::LoraAdapter], required: false };

impl StageKind for LoraMerge {
    const KIND: &'static str = "lora_merge";
    // 1: first · 2: the log keeps how the image was given in training · 3: that of a merged model,
    // too, and adapters must agree on it; a merged model keeps the type of its weights.
    const VERSION: u32 = 3;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: ADAPTERS[0], ..PORT },
            Port { name: ADAPTERS[1], ..PORT },
            Port { name: ADAPTERS[2], ..PORT },
            Port { name: ADAPTERS[3], ..PORT },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::LoraAdapter,
    };
}

impl Stage for LoraMerge {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        match (self.method, self.rank) {
            (Combination::Svd, None) if self.model.is_none() => {
                let error = ParamError::new("method", "must come with `rank`, but there is none");
                errors.push(error.help("`cat` is exact and needs none"));
            }
            (Combination::Svd, Some(rank)) => {
                errors.extend(rules::at_least_one(&[("rank", rank)]));
            }
            (_, Some(_)) => {
                errors.push(ParamError::new("rank", "is for `method = \"svd\"` alone"));
            }
            _ => {}
        }
        if self.weights.iter().any(|weight| !weight.is_finite()) {
            errors.push(ParamError::new("weights", "must be finite numbers"));
        }
        if self.files.is_empty() != self.root.is_none() {
            let message = "must be given together with `root`";
            errors.push(ParamError::new("files", message));
        }
        let outside = |file: &&String| {
            Path::new(file)
                .components()
                .any(|part| !matches!(part, std::path::Component::Normal(_)))
        };
        if let Some(file) = self.files.iter().find(outside) {
            errors.push(ParamError::new(
                "files",
                format!("must lie below `root`, but `{file}` does not"),
            ));
        }
        errors.extend(rules::image_scale(self.image_latent_scale));
        errors.extend(rules::frame_rate(self.frame_rate));
        errors
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        let (merges, reads) = (self.model.is_some(), !self.files.is_empty());
        let merge = "`model` is given, into which the adapters are merged";
        let of_files = ["image_latent_scale", "causal_time", "frame_rate"].map(|param| {
            IdleParam::unless(reads, param, "files", "`files` are, of whose training it tells")
        });
        let of_model = IdleParam::unless(merges, "precision", "model", merge);
        of_model.into_iter().chain(of_files.into_iter().flatten()).collect()
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        let adapters = ADAPTERS.into_iter().filter(|port| around.has(port)).count();
        let mut errors: Vec<_> = self.miscount(adapters + self.files.len()).into_iter().collect();
        if around.has("model") && self.model.is_none() {
            errors.push(CheckError::new(
                Cause::Param("inputs"),
                "an input `model` does nothing without the parameter `model`",
                "add `model = ...`, which gives the parts that the input has not",
            ));
        }
        errors.extend(along_a_training(around));
        errors.extend(ImageRecord::agreed(self.records(around)).err());
        errors
    }

    fn check_files(&self, examined: &Examined, on_port: Option<&ModelParts>) -> Vec<CheckError> {
        let model = self.weights().map(|weights| examined.model(MODEL_PARAMS[0], weights, on_port));
        let mut errors = model.unwrap_or_default();
        if let Some(root) = self.source_root() {
            errors.extend(examined.adapters(root, &self.files, self.model.as_ref(), on_port));
        }
        errors
    }

    fn adapter_files(&self) -> Option<(&Path, &[String])> {
        Some((self.source_root()?, &self.files))
    }

    fn trainings(&self, around: &Surroundings<'_>) -> Option<Trainings> {
        let image = ImageRecord::agreed(self.records(around)).ok()?;
        let here = |stated: bool| {
            (!self.files.is_empty() && !stated).then(|| Arc::<str>::from(around.stage))
        };
        let (mut without_scale, mut without_time) =
            (here(self.image_latent_scale.is_some()), here(self.causal_time.is_some()));
        let mut posterior = None;
        for trained in PORTS.map(|port| around.trained_on(port)) {
            without_scale = without_scale.or(trained.without_scale);
            without_time = without_time.or(trained.without_time);
            posterior = posterior.or(trained.posterior);
        }
        Some(Trainings { image, without_scale, without_time, posterior })
    }

    fn warnings(&self, around: &Surroundings<'_>) -> Vec<CheckWarning> {
        self.warnings_of_files(around)
    }

    fn lineage(&self, around: &Surroundings<'_>) -> Option<Lineage> {
        Some(Lineage::of_merge(around, &ADAPTERS, self.model.as_ref()))
    }

    fn mismatches(&self, around: &Surroundings<'_>) -> Vec<Mismatch> {
        Lineage::merge(around, &ADAPTERS, self.model.as_ref())
    }

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        let model = self.model.as_ref()?;
        Some(WeightsUsed { model, parts: &[PartRead::Transformer] })
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        if work.on_host { self.host_memory(work) } else { Ok(None) }
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let merging = self.model.as_ref().map(|model| merging(&work.parts.source(model)?));
        let mut memory = merging.transpose()?.unwrap_or_default();
        memory.weights += COPIES_OF_FILES * self.size_of_files();
        Ok((memory.total() > 0).then_some(memory))
    }

    fn bulk(&self, given: &dyn Fn(&str) -> Bulk) -> Bulk {
        if self.model.is_some() {
            return Bulk::default();
        }
        let of_files = AdapterSize::of_files(self.size_of_files());
        let all =
            ADAPTERS.map(|port| given(port).adapter).into_iter().fold(of_files, AdapterSize::and);
        let adapter = match self.rank {
            Some(rank) => all.at_most(rank),
            None => all,
        };
        Bulk { items: Some(1), adapter, ..Bulk::default() }
    }

    fn source_root(&self) -> Option<&Path> {
        self.root.as_deref().map(Path::new)
    }

    fn output(&self) -> Option<ArtifactKind> {
        self.model.is_some().then_some(ArtifactKind::Model)
    }

    fn gives_parts(&self) -> bool {
        self.model.is_some()
    }

    fn parts(&self, given: &ModelParts) -> Option<ModelParts> {
        let config = given.source(self.model.as_ref()?).ok()?.config("transformer").ok()?;
        Some(given.with("transformer", config))
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let (adapters, mut records) = self.adapters(inputs, cx.sources)?;
        let source = self.model.as_ref().map(|model| resolve_model(model, inputs, "model"));
        let source = source.transpose()?;
        if let Some(source) = &source {
            let vae = source.config("vae").unwrap_or_default();
            records.push(record_of_model(inputs, source, &vae)?);
        }
        let record = ImageRecord::agreed(records).map_err(StageError::from)?;
        let merged = json!({
            "method": self.method,
            "adapters": adapters.iter().map(|(adapter, weight)| json!({
                "rank": adapter.rank, "alpha": adapter.alpha, "weight": weight,
            })).collect::<Vec<_>>(),
        });
        cx.tick(0, 1, "combine adapters")?;
        let Combined { adapter, kept } = Adapter::combine(&adapters, self.method, self.rank)?;
        let mut log = json!({ "merged": merged, "kept": kept });
        record.write(&mut log);
        let Some(source) = source else {
            return AdapterArtifact { adapter, train: log }.write(out, None);
        };
        let config = source.config("transformer")?;
        write_part(out, ("transformer", &config, &log), |file| {
            self.merge(&adapter, source.tensor_files("transformer")?, file, cx)
        })?;
        pass_parts_on(inputs, out, "transformer")
    }
}

/// Ports with the adapters along a training, of which a merge takes one.
fn along_a_training(around: &Surroundings<'_>) -> Vec<CheckError> {
    let several = around.items.iter().filter(|(port, items)| ADAPTERS.contains(port) && *items > 1);
    let error = |(port, items): &(&str, usize)| {
        let message = format!(
            "`{port}` must hold one adapter, but the training on it gives {items}, one for each step of \
             `save_at`"
        );
        let help = "leave `save_at` out of that training, to merge its last one; what is trained already counts";
        CheckError::new(Cause::Param("inputs"), message, help)
    };
    several.map(error).collect()
}

impl LoraMerge {
    /// What is wrong with a number of adapters.
    fn miscount(&self, adapters: usize) -> Option<CheckError> {
        if adapters == 0 {
            return Some(CheckError::new(
                Cause::Param("inputs"),
                "there is no adapter to merge",
                "connect a stage that gives one to `first`, or name `files` below `root`",
            ));
        }
        let weights = self.weights.len();
        (weights != 0 && weights != adapters).then(|| {
            let message =
                format!("`weights` must be as many as the adapters, {adapters}, but are {weights}");
            CheckError::new(Cause::Param("weights"), message, "give one weight for each, or none")
        })
    }

    /// How the image was given in the trainings behind all that is merged, as far as it is known.
    fn records(&self, around: &Surroundings<'_>) -> Vec<Recorded> {
        let facts = self.model.as_ref().and_then(|model| around.model(model));
        let of_folder = facts.map(|facts| (FOLDER, facts.of_folder));
        let on_ports = PORTS.map(|port| (port, around.trained_on(port).image));
        on_ports.into_iter().chain(of_folder).chain(self.of_files()).collect()
    }

    /// The adapters with their weights, and how the image was given in their trainings.
    fn adapters(
        &self,
        inputs: &Inputs<'_>,
        sources: Option<&SourceReader>,
    ) -> Result<(Vec<Weighted>, Vec<Recorded>), StageError> {
        let (mut adapters, mut records) = (Vec::new(), Vec::new());
        for port in ADAPTERS {
            if let Some(AdapterArtifact { adapter, train }) = AdapterArtifact::read(inputs, port)? {
                adapters.push(adapter);
                records.push((port, ImageRecord::of_log(&train)));
            }
        }
        for file in &self.files {
            let sources = sources.ok_or_else(|| StageError::failed("`files` needs `root`"))?;
            adapters.push(read_file(sources, file).map_err(|error| error.on_item(file))?);
        }
        records.extend(self.of_files());
        refuse(self.miscount(adapters.len()))?;
        let weights = match self.weights.len() {
            0 => vec![1.0; adapters.len()],
            _ => self.weights.clone(),
        };
        Ok((adapters.into_iter().zip(weights).collect(), records))
    }
}
