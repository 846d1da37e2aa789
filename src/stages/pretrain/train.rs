//! Training of the two parts.

use std::sync::Arc;

use burn::tensor::Device;
use serde_json::Value;

use super::{
    super::{
        Inputs, ItemSize, StageContext, StageError,
        check::refuse,
        model::{read_clip, read_text},
        training::{checkpoints, observe, read_examples, read_held_out, time_axis, train_error},
    },
    Pretrain, read_json,
};
use crate::{
    models::{
        ImageConditioning, ParamReader, Params, VideoDiffusion, VideoVae, one_of, pixels,
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
        self.check_inputs(inputs)?;
        let items = inputs.items("videos");
        let first = items.first().ok_or_else(|| {
            StageError::failed("there are no clips to train on")
                .with_help("give the data set a `count` of at least 1")
        })?;
        let size = read_clip(inputs, first)?.size;
        let vae = family.vae(config, &ParamReader::loaded(&start, None))?;
        let (compression, latent_channels) = (vae.compression(), vae.latent_channels());
        self.check_clip(size, &*vae).map_err(|e| e.on_item(&first.name))?;
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
        self.check_inputs(inputs)?;
        let known = family.timestep_distributions();
        let vae = inputs.items("model").iter().find(|item| item.name == "vae");
        let vae = vae.map(|item| read_json(inputs, item)).transpose()?;
        let schedule = Value::Object(self.scheduler.clone());
        let scheduler = family
            .scheduler(&schedule, family.samplers()[0])
            .map_err(|error| error.stated_in("scheduler"))?;
        let plain = family.denoiser(config, &ParamReader::loaded(&start, None))?;
        let text = read_text(inputs, "text", &*plain, self.text_use(), device)?;
        let tokens = text.dims()[1];
        let examples = read_examples("latents", inputs, &*plain, tokens, device, cx)?;
        let held_out = read_held_out(self.held_out_every, inputs, &*plain, tokens, device, cx)?;
        let tables = Arc::default();
        let training = DenoiserTraining {
            steps: self.steps(),
            build: &|params| {
                family.denoiser(config, &ParamReader::loaded_beside(params, None, &tables))
            },
            diffusion: Diffusion {
                scheduler: &*scheduler,
                conditioning: plain.image_conditioning(),
                distribution: one_of("timestep_distribution", self.timestep_distribution, known)?,
                image_scale: self.image_scale(vae.as_ref(), plain.image_conditioning())?,
                image_dropout: self.image_dropout,
                text,
                time: time_axis(family, (self.causal_time, self.frame_rate), vae.as_ref())?,
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

    fn check_inputs(&self, inputs: &Inputs<'_>) -> Result<(), StageError> {
        refuse(self.missing_inputs(|port| inputs.get(port).is_some()))
    }

    /// Checks that an autoencoder takes a clip, and gives it back.
    fn check_clip(
        &self,
        [frames, height, width]: [usize; 3],
        vae: &dyn VideoVae,
    ) -> Result<(), StageError> {
        let size = ItemSize { frames: Some(frames), image: Some([height, width]) };
        refuse(self.check_clips(size, vae))
    }

    fn image_scale(
        &self,
        vae: Option<&Value>,
        conditioning: ImageConditioning,
    ) -> Result<f64, StageError> {
        if conditioning == ImageConditioning::FirstFrame {
            return Ok(1.0);
        }
        refuse(self.unknown_scale(conditioning, vae.is_some()))?;
        let vae = vae.unwrap_or(&Value::Null);
        Ok(ImageLatentScale::resolve(self.image_latent_scale, vae, Side::Training)?)
    }
}
