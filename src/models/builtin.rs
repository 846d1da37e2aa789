//! The models embedded in the binary.

macro_rules! assets {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../assets/builtin_tiny/", $path)))),+]
    };
}

/// Files of a model by their path in diffusers' layout.
pub type Files = &'static [(&'static str, &'static [u8])];

/// Files of `builtin:tiny` by their path in diffusers' layout.
pub static BUILTIN_TINY: Files = assets![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// Every built-in model by name.
pub static BUILTINS: &[(&str, Files)] = &[("tiny", BUILTIN_TINY)];
