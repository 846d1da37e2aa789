//! Norm over the head and rotation of its pairs, in one pass.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{kernels, tape::record};

/// Layer norm over the head of `[B, S, heads, D]`, then rotation of its pairs, as
/// `[B, heads, S, D]`. `sin` is negative at even places.
pub fn norm_rotate(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    [cos, sin]: [Tensor<4>; 2],
    eps: f64,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fused_norm_rotate(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        eps,
    ))
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex)]
pub trait Rotation: Backend {
    /// See [`norm_rotate`].
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;
}

/// The backward pass, which only the tape calls.
pub trait RotationGrad: Rotation {
    /// The gradients with respect to `x`, `gamma` and `beta`.
    fn norm_rotate_grad(
        inputs: [FloatTensor<Self>; 5],
        eps: f64,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
}

impl Rotation for Flex {
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        kernels::norm_rotate([&x, &gamma, &beta, &cos, &sin], eps as f32)
    }
}

impl RotationGrad for Flex {
    fn norm_rotate_grad(
        inputs: [FloatTensor<Self>; 5],
        eps: f64,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        kernels::norm_rotate_grad(inputs.each_ref(), eps as f32, &grad)
    }
}

impl<B: RotationGrad, C: CheckpointStrategy> Rotation for Autodiff<B, C> {
    fn fused_norm_rotate(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let inputs = [&x, &gamma, &beta, &cos, &sin].map(|tensor| tensor.primitive().clone());
        let y = {
            let [x, gamma, beta, cos, sin] = inputs.clone();
            B::fused_norm_rotate(x, gamma, beta, cos, sin, eps)
        };
        record::<B, C, _, _>([&x, &gamma, &beta], y, move |grad, _| {
            B::norm_rotate_grad(inputs, eps, grad).map(Some)
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
        let tables = [cos.clone(), sin.clone()];
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
