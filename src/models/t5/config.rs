//! `text_encoder/config.json`.
//!
//! As in the other parts of a model, a key that is not known is an error, and so is a value there
//! are no formulas for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::models::{LoadError, config::Check};

const FILE: &str = "text_encoder/config.json";
/// The classes whose files hold this encoder; others, as UMT5, have other formulas under these
/// keys.
const CLASSES: &[&str] = &["T5EncoderModel", "T5ForConditionalGeneration"];

/// Keys that decide nothing about the encoder: what transformers writes beside it, through its
/// versions 4 and 5, of the decoder, of training, of generation, of labels and of the form of
/// outputs.
const OTHERS: &[&str] = &[
    // The file and its type.
    "architectures",
    "dtype",
    "model_type",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_bfloat16",
    // The form of outputs.
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "return_dict",
    "use_cache",
    // Speed alone: T5 reads neither chunks nor a number of positions.
    "chunk_size_feed_forward",
    "n_positions",
    // The decoder.
    "add_cross_attention",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "is_encoder_decoder",
    "num_decoder_layers",
    "scale_decoder_outputs",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    // Training and tasks.
    "classifier_dropout",
    "dropout_rate",
    "finetuning_task",
    "id2label",
    "initializer_factor",
    "label2id",
    "num_labels",
    "prefix",
    "problem_type",
    "task_specific_params",
    "tf_legacy_loss",
    // Tokens.
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    // Generation.
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// The sizes of a T5 encoder; keys of the file that decide nothing about it are left out.
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
    /// What transformers makes of `feed_forward_proj`, and writes as well.
    #[serde(default = "gelu_tanh")]
    dense_act_fn: String,
    #[serde(default = "yes")]
    is_gated_act: bool,
    #[serde(default)]
    is_decoder: bool,
    /// Heads that were taken out, by layer.
    #[serde(default)]
    pruned_heads: BTreeMap<String, Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

fn gelu_tanh() -> String {
    "gelu_new".to_owned()
}

fn yes() -> bool {
    true
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
        Self::checked(config).map_err(|error| error.with_found(config))
    }

    fn checked(config: &Value) -> Result<Self, LoadError> {
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
        check.unknown_beside(&read.unknown, OTHERS)?;
        check.only("dense_act_fn", read.dense_act_fn == gelu_tanh(), "`gelu_new`")?;
        check.only("is_gated_act", read.is_gated_act, "true")?;
        check.only("is_decoder", !read.is_decoder, "false")?;
        check.only("pruned_heads", read.pruned_heads.is_empty(), "empty")?;
        check.epsilon("layer_norm_epsilon", read.layer_norm_epsilon)?;
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

    /// `text_encoder/config.json` as CogVideoX and LTX-Video are published with, by transformers 4.
    fn published() -> Value {
        json!({
            "_name_or_path": "google/t5-v1_1-xxl", "architectures": ["T5EncoderModel"],
            "classifier_dropout": 0.0, "d_ff": 10240, "d_kv": 64, "d_model": 4096,
            "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1,
            "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
            "is_encoder_decoder": true, "is_gated_act": true, "layer_norm_epsilon": 1e-06,
            "model_type": "t5", "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24,
            "output_past": true, "pad_token_id": 0, "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32, "tie_word_embeddings": false,
            "torch_dtype": "bfloat16", "transformers_version": "4.44.2", "use_cache": true,
            "vocab_size": 32128
        })
    }

    #[test]
    fn what_transformers_writes_is_read() {
        assert_eq!(T5Config::read(&published()).unwrap().d_ff, 10240);
        // All that version 5 knows, written without leaving defaults out.
        let all = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5/config.json"));
        let all: Value = serde_json::from_str(all).unwrap();
        assert!(all.get("chunk_size_feed_forward").is_some());
        T5Config::read(&all).unwrap();
        let mut older = published();
        for (key, value) in [
            ("n_positions", json!(512)),
            ("task_specific_params", json!({ "summarization": { "num_beams": 4 } })),
            ("pruned_heads", json!({})),
            ("quantization_config", json!(null)),
        ] {
            older[key] = value;
        }
        T5Config::read(&older).unwrap();
    }

    #[test]
    fn what_changes_the_maths_is_an_error() {
        for (key, value, wanted) in [
            (
                "quantization_config",
                json!({ "load_in_8bit": true }),
                "is not a setting this version",
            ),
            ("attention_scale", json!(0.5), "is not a setting this version knows"),
            ("num_hidden_layers", json!(12), "is not a setting this version knows"),
            ("dense_act_fn", json!("relu"), "must be `gelu_new`"),
            ("is_gated_act", json!(false), "must be true"),
            ("is_decoder", json!(true), "must be false"),
            ("pruned_heads", json!({ "0": [1] }), "must be empty"),
            ("layer_norm_epsilon", json!(-1.0), "must be a number, not negative"),
        ] {
            let mut config = published();
            config[key] = value;
            let error = T5Config::read(&config).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(wanted), "{error}");
        }
    }

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
