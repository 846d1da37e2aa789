//! The models embedded in the binary.

macro_rules! assets {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../assets/builtin_tiny/", $path)))),+]
    };
}

/// Files of `builtin:tiny` by their path in diffusers' layout.
pub static BUILTIN_TINY: &[(&str, &[u8])] = assets![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "transformer/config.json",
    "vae/config.json",
];

/// Every built-in model by name.
pub static BUILTINS: &[(&str, &[(&str, &[u8])])] = &[("tiny", BUILTIN_TINY)];
