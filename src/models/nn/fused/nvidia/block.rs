//! What a transformer's block does around its products, by `cuda/block.cu`: bf16, and nothing but
//! the gradients of activations.
#![expect(unsafe_code, reason = "kernels trust the sizes that they are told")]

use burn::tensor::{DType, Shape};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};

use super::{
    kernels::{Argument, Launch, THREADS, launch},
    tensors::{are, empty},
};

/// Values that a thread reads at once, and how often it may do so in a row.
const WIDTH: usize = 8;
const MOST: usize = 4;
/// Rows of a block of threads, where a warp has one; pairs of values that a thread may have.
const WARPS: usize = THREADS as usize / 32;
const PAIRS: usize = 4;

/// The last axis, if rows of it fit the kernels, and the rows.
fn rows(x: &CubeTensor) -> Option<[i32; 2]> {
    let dims = x.meta.shape().to_vec();
    let width = *dims.last()?;
    let rows: usize = dims[..dims.len() - 1].iter().product();
    let fits = width % WIDTH == 0 && width <= MOST * WIDTH * THREADS as usize && rows > 0;
    fits.then_some([i32::try_from(rows).ok()?, i32::try_from(width).ok()?])
}

/// Whether these are of one shape.
fn alike(x: &CubeTensor, y: &CubeTensor) -> bool {
    x.meta.shape() == y.meta.shape()
}

/// Whether these are vectors along the last axis.
fn are_along(width: i32, vectors: &[&CubeTensor]) -> bool {
    vectors.iter().all(|vector| vector.meta.shape().to_vec() == [width as usize])
}

/// Calls `kernel` on contiguous tensors, the last of which is made here, of this shape.
fn run<const N: usize, const M: usize>(
    kernel: &'static std::ffi::CStr,
    inputs: [&CubeTensor; N],
    shape: Shape,
    blocks: i32,
    arguments: impl FnOnce([Argument; M]) -> Vec<Argument>,
) -> Option<CubeTensor> {
    const { assert!(M == N + 1, "the output is behind the inputs") };
    let inputs = inputs.map(|x| into_contiguous(x.clone()));
    let out = empty(&inputs[0], shape, DType::BF16);
    let arguments = arguments(std::array::from_fn(Argument::Tensor));
    let launched = Launch { kernel, blocks: [blocks as u32, 1], arguments };
    // SAFETY: callers have asked for the sizes of the tensors.
    unsafe { launch(&inputs.each_ref(), &[&out], vec![launched]) }.then_some(out)
}

/// The sizes of `[B, S, D]` beside a modulation `[B, 6, D]`.
fn modulated(x: &CubeTensor, chunks: &CubeTensor) -> Option<([i32; 2], i32)> {
    let [rows, width] = rows(x)?;
    let tokens = i32::try_from(x.meta.shape()[1]).ok()?;
    let wanted = [x.meta.shape()[0], 6, width as usize];
    (chunks.meta.shape().to_vec() == wanted).then_some(([rows, width], tokens))
}

/// See [`norm_modulate`](super::super::norm_modulate).
pub fn norm_modulate(
    [x, gamma, beta, chunks]: [&CubeTensor; 4],
    text_len: usize,
    eps: f64,
) -> Option<CubeTensor> {
    let ([rows, width], tokens) = modulated(x, chunks)?;
    let all = [x, gamma, beta, chunks];
    if !are(DType::BF16, &all) || !are_along(width, &[gamma, beta]) {
        return None;
    }
    run(c"norm_modulate", all, x.meta.shape().clone(), rows, |at: [Argument; 5]| {
        at.into_iter().chain(counts([tokens, text_len as i32, width])).chain([value(eps)]).collect()
    })
}

/// The gradient with respect to `x`.
pub fn norm_modulate_grad(
    [x, gamma, chunks, grad]: [&CubeTensor; 4],
    text_len: usize,
    eps: f64,
) -> Option<CubeTensor> {
    let ([rows, width], tokens) = modulated(x, chunks)?;
    let all = [x, gamma, chunks, grad];
    if !are(DType::BF16, &all) || !are_along(width, &[gamma]) || !alike(x, grad) {
        return None;
    }
    run(c"norm_modulate_grad", all, x.meta.shape().clone(), rows, |at: [Argument; 5]| {
        at.into_iter().chain(counts([tokens, text_len as i32, width])).chain([value(eps)]).collect()
    })
}

/// See [`gated_add`](super::super::gated_add).
pub fn gated_add([x, y, chunks]: [&CubeTensor; 3], text_len: usize) -> Option<CubeTensor> {
    let ([rows, width], tokens) = modulated(y, chunks)?;
    let all = [x, y, chunks];
    if !are(DType::BF16, &all) || !alike(x, y) {
        return None;
    }
    run(c"gated_add", all, y.meta.shape().clone(), rows, |at: [Argument; 4]| {
        at.into_iter().chain(counts([tokens, text_len as i32, width])).collect()
    })
}

/// The gradient with respect to `y`.
pub fn gated_grad([grad, chunks]: [&CubeTensor; 2], text_len: usize) -> Option<CubeTensor> {
    let ([rows, width], tokens) = modulated(grad, chunks)?;
    let all = [grad, chunks];
    if !are(DType::BF16, &all) {
        return None;
    }
    run(c"gated_add", all, grad.meta.shape().clone(), rows, |at: [Argument; 3]| {
        // Nothing is added to.
        let none = [Argument::Nothing].into_iter();
        none.chain(at).chain(counts([tokens, text_len as i32, width])).collect()
    })
}

/// The sizes of `[B, S, D]` beside a table `[B, N, rows, D]` that has these rows: rows, tokens,
/// groups, rows of the table, width.
fn tabled(x: &CubeTensor, table: &CubeTensor, used: &[usize]) -> Option<[i32; 5]> {
    let [rows, width] = rows(x)?;
    let [batch, tokens, _]: [usize; 3] = x.meta.shape().to_vec().try_into().ok()?;
    let [of, groups, entries, wide]: [usize; 4] = table.meta.shape().to_vec().try_into().ok()?;
    let fits = of == batch
        && wide == width as usize
        && groups > 0
        && tokens % groups == 0
        && used.iter().all(|row| *row < entries);
    let small = |size: usize| i32::try_from(size).ok();
    let sizes = [rows, small(tokens)?, small(groups)?, small(entries)?, width];
    (fits && x.dtype == DType::BF16 && table.dtype == DType::F32).then_some(sizes)
}

/// See [`scale_shift`](super::super::scale_shift); without a shift, its gradient.
pub fn scale_shift(
    [x, table]: [&CubeTensor; 2],
    shift: Option<usize>,
    scale: usize,
) -> Option<CubeTensor> {
    let [rows, tokens, groups, entries, width] = tabled(x, table, &[shift.unwrap_or(0), scale])?;
    let shift = shift.map_or(-1, |index| index as i32);
    run(c"scale_shift", [x, table], x.meta.shape().clone(), rows, |at: [Argument; 3]| {
        let sizes = [tokens, groups, entries, width, shift, scale as i32];
        at.into_iter().chain(counts(sizes)).collect()
    })
}

/// See [`gate_onto`](super::super::gate_onto).
pub fn gate_onto([x, y, table]: [&CubeTensor; 3], gate: usize) -> Option<CubeTensor> {
    let [rows, tokens, groups, entries, width] = tabled(y, table, &[gate])?;
    if !are(DType::BF16, &[x]) || x.meta.shape() != y.meta.shape() {
        return None;
    }
    run(c"gate_onto", [x, y, table], y.meta.shape().clone(), rows, |at: [Argument; 4]| {
        let sizes = [tokens, groups, entries, width, gate as i32];
        at.into_iter().chain(counts(sizes)).collect()
    })
}

/// The gradient with respect to `y`.
pub fn gate_grad([grad, table]: [&CubeTensor; 2], gate: usize) -> Option<CubeTensor> {
    let [rows, tokens, groups, entries, width] = tabled(grad, table, &[gate])?;
    run(c"gate_onto", [grad, table], grad.meta.shape().clone(), rows, |at: [Argument; 3]| {
        // Nothing is added to.
        let none = [Argument::Nothing].into_iter();
        let sizes = [tokens, groups, entries, width, gate as i32];
        none.chain(at).chain(counts(sizes)).collect()
    })
}

/// The weight of a norm as a vector in bf16, or as the only value in f32.
fn weights(weight: &CubeTensor, width: i32, at: Argument) -> Option<[Argument; 2]> {
    let nothing = Argument::Nothing;
    match (weight.dtype, weight.meta.shape().num_elements()) {
        (DType::BF16, len) if len == width as usize => Some([at, nothing]),
        (DType::F32, 1) => Some([nothing, at]),
        _ => None,
    }
}

/// See [`rms_norm`](super::super::rms_norm).
pub fn rms_norm([x, weight]: [&CubeTensor; 2], eps: f64) -> Option<CubeTensor> {
    let [rows, width] = rows(x)?;
    weights(weight, width, Argument::Count(0))?;
    if !are(DType::BF16, &[x]) {
        return None;
    }
    run(c"rms_norm", [x, weight], x.meta.shape().clone(), rows, |[x, at, y]: [Argument; 3]| {
        let weights = weights(weight, width, at).expect("asked before");
        [x].into_iter()
            .chain(weights)
            .chain([y])
            .chain(counts([width]))
            .chain([value(eps)])
            .collect()
    })
}

/// The gradient with respect to `x`.
pub fn rms_norm_grad([x, weight, grad]: [&CubeTensor; 3], eps: f64) -> Option<CubeTensor> {
    let [rows, width] = rows(x)?;
    weights(weight, width, Argument::Count(0))?;
    if !are(DType::BF16, &[x, grad]) || !alike(x, grad) {
        return None;
    }
    let all = [x, weight, grad];
    run(c"rms_norm_grad", all, x.meta.shape().clone(), rows, |[x, at, grad, dx]: [Argument; 4]| {
        let weights = weights(weight, width, at).expect("asked before");
        let tensors = [x].into_iter().chain(weights).chain([grad, dx]);
        tensors.chain(counts([width])).chain([value(eps)]).collect()
    })
}

/// See [`rotate`](super::super::rotate); `back` is the gradient.
pub fn rotate([x, cos, sin]: [&CubeTensor; 3], back: bool) -> Option<CubeTensor> {
    let [rows, width] = rows(x)?;
    let tokens = x.meta.shape()[1];
    let table = vec![1, tokens, width as usize];
    let fits = [cos, sin].iter().all(|angles| angles.meta.shape().to_vec() == table);
    if !fits || !are(DType::BF16, &[x]) || !are(DType::F32, &[cos, sin]) {
        return None;
    }
    run(c"rotate", [x, cos, sin], x.meta.shape().clone(), rows, |at: [Argument; 4]| {
        at.into_iter().chain(counts([tokens as i32, width, i32::from(back)])).collect()
    })
}

/// The sizes of `[B, S, heads, D]` beside tables `[1, S, 1, D]`: tokens, heads, width, rows.
fn heads(x: &CubeTensor, tables: [&CubeTensor; 2]) -> Option<[i32; 4]> {
    let [batch, tokens, heads, width]: [usize; 4] = x.meta.shape().to_vec().try_into().ok()?;
    let table = vec![1, tokens, 1, width];
    let fits = width % 2 == 0
        && width <= 64 * PAIRS
        && tables.iter().all(|angles| angles.meta.shape().to_vec() == table);
    let rows = i32::try_from(batch * tokens * heads).ok()?;
    i32::try_from(tokens * width).ok()?;
    (fits && rows > 0).then_some([tokens as i32, heads as i32, width as i32, rows])
}

/// See [`norm_rotate`](super::super::norm_rotate).
pub fn norm_rotate([x, gamma, beta, cos, sin]: [&CubeTensor; 5], eps: f64) -> Option<CubeTensor> {
    let sizes = heads(x, [cos, sin])?;
    let vectors = are_along(sizes[2], &[gamma, beta]);
    if !vectors || !are(DType::BF16, &[x, gamma, beta]) || !are(DType::F32, &[cos, sin]) {
        return None;
    }
    let dims = x.meta.shape();
    let shape = [dims[0], dims[2], dims[1], dims[3]].into();
    let blocks = (sizes[3] as usize).div_ceil(WARPS) as i32;
    run(c"norm_rotate", [x, gamma, beta, cos, sin], shape, blocks, |at: [Argument; 6]| {
        at.into_iter().chain(counts(sizes)).chain([value(eps)]).collect()
    })
}

/// The gradient with respect to `x`.
pub fn norm_rotate_grad(
    [x, gamma, cos, sin, grad]: [&CubeTensor; 5],
    eps: f64,
) -> Option<CubeTensor> {
    let sizes = heads(x, [cos, sin])?;
    let dims = x.meta.shape();
    let fits = are_along(sizes[2], &[gamma])
        && grad.meta.shape().to_vec() == [dims[0], dims[2], dims[1], dims[3]];
    if !fits || !are(DType::BF16, &[x, gamma, grad]) || !are(DType::F32, &[cos, sin]) {
        return None;
    }
    // The kernel takes any strides but that of the last axis.
    let strides = grad.meta.strides().to_vec();
    let readable = strides[3] == 1 && strides[..3].iter().all(|stride| stride % 2 == 0);
    let grad = &if readable { grad.clone() } else { into_contiguous(grad.clone()) };
    let strides = grad.meta.strides();
    let strides = [0, 1, 2].map(|axis| strides[axis] as i64);
    let blocks = (sizes[3] as usize).div_ceil(WARPS) as i32;
    let [x, gamma, cos, sin] = [x, gamma, cos, sin].map(|x| into_contiguous(x.clone()));
    let shape = x.meta.shape().clone();
    let dx = empty(&x, shape, DType::BF16);
    let mut tensors: [Argument; 6] = std::array::from_fn(Argument::Tensor);
    tensors[4] = Argument::View(4, strides);
    let launched = Launch {
        kernel: c"norm_rotate_grad",
        blocks: [blocks as u32, 1],
        arguments: tensors.into_iter().chain(counts(sizes)).chain([value(eps)]).collect(),
    };
    // SAFETY: the tensors are of these sizes.
    unsafe { launch(&[&x, &gamma, &cos, &sin, grad], &[&dx], vec![launched]) }.then_some(dx)
}

/// Pieces of a tensor, if it is made of whole ones.
fn pieces(x: &CubeTensor) -> Option<i32> {
    let elements = x.meta.shape().num_elements();
    let fits = x.dtype == DType::BF16 && elements > 0 && elements.is_multiple_of(WIDTH);
    fits.then_some(i32::try_from(elements / WIDTH).ok()?)
}

/// See [`gelu_tanh`](super::super::gelu_tanh).
pub fn gelu(x: &CubeTensor) -> Option<CubeTensor> {
    let pieces = pieces(x)?;
    let blocks = (pieces as u32).div_ceil(THREADS) as i32;
    run(c"gelu", [x], x.meta.shape().clone(), blocks, |at: [Argument; 2]| {
        at.into_iter().chain(counts([pieces])).collect()
    })
}

/// The gradient with respect to `x`.
pub fn gelu_grad([x, grad]: [&CubeTensor; 2]) -> Option<CubeTensor> {
    let pieces = pieces(x)?;
    if grad.dtype != DType::BF16 || !alike(x, grad) {
        return None;
    }
    let blocks = (pieces as u32).div_ceil(THREADS) as i32;
    run(c"gelu_grad", [x, grad], x.meta.shape().clone(), blocks, |at: [Argument; 3]| {
        at.into_iter().chain(counts([pieces])).collect()
    })
}

fn counts<const N: usize>(counts: [i32; N]) -> [Argument; N] {
    counts.map(Argument::Count)
}

fn value(value: f64) -> Argument {
    Argument::Value(value as f32)
}
