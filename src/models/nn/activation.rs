//! Activations, written so that they cost few passes over memory.

use burn::tensor::{Tensor, activation::sigmoid};

pub use super::fused::gelu_tanh;

/// `x * sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    sigmoid(x.clone()) * x
}
