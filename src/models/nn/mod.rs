//! Layers that two models need.

mod activation;
mod attention;
mod conv;
mod embedding;
pub(crate) mod fused;
mod linear;
mod modulation;
mod norm;

pub use activation::{gelu_tanh, silu};
pub use attention::{AttentionMemory, attention, attention_by_token, attention_memory};
pub use conv::{Conv3d, nearest_upsample};
pub use embedding::{TimestepEmbedding, linspace, sinusoid};
pub use linear::{Linear, LoraBranch};
pub use modulation::StreamModulation;
pub use norm::{GroupNorm, LayerNorm, RmsNorm, rms_norm, standardize};
