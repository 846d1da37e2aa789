//! Activations, written so that they cost few passes over memory.

use burn::tensor::{Tensor, activation::sigmoid};

use super::fused;

const TWICE_SQRT_2_OVER_PI: f64 = 1.595_769_121_605_730_7;

/// `x * sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    sigmoid(x.clone()) * x
}

/// The tanh form of GELU, `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
///
/// `0.5 (1 + tanh(u))` is `sigmoid(2u)`, which saves a pass.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if fused::applies(&x) {
        return fused::gelu_tanh(x);
    }
    let square = x.clone() * x.clone();
    let slope = square * (TWICE_SQRT_2_OVER_PI * 0.044_715) + TWICE_SQRT_2_OVER_PI;
    sigmoid(slope * x.clone()) * x
}
