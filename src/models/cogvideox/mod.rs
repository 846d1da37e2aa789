//! CogVideoX 1.0 and 1.5, image to video (Yang et al. 2024, arXiv 2408.06072).
//!
//! Published as `zai-org/CogVideoX-5b-I2V` and `zai-org/CogVideoX1.5-5B-I2V`; smaller models of the
//! same classes load as well. Left out: text-to-video transformers, which take no image latent.

mod config;
mod rotary;
mod transformer;
mod vae;

use serde_json::Value;

use super::{
    Denoiser, ImageConditioning, LoadError, LoraTargets, NoiseScheduler, ParamReader, PromptFormat,
    Sampler, TextFormat, TimestepDistribution, VideoDiffusion, VideoVae,
    memory::{ClipSize, PassSizes},
    schedulers,
};

pub use config::{SCALING_FACTOR, TransformerConfig, VAE_CLASS, VaeConfig};
pub use transformer::Transformer;
pub use vae::Vae;

/// Tokens of a prompt where the transformer's configuration states none.
const PROMPT_TOKENS: usize = 226;

/// The CogVideoX family.
pub struct CogVideoX;

impl VideoDiffusion for CogVideoX {
    fn class_name(&self) -> &'static str {
        "CogVideoXTransformer3DModel"
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
        &[Sampler::Dpm, Sampler::Ddim]
    }

    fn timestep_distributions(&self) -> &'static [TimestepDistribution] {
        &[TimestepDistribution::Uniform, TimestepDistribution::LogitNormal]
    }

    fn scheduler(
        &self,
        config: &Value,
        sampler: Sampler,
    ) -> Result<Box<dyn NoiseScheduler>, LoadError> {
        schedulers::cogvideox(config, sampler)
    }

    fn prompt_format(
        &self,
        transformer: &Value,
        _format: TextFormat,
    ) -> Result<PromptFormat, LoadError> {
        let stated = transformer.get("max_text_seq_length").and_then(Value::as_u64);
        let tokens = stated.map_or(PROMPT_TOKENS, |tokens| tokens as usize);
        config::check_text_length(tokens)?;
        Ok(PromptFormat { tokens, masks_padding: false, keeps_padding: true })
    }

    fn pass(
        &self,
        transformer: &Value,
        [frames, height, width]: [usize; 3],
        text: usize,
    ) -> Result<PassSizes, LoadError> {
        let config = TransformerConfig::parse(transformer)?;
        let patch = config.patch_size;
        let video = frames.div_ceil(config.frames_per_token()) * (height / patch) * (width / patch);
        Ok(PassSizes {
            dim: config.inner_dim(),
            heads: config.num_attention_heads,
            blocks: config.num_layers,
            tokens: text + video,
        })
    }

    /// Full size has the narrowest maps and is the largest all the same: the decoder comes to it
    /// with the channels of the level below. Chunks of frames are worked on one after the other.
    fn largest_map(&self, vae: &Value, clip: ClipSize) -> Result<u64, LoadError> {
        let config = VaeConfig::parse(vae)?;
        let channels = config.block_out_channels.iter().take(2).copied().max().unwrap_or(1);
        let frames = vae::first_chunk(clip.frames);
        Ok((channels * frames * clip.height * clip.width) as u64)
    }

    fn tile_size(&self, vae: &Value) -> Result<Option<[usize; 2]>, LoadError> {
        Ok(Some(vae::tile_size(&VaeConfig::parse(vae)?)))
    }

    fn image_conditioning(&self) -> ImageConditioning {
        ImageConditioning::Channels
    }

    fn default_lora_targets(&self) -> LoraTargets {
        LoraTargets::Qkvo
    }

    fn kept_maps(&self, trained: Option<LoraTargets>) -> u64 {
        match trained {
            Some(LoraTargets::AllLinearBlocks | LoraTargets::AllLinear) => 19,
            _ => 16,
        }
    }

    fn lora_targets(&self, targets: LoraTargets) -> &'static [&'static str] {
        match targets {
            LoraTargets::Qk => &[r"^transformer_blocks\.\d+\.attn1\.(to_q|to_k)$"],
            LoraTargets::Vo => &[r"^transformer_blocks\.\d+\.attn1\.(to_v|to_out\.0)$"],
            LoraTargets::Qkvo => &[r"^transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)$"],
            LoraTargets::AllLinearBlocks => &[
                r"^transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)$",
                r"^transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)$",
            ],
            LoraTargets::AllLinear => &[
                r"^transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)$",
                r"^transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)$",
                r"^transformer_blocks\.\d+\.norm[12]\.linear$",
                // A convolution, not a linear layer, in 1.0: whoever makes adapters goes by rank.
                r"^patch_embed\.(proj|text_proj)$",
                r"^(time|ofs)_embedding\.linear_[12]$",
                r"^norm_out\.linear$",
                r"^proj_out$",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::models::lora::num_factors;

    fn published_15() -> Value {
        json!({
            "num_attention_heads": 48, "in_channels": 32, "num_layers": 42, "patch_size_t": 2,
            "patch_bias": false, "ofs_embed_dim": 512, "sample_frames": 81, "sample_height": 300,
            "sample_width": 300, "use_rotary_positional_embeddings": true,
        })
    }

    fn published_10() -> Value {
        json!({
            "num_attention_heads": 48, "in_channels": 32, "num_layers": 42,
            "use_rotary_positional_embeddings": true, "use_learned_positional_embeddings": true,
        })
    }

    fn shapes(build: impl Fn(&ParamReader<'_>)) -> std::collections::BTreeMap<String, Vec<usize>> {
        let params = ParamReader::shapes();
        build(&params);
        params.into_shapes()
    }

    fn num_values(shapes: &std::collections::BTreeMap<String, Vec<usize>>) -> usize {
        shapes.values().map(|shape| shape.iter().product::<usize>()).sum()
    }

    #[test]
    fn published_checkpoints_have_these_tensors() {
        let transformer =
            |config| shapes(|params| drop(CogVideoX.denoiser(&config, params).unwrap()));
        let all = transformer(published_15());
        assert_eq!((all.len(), num_values(&all)), (1028, 5_571_594_880));
        assert_eq!(all["patch_embed.proj.weight"], [3072, 256]);
        assert_eq!(all["transformer_blocks.41.ff.net.0.proj.weight"], [12288, 3072]);
        let all = transformer(published_10());
        assert_eq!((all.len(), num_values(&all)), (1025, 5_625_087_552));
        assert_eq!(all["patch_embed.pos_embedding"], [1, 17776, 3072]);
        assert_eq!(all["patch_embed.proj.weight"], [3072, 32, 2, 2]);
        let all = shapes(|params| drop(CogVideoX.vae(&json!({}), params).unwrap()));
        assert_eq!((all.len(), num_values(&all)), (436, 215_583_907));
        assert_eq!(all["encoder.down_blocks.0.downsamplers.0.conv.weight"], [128, 128, 3, 3]);
    }

    #[test]
    fn target_sets_have_the_published_sizes() {
        let all = shapes(|params| drop(CogVideoX.denoiser(&published_15(), params).unwrap()));
        for (targets, wanted) in [
            (LoraTargets::Qk, 33_030_144),
            (LoraTargets::Vo, 33_030_144),
            (LoraTargets::Qkvo, 66_060_288),
            (LoraTargets::AllLinearBlocks, 148_635_648),
            (LoraTargets::AllLinear, 252_207_104),
        ] {
            let at_rank_64 = num_factors(&all, CogVideoX.lora_targets(targets), 64);
            assert_eq!(at_rank_64, wanted, "{targets:?}");
        }
    }
}
