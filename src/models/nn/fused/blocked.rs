//! Attention for GPUs: in blocks of queries, so that no score matrix of the whole sequence exists.
//!
//! Burn has a fused kernel for the forward pass on GPUs and none for the backward pass: on a tape
//! its attention keeps all scores. Here nothing but inputs and output is kept; the backward pass
//! makes the probabilities of one block after the other again. Products are of the inputs' type,
//! softmax is in f32. All of it is made of backend operations, so the CPU can prove what a GPU
//! computes.

#[cfg(feature = "cuda")]
use burn::backend::fusion::custom::TensorSpec;
use burn::{
    backend::{
        Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, ops::ModuleOps,
        tensor::FloatTensor,
    },
    tensor::{DType, FloatDType, Shape, Slice, Tensor, ops::AttentionModuleOptions},
};

use super::{product::Product, tape::record};

/// Most scores of one block: 1 GiB in f32.
pub const MAX_DEVICE_SCORES: usize = 1 << 28;
/// The fused kernel takes whole tiles of queries; with other counts it makes all scores.
const TILE: usize = 128;

/// Scaled dot-product attention of `[B, heads, S, D]`.
pub fn blocked_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let [batch, heads, queries, _] = q.dims();
    let rows = block_rows(batch * heads, queries, k.dims()[2]);
    in_blocks([q, k, v], rows)
}

fn in_blocks([q, k, v]: [Tensor<4>; 3], rows: usize) -> Tensor<4> {
    let (output, _) = Dispatch::attention_in_blocks(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        rows,
    );
    Tensor::from_dispatch(output)
}

/// Queries per block: blocks of equal size, in whole tiles.
pub fn block_rows(maps: usize, queries: usize, keys: usize) -> usize {
    let most = (MAX_DEVICE_SCORES / (maps * keys)).max(1);
    queries.div_ceil(queries.div_ceil(most)).next_multiple_of(TILE)
}

/// The operation as Burn dispatches it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub trait BlockedAttention: Product {
    /// See [`blocked_attention`]; `rows` are the queries of a block. With it what the backend wants
    /// to see again in [`Self::attention_grads`], of the shape `[B, heads, S]` and in f32.
    #[fusion(meta = |q, _, _, _| (q.clone(), TensorSpec::new(levels_shape(&q.shape), DType::F32)))]
    fn attention_in_blocks(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rows: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients with respect to `q`, `k` and `v`, from the output and what came with it.
    #[fusion(meta = |q, k, v, _, _, _, _| (q.clone(), k.clone(), v.clone()))]
    fn attention_grads(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        output: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        rows: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        // This backward pass makes the levels again.
        drop(kept);
        let [dq, dk, dv] = backward::<Self>([&q, &k, &v], &output, &grad, rows);
        (dq, dk, dv)
    }
}

/// Queries of all heads.
fn levels_shape(q: &Shape) -> Shape {
    [q[0], q[1], q[2]].into()
}

/// What is no number, where a backend keeps nothing for the backward pass: nobody may take it for
/// levels.
pub(super) fn nothing_kept<B: Backend>(q: &FloatTensor<B>) -> FloatTensor<B> {
    let shape = levels_shape(&q.shape());
    B::float_full(shape, f32::NAN.into(), &q.device(), FloatDType::F32)
}

impl BlockedAttention for Flex {
    fn attention_in_blocks(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rows: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let out = forward::<Self>([&q, &k, &v], rows, |q, k, v| {
            Self::attention(q, k, v, None, None, AttentionModuleOptions::default())
        });
        (out, nothing_kept::<Self>(&q))
    }
}

impl<B: BlockedAttention, C: CheckpointStrategy> BlockedAttention for Autodiff<B, C> {
    fn attention_in_blocks(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rows: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        on_tape::<B, C>(
            [&q, &k, &v],
            |[q, k, v]| B::attention_in_blocks(q, k, v, rows),
            move |[q, k, v], [output, levels], grad| {
                B::attention_grads(q, k, v, output, levels, grad, rows)
            },
        )
    }
}

/// The output of attention and its levels.
type Attended<B> = (FloatTensor<B>, FloatTensor<B>);
/// Gradients with respect to queries, keys and values.
type Grads<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// Puts attention on the tape: `forward` gives the output and its levels, from which `backward`
/// gives the gradients.
pub(super) fn on_tape<B: Backend, C: CheckpointStrategy>(
    recorded: [&FloatTensor<Autodiff<B, C>>; 3],
    forward: impl FnOnce([FloatTensor<B>; 3]) -> Attended<B>,
    backward: impl FnOnce([FloatTensor<B>; 3], [FloatTensor<B>; 2], FloatTensor<B>) -> Grads<B>
    + Clone
    + Send
    + 'static,
) -> Attended<Autodiff<B, C>> {
    let inputs = recorded.map(|tensor| tensor.primitive().clone());
    let (output, levels) = forward(inputs.clone());
    let kept = [output.clone(), levels.clone()];
    let output = record::<B, C, _, _>(recorded, output, move |grad, _| {
        let (dq, dk, dv) = backward(inputs, kept, grad);
        [Some(dq), Some(dk), Some(dv)]
    });
    (output, <Autodiff<B, C> as AutodiffBackend>::from_inner(levels))
}

/// `fused` is the backend's own kernel, which takes whole tiles of queries.
pub(super) fn forward<B: Product>(
    [q, k, v]: [&FloatTensor<B>; 3],
    rows: usize,
    fused: impl Fn(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let blocks = ranges(q.shape()[2], rows).map(|(start, len)| {
        let q = slice::<B>(q, start, len);
        if q.dtype() == DType::F32 {
            // The fused kernel computes in tiles of f16, whatever it is given.
            return mixed::<B>(&q, k, v.clone());
        }
        let out = fused(pad::<B>(q, rows), k.clone(), v.clone());
        slice::<B>(&out, 0, len)
    });
    join::<B>(blocks.collect())
}

/// The same by scores that are written down.
pub(super) fn mixed<B: Product>(
    q: &FloatTensor<B>,
    k: &FloatTensor<B>,
    v: FloatTensor<B>,
) -> FloatTensor<B> {
    let p = B::float_cast(probabilities::<B>(q, k), FloatDType::from(v.dtype()));
    B::product(p, v)
}

/// The gradients with respect to `q`, `k` and `v`.
pub(super) fn backward<B: Product>(
    [q, k, v]: [&FloatTensor<B>; 3],
    output: &FloatTensor<B>,
    grad: &FloatTensor<B>,
    rows: usize,
) -> [FloatTensor<B>; 3] {
    let dtype = FloatDType::from(q.dtype());
    let (mut dq, mut dk, mut dv) = (Vec::new(), None, None);
    for (start, len) in ranges(q.shape()[2], rows) {
        let [q, grad, output] = [q, grad, output].map(|x| slice::<B>(x, start, len));
        // In the inputs' type from here on: the map is read three times, and memory is what it
        // costs.
        let p = B::float_cast(probabilities::<B>(&q, k), dtype);
        add::<B>(&mut dv, B::product(B::float_transpose(p.clone()), grad.clone()));
        let ds = B::float_cast(scores_grad::<B>([p, output, grad], [&q, v]), dtype);
        dq.push(B::product(ds.clone(), k.clone()));
        add::<B>(&mut dk, B::product(B::float_transpose(ds), q));
    }
    [join::<B>(dq), dk.expect("at least one block"), dv.expect("at least one block")]
}

/// `softmax(q k^T / sqrt(D))` in f32.
fn probabilities<B: Product>(q: &FloatTensor<B>, k: &FloatTensor<B>) -> FloatTensor<B> {
    let scores = B::product(q.clone(), B::float_transpose(k.clone()));
    let scaled = || B::float_mul_scalar(widened::<B>(scores.clone()), scale::<B>(q).into());
    let most = B::float_max_dim(scaled(), 3);
    // Made twice, so that compilers of elementwise operations write down neither.
    let weights = || B::float_exp(B::float_sub(scaled(), most.clone()));
    let total = B::float_sum_dim(weights(), 3);
    B::float_div(weights(), total)
}

/// The gradient of `q k^T`, in f32, from probabilities, output and its gradient.
fn scores_grad<B: Product>(
    [p, output, grad]: [FloatTensor<B>; 3],
    [q, v]: [&FloatTensor<B>; 2],
) -> FloatTensor<B> {
    let dp = B::product(grad.clone(), B::float_transpose(v.clone()));
    let means = B::float_mul(widened::<B>(output), widened::<B>(grad));
    let centred = B::float_sub(widened::<B>(dp), B::float_sum_dim(means, 3));
    B::float_mul_scalar(B::float_mul(widened::<B>(p), centred), scale::<B>(q).into())
}

fn scale<B: Backend>(q: &FloatTensor<B>) -> f64 {
    1.0 / (q.shape()[3] as f64).sqrt()
}

fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(x, FloatDType::F32)
}

/// Start and length of each block.
pub(super) fn ranges(queries: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..queries).step_by(rows).map(move |start| (start, rows.min(queries - start)))
}

/// Rows of `x` from `start` on.
pub(super) fn slice<B: Backend>(x: &FloatTensor<B>, start: usize, len: usize) -> FloatTensor<B> {
    if len == x.shape()[2] {
        return x.clone();
    }
    let range = Slice::new(start as isize, Some((start + len) as isize), 1);
    B::float_slice(x.clone(), &[Slice::full(), Slice::full(), range])
}

/// Rows of zeros behind `x`, up to `rows`.
fn pad<B: Backend>(x: FloatTensor<B>, rows: usize) -> FloatTensor<B> {
    let mut missing = x.shape();
    missing[2] = rows - missing[2];
    if missing[2] == 0 {
        return x;
    }
    let zeros = B::float_zeros(missing, &x.device(), x.dtype().into());
    B::float_cat(vec![x, zeros], 2)
}

/// The rows of all blocks, one behind the other.
pub(super) fn join<B: Backend>(mut blocks: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    if blocks.len() == 1 { blocks.remove(0) } else { B::float_cat(blocks, 2) }
}

/// Adds to a sum that begins with its first part.
pub(super) fn add<B: Backend>(total: &mut Option<FloatTensor<B>>, x: FloatTensor<B>) {
    *total = Some(match total.take() {
        Some(total) => B::float_add(total, x),
        None => x,
    });
}

#[cfg(test)]
mod tests {
    use burn::tensor::module;

    use super::{
        super::testing::{agree, random},
        *,
    };

    const DIMS: [usize; 4] = [2, 3, 37, 16];

    fn definition([q, k, v]: [Tensor<4>; 3]) -> Tensor<4> {
        module::attention(q, k, v, None, None, AttentionModuleOptions::default())
    }

    fn inputs() -> [Tensor<1>; 3] {
        [(); 3].map(|()| random([DIMS.iter().product()]))
    }

    #[test]
    fn blocks_agree_with_the_definition() {
        for rows in [8, 16, 37, 128] {
            let shaped = |x: [Tensor<1>; 3]| x.map(|x| x.reshape(DIMS));
            agree(&inputs(), |x| in_blocks(shaped(x), rows), |x| definition(shaped(x)));
        }
    }

    /// In half precision the forward pass is the backend's own kernel on padded queries.
    #[test]
    fn in_bf16_values_and_gradients_stay_within_its_rounding() {
        let exact = inputs().map(|x| x.reshape::<4, _>(DIMS));
        let weight = random(DIMS);
        let run = |dtype: FloatDType, f: &dyn Fn([Tensor<4>; 3]) -> Tensor<4>| {
            let leaves = exact.clone().map(|x| x.autodiff().require_grad());
            let y = f(leaves.clone().map(|x| x.cast(dtype))).cast(FloatDType::F32);
            let grads = (y.clone() * weight.clone()).sum().backward();
            let [q, k, v] = leaves.map(|leaf| leaf.grad(&grads).unwrap());
            [y.inner(), q, k, v]
        };
        let wanted = run(FloatDType::F32, &definition);
        for rows in [8, 64] {
            let found = run(FloatDType::BF16, &|x| in_blocks(x, rows));
            for (found, wanted) in found.into_iter().zip(&wanted) {
                let scale = wanted.clone().abs().max().into_scalar::<f32>();
                let error = (found - wanted.clone()).abs().max().into_scalar::<f32>() / scale;
                assert!(error < 2e-2, "{rows} rows: {error}");
            }
        }
    }

    /// With other numbers of keys than of queries, as towards a text.
    #[test]
    fn gradients_are_like_their_inputs() {
        let shaped = |len: usize| random::<4>([2, 3, len, 16]).into_dispatch();
        let [q, k, v, out, grad] = [7, 5, 5, 7, 7].map(shaped);
        let kept = random::<3>([2, 3, 7]).into_dispatch();
        let (dq, dk, dv) = Dispatch::attention_grads(q, k, v, out, kept, grad, 8);
        let found = [dq, dk, dv].map(|grad| Tensor::<4>::from_dispatch(grad).dims()[2]);
        assert_eq!(found, [7, 5, 5]);
    }

    #[test]
    fn blocks_are_even_whole_tiles_and_bounded() {
        assert_eq!(block_rows(6, 37, 37), 128);
        // The paper's setting: two clips of 2926 tokens, 48 heads.
        assert_eq!(block_rows(96, 2926, 2926), 768);
        let rows = block_rows(48, 45_106, 45_106);
        assert!(rows == 128 && 48 * 45_106 * rows < 2 * MAX_DEVICE_SCORES, "{rows}");
    }
}
