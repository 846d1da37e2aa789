//! The training: what it starts from, what it reads, what it gives.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::{
    super::{
        Inputs, Output, StageContext, StageError,
        check::refuse,
        model::{StageModel, read_text, record_of_model},
        training::{
            checkpoints, log_held_out, observe, read_examples, read_held_out, time_axis,
            train_error,
        },
    },
    LoraTrain,
};
use crate::{
    artifact::adapter::AdapterArtifact,
    models::{
        Adapter, Denoiser, LoadError, NoiseScheduler, ParamReader, Params, TimeAxis,
        TimestepDistribution, VideoDiffusion, family, one_of,
        sampling::{ImageLatentScale, Side},
        tables::Tables,
    },
    train::{
        batch::{Diffusion, Example},
        denoiser::DenoiserTraining,
        held_out::HeldOut,
        order::Order,
        steps::{StepReport, Steps, Trained},
    },
};

/// The frozen model, and how its clips are noised.
pub(super) struct Base {
    family: &'static dyn VideoDiffusion,
    config: Value,
    params: Arc<Params>,
    tables: Arc<Tables>,
    scheduler: Box<dyn NoiseScheduler>,
    distribution: TimestepDistribution,
    image_scale: f64,
    time: TimeAxis,
}

impl Base {
    /// The denoiser, with an adapter's branches.
    pub fn denoiser(&self, adapter: Option<&Adapter>) -> Result<Box<dyn Denoiser>, LoadError> {
        let params = ParamReader::loaded_beside(&self.params, adapter, &self.tables);
        self.family.denoiser(&self.config, &params)
    }
}

/// What is read of the inputs.
pub(super) struct Clips {
    text: Tensor<3>, // [1, L, D]
    examples: Vec<Example>,
    held_out: Option<HeldOut>,
}

/// What the training made, with what its log says.
pub(super) struct Made {
    /// At each of [`LoraTrain::adapter_steps`].
    trained: Vec<Trained>,
    image_scale: f64,
    clips: usize,
}

impl LoraTrain {
    /// Opens the model.
    pub(super) fn base(
        &self,
        StageModel { source, device }: &StageModel,
        inputs: &Inputs<'_>,
        cx: &StageContext<'_>,
    ) -> Result<Base, StageError> {
        let family = family(source)?;
        let conditioning = family.image_conditioning();
        refuse(self.check_image(conditioning))?;
        let known = family.timestep_distributions();
        let vae = source.config("vae")?;
        let before = record_of_model(inputs, source, &vae)?;
        refuse(self.image_use().check(before, conditioning, &vae)?)?;
        Ok(Base {
            family,
            config: source.config("transformer")?,
            params: cx.models.denoiser_params(source, device)?,
            tables: Arc::default(),
            scheduler: cx.models.scheduler(source, None)?,
            distribution: one_of("timestep_distribution", self.timestep_distribution, known)?,
            image_scale: ImageLatentScale::resolve(self.image_latent_scale, &vae, Side::Training)?,
            time: time_axis(family, (self.is_causal(), self.frame_rate), Some(&vae))?,
        })
    }

    /// Reads prompt and clips.
    pub(super) fn clips(
        &self,
        plain: &dyn Denoiser,
        inputs: &Inputs<'_>,
        device: &Device,
        cx: &StageContext<'_>,
    ) -> Result<Clips, StageError> {
        let text = read_text(inputs, "text", plain, self.text_use(), device)?;
        let tokens = text.dims()[1];
        let examples = read_examples("latents", inputs, plain, tokens, device, cx)?;
        let held_out = read_held_out(self.held_out_every, inputs, plain, tokens, device, cx)?;
        Ok(Clips { text, examples, held_out })
    }

    /// Trains a new adapter.
    pub(super) fn train(
        &self,
        base: &Base,
        clips: Clips,
        device: &Device,
        cx: &StageContext<'_>,
    ) -> Result<Made, StageError> {
        let fresh = self.new_adapter(base, device)?;
        let build = |factors: &Params| base.denoiser(Some(&self.adapter(factors.clone())));
        let Clips { text, examples, held_out } = clips;
        let training = DenoiserTraining {
            steps: self.steps(),
            build: &build,
            diffusion: Diffusion {
                scheduler: &*base.scheduler,
                conditioning: base.family.image_conditioning(),
                distribution: base.distribution,
                image_scale: base.image_scale,
                image_dropout: self.image_dropout,
                text,
                time: base.time,
            },
            order: self.order(examples.len()),
            examples: &examples,
            accumulation: self.gradient_accumulation,
            recompute: self.recompute,
            held_out,
        };
        let mut observe = |report: StepReport| observe(cx, report);
        let trained = training
            .run(&self.adapter_steps(), checkpoints(cx)?, device, || fresh.factors, &mut observe)
            .map_err(train_error)?;
        Ok(Made { trained, image_scale: base.image_scale, clips: examples.len() })
    }

    /// Writes the adapter of each step that is kept.
    pub(super) fn write(&self, made: Made, out: &mut Output<'_>) -> Result<(), StageError> {
        for (stop, trained) in self.adapter_steps().into_iter().zip(made.trained) {
            let adapter = self.adapter(trained.params);
            let mut train = json!({
                "settings": self.settings_at(stop),
                "alpha": adapter.alpha,
                "image_latent_scale": made.image_scale,
                "clips": made.clips,
                "losses": trained.losses,
            });
            log_held_out(&mut train, &trained.held_out);
            let step = (!self.save_at.is_empty()).then_some(stop);
            AdapterArtifact { adapter, train }.write(out, step)?;
        }
        Ok(())
    }

    fn new_adapter(&self, base: &Base, device: &Device) -> Result<Adapter, LoadError> {
        let modules = self.modules.unwrap_or_else(|| base.family.default_lora_targets());
        let targets = base.family.lora_targets(modules);
        let (alpha, seed) = (self.alpha(), self.seed.unwrap_or_default());
        Adapter::new_fresh(&base.params, targets, self.rank, alpha, seed, device)
    }

    fn adapter(&self, factors: Params) -> Adapter {
        Adapter { rank: self.rank, alpha: self.alpha(), factors }
    }

    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank as f64 / 2.0)
    }

    fn order(&self, len: usize) -> Order {
        let seed = self.seed.unwrap_or_default();
        Order { len, batch_size: self.batch_size, small_set: self.small_set, seed }
    }

    fn steps(&self) -> Steps {
        Steps {
            steps: self.steps,
            learning_rate: self.learning_rate,
            schedule: self.lr_schedule,
            warmup_steps: self.warmup_steps,
            optimizer: self.optimizer,
            max_grad_norm: self.max_grad_norm,
            ema: None,
            save_every: self.save_every,
        }
    }
}
