//! Operations that would cost many passes over memory one by one, done in few.
//!
//! On the CPU Burn runs one elementwise operation at a time and most of them on one thread; in a
//! small transformer they cost more than the matrix products. Each operation here has its own
//! backward pass ([`tape`]), which also keeps less than the tape would.
//!
//! Other devices, and other types than f32, have those of the transformer's blocks as formulas,
//! which their compilers fuse ([`formulas`]), attention in a form of its own ([`blocked`]), the
//! autoencoder's norm where nothing is trained ([`device_norm`]), the optimizer's step ([`adam`]),
//! and products and convolutions by chosen kernels ([`product`]); all else they compose from Burn's
//! operations.

mod adam;
mod attention;
mod attention_kernels;
mod blocked;
pub mod conv;
#[cfg(feature = "cuda")]
mod cube;
#[cfg(feature = "cuda")]
mod cube_block;
pub mod device_norm;
mod direct;
mod formulas;
mod gelu;
pub mod group_norm;
mod group_norm_kernels;
mod im2col;
mod kernels;
mod lora_linear;
mod modulation;
#[cfg(any(test, feature = "cuda"))]
mod nvidia;
mod product;
pub mod resize;
mod rms_norm;
mod rotary;
mod simd;
mod tape;
mod term;
#[cfg(test)]
mod testing;
mod token_attention;
mod token_modulation;
mod upsampling;

use burn::tensor::{DType, Device, Tensor};

pub use adam::{AdamNumbers, adam_step, sum_of_squares};
pub use attention::attention;
pub use attention_kernels::MAX_SCORES;
pub use blocked::{block_rows, blocked_attention};
pub use gelu::gelu_tanh;
pub use lora_linear::lora_linear;
pub use modulation::{gated_add, norm_modulate};
pub use product::{affine, convolved, product};
pub use rms_norm::rms_norm;
pub use rotary::{norm_rotate, rotate, swap_table};
pub use token_attention::blocked_attention_by_token;
pub use token_modulation::{gate_onto, scale_shift};

/// Width of the heads that `nvidia/cuda/attention.cu` is made for: that of CogVideoX and of
/// LTX-Video.
pub const TILED_HEAD: usize = 64;

/// Whether the operations of this module apply to `x`.
pub fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().without_autodiff() == Device::flex()
}
