//! The sampling: what it reads, how each clip starts, what it gives.

use burn::tensor::{Device, Tensor};
use serde_json::Value;

use super::{
    super::{
        ImageRecord, Inputs, Output, StageContext, StageError,
        check::{
            agreement::{rate_of_channels, scale_of_a_frame, unlike_lengths},
            refuse,
        },
        model::{
            StageModel, array, check_channels, check_clip, not_finite, open_vae, read_text,
            record_of_model,
        },
        vae_encode::PosteriorChoice,
    },
    Sample, too_many_steps,
};
use crate::{
    artifact::{Item, adapter::AdapterArtifact, samples, tensors::Array},
    models::{
        Denoiser, ImageConditioning, ModelSource, VideoVae, family, pixels,
        sampling::{ImageLatent, ImageLatentScale, Sample as Start, Sampling, Side},
    },
    rng::TorchRng,
};

/// The item file of a pair that holds the conditioning image.
const IMAGE: &str = "input.png";

impl Sample {
    /// Makes the clips of all pairs, once it is known which sampler does.
    pub(super) fn sample(
        &self,
        model: StageModel,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let vae = open_vae(&model, self.tiling, cx)?;
        let StageModel { source, device } = model;
        let lora = AdapterArtifact::read(inputs, "lora")?;
        let adapter = lora.as_ref().map(|lora| &lora.adapter);
        let denoiser = cx.models.denoiser(&source, adapter, &device)?;
        let scheduler = cx.models.scheduler(&source, self.sampler)?;
        let limit = scheduler.num_train_timesteps();
        if self.steps > limit {
            return Err(too_many_steps(self.steps, limit).into());
        }
        let vae_config = source.config("vae")?;
        let scale =
            ImageLatentScale::resolve(self.image_latent_scale, &vae_config, Side::Sampling)?;
        let trained = [
            (
                "lora",
                lora.as_ref().map(|lora| ImageRecord::of_log(&lora.train)).unwrap_or_default(),
            ),
            record_of_model(inputs, &source, &vae_config)?,
        ];
        self.check_image_use(&trained, denoiser.image_conditioning(), &vae_config)?;
        check_channels(vae.latent_channels(), &*denoiser)?;
        let text = read_text(inputs, "text", &*denoiser, self.text_use(), &device)?;
        let sampling = Sampling {
            denoiser: &*denoiser,
            scheduler: &*scheduler,
            num_steps: self.steps,
            guidance: self.guidance(&source, inputs, text.dims(), &*denoiser, &device)?,
            condition: self.condition(),
            frame_rate: self.frame_rate,
            text,
        };
        let latent = ImageLatent { scale, mean: self.posterior == PosteriorChoice::Mean };
        let images = Images { vae: &*vae, latent, denoiser: &*denoiser, device: &device };
        let items = inputs.items("pairs");
        let total = (items.len() * self.steps) as u64;
        let frames = (self.frames - 1) / vae.compression().time + 1;
        let mut done = 0;
        for items in items.chunks(self.batch_size.max(1)) {
            let starts = items.iter().map(|item| self.start(inputs, item, &images, &sampling));
            let starts = starts.collect::<Result<_, _>>()?;
            let made = sampling.run(starts, frames, |step| {
                cx.tick(done + (step * items.len()) as u64, total, "sampling steps")
            })?;
            done += (self.steps * items.len()) as u64;
            for (item, latents) in items.iter().zip(made) {
                let latents = array(latents.squeeze_dim::<4>(0));
                check_finite(&latents, item, lora.as_ref().map(|lora| &lora.train))?;
                let condition_steps = self.condition_steps(sampling.condition);
                let file = samples::to_bytes(&latents, condition_steps);
                out.item(&item.name, &[(samples::FILE, &file)])?;
            }
        }
        Ok(())
    }

    /// Reads and encodes the image of an item, with a generator of its own.
    fn start(
        &self,
        inputs: &Inputs<'_>,
        item: &Item,
        images: &Images<'_>,
        sampling: &Sampling<'_>,
    ) -> Result<Start, StageError> {
        let Images { vae, latent, denoiser, device } = *images;
        let image = read_image(inputs, item)?;
        let [height, width] = [image.height() as usize, image.width() as usize];
        let size = [self.frames, height, width];
        check_clip(size, vae.compression(), denoiser, sampling.text.dims()[1])
            .map_err(|e| e.on_item(&item.name))?;
        let rng = TorchRng::new(self.seed.unwrap_or_default());
        let pixels = pixels::from_rgb(image.as_raw(), [1, height, width], device);
        Ok(match sampling.condition {
            Some(_) => {
                let frames = (self.frames - 1) / vae.compression().time + 1;
                Start::encode_condition(vae, pixels, latent, frames, rng)
            }
            None => Start::encode(vae, pixels, latent, rng),
        })
    }

    /// Checks that the image is given as in the trainings behind these ports.
    fn check_image_use(
        &self,
        trained: &[(&str, ImageRecord)],
        conditioning: ImageConditioning,
        vae: &Value,
    ) -> Result<(), StageError> {
        refuse(scale_of_a_frame(self.image_latent_scale, conditioning))?;
        refuse(rate_of_channels(self.frame_rate, conditioning))?;
        for record in trained {
            refuse(self.image_use().check(*record, conditioning, vae)?)?;
        }
        Ok(())
    }

    fn guidance(
        &self,
        source: &ModelSource,
        inputs: &Inputs<'_>,
        text: [usize; 3],
        denoiser: &dyn Denoiser,
        device: &Device,
    ) -> Result<Option<(f64, Tensor<3>)>, StageError> {
        if self.guidance_scale <= 1.0 {
            return Ok(None);
        }
        if inputs.get("negative").is_none() {
            return Err(self.unguided().into());
        }
        let negative = read_text(inputs, "negative", denoiser, self.text_use(), device)?;
        let transformer = source.config("transformer")?;
        let format = family(source)?.prompt_format(&transformer, self.text_use().format())?;
        if format.keeps_padding {
            refuse(unlike_lengths(text[1], negative.dims()[1]))?;
        }
        Ok(Some((self.guidance_scale, negative)))
    }
}

/// What an image needs to become the start of a clip.
struct Images<'a> {
    vae: &'a dyn VideoVae,
    latent: ImageLatent,
    denoiser: &'a dyn Denoiser,
    device: &'a Device,
}

/// An error for a sampled clip that is none, with an adapter of this log, if there is one.
fn check_finite(latents: &Array<4>, item: &Item, log: Option<&Value>) -> Result<(), StageError> {
    if latents.is_finite() {
        return Ok(());
    }
    let error = not_finite("the sampled latents").on_item(&item.name);
    Err(match log {
        Some(log) => error.with_help(help_with_adapter(log)),
        None => error,
    })
}

/// What helps where an adapter of this log spoils what is sampled.
fn help_with_adapter(log: &Value) -> String {
    let adapters = log.get("merged").and_then(|merged| merged["adapters"].as_array());
    let Some(adapters) = adapters else {
        return "the adapter may have diverged: train with a lower learning rate".to_owned();
    };
    let weights = adapters.iter().filter_map(|adapter| adapter["weight"].as_f64());
    let largest = weights.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
    if largest.abs() > 1.0 {
        return format!(
            "the adapter is a merge with a weight of {largest:e}: take smaller `weights` in its `lora_merge`"
        );
    }
    "one of the merged adapters may have diverged: sample with each alone, and train that one with a lower \
     learning rate"
        .to_owned()
}

/// The image an item's clip starts from.
fn read_image(inputs: &Inputs<'_>, item: &Item) -> Result<image::RgbImage, StageError> {
    let image = image::load_from_memory(&inputs.read(item, IMAGE)?).map_err(|e| {
        StageError::failed(format!("`{IMAGE}` is not an image: {e}")).on_item(&item.name)
    })?;
    Ok(image.to_rgb8())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::help_with_adapter;

    #[test]
    fn a_merge_is_not_said_to_have_diverged() {
        let merged = |weights: &[f64]| {
            let adapters: Vec<_> = weights.iter().map(|w| json!({ "weight": w })).collect();
            help_with_adapter(&json!({ "merged": { "adapters": adapters } }))
        };
        assert!(merged(&[1.0, -1e30]).contains("a merge with a weight of -1e30:"));
        assert!(merged(&[1.0, 0.5]).contains("one of the merged adapters may have diverged"));
        assert!(help_with_adapter(&json!({})).contains("the adapter may have diverged"));
    }
}
