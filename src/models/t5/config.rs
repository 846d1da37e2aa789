//! `text_encoder/config.json`.

use serde::Deserialize;
use serde_json::Value;

use crate::models::{LoadError, config::Check};

const FILE: &str = "text_encoder/config.json";
/// The classes whose files hold this encoder; others, as UMT5, have other formulas under these keys.
const CLASSES: &[&str] = &["T5EncoderModel", "T5ForConditionalGeneration"];

/// The sizes of a T5 encoder; keys of the file that only the decoder, training or generation use
/// are left out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct T5Config {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one head.
    pub d_kv: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Heads.
    pub num_heads: usize,
    /// Rows of the relative position table.
    #[serde(default = "thirty_two")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which all positions share the last row.
    #[serde(default = "one_hundred_twenty_eight")]
    pub relative_attention_max_distance: usize,
    /// Added to the mean square in the norms.
    #[serde(default = "millionth")]
    pub layer_norm_epsilon: f64,
    /// The feed-forward layers' form; only `gated-gelu` is supported.
    #[serde(default)]
    pub feed_forward_proj: String,
}

fn thirty_two() -> usize {
    32
}

fn one_hundred_twenty_eight() -> usize {
    128
}

fn millionth() -> f64 {
    1e-6
}

impl T5Config {
    /// Reads and checks `text_encoder/config.json`.
    pub fn read(config: &Value) -> Result<Self, LoadError> {
        let error = |message: String| LoadError::Config { file: FILE.to_owned(), message };
        let check = Check(FILE);
        check.class(config, "model_type", &["t5"])?;
        check.class(config, "architectures", CLASSES)?;
        let read = Self::deserialize(config).map_err(|e| error(e.to_string()))?;
        if read.feed_forward_proj != "gated-gelu" {
            let found = &read.feed_forward_proj;
            return Err(error(format!(
                "`feed_forward_proj` must be `gated-gelu` (T5 v1.1), but is `{found}`"
            )));
        }
        let sizes = [
            ("vocab_size", read.vocab_size),
            ("d_model", read.d_model),
            ("d_kv", read.d_kv),
            ("d_ff", read.d_ff),
            ("num_layers", read.num_layers),
            ("num_heads", read.num_heads),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(error(format!("`{key}` must be at least 1, but is 0")));
        }
        check.sizes(&sizes)?;
        check.layers("num_layers", &[read.num_layers])?;
        check.sizes(&[
            ("num_heads * d_kv", read.num_heads.saturating_mul(read.d_kv)),
            ("relative_attention_num_buckets", read.relative_attention_num_buckets),
            ("relative_attention_max_distance", read.relative_attention_max_distance),
        ])?;
        let (buckets, distance) =
            (read.relative_attention_num_buckets, read.relative_attention_max_distance);
        if buckets < 4 || !buckets.is_multiple_of(4) || distance <= buckets / 4 {
            return Err(error(format!(
                "`relative_attention_num_buckets` must be a multiple of 4 and \
                 `relative_attention_max_distance` more than a quarter of it, but they are \
                 {buckets} and {distance}"
            )));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_beyond_all_bounds_are_errors() {
        for key in ["num_layers", "d_model", "num_heads", "relative_attention_num_buckets"] {
            let mut config = json!({
                "vocab_size": 8, "d_model": 8, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1,
                "feed_forward_proj": "gated-gelu",
            });
            T5Config::read(&config).unwrap();
            config[key] = json!(1_u64 << 40);
            let error = T5Config::read(&config).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}` must be at most")), "{error}");
        }
    }
}
