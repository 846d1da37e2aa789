//! Root-mean-square norm that keeps nothing but its input.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{formulas, tape::record};

/// `weight x / sqrt(mean(x^2) + eps)` along the last axis, in f32; `weight` is `[D]` or `[1]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait RmsNormOp: Backend {
    /// See [`rms_norm`].
    #[fusion(dtype = x, shape = x)]
    fn fused_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        formulas::rms_norm::<Self>([&x, &weight], eps)
    }

    /// The gradient with respect to `x` alone.
    #[fusion(dtype = x, shape = x)]
    fn fused_rms_norm_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        formulas::rms_norm_grad_of_x::<Self>([&x, &weight], eps, &grad)
    }
}

impl RmsNormOp for Flex {}

impl<B: RmsNormOp, C: CheckpointStrategy> RmsNormOp for Autodiff<B, C> {
    fn fused_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let recorded = [&x, &weight];
        let inputs = recorded.map(|tensor| tensor.primitive().clone());
        let [x, weight] = inputs.clone();
        let y = B::fused_rms_norm(x, weight, eps);
        record::<B, C, _, _>(recorded, y, move |grad, wanted| {
            if wanted == [true, false] {
                let [x, weight] = inputs;
                return [Some(B::fused_rms_norm_grad(x, weight, grad, eps)), None];
            }
            formulas::rms_norm_grad::<B>(inputs.each_ref(), eps, &grad, wanted)
        })
    }
}
