//! GELU in one pass, and its gradient.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{kernels, tape::record};

/// The tanh form of GELU.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex)]
pub trait Gelu: Backend {
    /// See [`gelu_tanh`].
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The backward pass, which only the tape calls.
pub trait GeluGrad: Gelu {
    /// The gradient with respect to `x`.
    fn gelu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Gelu for Flex {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        kernels::gelu(&x)
    }
}

impl GeluGrad for Flex {
    fn gelu_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        kernels::gelu_grad(&x, &grad)
    }
}

impl<B: GeluGrad, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let input = x.primitive().clone();
        let y = B::fused_gelu(input.clone());
        record::<B, C, _, _>([&x], y, move |grad, _| [Some(B::gelu_grad(input, grad))])
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
