//! Generated latents: `latents.safetensors` with `latents` F32 `[C, f, h, w]`, scaled as the
//! denoiser sees them, padding frames dropped.

use super::tensors::{Array, TensorFileError, write};

/// The item's file.
pub const FILE: &str = "latents.safetensors";

/// Reads [`FILE`].
pub fn from_bytes(bytes: &[u8]) -> Result<Array<4>, TensorFileError> {
    Array::read(bytes, "latents")
}

/// Writes [`FILE`].
pub fn to_bytes(latents: &Array<4>) -> Vec<u8> {
    write("latents", latents)
}
