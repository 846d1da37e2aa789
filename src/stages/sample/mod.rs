//! `sample`: an image to a clip's latents.

mod run;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Cause, CheckError, CheckWarning, IdleParam, Inputs, Lighter, Lineage, Mismatch, ModelParts,
    Output, OwnSize, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind,
    Surroundings, WeightsUsed, Workload,
    check::{
        agreement::{ImageUse, TextUse, rate_of_channels, scale_of_a_frame},
        not_known,
    },
    model::{StageModel, TILING_HELP},
    rules,
    vae_encode::PosteriorChoice,
};
use crate::{
    artifact::ArtifactKind,
    models::{
        LoadError, Memory, ModelRef, PartRead, Sampler,
        memory::Estimator,
        published_sampler,
        sampling::{Condition, ImageLatentScale, Side},
    },
};

/// Generates a clip from each pair's input image, with each of several adapters where `lora` holds
/// the adapters along one training (`save_at`).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The model.
    pub model: ModelRef,
    /// Frames of the clip, one more than a multiple of the VAE's.
    #[serde(default = "nine")]
    #[schemars(range(min = 1, max = 4097))]
    pub frames: usize,
    /// Number of sampling steps.
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 100_000))]
    pub steps: usize,
    /// How the steps are made; by default as in the published pipeline of the model's version:
    /// `dpm` for CogVideoX, `flow_euler` for LTX-Video up to 0.9.1 and `flow_condition` from 0.9.5
    /// on, as its schedule tells.
    #[serde(default)]
    pub sampler: Option<Sampler>,
    /// How the sampler `flow_condition` gives the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Classifier-free guidance; 1 is off, more needs the input `negative`.
    #[serde(default = "off")]
    pub guidance_scale: f64,
    /// Multiple of the conditioning image's latent: a number, `"inverse"`, `"direct"` or
    /// `"paper_mismatch"`; by default what the published pipeline of the model takes. Must agree
    /// with training.
    #[serde(default)]
    pub image_latent_scale: Option<ImageLatentScale>,
    /// Which latent the encoder's distribution gives for the conditioning image; that of
    /// `vae_encode`, from which training has it.
    #[serde(default, skip_serializing_if = "PosteriorChoice::is_default")]
    pub posterior: PosteriorChoice,
    /// Frames per second of the clips, by default 25 (LTX-Video, which counts time in seconds).
    /// Must agree with training.
    #[serde(default, skip_serializing_if = "rules::is_usual_rate")]
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub frame_rate: Option<f64>,
    /// Work on overlapping tiles of half the height and width that the model was trained with,
    /// where clips are larger: less memory, and slightly other latents of the image (CogVideoX).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tiling: bool,
    /// Images that are denoised at once: side by side on the CPU, one after the other on a GPU.
    /// Does not change the result.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// Seed of the generator of each image, as `torch.Generator("cpu").manual_seed`.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn nine() -> usize {
    9
}

fn fifty() -> usize {
    50
}

fn four() -> usize {
    4
}

fn off() -> f64 {
    1.0
}

impl StageKind for Sample {
    const KIND: &'static str = "sample";
    // 1: first · 2: on the CPU, the VAE's convolutions and norms add up in another order.
    // 3: tiles step in whole latents.
    const VERSION: u32 = 3;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true },
            Port { name: "text", kinds: &[ArtifactKind::TextEmbeddings], required: true },
            Port { name: "negative", kinds: &[ArtifactKind::TextEmbeddings], required: false },
            Port { name: "lora", kinds: &[ArtifactKind::LoraAdapter], required: false },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::Samples,
    };
}

impl Stage for Sample {
    fn validate(&self) -> Vec<ParamError> {
        let counts =
            [("frames", self.frames), ("steps", self.steps), ("batch_size", self.batch_size)];
        let mut errors = rules::at_least_one(&counts);
        if !(self.guidance_scale >= 1.0 && self.guidance_scale.is_finite()) {
            let message = format!("must be at least 1, but is {}", self.guidance_scale);
            errors.push(ParamError::new("guidance_scale", message).help("1 turns guidance off"));
        }
        let Condition { strength, noise_scale } = self.condition.unwrap_or_default();
        errors.extend(rules::image_scale(self.image_latent_scale));
        errors.extend(rules::frame_rate(self.frame_rate));
        errors.extend(rules::share("condition.strength", strength));
        if !(0.0..=10.0).contains(&noise_scale) {
            let message = format!("must lie between 0 and 10, but is {noise_scale}");
            errors.push(ParamError::new("condition.noise_scale", message));
        }
        errors
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        // Which sampler is the default depends on the model, of which nothing is known here.
        let works = self.sampler.is_none_or(|sampler| sampler == Sampler::FlowCondition);
        let guided = self.guidance_scale > 1.0;
        let serves = ["`sampler` is `flow_condition`", "`guidance_scale` is more than 1"];
        let idle = [
            IdleParam::unless(works, "condition", "sampler", serves[0]),
            IdleParam::unless(guided, "inputs.negative", "guidance_scale", serves[1]),
        ];
        idle.into_iter().flatten().collect()
    }

    fn params_without_effect(&self) -> &'static [(&'static str, Option<usize>)] {
        &[("batch_size", Some(4))]
    }

    fn own_size(&self) -> OwnSize {
        OwnSize { frames: Some(("frames", self.frames)), image: None }
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        let mut errors = Vec::new();
        if self.guidance_scale > 1.0 && !around.has("negative") {
            errors.push(self.unguided());
        }
        let Some(facts) = around.model(&self.model) else {
            if self.sampler.is_some() {
                errors.extend(around.check_text(self.text_use(), None));
            }
            return errors;
        };
        let this = self.resolved(facts.published);
        errors.extend(around.check_text(this.text_use(), Some(facts.family)));
        errors.extend(facts.lengths_of_prompts(self.guidance_scale > 1.0, around));
        errors.extend(this.idle_condition().filter(|_| self.sampler.is_none()));
        errors.extend(facts.vae_on_port(around).or_else(|| facts.mixed(around)));
        errors.extend(facts.pixels(around.size));
        errors.extend(facts.clip(around.size));
        errors.extend(not_known("sampler", self.sampler, facts.family.samplers()));
        errors.extend(facts.sampler(self.sampler));
        errors.extend(facts.tiling(self.tiling));
        let conditioning = facts.family.image_conditioning();
        errors.extend(scale_of_a_frame(self.image_latent_scale, conditioning));
        errors.extend(rate_of_channels(self.frame_rate, conditioning));
        errors.extend(facts.image_use(this.image_use(), around));
        if let Some(limit) = facts.train_timesteps.filter(|limit| self.steps > *limit) {
            errors.push(too_many_steps(self.steps, limit));
        }
        errors
    }

    fn warnings(&self, around: &Surroundings<'_>) -> Vec<CheckWarning> {
        let Some(facts) = around.model(&self.model) else { return Vec::new() };
        let conditioning = facts.family.image_conditioning();
        let trained = around.trained.iter();
        let unknown = trained.clone().filter_map(|(_, trained)| trained.warning(conditioning));
        let drawn = trained.filter_map(|(_, trained)| trained.other_posterior(self.posterior));
        let other = facts.other_pipeline(self.sampler).into_iter();
        let length = facts.other_length("samples", around.size);
        other.chain(unknown).map(CheckWarning::from).chain(drawn).chain(length).collect()
    }

    fn lineage(&self, around: &Surroundings<'_>) -> Option<Lineage> {
        Some(Lineage::of_latents(around, &self.model))
    }

    fn mismatches(&self, around: &Surroundings<'_>) -> Vec<Mismatch> {
        Lineage::sampling(around, &self.model)
    }

    fn mapped_port(&self) -> Option<&'static str> {
        Some("pairs")
    }

    fn side_by_side(&self) -> usize {
        self.batch_size
    }

    fn crossed_port(&self) -> Option<&'static str> {
        Some("lora")
    }

    fn effort_params(&self) -> &'static [&'static str] {
        &["steps", "frames"]
    }

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        let parts = &[PartRead::Vae, PartRead::Transformer, PartRead::Scheduler];
        Some(WeightsUsed { model: &self.model, parts })
    }

    fn left_to_model(&self, on_port: &ModelParts) -> Map<String, Value> {
        let Ok(source) = on_port.source(&self.model) else { return Map::new() };
        let sampler = published_sampler(&source).ok().filter(|_| self.sampler.is_none());
        let scale = source.config("vae").and_then(|vae| {
            ImageLatentScale::resolve(self.image_latent_scale, &vae, Side::Sampling)
        });
        let sampler = sampler.map(|sampler| ("sampler".to_owned(), json!(sampler)));
        let scale = scale.ok().map(|scale| ("image_latent_scale".to_owned(), json!(scale)));
        sampler.into_iter().chain(scale).collect()
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let Some(clip) = work.clip else { return Ok(None) };
        // A GPU works on one after the other.
        let parallel =
            if work.on_host { self.batch_size.min(rayon::current_num_threads()) } else { 1 };
        let source = work.parts.source(&self.model)?;
        let at_once = [self.batch_size, parallel];
        let estimator = Estimator::new(&source, work.on_host)?;
        estimator.sampling(clip, at_once, self.tiling, &work.given).map(Some)
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let source = work.parts.source(&self.model)?;
        Estimator::new(&source, work.on_host)?.loading(&["transformer", "vae"]).map(Some)
    }

    fn lighter(&self, work: &Workload<'_>) -> Vec<Lighter> {
        let mut lighter = Vec::new();
        // A GPU works on one after the other.
        if work.on_host && self.batch_size > 1 {
            let batch_size = self.batch_size / 2;
            let advice = format!("set `batch_size = {batch_size}`");
            let stage = Self { batch_size, ..self.clone() };
            lighter.push(Lighter::new("batch_size", advice, stage));
        }
        if !self.tiling {
            let stage = Self { tiling: true, ..self.clone() };
            lighter.push(Lighter::new("tiling", TILING_HELP, stage));
        }
        lighter
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
        self.resolved(published_sampler(&model.source)?).sample(model, inputs, out, cx)
    }
}

impl Sample {
    /// The same with the sampler of the model's own pipeline, where none is set.
    fn resolved(&self, published: Sampler) -> Self {
        Self { sampler: self.sampler.or(Some(published)), ..self.clone() }
    }

    /// What would be `condition` for another sampler.
    fn idle_condition(&self) -> Option<CheckError> {
        (self.condition.is_some() && self.condition().is_none()).then(|| {
            CheckError::new(
                Cause::Param("condition"),
                "`condition` does nothing: the sampler of this model's pipeline takes none",
                "leave it out, or set `sampler = \"flow_condition\"`",
            )
        })
    }

    fn condition(&self) -> Option<Condition> {
        let conditions = self.sampler == Some(Sampler::FlowCondition);
        conditions.then(|| self.condition.unwrap_or_default())
    }

    /// The steps that draw noise of their own, for who decodes; none of other pipelines.
    fn condition_steps(&self, condition: Option<Condition>) -> Option<usize> {
        condition.map(|condition| if condition.noise_scale > 0.0 { self.steps } else { 0 })
    }

    fn text_use(&self) -> TextUse {
        TextUse::Sampling(self.sampler)
    }

    fn image_use(&self) -> ImageUse {
        ImageUse {
            scale: self.image_latent_scale,
            causal_time: self.sampler == Some(Sampler::FlowCondition),
            frame_rate: self.frame_rate,
            side: Side::Sampling,
        }
    }

    fn unguided(&self) -> CheckError {
        CheckError::new(
            Cause::Param("guidance_scale"),
            format!("`guidance_scale` {} needs the input `negative`", self.guidance_scale),
            "connect a `text_encode` stage of the negative prompt to `negative`",
        )
    }
}

fn too_many_steps(steps: usize, limit: usize) -> CheckError {
    CheckError::new(
        Cause::Param("steps"),
        format!("`steps` must be at most {limit}, but is {steps}"),
        "the model was trained with that many timesteps; 50 are usual",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_for_as_many_images_as_are_denoised_at_once() {
        let of = |params| serde_json::from_value::<Sample>(params).unwrap().side_by_side();
        assert_eq!(of(json!({ "model": "builtin:tiny" })), 4);
        assert_eq!(of(json!({ "model": "builtin:tiny", "batch_size": 9 })), 9);
    }
}
