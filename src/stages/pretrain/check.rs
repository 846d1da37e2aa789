//! What shows before a training runs: inputs, configuration, sizes.

use serde_json::Value;

use super::{
    super::{
        Cause, CheckError, ItemSize, Surroundings,
        check::{
            agreement::{TextUse, rate_of_channels, scale_of_a_frame, time_of_channels},
            not_known, pixels,
        },
        training::check_held_out,
    },
    Part, Pretrain, cogvideox,
};
use crate::models::{
    Compression, ImageConditioning, LoadError, ParamReader, VideoDiffusion, VideoVae,
    sampling::ImageLatentScale,
};

/// The key of a configuration that names its class.
const CLASS: &str = "_class_name";

impl Pretrain {
    /// What it cannot be trained on.
    pub(super) fn check_all(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        let mut errors: Vec<_> = check_held_out(self.held_out_every, around).into_iter().collect();
        if self.steps > 0 {
            errors.extend(self.missing_inputs(|port| around.has(port)));
        }
        let Some(family) = self.family() else { return errors };
        errors.extend(match self.part {
            Part::Vae => self.check_vae(family, around),
            Part::Transformer => self.check_transformer(family, around),
        });
        errors
    }

    /// Ports that the part cannot be trained without.
    pub(super) fn missing_inputs(&self, has: impl Fn(&str) -> bool) -> Vec<CheckError> {
        let wanted: &[(&str, &str)] = match self.part {
            Part::Vae => &[("videos", "a stage that gives videos")],
            Part::Transformer => {
                &[("latents", "a `vae_encode` stage"), ("text", "a `text_encode` stage")]
            }
        };
        let missing = wanted.iter().filter(|(port, _)| !has(port));
        missing
            .map(|(port, giver)| {
                CheckError::new(
                    Cause::Param("inputs"),
                    format!("training a part `{}` needs the input `{port}`", self.part.name()),
                    format!("connect {giver} to `{port}`"),
                )
            })
            .collect()
    }

    fn check_vae(&self, family: &dyn VideoDiffusion, around: &Surroundings<'_>) -> Vec<CheckError> {
        let Some(config) = self.known_config(around) else { return Vec::new() };
        let vae = match family.vae(&config, &ParamReader::shapes()) {
            Ok(vae) => vae,
            Err(error) => return self.config_error(error).into_iter().collect(),
        };
        if self.steps == 0 { Vec::new() } else { self.check_clips(around.size, &*vae) }
    }

    /// What of clips an autoencoder cannot be trained on.
    pub(super) fn check_clips(&self, size: ItemSize, vae: &dyn VideoVae) -> Vec<CheckError> {
        let mut errors = pixels(size, vae.compression());
        if errors.is_empty() {
            errors.extend(size.frames.and_then(|frames| not_given_back(frames, vae)));
        }
        errors.extend(unlike_halves(vae));
        errors.extend(self.check_crop(size, vae.compression()));
        errors
    }

    /// A piece of a clip that cannot be encoded, or does not lie in it.
    fn check_crop(&self, clip: ItemSize, compression: Compression) -> Vec<CheckError> {
        let Some([height, width]) = self.crop else { return Vec::new() };
        let piece = ItemSize { frames: None, image: self.crop };
        let mut errors = pixels(piece, compression);
        for error in &mut errors {
            error.cause = Cause::Param("crop");
            error.message = format!("`crop`: {}", error.message);
        }
        if let Some([rows, columns]) = clip.image
            && (height > rows || width > columns)
        {
            let message =
                format!("`crop` must fit the clips of {rows}x{columns}, but is {height}x{width}");
            let help = "take a smaller piece, or leave `crop` out to train on whole clips";
            errors.push(CheckError::new(Cause::Param("crop"), message, help));
        }
        errors
    }

    fn check_transformer(
        &self,
        family: &dyn VideoDiffusion,
        around: &Surroundings<'_>,
    ) -> Vec<CheckError> {
        let conditioning = family.image_conditioning();
        let known = family.timestep_distributions();
        let mut errors: Vec<_> = scale_of_a_frame(self.image_latent_scale, conditioning)
            .into_iter()
            .chain(time_of_channels(self.causal_time, conditioning))
            .chain(rate_of_channels(self.frame_rate, conditioning))
            .chain(not_known("timestep_distribution", self.timestep_distribution, known))
            .collect();
        errors.extend(around.check_text(self.text_use(), Some(family)));
        errors.extend(other_vae(family, around));
        let config = self.known_config(around);
        match config.map(|config| family.denoiser(&config, &ParamReader::shapes())) {
            Some(Ok(denoiser)) if self.steps > 0 => {
                errors.extend(around.check_text_length(&*denoiser, false));
            }
            Some(Err(error)) => errors.extend(self.config_error(error)),
            _ => {}
        }
        if self.steps > 0 {
            let schedule = Value::Object(self.scheduler.clone());
            let error = family.scheduler(&schedule, family.samplers()[0]).err();
            errors.extend(error.map(|error| table_error("scheduler", error)));
            errors.extend(self.unknown_scale(conditioning, around.has("model")));
        }
        errors
    }

    pub(super) fn text_use(&self) -> TextUse {
        TextUse::Training { causal_time: self.causal_time }
    }

    /// A multiple of the image's latent that follows an autoencoder which is not there.
    pub(super) fn unknown_scale(
        &self,
        conditioning: ImageConditioning,
        has_vae: bool,
    ) -> Option<CheckError> {
        let is_stated = matches!(self.image_latent_scale, Some(ImageLatentScale::Factor(_)));
        let unknown = conditioning == ImageConditioning::Channels && !is_stated && !has_vae;
        unknown.then(|| {
            CheckError::new(
                Cause::Param("image_latent_scale"),
                "`image_latent_scale` must be a number where no autoencoder on the input `model` \
                 gives it",
                "connect the autoencoder that made the latents to `model`, or set \
                 `image_latent_scale` to 1 / `scaling_factor` of that autoencoder",
            )
        })
    }

    /// The part's configuration, where it does not come from an input.
    fn known_config(&self, around: &Surroundings<'_>) -> Option<Value> {
        match &self.like {
            Some(_) if around.has("model") => None,
            Some(like) => like.resolve().ok()?.config(self.part.name()).ok(),
            None if self.config.is_empty() && around.has("model") => None,
            None => Some(self.stated_config()),
        }
    }

    /// The configuration that is stated here, of a class of the family.
    pub(super) fn stated_config(&self) -> Value {
        let mut config = self.config.clone();
        if self.part == Part::Transformer {
            let class = Value::String(self.family.clone());
            config.entry(CLASS).or_insert(class);
        } else if let Some(class) = self.class_to_state() {
            config.insert(CLASS.to_owned(), class.into());
        }
        Value::Object(config)
    }

    /// The class of an autoencoder whose configuration names none; that of CogVideoX is known
    /// without it.
    pub(super) fn class_to_state(&self) -> Option<&'static str> {
        let names_none =
            self.part == Part::Vae && self.like.is_none() && !self.config.contains_key(CLASS);
        let family = self.family().filter(|_| names_none && self.family != cogvideox())?;
        Some(family.vae_class())
    }

    /// A wrong configuration; that of another model is told of by who reads its files.
    fn config_error(&self, error: LoadError) -> Option<CheckError> {
        self.like.is_none().then(|| table_error("config", error))
    }
}

/// An autoencoder on the port `model` that is not one of the family.
fn other_vae(family: &dyn VideoDiffusion, around: &Surroundings<'_>) -> Option<CheckError> {
    let error = family.vae(around.parts?.get("vae")?, &ParamReader::shapes()).err()?;
    let message = format!("the autoencoder on the input `model` is not of this family: {error}");
    let help = "set `family` to that of the autoencoder, or connect one of this family";
    Some(CheckError::new(Cause::Param("family"), message, help))
}

fn table_error(param: &'static str, error: LoadError) -> CheckError {
    let error = error.stated_in(param);
    let help = error.help().map(str::to_owned);
    CheckError { cause: Cause::Param(param), message: error.to_string(), help }
}

/// A number of frames that comes back as another one.
fn not_given_back(frames: usize, vae: &dyn VideoVae) -> Option<CheckError> {
    let time = vae.compression().time;
    let latents = (frames - 1) / time + 1;
    let decoded = vae.decoded_frames(latents);
    (decoded != frames).then(|| {
        CheckError::new(
            Cause::Frames,
            format!(
                "a clip of {frames} frames has {latents} latent frames, which this autoencoder \
                 decodes to {decoded} frames"
            ),
            format!("take {} frames", latents * time + 1),
        )
    })
}

/// A decoder that is no mirror image of the encoder.
fn unlike_halves(vae: &dyn VideoVae) -> Option<CheckError> {
    let (encoder, decoder) = (vae.compression(), vae.expansion());
    (encoder != decoder).then(|| {
        CheckError::new(
            Cause::Param("config"),
            format!(
                "the encoder makes one latent of {} frames and {} pixels a side, but the decoder \
                 {} frames and {} pixels of one",
                encoder.time, encoder.space, decoder.time, decoder.space
            ),
            "give the decoder a level that grows the picture for each that shrinks it in the encoder",
        )
    })
}
