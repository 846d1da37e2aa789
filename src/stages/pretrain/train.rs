//! Training of the two parts.

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    super::{
        Inputs, StageContext, StageError,
        model::{check_pixels, read_clip},
        training::{checkpoints, observe, read_examples, read_held_out, train_error},
    },
    Pretrain, read_json,
};
use crate::{
    artifact::text::TextEmbedding,
    models::{
        Compression, ParamReader, Params, VideoDiffusion, VideoVae, one_of, pixels,
        sampling::{ImageLatentScale, Side},
    },
    train::{
        batch::Diffusion,
        denoiser::DenoiserTraining,
        order::{Order, SmallSet},
        steps::{StepReport, Steps, TrainError, Trained},
        vae::VaeTraining,
    },
};

impl Pretrain {
    fn steps(&self) -> Steps {
        Steps {
            steps: self.steps,
            learning_rate: self.learning_rate,
            schedule: self.lr_schedule,
            warmup_steps: self.warmup_steps,
            optimizer: self.optimizer,
            max_grad_norm: self.max_grad_norm,
            ema: self.ema_decay,
            save_every: self.save_every,
        }
    }

    fn order(&self, len: usize) -> Order {
        let seed = self.seed.unwrap_or_default();
        Order { len, batch_size: self.batch_size, small_set: SmallSet::Repeat, seed }
    }

    /// Trains the autoencoder on the clips of `videos`.
    pub(super) fn train_vae(
        &self,
        family: &dyn VideoDiffusion,
        config: &Value,
        start: Params,
        inputs: &Inputs<'_>,
        device: &Device,
        cx: &StageContext<'_>,
    ) -> Result<Trained, StageError> {
        let items = inputs.items("videos");
        let Some(first) = items.first() else {
            return Err(StageError::failed("training a VAE needs clips")
                .with_help("connect a stage that gives videos to `videos`"));
        };
        let size = read_clip(inputs, first)?.size;
        let vae = family.vae(config, &ParamReader::loaded(&start, None))?;
        let (compression, latent_channels) = (vae.compression(), vae.latent_channels());
        check_autoencoded(size, &*vae).map_err(|e| e.on_item(&first.name))?;
        self.check_crop(size, compression)?;
        // Clips are read when they are needed: a data set may be larger than the memory.
        let clip = |index: usize| {
            let clip = read_clip(inputs, &items[index])
                .map_err(|error| TrainError::Example(Box::new(error)))?;
            if clip.size == size {
                return Ok(pixels::from_rgb(&clip.rgb, clip.size, device));
            }
            let error = StageError::failed(format!(
                "all clips must have one size, but `{}` has {size:?} and this one {:?}",
                first.name, clip.size
            ));
            Err(TrainError::Example(Box::new(error.on_item(&items[index].name))))
        };
        let training = VaeTraining {
            steps: self.steps(),
            build: &|params| family.vae(config, &ParamReader::loaded(params, None)),
            clip: &clip,
            order: self.order(items.len()),
            latent_channels,
            compression,
            crop: self.crop,
            loss: self.loss,
        };
        let mut observe = |report: StepReport| observe(cx, report);
        training.run(checkpoints(cx)?, device, || start, &mut observe).map_err(train_error)
    }

    /// Trains the denoiser on `latents`.
    pub(super) fn train_transformer(
        &self,
        family: &dyn VideoDiffusion,
        config: &Value,
        start: Params,
        inputs: &Inputs<'_>,
        device: &Device,
        cx: &StageContext<'_>,
    ) -> Result<Trained, StageError> {
        if inputs.get("latents").is_none() || inputs.get("text").is_none() {
            return Err(StageError::failed("training a transformer needs `latents` and `text`")
                .with_help("connect a `vae_encode` and a `text_encode` stage"));
        }
        let known = family.timestep_distributions();
        let schedule = Value::Object(self.scheduler.clone());
        let scheduler = family.scheduler(&schedule, family.samplers()[0])?;
        let text = TextEmbedding::read(inputs, "text", device)?.batch(1);
        let plain = family.denoiser(config, &ParamReader::loaded(&start, None))?;
        let examples = read_examples("latents", inputs, &*plain, text.dims()[1], device, cx)?;
        let tokens = text.dims()[1];
        let held_out = read_held_out(self.held_out_every, inputs, &*plain, tokens, device, cx)?;
        let training = DenoiserTraining {
            steps: self.steps(),
            build: &|params| family.denoiser(config, &ParamReader::loaded(params, None)),
            diffusion: Diffusion {
                scheduler: &*scheduler,
                conditioning: plain.image_conditioning(),
                distribution: one_of("timestep_distribution", self.timestep_distribution, known)?,
                image_scale: self.image_scale(inputs)?,
                image_dropout: self.image_dropout,
                text: Tensor::clone(&text),
                causal_time: self.causal_time,
            },
            order: self.order(examples.len()),
            examples: &examples,
            accumulation: 1,
            recompute: self.recompute,
            held_out,
        };
        let mut observe = |report: StepReport| observe(cx, report);
        let trained = training
            .run(&[self.steps], checkpoints(cx)?, device, || start, &mut observe)
            .map_err(train_error)?;
        Ok(trained.into_iter().next_back().expect("there is one stop"))
    }

    /// Checks that the piece of a clip that is trained on can be encoded and lies in the clip.
    fn check_crop(
        &self,
        [frames, rows, columns]: [usize; 3],
        compression: Compression,
    ) -> Result<(), StageError> {
        let Some([height, width]) = self.crop else { return Ok(()) };
        check_pixels([frames, height, width], compression)?;
        if height > rows || width > columns {
            let message =
                format!("`crop` must fit the clips of {rows}x{columns}, but is {height}x{width}");
            return Err(StageError::failed(message));
        }
        Ok(())
    }

    fn image_scale(&self, inputs: &Inputs<'_>) -> Result<f64, StageError> {
        let vae = match inputs.items("model").iter().find(|item| item.name == "vae") {
            Some(item) => read_json(inputs, item)?,
            None => json!({ "scaling_factor": 0.7, "invert_scale_latents": true }),
        };
        Ok(ImageLatentScale::resolve(self.image_latent_scale, &vae, Side::Training)?)
    }
}

/// Checks that an autoencoder takes a clip of this size and gives it back.
fn check_autoencoded(size: [usize; 3], vae: &dyn VideoVae) -> Result<(), StageError> {
    let compression = vae.compression();
    check_pixels(size, compression)?;
    let latents = (size[0] - 1) / compression.time + 1;
    let decoded = vae.decoded_frames(latents);
    if decoded == size[0] {
        return Ok(());
    }
    let message = format!(
        "a clip of {} frames has {latents} latent frames, which this autoencoder decodes to {decoded} \
         frames",
        size[0]
    );
    let help = format!("take {} frames", latents * compression.time + 1);
    Err(StageError::failed(message).with_help(help))
}
