//! Products and convolutions by NVIDIA's libraries, wherever they are installed beside the driver, and
//! what a
//! transformer does between its products by kernels in CUDA C++.
//!
//! Burn's own kernels of products reach 11 to 27 % of an H100 through NVRTC, and each kind takes 0.5 to 7 s
//! to compile (`benches/results/2026-11-26-h100.md`); cuBLASLt and cuDNN have them compiled. Work still goes
//! through [`super::cube`] where a library is missing, or where a problem is none that it takes.

#[cfg(feature = "cuda")]
mod attention;
#[cfg(feature = "cuda")]
pub mod block;
#[cfg(feature = "cuda")]
mod cublas;
#[cfg(feature = "cuda")]
mod cudnn;
#[cfg(feature = "cuda")]
mod kernels;
mod problem;
#[cfg(feature = "cuda")]
mod queue;
#[cfg(feature = "cuda")]
mod tensors;

#[cfg(feature = "cuda")]
pub use attention::{attention, attention_grads};
#[cfg(feature = "cuda")]
pub use tensors::{convolved, product, product_and_bias, product_onto};
