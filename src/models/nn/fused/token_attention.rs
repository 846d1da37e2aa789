//! [`blocked`](super::blocked) attention between tokens whose heads lie beside each other.

#[cfg(feature = "cuda")]
use burn::{
    backend::fusion::custom::TensorSpec,
    tensor::{DType, Shape},
};
use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::blocked::{BlockedAttention, block_rows, on_tape};

/// Scaled dot-product attention of tokens `[B, S, heads D]`, as one operation: views cost as much
/// to ask for as work.
pub fn blocked_attention_by_token([q, k, v]: [Tensor<3>; 3], heads: usize) -> Tensor<3> {
    let (output, _) = Dispatch::attention_by_token(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        heads,
    );
    Tensor::from_dispatch(output)
}

/// The operations as Burn dispatches them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait TokenAttention: BlockedAttention {
    /// [`BlockedAttention::attention_in_blocks`] of tokens `[B, S, heads D]`, to the like.
    #[fusion(meta = |q, _, _, heads| {
        (q.clone(), TensorSpec::new(levels_by_token(&q.shape, *heads), DType::F32))
    })]
    fn attention_by_token(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v] = [q, k, v].map(|x| by_head::<Self>(x, heads));
        let rows = rows_of::<Self>(&q, &k);
        let (output, levels) = Self::attention_in_blocks(q, k, v, rows);
        (by_token::<Self>(output), levels)
    }

    /// [`BlockedAttention::attention_grads`] of tokens, likewise.
    #[fusion(meta = |q, k, v, _, _, _, _| (q.clone(), k.clone(), v.clone()))]
    fn attention_by_token_grads(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        output: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v, output, grad] = [q, k, v, output, grad].map(|x| by_head::<Self>(x, heads));
        let rows = rows_of::<Self>(&q, &k);
        let (dq, dk, dv) = Self::attention_grads(q, k, v, output, kept, grad, rows);
        let [dq, dk, dv] = [dq, dk, dv].map(by_token::<Self>);
        (dq, dk, dv)
    }
}

/// Queries of a block.
fn rows_of<B: Backend>(q: &FloatTensor<B>, k: &FloatTensor<B>) -> usize {
    let (q, k) = (q.shape(), k.shape());
    block_rows(q[0] * q[1], q[2], k[2])
}

/// Tokens `[B, S, heads D]` as `[B, heads, S, D]`, where they lie.
fn by_head<B: Backend>(x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let dims = x.shape();
    let split = B::float_reshape(x, [dims[0], dims[1], heads, dims[2] / heads].into());
    B::float_swap_dims(split, 1, 2)
}

/// The way back.
fn by_token<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dims = x.shape();
    let whole = [dims[0], dims[2], dims[1] * dims[3]];
    B::float_reshape(B::float_swap_dims(x, 1, 2), whole.into())
}

/// Queries of all heads.
#[cfg(feature = "cuda")]
fn levels_by_token(q: &Shape, heads: usize) -> Shape {
    [q[0], heads, q[1]].into()
}

impl TokenAttention for Flex {}

impl<B: TokenAttention, C: CheckpointStrategy> TokenAttention for Autodiff<B, C> {
    fn attention_by_token(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_tape::<B, C>(
            [&q, &k, &v],
            |[q, k, v]| B::attention_by_token(q, k, v, heads),
            move |[q, k, v], [output, levels], grad| {
                B::attention_by_token_grads(q, k, v, output, levels, grad, heads)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{module, ops::AttentionModuleOptions};

    use super::{
        super::testing::{agree, random},
        *,
    };

    /// Also towards a text, which is of another length.
    #[test]
    fn tokens_agree_with_their_heads() {
        let [b, heads, s, d] = [2, 3, 37, 16];
        for keys in [s, 5] {
            let inputs = [s, keys, keys].map(|len| random([b * heads * len * d]));
            let tokens = |[q, k, v]: [Tensor<1>; 3]| {
                let shaped = |x: Tensor<1>, len: usize| x.reshape([b, len, heads * d]);
                [shaped(q, s), shaped(k, keys), shaped(v, keys)]
            };
            agree(
                &inputs,
                |x| blocked_attention_by_token(tokens(x), heads),
                |x| {
                    let split = |x: Tensor<3>| {
                        let len = x.dims()[1];
                        x.reshape([b, len, heads, d]).swap_dims(1, 2)
                    };
                    definition(tokens(x).map(split)).swap_dims(1, 2).reshape([b, s, heads * d])
                },
            );
        }
    }

    fn definition([q, k, v]: [Tensor<4>; 3]) -> Tensor<4> {
        module::attention(q, k, v, None, None, AttentionModuleOptions::default())
    }
}
