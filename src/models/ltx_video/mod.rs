//! LTX-Video 2B, image to video (arXiv 2501.00103).
//!
//! Published as `Lightricks/LTX-Video` (0.9.0), `Lightricks/LTX-Video-0.9.1` and
//! `Lightricks/LTX-Video-0.9.5`, whose transformers are alike and whose autoencoders differ;
//! smaller models of the same classes load as well. The conditioning image takes the place of the
//! first latent frame.
//!
//! A model is sampled as by the basic pipeline, or on demand as by the condition pipeline of 0.9.5
//! (`Sampler::FlowCondition`): its schedule, its positions, noise on the image, prompts whose
//! padding is masked. Left out: conditions at other frames, guidance that skips blocks, and
//! upscaling.

mod config;
mod rotary;
mod transformer;
mod vae;
mod vae_config;

use serde_json::Value;

use super::{
    Denoiser, ImageConditioning, LoadError, LoraTargets, NoiseScheduler, ParamReader, PromptFormat,
    Sampler, TextFormat, TimestepDistribution, VideoDiffusion, VideoVae,
    memory::{ClipSize, PassSizes},
    schedulers,
};

pub use config::TransformerConfig;
pub use transformer::Transformer;
pub use vae::Vae;
pub use vae_config::{VAE_CLASS, VaeConfig};

/// Tokens of a prompt in the basic pipeline.
const BASIC_TOKENS: usize = 128;
/// Tokens of a prompt in the condition pipeline.
const CONDITION_TOKENS: usize = 256;

/// The LTX-Video family.
pub struct LtxVideo;

impl VideoDiffusion for LtxVideo {
    fn class_name(&self) -> &'static str {
        "LTXVideoTransformer3DModel"
    }

    fn vae_class(&self) -> &'static str {
        VAE_CLASS
    }

    fn vae(
        &self,
        config: &Value,
        params: &ParamReader<'_>,
    ) -> Result<Box<dyn VideoVae>, LoadError> {
        Ok(Box::new(Vae::new(VaeConfig::parse(config)?, params)?))
    }

    fn denoiser(
        &self,
        config: &Value,
        params: &ParamReader<'_>,
    ) -> Result<Box<dyn Denoiser>, LoadError> {
        Ok(Box::new(Transformer::new(TransformerConfig::parse(config)?, params)?))
    }

    fn samplers(&self) -> &'static [Sampler] {
        &[Sampler::FlowEuler, Sampler::FlowCondition]
    }

    fn timestep_distributions(&self) -> &'static [TimestepDistribution] {
        &[
            TimestepDistribution::ShiftedLogitNormal,
            TimestepDistribution::Uniform,
            TimestepDistribution::LogitNormal,
        ]
    }

    fn scheduler(
        &self,
        config: &Value,
        sampler: Sampler,
    ) -> Result<Box<dyn NoiseScheduler>, LoadError> {
        match sampler {
            Sampler::FlowCondition => schedulers::linear_quadratic(config),
            _ => schedulers::flow_matching(config),
        }
    }

    /// Models up to 0.9.1 are published with a dynamic shift, those from 0.9.5 on with none,
    /// because the condition pipeline brings a schedule of its own.
    fn published_sampler(&self, scheduler: &Value) -> Sampler {
        match schedulers::linear_quadratic(scheduler) {
            Ok(_) => Sampler::FlowCondition,
            Err(_) => Sampler::FlowEuler,
        }
    }

    fn text_formats(&self) -> &'static [TextFormat] {
        &[TextFormat::Basic, TextFormat::Condition]
    }

    /// The published pipelines mask padding in the attention, so a prompt can do without it.
    fn prompt_format(
        &self,
        _transformer: &Value,
        format: TextFormat,
    ) -> Result<PromptFormat, LoadError> {
        let (tokens, masks_padding) = match format {
            TextFormat::Basic => (BASIC_TOKENS, false),
            TextFormat::Condition => (CONDITION_TOKENS, true),
        };
        Ok(PromptFormat { tokens, masks_padding, keeps_padding: false })
    }

    fn pass(
        &self,
        transformer: &Value,
        [frames, height, width]: [usize; 3],
        _text: usize,
    ) -> Result<PassSizes, LoadError> {
        let config = TransformerConfig::parse(transformer)?;
        Ok(PassSizes {
            dim: config.inner_dim(),
            heads: config.num_attention_heads,
            blocks: config.num_layers,
            tokens: frames * height * width,
        })
    }

    /// Patches of pixels at full size are the largest, in the encoder or in the decoder.
    fn largest_map(&self, vae: &Value, clip: ClipSize) -> Result<u64, LoadError> {
        let config = VaeConfig::parse(vae)?;
        let encoder = config.encoder_levels().first().map(|level| level.input.max(level.output));
        let decoder = config.decoder_levels().last().map(|level| level.input.max(level.output));
        let channels = encoder.max(decoder).unwrap_or(1);
        let patch = config.patch_size;
        let patches = clip.frames.div_ceil(config.patch_size_t)
            * (clip.height / patch)
            * (clip.width / patch);
        Ok((channels * patches) as u64)
    }

    fn decodes_last(&self) -> bool {
        true
    }

    fn image_conditioning(&self) -> ImageConditioning {
        ImageConditioning::FirstFrame
    }

    fn default_lora_targets(&self) -> LoraTargets {
        LoraTargets::AllLinearBlocks
    }

    fn kept_maps(&self, trained: Option<LoraTargets>) -> u64 {
        match trained {
            Some(LoraTargets::Qk | LoraTargets::Vo | LoraTargets::Qkvo) => 16,
            Some(LoraTargets::AllLinearBlocks) => 20,
            // The modulation of each token is trained, too, and is another for each block.
            Some(LoraTargets::AllLinear) | None => 27,
        }
    }

    fn lora_targets(&self, targets: LoraTargets) -> &'static [&'static str] {
        const QKVO: &str = r"^transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$";
        const FEED_FORWARD: &str = r"^transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)$";
        match targets {
            LoraTargets::Qk => &[r"^transformer_blocks\.\d+\.attn[12]\.(to_q|to_k)$"],
            LoraTargets::Vo => &[r"^transformer_blocks\.\d+\.attn[12]\.(to_v|to_out\.0)$"],
            LoraTargets::Qkvo => &[QKVO],
            LoraTargets::AllLinearBlocks => &[QKVO, FEED_FORWARD],
            LoraTargets::AllLinear => &[
                QKVO,
                FEED_FORWARD,
                r"^proj_(in|out)$",
                r"^time_embed\.(emb\.timestep_embedder\.linear_[12]|linear)$",
                r"^caption_projection\.linear_[12]$",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::models::lora::num_factors;

    #[test]
    fn the_schedule_tells_the_pipeline_and_that_the_prompt() {
        let schedule = |more: Value| {
            let mut config = json!({ "_class_name": "FlowMatchEulerDiscreteScheduler" });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            LtxVideo.published_sampler(&config)
        };
        assert_eq!(schedule(json!({ "use_dynamic_shifting": true })), Sampler::FlowEuler);
        assert_eq!(schedule(json!({ "shift": 3.0 })), Sampler::FlowEuler);
        assert_eq!(schedule(json!({ "shift": 1.0 })), Sampler::FlowCondition);
        assert_eq!(LtxVideo.published_sampler(&json!({})), Sampler::FlowEuler, "nothing is told");
        let format = |sampler: Sampler| {
            let format = LtxVideo.prompt_format(&json!({}), sampler.text_format()).unwrap();
            (format.tokens, format.masks_padding, format.keeps_padding)
        };
        assert_eq!(format(Sampler::FlowEuler), (128, false, false));
        assert_eq!(format(Sampler::FlowCondition), (256, true, false));
    }

    #[test]
    fn target_sets_have_the_published_sizes() {
        let params = ParamReader::shapes();
        drop(LtxVideo.denoiser(&json!({}), &params).unwrap());
        let all = params.into_shapes();
        for (targets, wanted) in [
            (LoraTargets::Qk, 29_360_128),
            (LoraTargets::Vo, 29_360_128),
            (LoraTargets::Qkvo, 58_720_256),
            (LoraTargets::AllLinearBlocks, 95_420_416),
            (LoraTargets::AllLinear, 97_681_408),
        ] {
            let at_rank_64 = num_factors(&all, LtxVideo.lora_targets(targets), 64);
            assert_eq!(at_rank_64, wanted, "{targets:?}");
        }
    }
}
