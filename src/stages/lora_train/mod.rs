//! `lora_train`: encoded clips to an adapter.

mod memory;
mod train;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Bulk, CheckError, CheckWarning, IdleParam, Inputs, Lighter, Lineage, Mismatch, Output,
    ParamError, Port, Ports, Stage, StageContext, StageError, StageKind, Surroundings, Trainings,
    WeightsUsed, Workload,
    check::{
        agreement::{ImageUse, TextUse, rate_of_channels, scale_of_a_frame, time_of_channels},
        not_known,
    },
    model::StageModel,
    rules,
    training::{HELD_OUT, check_held_out, check_rates, idle_warmup, settings, trajectory},
};
use crate::{
    artifact::ArtifactKind,
    models::{
        ImageConditioning, LoadError, LoraTargets, Memory, ModelRef, PartRead, Sampler,
        TimestepDistribution,
        memory::AdapterSize,
        published_sampler,
        sampling::{ImageLatentScale, Side},
    },
    train::{gradient::Recompute, optimizer::AdamW, order::SmallSet, schedule::LrSchedule},
};

/// Trains a low-rank adapter of a frozen denoiser on encoded clips.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraTrain {
    /// The model.
    pub model: ModelRef,
    /// Rank of every branch.
    #[serde(default = "sixty_four")]
    #[schemars(range(min = 1, max = 16_384))]
    pub rank: usize,
    /// The branch is scaled by `alpha / rank`; by default half the rank.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// The modules that get a branch; by default `qkvo` for CogVideoX, `all_linear_blocks` for
    /// LTX-Video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<LoraTargets>,
    /// Number of optimizer steps.
    #[schemars(range(max = 100_000_000))]
    pub steps: usize,
    /// Steps at which the adapter is kept, ascending, the last of them `steps`. The output then
    /// holds an adapter for each, and `sample` generates with every one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub save_at: Vec<usize>,
    /// Clips per batch.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// Batches whose gradients are averaged in one step.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub gradient_accumulation: usize,
    /// The highest learning rate.
    #[serde(default = "default_rate")]
    pub learning_rate: f64,
    /// How the learning rate changes over the steps.
    #[serde(default)]
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
    /// Count time from the first video frame, as the sampler `flow_condition` does (LTX-Video); by
    /// default where that is the sampler of the model's published pipeline. Must agree with
    /// sampling.
    #[serde(default, skip_serializing_if = "is_not_causal")]
    pub causal_time: Option<bool>,
    /// Frames per second of the clips, by default 25 (LTX-Video, which counts time in seconds).
    /// Must agree with sampling.
    #[serde(default, skip_serializing_if = "rules::is_usual_rate")]
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub frame_rate: Option<f64>,
    /// What happens when the clips do not fill a batch.
    #[serde(default)]
    pub small_set: SmallSet,
    /// What the backward pass computes again to save memory.
    #[serde(default)]
    pub recompute: Recompute,
    /// Seed of the adapter's start, the order of clips, noise and timesteps.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Steps between two looks at the clips on `held_out`, from before the first step on. The
    /// losses at fixed quantiles of the timesteps, with the same noise each time, go into the
    /// training's log; `pipe show` shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub held_out_every: Option<usize>,
    /// Steps between checkpoints, the first of them after as many; an interrupted training leaves
    /// one, too. Does not change the result.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
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
    // 1: first · 2: on the CPU, halves of a batch are added up · 3: the log does not name the
    // model.
    const VERSION: u32 = 3;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "latents", kinds: &[ArtifactKind::Latents], required: true },
            Port { name: "text", kinds: &[ArtifactKind::TextEmbeddings], required: true },
            Port { name: HELD_OUT, kinds: &[ArtifactKind::Latents], required: false },
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
            ("held_out_every", self.held_out_every.unwrap_or(1)),
        ];
        let mut errors = rules::at_least_one(&counts);
        errors.extend(check_rates(self.learning_rate, self.max_grad_norm, &self.optimizer));
        errors.extend(rules::share("image_dropout", self.image_dropout));
        errors.extend(self.check_save_at());
        errors.extend(self.alpha.and_then(|alpha| rules::positive("alpha", alpha)));
        errors.extend(rules::image_scale(self.image_latent_scale));
        errors.extend(rules::frame_rate(self.frame_rate));
        errors
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        idle_warmup(self.lr_schedule, self.warmup_steps).into_iter().collect()
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        let mut errors: Vec<_> = check_held_out(self.held_out_every, around).into_iter().collect();
        let Some(facts) = around.model(&self.model) else {
            if self.causal_time.is_some() {
                errors.extend(around.check_text(self.text_use(), None));
            }
            return errors;
        };
        let this = self.resolved(facts.published);
        errors.extend(around.check_text(this.text_use(), Some(facts.family)));
        errors.extend(facts.lengths_of_prompts(false, around));
        errors.extend(facts.vae_on_port(around).or_else(|| facts.mixed(around)));
        errors.extend(facts.clip(around.size));
        let known = facts.family.timestep_distributions();
        errors.extend(not_known("timestep_distribution", self.timestep_distribution, known));
        errors.extend(self.check_image(facts.family.image_conditioning()));
        errors.extend(facts.image_use(this.image_use(), around));
        errors
    }

    fn trainings(&self, around: &Surroundings<'_>) -> Option<Trainings> {
        let facts = around.model(&self.model)?;
        let image = facts.record(self.resolved(facts.published).image_use());
        let posterior = around.trained_on("latents").posterior;
        Some(Trainings { image, posterior, ..Trainings::default() })
    }

    fn warnings(&self, around: &Surroundings<'_>) -> Vec<CheckWarning> {
        let facts = around.model(&self.model);
        facts.and_then(|facts| facts.other_length("trains on", around.size)).into_iter().collect()
    }

    fn lineage(&self, around: &Surroundings<'_>) -> Option<Lineage> {
        Some(Lineage::of_training(around, &self.model))
    }

    fn mismatches(&self, around: &Surroundings<'_>) -> Vec<Mismatch> {
        Lineage::training(around, &self.model)
    }

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        let parts = &[PartRead::Transformer, PartRead::Scheduler, PartRead::VaeConfig];
        Some(WeightsUsed { model: &self.model, parts })
    }

    fn params_without_effect(&self) -> &'static [(&'static str, Option<usize>)] {
        &[("save_every", Some(100))]
    }

    fn trajectory_params(&self) -> &'static [&'static str] {
        trajectory(self.lr_schedule)
    }

    fn effort_params(&self) -> &'static [&'static str] {
        &["steps", "batch_size", "gradient_accumulation"]
    }

    fn num_items(&self) -> Option<usize> {
        Some(self.save_at.len().max(1))
    }

    fn stops(&self) -> Vec<u64> {
        self.adapter_steps().into_iter().map(|step| step as u64).collect()
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        self.memory_of_training(work)
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        self.memory_beside_training(work)
    }

    fn bulk(&self, _given: &dyn Fn(&str) -> Bulk) -> Bulk {
        let adapter = AdapterSize::of_rank(self.modules, self.rank);
        Bulk { items: self.num_items(), adapter, ..Bulk::default() }
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
        let model = StageModel::open(&self.model, inputs, cx)?;
        let this = self.resolved(published_sampler(&model.source)?);
        let base = this.base(&model, inputs, cx)?;
        let clips = this.clips(&*base.denoiser(None)?, inputs, &model.device, cx)?;
        let made = this.train(&base, clips, &model.device, cx)?;
        this.write(made, out)
    }
}

/// What the key leaves out: time by latent frames, and what the model decides. Where they differ,
/// so do the prompts that they read, which are in the key.
#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_not_causal(causal_time: &Option<bool>) -> bool {
    *causal_time != Some(true)
}

impl LoraTrain {
    /// The same with the way to count time of the model's own pipeline, where none is set.
    fn resolved(&self, published: Sampler) -> Self {
        let causal_time = self.causal_time.unwrap_or(published == Sampler::FlowCondition);
        Self { causal_time: Some(causal_time), ..self.clone() }
    }

    /// Whether time is counted from the first video frame, once that is resolved.
    fn is_causal(&self) -> bool {
        self.causal_time == Some(true)
    }

    fn image_use(&self) -> ImageUse {
        ImageUse {
            scale: self.image_latent_scale,
            causal_time: self.is_causal(),
            frame_rate: self.frame_rate,
            side: Side::Training,
        }
    }

    /// What does nothing in a family that gets its image in this way.
    fn check_image(&self, conditioning: ImageConditioning) -> Vec<CheckError> {
        let scale = scale_of_a_frame(self.image_latent_scale, conditioning);
        let time = time_of_channels(self.is_causal(), conditioning);
        let rate = rate_of_channels(self.frame_rate, conditioning);
        scale.into_iter().chain(time).chain(rate).collect()
    }

    fn text_use(&self) -> TextUse {
        TextUse::Training { causal_time: self.is_causal() }
    }

    fn check_save_at(&self) -> Option<ParamError> {
        let last = *self.save_at.last()?;
        let ascends = self.save_at.is_sorted_by(|a, b| a < b) && self.save_at[0] > 0;
        if !ascends {
            return Some(ParamError::new("save_at", "must be steps from 1 on that ascend"));
        }
        let message = format!("must end at `steps`, {}, but ends at {last}", self.steps);
        let help = "what is trained after the last of these steps would be kept nowhere";
        (last != self.steps).then(|| ParamError::new("save_at", message).help(help))
    }

    /// The steps at which an adapter is kept.
    fn adapter_steps(&self) -> Vec<usize> {
        if self.save_at.is_empty() { vec![self.steps] } else { self.save_at.clone() }
    }

    /// The settings that led to the adapter of a step. Where the way does not depend on its length,
    /// they are those of a training that ends there, so that both give the same bytes.
    fn settings_at(&self, stop: usize) -> Value {
        let mut settings = settings(self);
        settings.as_object_mut().map(|settings| settings.remove("save_at"));
        if !self.lr_schedule.depends_on_steps() {
            settings["steps"] = json!(stop);
        } else if stop != self.steps {
            settings["saved_at"] = json!(stop);
        }
        settings
    }
}
