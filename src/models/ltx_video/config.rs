//! `transformer/config.json` and `vae/config.json` as diffusers writes them.
//!
//! A key that changes the mathematics and that this code does not know is an error, and so is a
//! value it has no code for; bookkeeping keys are ignored. Defaults are those
//! of the constructors in `src/diffusers/models/transformers/transformer_ltx.py` and
//! `src/diffusers/models/autoencoders/autoencoder_kl_ltx.py` at v0.42.1.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::models::{
    LoadError,
    config::{Check, parse},
};

const TRANSFORMER: &str = "transformer/config.json";

/// The shape of a transformer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct TransformerConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction; those of the latents if it is null.
    pub out_channels: Option<usize>,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Size of one head.
    pub attention_head_dim: usize,
    /// Size of the projected text.
    pub cross_attention_dim: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Size of the text encoder's output.
    pub caption_channels: usize,
    /// Whether query, key and value projections have a bias.
    pub attention_bias: bool,
    /// Whether output projections have a bias.
    pub attention_out_bias: bool,
    /// Epsilon of the blocks' norms.
    pub norm_eps: f64,
    patch_size: usize,
    patch_size_t: usize,
    activation_fn: String,
    qk_norm: String,
    norm_elementwise_affine: bool,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            in_channels: 128,
            out_channels: Some(128),
            num_attention_heads: 32,
            attention_head_dim: 64,
            cross_attention_dim: 2048,
            num_layers: 28,
            caption_channels: 4096,
            attention_bias: true,
            attention_out_bias: true,
            norm_eps: 1e-6,
            patch_size: 1,
            patch_size_t: 1,
            activation_fn: "gelu-approximate".into(),
            qk_norm: "rms_norm_across_heads".into(),
            norm_elementwise_affine: false,
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
        let gelu = "gelu-approximate";
        check.only("activation_fn", parsed.activation_fn == gelu, gelu)?;
        let across = "rms_norm_across_heads";
        check.only("qk_norm", parsed.qk_norm == across, across)?;
        check.only("norm_elementwise_affine", !parsed.norm_elementwise_affine, "false")?;
        check.only("patch_size", parsed.patch_size == 1, "1")?;
        check.only("patch_size_t", parsed.patch_size_t == 1, "1")?;
        let same = parsed.out_channels.is_none_or(|out| out == parsed.in_channels);
        check.only("out_channels", same, "equal to in_channels")?;
        check.layers("num_layers", &[parsed.num_layers])?;
        check.sizes(&[
            ("in_channels", parsed.in_channels),
            ("num_attention_heads", parsed.num_attention_heads),
            ("attention_head_dim", parsed.attention_head_dim),
            ("caption_channels", parsed.caption_channels),
            ("num_attention_heads * attention_head_dim", parsed.inner_dim()),
        ])?;
        check.epsilon("norm_eps", parsed.norm_eps)?;
        let dim = parsed.inner_dim();
        check.only(
            "attention_head_dim",
            dim.is_multiple_of(2) && dim >= 6,
            "even, and 6 or more",
        )?;
        check.only(
            "cross_attention_dim",
            parsed.cross_attention_dim == dim,
            "num_attention_heads times attention_head_dim",
        )?;
        Ok(parsed)
    }

    /// Size of a token.
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_published_file_gives_the_defaults() {
        let published = json!({
            "_class_name": "LTXVideoTransformer3DModel", "_diffusers_version": "0.32.0.dev0",
            "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 64,
            "attention_out_bias": true, "caption_channels": 4096, "cross_attention_dim": 2048,
            "in_channels": 128, "norm_elementwise_affine": false, "norm_eps": 1e-06,
            "num_attention_heads": 32, "num_layers": 28, "out_channels": 128, "patch_size": 1,
            "patch_size_t": 1, "qk_norm": "rms_norm_across_heads"
        });
        let mut parsed = TransformerConfig::parse(&published).unwrap();
        parsed.unknown.clear();
        assert_eq!(parsed, TransformerConfig::default());
    }

    #[test]
    fn settings_without_code_are_errors() {
        for (config, named) in [
            (json!({ "activation_fn": "geglu" }), "activation_fn"),
            (json!({ "qk_norm": "layer_norm" }), "qk_norm"),
            (json!({ "patch_size": 2 }), "patch_size"),
            (json!({ "out_channels": 64 }), "out_channels"),
            (json!({ "num_attention_heads": 3 }), "cross_attention_dim"),
            (json!({ "use_window": 3 }), "use_window"),
            (json!({ "attention_head_dim": 0 }), "`attention_head_dim` must be at least 1"),
            (json!({ "caption_channels": 0 }), "caption_channels"),
            (json!({ "norm_eps": -1 }), "`norm_eps` must be a number, not negative"),
            (json!({ "num_layers": 1_u64 << 40 }), "`num_layers` must be at most 10000"),
            (json!({ "caption_channels": 1_u64 << 40 }), "`caption_channels` must be at most"),
        ] {
            let message = TransformerConfig::parse(&config).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
    }
}
