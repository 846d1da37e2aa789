//! `pretrain`: a new model, or the full training of an old one.

mod check;
mod memory;
mod part;
mod start;
mod train;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    CheckError, Examined, IdleParam, Inputs, Lighter, Lineage, MODEL_PARAMS, Mismatch, ModelParts,
    Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind, Surroundings,
    Trainings, WeightsUsed, Workload,
    check::agreement::ImageUse,
    model::pass_parts_on,
    rules,
    training::{HELD_OUT, check_rates, idle_warmup, log_held_out, settings, trajectory},
};
use crate::{
    artifact::{ArtifactKind, model::ModelPart},
    models::{
        LoadError, MODELS, Memory, ModelRef, Start, TimestepDistribution, VideoDiffusion,
        sampling::{ImageLatentScale, Side},
    },
    train::{
        gradient::Recompute, optimizer::AdamW, schedule::LrSchedule, steps::Trained, vae::VaeLoss,
    },
};

pub use part::{Part, WeightType};
use start::read_json;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const CONFIG: &str = "config.json";

/// Trains all parameters of one part of a model, from new ones or from those on the input `model`.
/// Other parts on that input are passed on, so that the output can stand for the whole model. With
/// `steps = 0` the result is the start.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// The part.
    pub part: Part,
    /// The family, by its transformer's class.
    #[serde(default = "cogvideox")]
    pub family: String,
    /// The part's `config.json`; by default that of the part on the input `model`, or of `like`.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// A model whose configuration of this part is taken. Its weights are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<ModelRef>,
    /// Where new parameters start. To train them, keep `identity`; `random` is a base to compare
    /// with.
    #[serde(default, skip_serializing_if = "Start::is_default")]
    pub init: Start,
    /// Number of optimizer steps.
    #[schemars(range(max = 100_000_000))]
    pub steps: usize,
    /// Clips per batch.
    #[serde(default = "two")]
    #[schemars(range(max = 65_536))]
    pub batch_size: usize,
    /// The highest learning rate.
    #[serde(default = "default_rate")]
    pub learning_rate: f64,
    /// How the learning rate changes over the steps.
    #[serde(default = "cosine")]
    pub lr_schedule: LrSchedule,
    /// Steps over which the learning rate rises, where the schedule has a warmup.
    #[serde(default)]
    #[schemars(range(max = 100_000_000))]
    pub warmup_steps: usize,
    /// Settings of `AdamW`.
    #[serde(default)]
    pub optimizer: AdamW,
    /// Gradients of a larger global norm are scaled down to it.
    #[serde(default = "unit")]
    pub max_grad_norm: f64,
    /// How slowly an average of the parameters follows them; the average is the result.
    #[serde(default)]
    pub ema_decay: Option<f64>,
    /// Height and width of the piece of a clip, anywhere in it, that a step of the autoencoder
    /// sees; by default all of it.
    #[serde(default)]
    pub crop: Option<[usize; 2]>,
    /// The autoencoder's loss.
    #[serde(default)]
    pub loss: VaeLoss,
    /// The denoiser's noise schedule, as `scheduler_config.json`; by default that of CogVideoX 1.5.
    #[serde(default = "published_schedule")]
    pub scheduler: Map<String, Value>,
    /// How timesteps are drawn; by default `uniform` for CogVideoX, `shifted_logit_normal` for
    /// LTX-Video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestep_distribution: Option<TimestepDistribution>,
    /// Multiple of the conditioning image's latent: a number, or `"inverse"` or `"direct"` by the
    /// VAE on the input `model`, by default what that VAE is published with. Without one it must be
    /// a number.
    #[serde(default)]
    pub image_latent_scale: Option<ImageLatentScale>,
    /// The share of samples whose conditioning image is blanked (CogVideoX), or whose first frame
    /// is noised as the others are (LTX-Video).
    #[serde(default)]
    pub image_dropout: f64,
    /// Count time from the first video frame, as the sampler `flow_condition` does (LTX-Video).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub causal_time: bool,
    /// Frames per second of the clips, by default 25 (LTX-Video, which counts time in seconds).
    #[serde(default, skip_serializing_if = "rules::is_usual_rate")]
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub frame_rate: Option<f64>,
    /// What the backward pass computes again to save memory.
    #[serde(default)]
    pub recompute: Recompute,
    /// The type weights are written in.
    #[serde(default)]
    pub weights: WeightType,
    /// Seed of new parameters, the order of clips, noise and timesteps.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Steps between two looks of a denoiser's training at the latents on `held_out`, as in
    /// `lora_train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000_000))]
    pub held_out_every: Option<usize>,
    /// Steps between checkpoints, as in `lora_train`; does not change the result.
    #[serde(default = "two_hundred")]
    pub save_every: usize,
}

fn cogvideox() -> String {
    "CogVideoXTransformer3DModel".to_owned()
}

fn two() -> usize {
    2
}

fn two_hundred() -> usize {
    200
}

fn default_rate() -> f64 {
    1e-3
}

fn unit() -> f64 {
    1.0
}

fn cosine() -> LrSchedule {
    LrSchedule::Cosine
}

fn published_schedule() -> Map<String, Value> {
    let config = json!({
        "_class_name": "CogVideoXDDIMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": true,
        "set_alpha_to_one": true,
        "snr_shift_scale": 1.0,
        "timestep_spacing": "trailing",
    });
    match config {
        Value::Object(config) => config,
        _ => unreachable!("written as an object above"),
    }
}

impl StageKind for Pretrain {
    const KIND: &'static str = "pretrain";
    // 1: first · 2: on the CPU, halves of a batch are added up, and convolutions and norms in
    // another order · 3: the log does not name the model. Beside it, the revision of autoencoders
    // whose configuration names no class.
    const VERSION: u32 = 3;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "videos", kinds: &[ArtifactKind::Videos], required: false },
            Port { name: "latents", kinds: &[ArtifactKind::Latents], required: false },
            Port { name: "text", kinds: &[ArtifactKind::TextEmbeddings], required: false },
            Port { name: HELD_OUT, kinds: &[ArtifactKind::Latents], required: false },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::Model,
    };
}

impl Stage for Pretrain {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = rules::at_least_one(&[
            ("batch_size", self.batch_size),
            ("save_every", self.save_every),
            ("held_out_every", self.held_out_every.unwrap_or(1)),
        ]);
        errors.extend(check_rates(self.learning_rate, self.max_grad_norm, &self.optimizer));
        errors.extend(rules::share("ema_decay", self.ema_decay.unwrap_or(0.0)));
        errors.extend(rules::share("image_dropout", self.image_dropout));
        errors.extend(rules::image_scale(self.image_latent_scale));
        errors.extend(rules::frame_rate(self.frame_rate));
        if !MODELS.iter().any(|model| model.class_name() == self.family) {
            let known: Vec<_> = MODELS.iter().map(|model| model.class_name()).collect();
            let message = format!("must be `{}`, but is `{}`", known.join("` or `"), self.family);
            errors.push(ParamError::new("family", message));
        }
        if self.like.is_some() && !self.config.is_empty() {
            errors.push(
                ParamError::new("like", "must not stand beside `config`, which says the same")
                    .help("keep one of them"),
            );
        }
        errors
    }

    fn revision(&self) -> u32 {
        // 1: what it gives names the class.
        u32::from(self.class_to_state().is_some())
    }

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        let model = self.like.as_ref()?;
        Some(WeightsUsed { model, parts: self.part.config() })
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        let of = |part: Part| {
            let serves = format!("`part` is `{}`", part.name());
            move |param| IdleParam::unless(self.part == part, param, "part", &*serves)
        };
        let of_vae = ["crop", "loss"].into_iter().filter_map(of(Part::Vae));
        let of_transformer = [
            "scheduler",
            "timestep_distribution",
            "image_latent_scale",
            "image_dropout",
            "causal_time",
            "frame_rate",
            "recompute",
            "held_out_every",
        ];
        let of_transformer = of_transformer.into_iter().filter_map(of(Part::Transformer));
        let warmup = idle_warmup(self.lr_schedule, self.warmup_steps);
        of_vae.chain(of_transformer).chain(warmup).collect()
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        self.check_all(around)
    }

    fn check_files(&self, examined: &Examined, on_port: Option<&ModelParts>) -> Vec<CheckError> {
        let Some(weights) = self.weights() else { return Vec::new() };
        examined.model(MODEL_PARAMS[1], weights, on_port)
    }

    fn trainings(&self, around: &Surroundings<'_>) -> Option<Trainings> {
        let before = around.trained_on("model");
        if self.part == Part::Vae || self.steps == 0 {
            return Some(before);
        }
        let vae = around.parts.and_then(|parts| parts.get("vae"));
        let image = self.image_use().record(vae);
        let posterior = around.trained_on("latents").posterior;
        Some(Trainings { image, posterior, ..Trainings::default() })
    }

    fn lineage(&self, around: &Surroundings<'_>) -> Option<Lineage> {
        Some(Lineage::of_pretraining(around, self.part.name(), self.steps))
    }

    fn mismatches(&self, around: &Surroundings<'_>) -> Vec<Mismatch> {
        Lineage::pretraining(around)
    }

    fn gives_parts(&self) -> bool {
        true
    }

    fn parts(&self, given: &ModelParts) -> Option<ModelParts> {
        let config = self.config_beside(given).ok()?;
        Some(given.with(self.part.name(), config))
    }

    fn params_without_effect(&self) -> &'static [(&'static str, Option<usize>)] {
        &[("save_every", Some(200))]
    }

    fn trajectory_params(&self) -> &'static [&'static str] {
        trajectory(self.lr_schedule)
    }

    fn effort_params(&self) -> &'static [&'static str] {
        &["steps", "batch_size"]
    }

    fn stops(&self) -> Vec<u64> {
        vec![self.steps as u64]
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        self.memory_of_training(work)
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        self.memory_beside_training(work)
    }

    fn lighter(&self, work: &Workload<'_>) -> Vec<Lighter> {
        self.lighter_training(work)
    }

    fn uses_device(&self) -> bool {
        true
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let family = self.family().ok_or_else(|| StageError::failed("`family` is not known"))?;
        let device = cx.device.clone().without_autodiff();
        let (config, start) = self.start(family, inputs, &device)?;
        let trained = if self.steps == 0 {
            Trained { params: start, losses: Vec::new(), held_out: Vec::new() }
        } else {
            match self.part {
                Part::Vae => self.train_vae(family, &config, start, inputs, &device, cx)?,
                Part::Transformer => {
                    self.train_transformer(family, &config, start, inputs, &device, cx)?
                }
            }
        };
        let mut log = json!({ "settings": settings(self), "losses": trained.losses });
        log_held_out(&mut log, &trained.held_out);
        let part = ModelPart {
            name: self.part.name().to_owned(),
            config,
            params: trained.params,
            dtype: self.weights.dtype(),
            log,
        };
        part.write(out)?;
        pass_parts_on(inputs, out, self.part.name())
    }
}

impl Pretrain {
    fn image_use(&self) -> ImageUse {
        ImageUse {
            scale: self.image_latent_scale,
            causal_time: self.causal_time,
            frame_rate: self.frame_rate,
            side: Side::Training,
        }
    }

    /// The part's configuration beside what is on the port `model`.
    fn config_beside(&self, parts: &ModelParts) -> Result<Value, LoadError> {
        let name = self.part.name();
        match (parts.get(name), &self.like) {
            (Some(config), _) if self.config.is_empty() => Ok(config.clone()),
            (None, Some(like)) => like.resolve()?.config(name),
            _ => Ok(self.stated_config()),
        }
    }

    fn family(&self) -> Option<&'static dyn VideoDiffusion> {
        MODELS.iter().find(|model| model.class_name() == self.family).copied()
    }
}
