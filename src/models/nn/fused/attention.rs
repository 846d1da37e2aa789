//! Scaled dot-product attention whose memory is bounded, with its own backward pass.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{attention_kernels as kernels, tape::record};

/// Scaled dot-product attention of `[B, heads, S, D]`.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::fused_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
    ))
}

/// The result of attention, with its probabilities `[B, heads, S, S]` where they are small.
#[derive(Clone, Debug)]
pub struct Attended<B: Backend> {
    pub(super) output: FloatTensor<B>,
    pub(super) probabilities: Option<FloatTensor<B>>,
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex)]
pub trait Attention: Backend {
    /// See [`attention`].
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The passes that only the tape calls.
pub trait AttentionGrad: Attention {
    /// Attention that keeps what its backward pass wants.
    fn attention_kept(inputs: &[FloatTensor<Self>; 3]) -> Attended<Self>;
    /// The gradients with respect to `q`, `k` and `v`.
    fn attention_grad(
        inputs: [FloatTensor<Self>; 3],
        kept: Attended<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3];
}

impl Attention for Flex {
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        kernels::forward(&q, &k, &v).output
    }
}

impl AttentionGrad for Flex {
    fn attention_kept([q, k, v]: &[FloatTensor<Self>; 3]) -> Attended<Self> {
        kernels::forward(q, k, v)
    }

    fn attention_grad(
        inputs: [FloatTensor<Self>; 3],
        kept: Attended<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        kernels::backward(inputs.each_ref(), &kept, &grad)
    }
}

impl<B: AttentionGrad, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let recorded = [&q, &k, &v];
        let inputs = recorded.map(|tensor| tensor.primitive().clone());
        let kept = B::attention_kept(&inputs);
        record::<B, C, _, _>(recorded, kept.output.clone(), move |grad, _| {
            B::attention_grad(inputs, kept, grad).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{module, ops::AttentionModuleOptions};

    use super::{
        super::testing::{agree, random},
        *,
    };

    #[test]
    fn attention_agrees_with_its_definition() {
        let dims = [2, 3, 37, 16];
        let shaped = |x: [Tensor<1>; 3]| x.map(|x| x.reshape(dims));
        agree(
            &[(); 3].map(|()| random([dims.iter().product()])),
            |x| {
                let [q, k, v] = shaped(x);
                attention(q, k, v)
            },
            |x| {
                let [q, k, v] = shaped(x);
                module::attention(q, k, v, None, None, AttentionModuleOptions::default())
            },
        );
    }
}
