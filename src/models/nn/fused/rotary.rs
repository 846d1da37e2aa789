//! Rotation of pairs by position, with a norm over the head before it or without.

#[cfg(feature = "cuda")]
use burn::{
    backend::fusion::{Fusion, FusionBackend},
    tensor::Shape,
};
use burn::{
    backend::{
        Autodiff, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Device, Tensor, TensorData},
};

use super::{
    formulas, kernels,
    product::Product,
    tape::{InputGradients, record},
};

/// Layer norm over the head of `[B, S, heads, D]`, then rotation of its pairs, as
/// `[B, heads, S, D]`. `sin` has opposite signs within a pair, negative at even places; `swap`
/// `[1, 1, D, D]` exchanges the partners.
pub fn norm_rotate(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    [cos, sin, swap]: [Tensor<4>; 3],
    eps: f64,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fused_norm_rotate(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        swap.into_dispatch(),
        eps,
    ))
}

/// Rotation of the pairs of `[B, S, D]` by the angles of `cos` and `sin` `[1, S, D]`, whose signs
/// are as for [`norm_rotate`]; `swap` exchanges the partners in a part of the last axis.
pub fn rotate(x: Tensor<3>, [cos, sin]: [Tensor<3>; 2], swap: Tensor<4>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::fused_rotate(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        swap.into_dispatch(),
    ))
}

/// A table `[1, 1, width, width]` that exchanges the partners of each pair.
pub fn swap_table(width: usize, device: &Device) -> Tensor<4> {
    let swaps = |at: usize| if at / width == (at % width) ^ 1 { 1.0f32 } else { 0.0 };
    let values: Vec<f32> = (0..width * width).map(swaps).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, width, width]), device)
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Rotation: Product {
    /// See [`norm_rotate`].
    #[fusion(dtype = x, shape = rotated_shape(x))]
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        formulas::norm_rotate::<Self>([&x, &gamma, &beta, &cos, &sin, &swap], eps)
    }

    /// See [`rotate`].
    #[fusion(dtype = x, shape = x)]
    fn fused_rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        formulas::rotate::<Self>([&x, &cos, &sin, &swap])
    }

    /// The gradient of [`norm_rotate`] with respect to `x` alone.
    #[fusion(dtype = x, shape = x)]
    fn fused_norm_rotate_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        formulas::norm_rotate_grad_of_x::<Self>([&x, &gamma, &cos, &sin, &swap], eps, grad)
    }

    /// The gradient of [`rotate`].
    #[fusion(dtype = grad, shape = grad)]
    fn fused_rotate_grad(
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        formulas::rotate_grad::<Self>([&cos, &sin, &swap], &grad)
    }
}

/// `[B, heads, S, D]` of `[B, S, heads, D]`.
#[cfg(feature = "cuda")]
fn rotated_shape(x: &Shape) -> Shape {
    [x[0], x[2], x[1], x[3]].into()
}

/// The backward pass, which only the tape calls.
pub trait RotationGrad: Rotation {
    /// The gradients with respect to `x`, `gamma` and `beta`.
    fn norm_rotate_grad(
        inputs: [FloatTensor<Self>; 6],
        eps: f64,
        grad: FloatTensor<Self>,
        wanted: [bool; 3],
    ) -> InputGradients<Self, 3> {
        if wanted == [true, false, false] {
            let [x, gamma, _, cos, sin, swap] = inputs;
            let dx = Self::fused_norm_rotate_grad(x, gamma, cos, sin, swap, grad, eps);
            return [Some(dx), None, None];
        }
        formulas::norm_rotate_grad::<Self>(inputs.each_ref(), eps, grad, wanted)
    }
}

#[cfg(feature = "cuda")]
impl<B: FusionBackend + Rotation> RotationGrad for Fusion<B> {}

impl Rotation for Flex {
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        if x.dtype() == DType::F32 {
            kernels::norm_rotate([&x, &gamma, &beta, &cos, &sin], eps as f32)
        } else {
            formulas::norm_rotate::<Self>([&x, &gamma, &beta, &cos, &sin, &swap], eps)
        }
    }
}

impl RotationGrad for Flex {
    fn norm_rotate_grad(
        inputs: [FloatTensor<Self>; 6],
        eps: f64,
        grad: FloatTensor<Self>,
        wanted: [bool; 3],
    ) -> InputGradients<Self, 3> {
        if grad.dtype() == DType::F32 {
            let [x, gamma, beta, cos, sin, _] = inputs.each_ref();
            kernels::norm_rotate_grad([x, gamma, beta, cos, sin], eps as f32, &grad).map(Some)
        } else {
            formulas::norm_rotate_grad::<Self>(inputs.each_ref(), eps, grad, wanted)
        }
    }
}

impl<B: RotationGrad, C: CheckpointStrategy> Rotation for Autodiff<B, C> {
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let inputs =
            [&x, &gamma, &beta, &cos, &sin, &swap].map(|tensor| tensor.primitive().clone());
        let y = {
            let [x, gamma, beta, cos, sin, swap] = inputs.clone();
            B::fused_norm_rotate(x, gamma, beta, cos, sin, swap, eps)
        };
        record::<B, C, _, _>([&x, &gamma, &beta], y, move |grad, wanted| {
            B::norm_rotate_grad(inputs, eps, grad, wanted)
        })
    }

    fn fused_rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        swap: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let tables = [&cos, &sin, &swap].map(|tensor| tensor.primitive().clone());
        let [cos, sin, swap] = tables.clone();
        let y = B::fused_rotate(x.primitive().clone(), cos, sin, swap);
        record::<B, C, _, _>([&x], y, move |grad, _| {
            let [cos, sin, swap] = tables;
            [Some(B::fused_rotate_grad(cos, sin, swap, grad))]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{agree, random},
        *,
    };
    use crate::models::nn::LayerNorm;

    #[test]
    fn rotation_agrees_with_its_parts() {
        let (b, s, h, d) = (2, 7, 3, 16);
        let [cos, sin] = [0, 1].map(|_| random([1, s, 1, d]));
        let swap = swap_table(d, &cos.device());
        let tables = [cos.clone(), sin.clone(), swap];
        agree(
            &[b * s * h * d, d, d].map(|len| random([len])),
            |[x, gamma, beta]| {
                norm_rotate(x.reshape([b, s, h, d]), [gamma, beta], tables.clone(), 1e-6)
            },
            |[x, gamma, beta]| {
                let norm = LayerNorm { gamma, beta, eps: 1e-6 };
                let x = norm.forward(x.reshape([b, s, h, d]));
                let partners = x.clone().reshape([b, s, h, d / 2, 2]).flip([4]);
                let y = x * cos.clone() + partners.reshape([b, s, h, d]) * sin.clone();
                y.swap_dims(1, 2)
            },
        );
    }
}
