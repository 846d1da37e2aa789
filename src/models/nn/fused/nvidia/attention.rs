//! Attention in tiles, without a score that is written down: `cuda/attention.cu`.
#![expect(unsafe_code, reason = "kernels take addresses of tensors, which are held here")]

use std::f32::consts::LOG2_E;

use burn::tensor::DType;
use burn_cubecl::{
    kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};

use super::{
    kernels::{Argument, Launch, View, launch},
    tensors::{aligned, on_device, told},
};

/// Elements of a head that the kernels are made for: those of CogVideoX and of LTX-Video.
const HEAD: usize = 64;
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

/// Softmax of `q k^T / 8`, times `v`; nothing where the kernels are not made for it.
pub fn attention(q: &CubeTensor, k: &CubeTensor, v: &CubeTensor) -> Option<CubeTensor> {
    let sizes = Sizes::of(q, k, v)?;
    let [q, k, v] = [q, k, v].map(readable);
    let out = empty(&q, q.meta.shape().to_vec(), DType::BF16);
    let done = on_device([&q, &k, &v, &out], |at| {
        aligned(&at)?;
        let views = views([&q, &k, &v, &out], at);
        let attention = Launch {
            kernel: c"attention",
            blocks: sizes.blocks(sizes.queries, 2 * ROWS),
            arguments: views.into_iter().chain(sizes.counts()).collect(),
        };
        // SAFETY: the tensors are held, and of these sizes.
        unsafe { launch(vec![attention]) }
    });
    told(done, &sizes).then_some(out)
}

/// The gradients with respect to `q`, `k` and `v` behind each other along their rows.
pub fn attention_grads(
    [q, k, v]: [&CubeTensor; 3],
    out: &CubeTensor,
    grad: &CubeTensor,
) -> Option<CubeTensor> {
    let sizes = Sizes::of(q, k, v)?;
    let like_q = |x: &CubeTensor| x.dtype == q.dtype && x.meta.shape() == q.meta.shape();
    if !like_q(out) || !like_q(grad) {
        return None;
    }
    let [q, k, v, out, grad] = [q, k, v, out, grad].map(readable);
    let [batch, heads] = [q.meta.shape()[0], q.meta.shape()[1]];
    let rows = sizes.queries + 2 * sizes.keys;
    let found = empty(&q, vec![batch, heads, rows, HEAD], DType::BF16);
    let [levels, means] =
        [(); 2].map(|()| empty(&q, vec![batch, heads, sizes.queries], DType::F32));
    let all = [&q, &k, &v, &out, &grad, &found, &levels, &means];
    let done = on_device(all, |at| {
        aligned(&at)?;
        let [.., levels, means] = at.map(Argument::Address);
        let given = [0, 1, 2, 3, 4, 5].map(|i| at[i]);
        let [q, k, v, out, grad, found] = views([&q, &k, &v, &out, &grad, &found], given);
        let behind = |rows: usize| match found {
            Argument::View(view) => {
                let bytes = rows * HEAD * DType::BF16.size();
                Argument::View(View { address: view.address + bytes as u64, ..view })
            }
            other => other,
        };
        let (dq, dk) = (behind(0), behind(sizes.queries));
        let dv = behind(sizes.queries + sizes.keys);
        let arguments = |own: &[Argument]| own.iter().copied().chain(sizes.counts()).collect();
        let [heads, queries, ..] = sizes.counts();
        let launches = vec![
            Launch {
                kernel: c"attention_levels",
                blocks: sizes.blocks(sizes.queries, 2 * ROWS),
                arguments: arguments(&[q, k, levels]),
            },
            Launch {
                kernel: c"attention_means",
                blocks: sizes.blocks(sizes.queries, WARPS),
                arguments: vec![out, grad, means, heads, queries],
            },
            Launch {
                kernel: c"attention_queries_grad",
                blocks: sizes.blocks(sizes.queries, ROWS),
                arguments: arguments(&[q, k, v, grad, dq, levels, means]),
            },
            Launch {
                kernel: c"attention_keys_grad",
                blocks: sizes.blocks(sizes.keys, ROWS),
                arguments: arguments(&[q, k, v, grad, dk, dv, levels, means]),
            },
        ];
        // SAFETY: the tensors are held, and of these sizes.
        unsafe { launch(launches) }
    });
    told(done, &sizes).then_some(found)
}

fn empty(like: &CubeTensor, shape: Vec<usize>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
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

fn views<const N: usize>(tensors: [&CubeTensor; N], at: [u64; N]) -> [Argument; N] {
    std::array::from_fn(|i| {
        let strides = tensors[i].meta.strides();
        let strides = [0, 1, 2].map(|axis| strides[axis] as i64);
        Argument::View(View { address: at[i], strides })
    })
}
