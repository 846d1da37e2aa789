//! `lora_train`: encoded clips to an adapter.

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind};
use crate::{
    artifact::{
        ArtifactKind,
        adapter::AdapterArtifact,
        latents::{self, ClipLatents},
        model::resolve_model,
        text::TextEmbedding,
    },
    models::{
        Adapter, Denoiser, LoraTargets, ModelRef, ParamReader, Params, TimestepDistribution,
        family, one_of,
        sampling::{ImageLatentScale, Side},
    },
    train::{
        batch::{Diffusion, Example},
        checkpoint::Checkpoints,
        denoiser::DenoiserTraining,
        gradient::Recompute,
        optimizer::AdamW,
        order::{Order, SmallSet},
        schedule::LrSchedule,
        steps::{StepReport, Steps, TrainError},
    },
};

/// Trains a low-rank adapter of a frozen denoiser on encoded clips.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraTrain {
    /// The model.
    pub model: ModelRef,
    /// Rank of every branch.
    #[serde(default = "sixty_four")]
    pub rank: usize,
    /// The branch is scaled by `alpha / rank`; by default half the rank.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// The modules that get a branch; by default `qkvo` for CogVideoX, `all_linear_blocks` for
    /// LTX-Video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<LoraTargets>,
    /// Number of optimizer steps.
    pub steps: usize,
    /// Clips per batch.
    #[serde(default = "two")]
    pub batch_size: usize,
    /// Batches whose gradients are averaged in one step.
    #[serde(default = "one")]
    pub gradient_accumulation: usize,
    /// The highest learning rate.
    #[serde(default = "default_rate")]
    pub learning_rate: f64,
    /// How the learning rate changes over the steps.
    #[serde(default)]
    pub lr_schedule: LrSchedule,
    /// Steps over which the learning rate rises, where the schedule has a warmup.
    #[serde(default)]
    pub warmup_steps: usize,
    /// Settings of `AdamW`.
    #[serde(default)]
    pub optimizer: AdamW,
    /// Gradients of a larger global norm are scaled down to it.
    #[serde(default = "unit")]
    pub max_grad_norm: f64,
    /// How timesteps are drawn; by default `uniform` for CogVideoX, `shifted_logit_normal` for
    /// LTX-Video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestep_distribution: Option<TimestepDistribution>,
    /// Multiple of the conditioning image's latent: a number, `"inverse"`, `"direct"` or
    /// `"paper_mismatch"`; by default what the published pipeline of the model takes. Must agree
    /// with sampling.
    #[serde(default)]
    pub image_latent_scale: Option<ImageLatentScale>,
    /// The share of samples whose conditioning image is blanked (CogVideoX), or whose first frame
    /// is noised as the others are (LTX-Video).
    #[serde(default)]
    pub image_dropout: f64,
    /// What happens when the clips do not fill a batch.
    #[serde(default)]
    pub small_set: SmallSet,
    /// What the backward pass computes again to save memory.
    #[serde(default)]
    pub recompute: Recompute,
    /// Seed of the adapter's start, the order of clips, noise and timesteps.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Steps between checkpoints; does not change the result.
    #[serde(default = "hundred")]
    pub save_every: usize,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn sixty_four() -> usize {
    64
}

fn hundred() -> usize {
    100
}

fn default_rate() -> f64 {
    1e-4
}

fn unit() -> f64 {
    1.0
}

impl StageKind for LoraTrain {
    const KIND: &'static str = "lora_train";
    const VERSION: u32 = 1;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "latents", kinds: &[ArtifactKind::Latents], required: true },
            Port { name: "text", kinds: &[ArtifactKind::TextEmbeddings], required: true },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::LoraAdapter,
    };
}

impl Stage for LoraTrain {
    fn validate(&self) -> Vec<ParamError> {
        let counts = [
            ("rank", self.rank),
            ("batch_size", self.batch_size),
            ("gradient_accumulation", self.gradient_accumulation),
            ("save_every", self.save_every),
        ];
        let mut errors = check_counts(&counts);
        errors.extend(check_rates(self.learning_rate, self.max_grad_norm, &self.optimizer));
        if !(0.0..=1.0).contains(&self.image_dropout) {
            let message = format!("must lie between 0 and 1, but is {}", self.image_dropout);
            errors.push(ParamError::new("image_dropout", message));
        }
        if let Some(alpha) = self.alpha
            && !alpha.is_finite()
        {
            errors.push(ParamError::new("alpha", "must be a finite number"));
        }
        errors
    }

    fn weights(&self) -> Option<(&ModelRef, &'static [&'static str])> {
        Some((&self.model, &["transformer", "scheduler", "vae/config.json"]))
    }

    fn trajectory_params(&self) -> &'static [&'static str] {
        trajectory(self.lr_schedule)
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let source = resolve_model(&self.model, inputs, "model")?;
        let device = cx.device.clone().without_autodiff();
        let (family, config) = (family(&source)?, source.config("transformer")?);
        let base = cx.models.denoiser_params(&source, &device)?;
        let scheduler = cx.models.scheduler(&source, None)?;
        let known = family.timestep_distributions();
        let distribution = one_of("timestep_distribution", self.timestep_distribution, known)?;
        let image_scale = ImageLatentScale::resolve(
            self.image_latent_scale,
            &source.config("vae")?,
            Side::Training,
        )?;
        let text = TextEmbedding::read(inputs, "text", &device)?.batch(1);
        let plain = family.denoiser(&config, &ParamReader::loaded(&base, None))?;
        let examples = read_examples(inputs, &*plain, text.dims()[1], &device, cx)?;

        let seed = self.seed.unwrap_or_default();
        let (rank, alpha) = (self.rank, self.alpha.unwrap_or(self.rank as f64 / 2.0));
        let modules = self.modules.unwrap_or_else(|| family.default_lora_targets());
        let targets = family.lora_targets(modules);
        let fresh = Adapter::new_fresh(&base, targets, rank, alpha, seed, &device)?;
        let build = |factors: &Params| {
            let adapter = Adapter { rank, alpha, factors: factors.clone() };
            family.denoiser(&config, &ParamReader::loaded(&base, Some(&adapter)))
        };
        let training = DenoiserTraining {
            steps: self.steps(),
            build: &build,
            diffusion: Diffusion {
                scheduler: &*scheduler,
                conditioning: plain.image_conditioning(),
                distribution,
                image_scale,
                image_dropout: self.image_dropout,
                text,
            },
            order: Order {
                len: examples.len(),
                batch_size: self.batch_size,
                small_set: self.small_set,
                seed,
            },
            examples: &examples,
            accumulation: self.gradient_accumulation,
            recompute: self.recompute,
        };
        let mut observe = |report: StepReport| observe(cx, report);
        let trained = training
            .run(checkpoints(cx)?, &device, || fresh.factors, &mut observe)
            .map_err(train_error)?;

        let mut settings = serde_json::to_value(self).expect("settings are plain values");
        if let Some(settings) = settings.as_object_mut() {
            settings.remove("save_every");
        }
        let train = json!({
            "settings": settings,
            "alpha": alpha,
            "image_latent_scale": image_scale,
            "clips": examples.len(),
            "losses": trained.losses,
        });
        let adapter = Adapter { rank, alpha, factors: trained.params };
        AdapterArtifact { adapter, train }.write(out)
    }
}

impl LoraTrain {
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

/// Parameters that leave a run on its trajectory; where the learning rate depends on the number of
/// steps, another number of steps is another trajectory.
pub(super) fn trajectory(schedule: LrSchedule) -> &'static [&'static str] {
    if schedule.depends_on_steps() { &["save_every"] } else { &["steps", "save_every"] }
}

/// Checks that counts are not zero.
pub(super) fn check_counts(counts: &[(&str, usize)]) -> Vec<ParamError> {
    let zero = counts.iter().filter(|(_, value)| *value == 0);
    zero.map(|(field, _)| ParamError::new(field, "must be at least 1, but is 0")).collect()
}

/// Checks the numbers of the optimizer.
pub(super) fn check_rates(rate: f64, max_norm: f64, optimizer: &AdamW) -> Vec<ParamError> {
    let positive = |value: f64| value > 0.0 && value.is_finite();
    let share = |value: f64| (0.0..1.0).contains(&value);
    let [beta1, beta2] = optimizer.betas;
    let rules = [
        ("learning_rate", rate, positive(rate), "must be positive"),
        ("max_grad_norm", max_norm, positive(max_norm), "must be positive"),
        ("optimizer.betas", beta1, share(beta1), "must be from 0 to below 1"),
        ("optimizer.betas", beta2, share(beta2), "must be from 0 to below 1"),
        ("optimizer.eps", optimizer.eps, positive(optimizer.eps), "must be positive"),
        (
            "optimizer.weight_decay",
            optimizer.weight_decay,
            optimizer.weight_decay >= 0.0,
            "must not be negative",
        ),
    ];
    rules
        .into_iter()
        .filter(|(_, _, holds, _)| !holds)
        .map(|(field, value, _, rule)| ParamError::new(field, format!("{rule}, but is {value}")))
        .collect()
}

/// The checkpoints of this trajectory, if the run keeps any.
pub(super) fn checkpoints(cx: &StageContext<'_>) -> Result<Option<Checkpoints>, StageError> {
    cx.checkpoints
        .map(Checkpoints::open)
        .transpose()
        .map_err(|e| train_error(TrainError::Checkpoint(e)))
}

/// Reports a step and asks the loop to end when the run is cancelled.
pub(super) fn observe(cx: &StageContext<'_>, report: StepReport) -> ControlFlow<()> {
    let message = format!("step, loss {:.4}", report.loss);
    match cx.tick(report.done as u64, report.total as u64, &message) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// What a failed training means for its stage.
pub(super) fn train_error(error: TrainError) -> StageError {
    match error {
        TrainError::Stopped => StageError::Cancelled,
        TrainError::Load(error) => error.into(),
        TrainError::NotFinite { .. } => StageError::failed(error.to_string()).with_help(
            "lower `learning_rate`, or add warmup with `lr_schedule` and `warmup_steps`",
        ),
        TrainError::Checkpoint(_) => StageError::environment(error.to_string())
            .with_help("check that the cache folder can be written and the disk is not full"),
        TrainError::Example(error) => match error.downcast::<StageError>() {
            Ok(error) => *error,
            Err(error) => StageError::failed(error.to_string()),
        },
    }
}

/// Reads the clips on `latents` onto the device, padded to the frames the denoiser takes.
pub(super) fn read_examples(
    inputs: &Inputs<'_>,
    denoiser: &dyn Denoiser,
    text: usize,
    device: &Device,
    cx: &StageContext<'_>,
) -> Result<Vec<Example>, StageError> {
    let items = inputs.items("latents");
    let mut first: Option<([usize; 4], &str)> = None;
    let mut examples = Vec::with_capacity(items.len());
    for item in items {
        cx.cancel.check()?;
        let read = ClipLatents::from_bytes(&inputs.read(item, latents::FILE)?)
            .map_err(|e| StageError::failed(e.to_string()).on_item(&item.name))?;
        let shape @ [c, f, h, w] = read.clip.shape;
        let (wanted, of) = *first.get_or_insert((shape, &item.name));
        if shape != wanted {
            return Err(StageError::failed(format!(
                "all clips must have one size, but the latents of `{of}` are {wanted:?} and these \
                 are {shape:?}"
            ))
            .on_item(&item.name)
            .with_help("give the clips one `size` and one number of frames"));
        }
        denoiser
            .check_size([f, h, w], text)
            .map_err(|e| StageError::failed(format!("the clip does not fit the model: {e}")))
            .map_err(|e| e.on_item(&item.name))?;
        let clip = TensorData::new(read.clip.values, [1, c, f, h, w]);
        let images = TensorData::new(read.images.values, read.images.shape);
        examples.push(Example {
            latents: denoiser.pad_frames(Tensor::from_data(clip, device)),
            images: Tensor::from_data(images, device),
        });
    }
    if examples.is_empty() {
        return Err(StageError::failed("there are no clips to train on")
            .with_help("give the data set a `count` of at least 1"));
    }
    Ok(examples)
}
