//! GELU in one pass, and its gradient.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Tensor},
};

use super::{formulas, kernels, tape::record};

/// The tanh form of GELU, `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait Gelu: Backend {
    /// See [`gelu_tanh`].
    #[fusion(dtype = x, shape = x)]
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        formulas::gelu::<Self>(&x)
    }

    /// The gradient with respect to `x`.
    #[fusion(dtype = x, shape = x)]
    fn fused_gelu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        formulas::gelu_grad::<Self>(&x, &grad)
    }
}

impl Gelu for Flex {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if x.dtype() == DType::F32 { kernels::gelu(&x) } else { formulas::gelu::<Self>(&x) }
    }

    fn fused_gelu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        if grad.dtype() == DType::F32 {
            kernels::gelu_grad(&x, &grad)
        } else {
            formulas::gelu_grad::<Self>(&x, &grad)
        }
    }
}

impl<B: Gelu, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let input = x.primitive().clone();
        let y = B::fused_gelu(input.clone());
        record::<B, C, _, _>([&x], y, move |grad, _| [Some(B::fused_gelu_grad(input, grad))])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{agree, random},
        *,
    };

    #[test]
    fn gelu_agrees_with_its_definition() {
        agree(
            &[random([999]) * 4.0],
            |[x]| gelu_tanh(x),
            |[x]| {
                let u = (x.clone() + x.clone() * x.clone() * x.clone() * 0.044_715) * 0.797_884_56;
                x * (u.tanh() + 1.0) * 0.5
            },
        );
    }
}
