//! What a model's configurations say of what it takes, without its weights.

use serde_json::Value;

use super::{
    super::model::without_tiles,
    Cause, CheckError, CheckWarning, ImageRecord, ItemSize, Surroundings,
    agreement::{FOLDER, ImageUse},
    size::{SIDES, pixels, pixels_where},
};
use crate::models::{
    Compression, Denoiser, FileError, MODELS, ModelSource, ParamReader, PromptFormat, Sampler,
    TextFormat, VideoDiffusion, family, family_of_vae,
};

const TRANSFORMER_CONFIG: &str = "transformer/config.json";

/// What a model's configuration says of what it takes; its weights are not read.
pub(in crate::stages) struct Facts {
    pub family: &'static dyn VideoDiffusion,
    /// The family of the autoencoder.
    pub vae_family: &'static dyn VideoDiffusion,
    /// The sampler of the pipeline that it is published with.
    pub published: Sampler,
    compression: Option<Compression>,
    /// What its transformer takes; none of an autoencoder alone.
    transformer: Option<TransformerFacts>,
    /// Timesteps of training, which sampling cannot exceed.
    pub train_timesteps: Option<usize>,
    /// Whether the autoencoder can work on tiles.
    tiles: bool,
    /// Whether the decoder takes noise.
    decoder_noise: bool,
    /// `vae/config.json`.
    vae: Option<Value>,
    /// Why that cannot be read.
    vae_error: Option<FileError>,
    /// How the image was given in the training of its transformer, where its folder says so.
    pub of_folder: ImageRecord,
    /// Samplers of the family that the schedule's settings rule out, and why.
    without: Vec<(Sampler, String)>,
}

/// What the configuration of a transformer says.
struct TransformerFacts {
    denoiser: Option<Box<dyn Denoiser>>,
    /// Tokens of a prompt.
    tokens: usize,
    /// How a prompt is given in each format.
    formats: Vec<(TextFormat, PromptFormat)>,
}

impl TransformerFacts {
    fn of(family: &dyn VideoDiffusion, config: &Value) -> Option<Self> {
        let known = family.text_formats();
        let prompt = |format| Some((format, family.prompt_format(config, format).ok()?));
        Some(Self {
            denoiser: family.denoiser(config, &ParamReader::shapes()).ok(),
            tokens: family.prompt_format(config, known[0]).ok()?.tokens,
            formats: known.iter().copied().filter_map(prompt).collect(),
        })
    }
}

impl Facts {
    /// Parts that cannot be read are left out: the stage that needs them says why.
    pub fn read(source: &ModelSource) -> Option<Self> {
        let vae_family = family_of_vae(source).ok()?;
        let (family, transformer) = match source.config("transformer") {
            Ok(config) => {
                let family = family(source).ok()?;
                (family, Some(TransformerFacts::of(family, &config)?))
            }
            // An autoencoder alone.
            Err(_) if !source.has(TRANSFORMER_CONFIG) => (vae_family, None),
            Err(_) => return None,
        };
        let vae_config = source.config("vae").ok();
        let vae = vae_config.as_ref();
        let vae = vae.map(|config| vae_family.vae(config, &ParamReader::shapes())).transpose();
        let (vae, vae_error) =
            vae.map_or_else(|error| (None, Some(error.into())), |vae| (vae, None));
        let schedule = source.config("scheduler").ok();
        let scheduler = |sampler| Some(family.scheduler(schedule.as_ref()?, sampler));
        let published = schedule.as_ref().map(|schedule| family.published_sampler(schedule));
        let without = family.samplers()[1..].iter().filter_map(|sampler| {
            let error = scheduler(*sampler)?.err()?;
            Some((*sampler, error.to_string()))
        });
        let without = without.collect();
        let scheduler = scheduler(family.samplers()[0]).and_then(Result::ok);
        Some(Self {
            family,
            vae_family,
            vae_error,
            published: published.unwrap_or(family.samplers()[0]),
            compression: vae.as_ref().map(|vae| vae.compression()),
            decoder_noise: vae.as_ref().is_none_or(|vae| vae.takes_noise()),
            tiles: vae.is_none_or(|vae| vae.tiled().is_some()),
            of_folder: ImageRecord::of_source(source, vae_config.as_ref()),
            vae: vae_config,
            transformer,
            train_timesteps: scheduler.map(|scheduler| scheduler.num_train_timesteps()),
            without,
        })
    }

    /// How a prompt in this format is given.
    pub fn prompt_format(&self, format: TextFormat) -> Option<PromptFormat> {
        let formats = &self.transformer.as_ref()?.formats;
        formats.iter().find(|(of, _)| *of == format).map(|(_, prompt)| *prompt)
    }

    /// The denoiser, and the tokens of a prompt.
    fn denoiser(&self) -> Option<(&dyn Denoiser, usize)> {
        let transformer = self.transformer.as_ref()?;
        Some((transformer.denoiser.as_deref()?, transformer.tokens))
    }

    /// Prompts of lengths that the denoiser does not take.
    pub fn lengths_of_prompts(&self, guided: bool, around: &Surroundings<'_>) -> Vec<CheckError> {
        let errors = |(denoiser, _)| around.check_text_length(denoiser, guided);
        self.denoiser().map(errors).unwrap_or_default()
    }

    /// An autoencoder on the port `model` that names no class and is none of the transformer's
    /// family, but of another. One of no family is told of where it is made, and one in the model's
    /// own files where these are looked at.
    pub fn vae_on_port(&self, around: &Surroundings<'_>) -> Option<CheckError> {
        let vae = around.parts?.get("vae")?;
        let FileError { message, .. } = self.vae_error.as_ref()?;
        let is_other = MODELS.iter().any(|other| other.vae(vae, &ParamReader::shapes()).is_ok());
        is_other.then(|| {
            let class = self.vae_family.class_name();
            let message = format!(
                "the autoencoder on the input `model` names no class, and cannot be read as that of {class}: {message}"
            );
            let help = "set `_class_name` in the `config` of its training, or take a `model` of its family";
            CheckError::new(Cause::Param("model"), message, help)
        })
    }

    /// What a stage that reads an autoencoder alone misses, where it names no model.
    pub fn without_model(around: &Surroundings<'_>) -> Option<CheckError> {
        let missing =
            |message: &str, help: &str| Some(CheckError::new(Cause::Param("model"), message, help));
        if !around.has("model") {
            return missing(
                "`model` is missing: no model is named whose autoencoder is used",
                "name one, or give the input `model` the stage that made an autoencoder",
            );
        }
        let Some(vae) = around.parts?.get("vae") else {
            return missing(
                "the input `model` gives no autoencoder",
                "set `model` to a model whose autoencoder is used",
            );
        };
        let class = vae.get("_class_name").and_then(Value::as_str);
        let is_named = MODELS.iter().any(|family| class == Some(family.vae_class()));
        (!is_named).then(|| {
            let message = "the autoencoder on the input `model` names no class that is known here";
            let help =
                "set `_class_name` in the `config` of its training, or `model` to one of its family";
            CheckError::new(Cause::Param("model"), message, help)
        })
    }

    /// An autoencoder of another family than the transformer, one of which is on the port `model`.
    pub fn mixed(&self, around: &Surroundings<'_>) -> Option<CheckError> {
        let [vae, transformer] = [self.vae_family, self.family].map(VideoDiffusion::class_name);
        let on_port = |part| around.parts.is_some_and(|parts| parts.get(part).is_some());
        if vae == transformer || !(on_port("vae") || on_port("transformer")) {
            return None;
        }
        let place = |part| if on_port(part) { "on the input `model`" } else { "of `model`" };
        let message = format!(
            "the autoencoder {} is for {vae}, but the transformer {} is {transformer}",
            place("vae"),
            place("transformer")
        );
        Some(CheckError::new(Cause::Param("model"), message, "take both from models of one family"))
    }

    /// Tiles that the autoencoder does not have.
    pub fn tiling(&self, asked: bool) -> Option<CheckError> {
        (asked && !self.tiles).then(without_tiles)
    }

    /// Noise for a decoder that takes none.
    pub fn decoder_noise(&self, asked: bool) -> Option<CheckError> {
        (asked && !self.decoder_noise).then(|| {
            let message = "`noise` does nothing: the decoder of this model takes none";
            CheckError::new(Cause::Param("noise"), message, "leave it out")
        })
    }

    /// A use of the image that differs from the trainings behind the ports.
    pub fn image_use(&self, own: ImageUse, around: &Surroundings<'_>) -> Vec<CheckError> {
        let Some(vae) = &self.vae else { return Vec::new() };
        let conditioning = self.family.image_conditioning();
        let error = |trained: (&str, ImageRecord)| own.check(trained, conditioning, vae).ok()?;
        let on_ports = around.trained.iter().map(|(port, trained)| (*port, trained.image));
        on_ports.chain([(FOLDER, self.of_folder)]).filter_map(error).collect()
    }

    /// A training on its own, as its log will tell of it.
    pub fn record(&self, own: ImageUse) -> ImageRecord {
        own.record(self.vae.as_ref())
    }

    /// A sampler that the model's schedule rules out.
    pub fn sampler(&self, asked: Option<Sampler>) -> Option<CheckError> {
        let (_, why) = self.without.iter().find(|(sampler, _)| Some(*sampler) == asked)?;
        let help = "take the sampler that is the default, or a model that was made for this one";
        Some(CheckError::new(Cause::Param("sampler"), why, help))
    }

    /// A sampler that is not of the pipeline that the model is published with, where that has
    /// another one for the same family.
    pub fn other_pipeline(&self, asked: Option<Sampler>) -> Option<String> {
        if asked != Some(Sampler::FlowEuler) || self.published != Sampler::FlowCondition {
            return None;
        }
        Some(
            "samples with `flow_euler`, as the basic pipeline does, but the schedule of its model has no \
             shift: from LTX-Video 0.9.5 on, models are published with the condition pipeline; for that, set \
             `sampler = \"flow_condition\"`"
                .to_owned(),
        )
    }

    /// Clips of a length that the model has learnt no positions for.
    pub fn other_length(&self, act: &str, size: ItemSize) -> Option<CheckWarning> {
        let trained = self.denoiser()?.0.trained_frames()?;
        let frames = size.frames.filter(|frames| *frames != trained)?;
        let message = format!(
            "{act} clips of {frames} frames, but the model was trained on {trained} and has learnt positions \
             for these alone: for other lengths they are computed, which it has never seen; its own length is \
             `frames = {trained}`"
        );
        Some(CheckWarning { param: Some("frames"), message })
    }

    /// What the autoencoder does not take; what is advised is what the denoiser takes as well.
    pub fn pixels(&self, size: ItemSize) -> Vec<CheckError> {
        let Some(compression) = self.compression else { return Vec::new() };
        let takes = |side: usize, [height, width]: [usize; 2]| {
            let Some((denoiser, tokens)) = self.denoiser() else { return true };
            // A number of frames that fits all: what is wrong with it is told apart.
            let latent = [2, height / compression.space, width / compression.space];
            let error = denoiser.check_size(latent, tokens).err();
            error.is_none_or(|error| !error.what.ends_with(SIDES[side]))
        };
        pixels_where(size, compression, &takes)
    }

    /// What the denoiser does not take of clips that the autoencoder does.
    pub fn clip(&self, size: ItemSize) -> Option<CheckError> {
        let (compression, (denoiser, tokens)) = self.compression.zip(self.denoiser())?;
        let (Some(frames), Some([height, width])) = (size.frames, size.image) else { return None };
        if !pixels(size, compression).is_empty() {
            return None;
        }
        let check = |[frames, height, width]: [usize; 3]| {
            let Compression { time, space } = compression;
            let latent = [(frames - 1) / time + 1, height / space, width / space];
            denoiser.check_size(latent, tokens)
        };
        let size = [frames, height, width];
        let error = check(size).err()?;
        let axis = ["frames", "height", "width"].iter().position(|name| error.what.ends_with(name));
        let Some(axis) = axis else {
            return Some(CheckError {
                cause: Cause::Image,
                message: error.to_string(),
                help: None,
            });
        };
        // Another side may still not fit; what is asked is whether this one would.
        let fits = |value: usize| {
            let mut other = size;
            other[axis] = value;
            check(other).err().is_none_or(|other| other.what != error.what)
        };
        let step = if axis == 0 { compression.time } else { compression.space };
        Some(CheckError {
            cause: if axis == 0 { Cause::Frames } else { Cause::Image },
            message: format!(
                "a clip of {frames} frames of height {height} and width {width} does not fit the \
                 model: {error}"
            ),
            help: nearest(size[axis], step, fits)
                .map(|nearest| format!("take {} {nearest}", ["frames =", "height", "width"][axis])),
        })
    }
}

/// The nearest values below and above that fit, a few steps away at most.
fn nearest(found: usize, step: usize, fits: impl Fn(usize) -> bool) -> Option<String> {
    const FAR: usize = 4096;
    let below = (1..FAR)
        .map_while(|n| found.checked_sub(n * step).filter(|value| *value > 0))
        .find(|value| fits(*value));
    let above = (1..FAR).map(|n| found + n * step).find(|value| fits(*value));
    match (below, above) {
        (Some(below), Some(above)) => Some(format!("{below} or {above}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_string()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{super::known_models::KnownModels, *};
    use crate::{models::ModelRef, stages::ModelParts};

    fn facts(model: &str) -> Rc<Facts> {
        let model = ModelRef(model.to_owned());
        KnownModels::default().facts(&model, &ModelParts::default()).unwrap()
    }

    #[test]
    fn the_built_in_model_says_what_it_takes() {
        let facts = facts("builtin:tiny");
        assert_eq!(facts.train_timesteps, Some(1000));
        let size = |frames, image| ItemSize { frames: Some(frames), image: Some(image) };
        assert_eq!(facts.pixels(size(9, [64, 96])), []);
        assert_eq!(facts.clip(size(9, [64, 96])), None);
        let clip = facts.clip(size(9, [64, 60])).unwrap();
        insta::assert_snapshot!(format!("{} | {}", clip.message, clip.help.unwrap()), @"a clip of 9 frames of height 64 and width 60 does not fit the model: latent width must be a multiple of 2, but is 15 | take width 56 or 64");
        let clip = facts.clip(size(9, [64, 4000])).unwrap();
        insta::assert_snapshot!(format!("{} | {}", clip.message, clip.help.unwrap()), @"a clip of 9 frames of height 64 and width 4000 does not fit the model: latent width must be at most 96, but is 1000 | take width 384");
    }

    #[test]
    fn what_is_advised_for_pixels_is_what_the_transformer_takes() {
        let facts = facts("builtin:tiny");
        let size = ItemSize { frames: Some(9), image: Some([30, 65]) };
        let wrong = facts.pixels(size);
        insta::assert_snapshot!(wrong[0].message, @"height must be a multiple of 8 pixels for the model's transformer, of 4 for its autoencoder, but is 30");
        let advice: Vec<_> = wrong.into_iter().filter_map(|m| m.help).collect();
        assert_eq!(
            advice,
            ["take 24 or 32", "take 64 or 72"],
            "multiples of 4 pixels and of 2 latents"
        );
        let huge = ItemSize { frames: Some(9), image: Some([64, 401]) };
        let advice: Vec<_> = facts.pixels(huge).into_iter().filter_map(|m| m.help).collect();
        assert_eq!(advice, ["take 384"], "at most 96 latents");
        // As with learnt positions, which are of one size.
        let compression = Compression { time: 4, space: 8 };
        let size = ItemSize { frames: Some(9), image: Some([100, 128]) };
        let takes = |side: usize, [height, _]: [usize; 2]| side != 0 || height == 96;
        let wrong = pixels_where(size, compression, &takes).remove(0);
        assert_eq!(wrong.help.as_deref(), Some("take 96"));
        assert!(wrong.message.ends_with("a multiple of 8 pixels, but is 100"), "{}", wrong.message);
        let advice = pixels_where(size, compression, &|_, _| false)[0].help.clone();
        assert_eq!(advice.unwrap(), "take 96 or 104", "where nothing would be right");
    }

    #[test]
    fn the_nearest_values_are_those_that_fit() {
        assert_eq!(nearest(10, 2, |value| value % 8 == 0).unwrap(), "8 or 16");
        assert_eq!(nearest(3, 2, |value| value < 2).unwrap(), "1");
        assert_eq!(nearest(3, 2, |_| false), None);
    }
}
