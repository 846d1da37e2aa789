//! `transformer/config.json` and `vae/config.json` as diffusers writes them.
//!
//! A key that changes the mathematics and that this code does not know is an error, and so is a
//! value it has no code for; bookkeeping keys are ignored. Defaults are those
//! of the constructors in `src/diffusers/models/transformers/cogvideox_transformer_3d.py` and
//! `src/diffusers/models/autoencoders/autoencoder_kl_cogvideox.py` at v0.42.1.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::models::{
    LoadError,
    config::{Check, MAX_PATCH, MAX_SAMPLE, MAX_TEXT, parse},
};

/// The shape of a transformer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the published file has them")]
#[serde(default)]
pub struct TransformerConfig {
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Size of one head.
    pub attention_head_dim: usize,
    /// Channels of the input: video latents and image latents together.
    pub in_channels: usize,
    /// Channels of the latents.
    pub out_channels: usize,
    /// Size of the timestep embedding.
    pub time_embed_dim: usize,
    /// Size of the embedding of the constant offset 2 (1.5 only).
    pub ofs_embed_dim: Option<usize>,
    /// Size of the text encoder's output.
    pub text_embed_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Whether query, key and value projections have a bias.
    pub attention_bias: bool,
    /// Width of the latents it was trained on.
    pub sample_width: usize,
    /// Height of the latents it was trained on.
    pub sample_height: usize,
    /// Frames of the videos it was trained on.
    pub sample_frames: usize,
    /// Latent rows and columns per token.
    pub patch_size: usize,
    /// Latent frames per token (1.5), or none (1.0).
    pub patch_size_t: Option<usize>,
    /// Frames per latent frame.
    pub temporal_compression_ratio: usize,
    /// Text tokens in front of additive positions.
    pub max_text_seq_length: usize,
    /// Epsilon of the layer norms, those of query and key apart.
    pub norm_eps: f64,
    /// Divides rows and columns in additive positions.
    pub spatial_interpolation_scale: f32,
    /// Divides frames in additive positions.
    pub temporal_interpolation_scale: f32,
    /// Rotates query and key by position.
    pub use_rotary_positional_embeddings: bool,
    /// Adds the stored table of positions to the tokens.
    pub use_learned_positional_embeddings: bool,
    /// Whether the patch embedding of 1.0 has a bias; that of 1.5 always has one.
    pub patch_bias: bool,
    pub(super) activation_fn: String,
    pub(super) timestep_activation_fn: String,
    pub(super) flip_sin_to_cos: bool,
    /// Taken from the number of frequencies of the timestep sinusoids.
    pub freq_shift: f32,
    pub(super) norm_elementwise_affine: bool,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, Value>,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 30,
            attention_head_dim: 64,
            in_channels: 16,
            out_channels: 16,
            time_embed_dim: 512,
            ofs_embed_dim: None,
            text_embed_dim: 4096,
            num_layers: 30,
            attention_bias: true,
            sample_width: 90,
            sample_height: 60,
            sample_frames: 49,
            patch_size: 2,
            patch_size_t: None,
            temporal_compression_ratio: 4,
            max_text_seq_length: 226,
            norm_eps: 1e-5,
            spatial_interpolation_scale: 1.875,
            temporal_interpolation_scale: 1.0,
            use_rotary_positional_embeddings: false,
            use_learned_positional_embeddings: false,
            patch_bias: true,
            activation_fn: "gelu-approximate".into(),
            timestep_activation_fn: "silu".into(),
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            norm_elementwise_affine: true,
            unknown: BTreeMap::new(),
        }
    }
}

impl TransformerConfig {
    /// Reads and checks `transformer/config.json`.
    pub fn parse(config: &Value) -> Result<Self, LoadError> {
        Self::checked(config).map_err(|error| error.with_found(config))
    }

    fn checked(config: &Value) -> Result<Self, LoadError> {
        let parsed: Self = parse(TRANSFORMER, config)?;
        let check = Check(TRANSFORMER);
        check.unknown(&parsed.unknown)?;
        check.only(
            "activation_fn",
            parsed.activation_fn == "gelu-approximate",
            "gelu-approximate",
        )?;
        check.only("timestep_activation_fn", parsed.timestep_activation_fn == "silu", "silu")?;
        check.only("flip_sin_to_cos", parsed.flip_sin_to_cos, "true")?;
        check.only("norm_elementwise_affine", parsed.norm_elementwise_affine, "true")?;
        check.sizes(&[
            ("num_attention_heads", parsed.num_attention_heads),
            ("attention_head_dim", parsed.attention_head_dim),
            ("num_attention_heads * attention_head_dim", parsed.inner_dim()),
            ("out_channels", parsed.out_channels),
            ("time_embed_dim", parsed.time_embed_dim),
            ("text_embed_dim", parsed.text_embed_dim),
            ("sample_frames", parsed.sample_frames),
            ("sample_height", parsed.sample_height),
            ("sample_width", parsed.sample_width),
            ("temporal_compression_ratio", parsed.temporal_compression_ratio),
        ])?;
        check.positive(&[
            ("spatial_interpolation_scale", parsed.spatial_interpolation_scale),
            ("temporal_interpolation_scale", parsed.temporal_interpolation_scale),
        ])?;
        check.epsilon("norm_eps", parsed.norm_eps)?;
        check.layers("num_layers", &[parsed.num_layers])?;
        check_text_length(parsed.max_text_seq_length)?;
        for (key, found, limit) in [
            ("sample_height", parsed.sample_height, MAX_SAMPLE),
            ("sample_width", parsed.sample_width, MAX_SAMPLE),
            ("sample_frames", parsed.sample_frames, MAX_SAMPLE),
            ("patch_size", parsed.patch_size, MAX_PATCH),
            ("patch_size_t", parsed.frames_per_token(), MAX_PATCH),
        ] {
            check.at_most(key, found, limit)?;
        }
        check.only("patch_size", parsed.patch_size > 0, "at least 1")?;
        check.only("patch_size_t", parsed.patch_size_t != Some(0), "null or at least 1")?;
        parsed.check_embeddings(check)?;
        check.only(
            "in_channels",
            Some(parsed.in_channels) == parsed.out_channels.checked_mul(2),
            "twice out_channels, as in models that take a conditioning image",
        )?;
        Ok(parsed)
    }

    /// Checks the embeddings of timestep, offset and position.
    fn check_embeddings(&self, check: Check) -> Result<(), LoadError> {
        // The offset's is added to the timestep's, and half of it are sines.
        let width = self.time_embed_dim;
        let added = self.ofs_embed_dim.is_none_or(|dim| dim == width && dim.is_multiple_of(2));
        check.only("ofs_embed_dim", added, "null, or time_embed_dim where that is even")?;
        check.only(
            "attention_head_dim",
            self.attention_head_dim.is_multiple_of(16),
            "a multiple of 16",
        )?;
        let widths = [Some(self.inner_dim()), self.ofs_embed_dim];
        let fewest = widths.into_iter().flatten().min().unwrap_or_default() / 2;
        check.only(
            "freq_shift",
            self.freq_shift < fewest as f32,
            &format!("below {fewest}, the number of frequencies"),
        )?;
        check.only(
            "use_rotary_positional_embeddings",
            self.use_rotary_positional_embeddings || !self.use_learned_positional_embeddings,
            "true where use_learned_positional_embeddings is",
        )
    }

    /// Size of a token.
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Latent frames per token.
    pub fn frames_per_token(&self) -> usize {
        self.patch_size_t.unwrap_or(1)
    }

    /// Whether positions are added to the tokens, from a table stored or computed.
    pub fn has_additive_positions(&self) -> bool {
        !self.use_rotary_positional_embeddings || self.use_learned_positional_embeddings
    }
}

/// The class of the VAE.
pub const VAE_CLASS: &str = "AutoencoderKLCogVideoX";
/// The factor of a VAE that states none, as in diffusers.
pub const SCALING_FACTOR: f64 = 1.152_584_26;

/// The shape of a VAE.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of the video.
    pub in_channels: usize,
    /// Channels of the decoded video.
    pub out_channels: usize,
    /// Channels of each level, outermost first; each but the last halves height and width.
    pub block_out_channels: Vec<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Epsilon of the encoder's group norms, the last apart.
    pub norm_eps: f64,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Frames per latent frame, a power of two.
    pub temporal_compression_ratio: usize,
    /// Height of the videos it was trained on: a tile has half of it.
    pub sample_height: usize,
    /// Width of the videos it was trained on: a tile has half of it.
    pub sample_width: usize,
    /// Latents are multiplied by this before diffusion.
    pub scaling_factor: f32,
    /// Whether the published pipeline divides the image latent by the factor instead.
    pub invert_scale_latents: bool,
    act_fn: String,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, Value>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 256, 512],
            latent_channels: 16,
            layers_per_block: 3,
            norm_eps: 1e-6,
            norm_num_groups: 32,
            temporal_compression_ratio: 4,
            sample_height: 480,
            sample_width: 720,
            scaling_factor: SCALING_FACTOR as f32,
            invert_scale_latents: false,
            act_fn: "silu".into(),
            use_quant_conv: false,
            use_post_quant_conv: false,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            down_block_types: vec![DOWN_BLOCK.into(); 4],
            up_block_types: vec![UP_BLOCK.into(); 4],
            unknown: BTreeMap::new(),
        }
    }
}

impl VaeConfig {
    /// Reads and checks `vae/config.json`.
    pub fn parse(config: &Value) -> Result<Self, LoadError> {
        Self::checked(config).map_err(|error| error.with_found(config))
    }

    fn checked(config: &Value) -> Result<Self, LoadError> {
        let check = Check(VAE);
        check.class(config, "_class_name", &[VAE_CLASS])?;
        let parsed: Self = parse(VAE, config)?;
        check.unknown(&parsed.unknown)?;
        check.only("act_fn", parsed.act_fn == "silu", "silu")?;
        check.only("use_quant_conv", !parsed.use_quant_conv, "false")?;
        check.only("use_post_quant_conv", !parsed.use_post_quant_conv, "false")?;
        check.only("shift_factor", parsed.shift_factor.is_none(), "null")?;
        check.only("latents_mean", parsed.latents_mean.is_none(), "null")?;
        check.only("latents_std", parsed.latents_std.is_none(), "null")?;
        check.colors(parsed.in_channels, parsed.out_channels)?;
        check.sizes(&[
            ("latent_channels", parsed.latent_channels),
            ("sample_height", parsed.sample_height),
            ("sample_width", parsed.sample_width),
        ])?;
        check.positive(&[("scaling_factor", parsed.scaling_factor)])?;
        check.epsilon("norm_eps", parsed.norm_eps)?;
        parsed.check_levels(check)?;
        Ok(parsed)
    }

    fn check_levels(&self, check: Check) -> Result<(), LoadError> {
        let levels = self.block_out_channels.len();
        check.layers("layers_per_block", &[self.layers_per_block])?;
        // The first of a level's residual blocks changes the number of channels.
        check.sizes(&[("layers_per_block", self.layers_per_block)])?;
        check.levels("block_out_channels", levels)?;
        let sizes = levels > 0 && self.block_out_channels.iter().all(|size| *size > 0);
        check.only("block_out_channels", sizes, "a list of at least one size, none of them 0")?;
        let widest = self.block_out_channels.iter().copied().max().unwrap_or(1);
        check.sizes(&[("block_out_channels", widest)])?;
        for (key, types, wanted) in [
            ("down_block_types", &self.down_block_types, DOWN_BLOCK),
            ("up_block_types", &self.up_block_types, UP_BLOCK),
        ] {
            let fits = types.len() == levels && types.iter().all(|name| name == wanted);
            check.only(
                key,
                fits,
                &format!("`{wanted}`, as often as there are block_out_channels"),
            )?;
        }
        check.only(
            "norm_num_groups",
            self.norm_num_groups > 0
                && self.block_out_channels.iter().all(|c| c % self.norm_num_groups == 0),
            "a divisor of every number of block_out_channels",
        )?;
        check.only(
            "temporal_compression_ratio",
            self.temporal_compression_ratio.is_power_of_two()
                && self.temporal_compression_ratio <= MAX_TEMPORAL_COMPRESSION
                && self.num_temporal_levels() < levels,
            "a power of two up to 8, with a block that halves the frames for each factor",
        )
    }

    /// Number of levels that halve the frames.
    pub fn num_temporal_levels(&self) -> usize {
        self.temporal_compression_ratio.ilog2() as usize
    }

    /// Pixels per latent row or column.
    pub fn spatial_compression(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// Checks the number of tokens of a prompt.
pub(super) fn check_text_length(tokens: usize) -> Result<(), LoadError> {
    let check = Check(TRANSFORMER);
    check.only("max_text_seq_length", tokens > 0, "at least 1")?;
    check.at_most("max_text_seq_length", tokens, MAX_TEXT)
}

const TRANSFORMER: &str = "transformer/config.json";
const VAE: &str = "vae/config.json";
/// Video frames that are encoded at a time, which give whole latent frames.
const MAX_TEMPORAL_COMPRESSION: usize = 8;
const DOWN_BLOCK: &str = "CogVideoXDownBlock3D";
const UP_BLOCK: &str = "CogVideoXUpBlock3D";
