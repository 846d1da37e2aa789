//! Attention in tiles, without a score that is written down: `cuda/attention.cu`.
#![expect(unsafe_code, reason = "kernels trust the sizes that they are told")]

use std::f32::consts::LOG2_E;

use burn::{backend::ops::FloatTensorOps, tensor::DType};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

use super::{
    super::TILED_HEAD as HEAD,
    kernels::{Argument, Launch, launch},
    tensors::empty,
};

/// Queries or keys of a block of threads, and warps of it.
const ROWS: usize = 64;
const WARPS: usize = 4;
/// Elements that are copied at once.
const PIECE: usize = 8;

/// The sizes of a problem.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    maps: u32,
    heads: i32,
    queries: usize,
    keys: usize,
}

impl Sizes {
    /// Those of `[B, heads, S, 64]` in bf16, if the kernels are made for them.
    fn of(q: &CubeTensor, k: &CubeTensor, v: &CubeTensor) -> Option<Self> {
        let [q_dims, k_dims, v_dims] = [q, k, v].map(|x| x.meta.shape().to_vec());
        let [batch, heads, queries, width]: [usize; 4] = q_dims[..].try_into().ok()?;
        let keys = k_dims[2];
        let fits = [q, k, v].iter().all(|x| x.dtype == DType::BF16)
            && width == HEAD
            && k_dims == v_dims
            && k_dims == [batch, heads, keys, width]
            && ![batch, heads, queries, keys].contains(&0);
        let count = |size: usize| i32::try_from(size).ok();
        count(queries.max(keys))?;
        // The hardware counts blocks on this axis in 16 bits.
        let maps = u16::try_from(batch * heads).ok()?;
        fits.then_some(Self { maps: maps.into(), heads: count(heads)?, queries, keys })
    }

    fn counts(self) -> [Argument; 4] {
        [
            Argument::Count(self.heads),
            Argument::Count(self.queries as i32),
            Argument::Count(self.keys as i32),
            Argument::Value(LOG2_E / (HEAD as f32).sqrt()),
        ]
    }

    fn blocks(self, rows: usize, of: usize) -> [u32; 2] {
        [rows.div_ceil(of) as u32, self.maps]
    }
}

/// Softmax of `q k^T / 8`, times `v`, and the levels of its rows; nothing where the kernels are not
/// made for it.
pub fn attention(
    q: &CubeTensor,
    k: &CubeTensor,
    v: &CubeTensor,
) -> Option<(CubeTensor, CubeTensor)> {
    let sizes = Sizes::of(q, k, v)?;
    let [q, k, v] = [q, k, v].map(readable);
    let out = empty_by_token(&q);
    let levels = empty(&q, q.meta.shape().to_vec()[..3].to_vec(), DType::F32);
    let attention = Launch {
        kernel: c"attention",
        blocks: sizes.blocks(sizes.queries, 2 * ROWS),
        arguments: views([&q, &k, &v, &out])
            .into_iter()
            .chain([Argument::Tensor(4)])
            .chain(sizes.counts())
            .collect(),
    };
    // SAFETY: the tensors are of these sizes.
    unsafe { launch(&[&q, &k, &v], &[&out, &levels], vec![attention]) }.then_some((out, levels))
}

/// The gradients with respect to `q`, `k` and `v`, from the output, its levels and its gradient.
pub fn attention_grads(
    [q, k, v]: [&CubeTensor; 3],
    [out, levels, grad]: [&CubeTensor; 3],
) -> Option<[CubeTensor; 3]> {
    let sizes = Sizes::of(q, k, v)?;
    let like_q = |x: &CubeTensor| x.dtype == q.dtype && x.meta.shape() == q.meta.shape();
    let known =
        levels.dtype == DType::F32 && levels.meta.shape().to_vec() == q.meta.shape().to_vec()[..3];
    if !like_q(out) || !like_q(grad) || !known {
        return None;
    }
    let [q, k, v, out, grad] = [q, k, v, out, grad].map(readable);
    let levels = into_contiguous(levels.clone());
    let means = empty(&q, levels.meta.shape().to_vec(), DType::F32);
    let [dq, dk] = [&q, &k].map(empty_like);
    // Values are not rotated, so their gradient goes back to tokens as it is.
    let dv = empty_by_token(&v);
    let [of_q, of_k, of_v, of_out, of_grad] = views([&q, &k, &v, &out, &grad]);
    let level = Argument::Tensor(5);
    let [to_q, to_k, to_v] = views_from(6, [&dq, &dk, &dv]);
    let mean = Argument::Tensor(9);
    let arguments = |own: &[Argument]| own.iter().copied().chain(sizes.counts()).collect();
    let [heads, queries, ..] = sizes.counts();
    let launches = vec![
        Launch {
            kernel: c"attention_means",
            blocks: sizes.blocks(sizes.queries, WARPS),
            arguments: vec![of_out, of_grad, mean, heads, queries],
        },
        Launch {
            kernel: c"attention_queries_grad",
            blocks: sizes.blocks(sizes.queries, ROWS),
            arguments: arguments(&[of_q, of_k, of_v, of_grad, to_q, level, mean]),
        },
        Launch {
            kernel: c"attention_keys_grad",
            blocks: sizes.blocks(sizes.keys, ROWS),
            arguments: arguments(&[of_q, of_k, of_v, of_grad, to_k, to_v, level, mean]),
        },
    ];
    let inputs = [&q, &k, &v, &out, &grad, &levels];
    // SAFETY: the tensors are of these sizes.
    unsafe { launch(&inputs, &[&dq, &dk, &dv, &means], launches) }.then_some([dq, dk, dv])
}

/// A tensor like `[B, heads, S, D]` whose tokens lie together, as what follows reads them.
fn empty_by_token(like: &CubeTensor) -> CubeTensor {
    let dims = like.meta.shape();
    let made = empty(like, vec![dims[0], dims[2], dims[1], dims[3]], DType::BF16);
    CubeBackend::float_swap_dims(made, 1, 2)
}

/// A tensor that lies as this one does: where tokens lie together, their gradient goes back to
/// tokens as well.
fn empty_like(x: &CubeTensor) -> CubeTensor {
    let strides = x.meta.strides();
    if strides[1] < strides[2] {
        empty_by_token(x)
    } else {
        empty(x, x.meta.shape().to_vec(), DType::BF16)
    }
}

/// The tensor as the kernels read it: itself, or a copy with contiguous and aligned rows.
fn readable(x: &CubeTensor) -> CubeTensor {
    let strides = x.meta.strides();
    let rows = strides[..3].iter().all(|stride| stride % PIECE == 0);
    // A slice may begin anywhere.
    let whole =
        x.handle.offset_start.unwrap_or(0).is_multiple_of((PIECE * DType::BF16.size()) as u64);
    if strides[3] == 1 && rows && whole { x.clone() } else { into_contiguous(x.clone()) }
}

fn views<const N: usize>(tensors: [&CubeTensor; N]) -> [Argument; N] {
    views_from(0, tensors)
}

/// Those of tensors from this place of the list on.
fn views_from<const N: usize>(first: usize, tensors: [&CubeTensor; N]) -> [Argument; N] {
    std::array::from_fn(|i| {
        let strides = tensors[i].meta.strides();
        Argument::View(first + i, [0, 1, 2].map(|axis| strides[axis] as i64))
    })
}
