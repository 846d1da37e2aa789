//! The operations on f32 slices: rows in parallel, vector instructions chosen at run time.
#![expect(clippy::inline_always, reason = "what is not inlined has no vector instructions")]

use burn::{
    backend::{Flex, TensorMetadata, tensor::FloatTensor},
    tensor::TensorData,
};
use rayon::prelude::*;

use super::simd::{LANES, exp, sigmoid, sum, vectorized};

/// An f32 tensor of the CPU backend.
pub type Values = FloatTensor<Flex>;

const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769_2;
const CUBIC: f32 = 0.044_715;
/// Values per parallel task of an elementwise operation.
const TASK: usize = 16 * 1024;
pub fn gelu(x: &Values) -> Values {
    let x = x.to_contiguous();
    let input = slice(&x);
    let mut out = vec![0.0; input.len()];
    out.par_chunks_mut(TASK).zip(input.par_chunks(TASK)).for_each(|(out, x)| {
        vectorized!(|| {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * sigmoid(TWICE_SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
            }
        });
    });
    tensor(out, &x)
}

pub fn gelu_grad(x: &Values, grad: &Values) -> Values {
    let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
    let (input, upstream) = (slice(&x), slice(&grad));
    let mut out = vec![0.0; input.len()];
    let tasks = out.par_chunks_mut(TASK).zip(input.par_chunks(TASK).zip(upstream.par_chunks(TASK)));
    tasks.for_each(|(out, (x, grad))| {
        vectorized!(|| {
            for (out, (x, grad)) in out.iter_mut().zip(x.iter().zip(grad)) {
                let s = sigmoid(TWICE_SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
                let slope = TWICE_SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
                *out = grad * (s + x * s * (1.0 - s) * slope);
            }
        });
    });
    tensor(out, &x)
}

/// Rows of a joint sequence: which sample, and which of the six chunks.
struct Rows {
    len: usize,
    dim: usize,
    text_len: usize,
}

impl Rows {
    fn new(x: &Values, text_len: usize) -> Self {
        let shape = x.shape();
        Self { len: shape[1], dim: shape[2], text_len }
    }

    /// Where chunk `index` (of the video) of the stream of row `row` starts.
    fn chunk(&self, row: usize, index: usize) -> usize {
        let (sample, place) = (row / self.len, row % self.len);
        let index = if place < self.text_len { index + 3 } else { index };
        (sample * 6 + index) * self.dim
    }
}

pub fn norm_modulate(inputs: [&Values; 4], text_len: usize, eps: f32) -> Values {
    let [x, gamma, beta, chunks] = inputs.map(Values::to_contiguous);
    let rows = Rows::new(&x, text_len);
    let dim = rows.dim;
    let (input, gamma, beta, chunks) = (slice(&x), slice(&gamma), slice(&beta), slice(&chunks));
    let mut out = vec![0.0; input.len()];
    out.par_chunks_mut(dim).zip(input.par_chunks(dim)).enumerate().with_min_len(16).for_each(
        |(row, (out, x))| {
            let shift = &chunks[rows.chunk(row, 0)..][..dim];
            let scale = &chunks[rows.chunk(row, 1)..][..dim];
            vectorized!(|| {
                let (mean, rstd) = statistics(x, eps);
                for i in 0..dim {
                    let normed = (x[i] - mean) * rstd * gamma[i] + beta[i];
                    out[i] = normed * (1.0 + scale[i]) + shift[i];
                }
            });
        },
    );
    tensor(out, &x)
}

pub fn norm_modulate_grad(
    inputs: [&Values; 4],
    text_len: usize,
    eps: f32,
    grad: &Values,
) -> [Values; 4] {
    let [x, gamma, beta, chunks] = inputs.map(Values::to_contiguous);
    let grad = grad.to_contiguous();
    let rows = Rows::new(&x, text_len);
    let (dim, per_sample) = (rows.dim, rows.len * rows.dim);
    let (input, upstream) = (slice(&x), slice(&grad));
    let (scales, weights, biases) = (slice(&chunks), slice(&gamma), slice(&beta));
    let mut dx = vec![0.0; input.len()];
    let mut dchunks = vec![0.0; scales.len()];
    let affine: Vec<Vec<f32>> = dx
        .par_chunks_mut(per_sample)
        .zip(dchunks.par_chunks_mut(6 * dim))
        .enumerate()
        .map(|(sample, (dx, dchunks))| {
            let mut affine = vec![0.0; 2 * dim];
            let (dgamma, dbeta) = affine.split_at_mut(dim);
            let (mut normed, mut dnormed) = (vec![0.0; dim], vec![0.0; dim]);
            for (place, dx) in dx.chunks_mut(dim).enumerate() {
                let row = sample * rows.len + place;
                let x = &input[row * dim..][..dim];
                let grad = &upstream[row * dim..][..dim];
                let scale = &scales[rows.chunk(row, 1)..][..dim];
                let at = rows.chunk(row, 0) - sample * 6 * dim;
                let (dshift, dscale) = dchunks[at..][..2 * dim].split_at_mut(dim);
                vectorized!(|| {
                    let (mean, rstd) = statistics(x, eps);
                    for i in 0..dim {
                        let unit = (x[i] - mean) * rstd;
                        let modulated = grad[i] * (1.0 + scale[i]);
                        dshift[i] += grad[i];
                        dscale[i] += grad[i] * (unit * weights[i] + biases[i]);
                        dgamma[i] += modulated * unit;
                        dbeta[i] += modulated;
                        normed[i] = unit;
                        dnormed[i] = modulated * weights[i];
                    }
                    norm_grad(dx, &normed, &dnormed, rstd);
                });
            }
            affine
        })
        .collect();
    let [dgamma, dbeta] = add_up(&affine, dim);
    [tensor(dx, &x), tensor(dgamma, &gamma), tensor(dbeta, &beta), tensor(dchunks, &chunks)]
}

pub fn gated_add(inputs: [&Values; 3], text_len: usize) -> Values {
    let [x, y, chunks] = inputs.map(Values::to_contiguous);
    let rows = Rows::new(&x, text_len);
    let dim = rows.dim;
    let (left, right, chunks) = (slice(&x), slice(&y), slice(&chunks));
    let mut out = vec![0.0; left.len()];
    let pairs = left.par_chunks(dim).zip(right.par_chunks(dim));
    out.par_chunks_mut(dim).zip(pairs).enumerate().with_min_len(32).for_each(
        |(row, (out, (x, y)))| {
            let gate = &chunks[rows.chunk(row, 2)..][..dim];
            vectorized!(|| {
                for i in 0..dim {
                    out[i] = x[i] + gate[i] * y[i];
                }
            });
        },
    );
    tensor(out, &x)
}

pub fn gated_add_grad(inputs: [&Values; 2], text_len: usize, grad: &Values) -> [Values; 2] {
    let [y, chunks] = inputs.map(Values::to_contiguous);
    let grad = grad.to_contiguous();
    let rows = Rows::new(&y, text_len);
    let (dim, per_sample) = (rows.dim, rows.len * rows.dim);
    let (right, gates, upstream) = (slice(&y), slice(&chunks), slice(&grad));
    let mut dy = vec![0.0; right.len()];
    let mut dchunks = vec![0.0; gates.len()];
    dy.par_chunks_mut(per_sample).zip(dchunks.par_chunks_mut(6 * dim)).enumerate().for_each(
        |(sample, (dy, dchunks))| {
            for (place, dy) in dy.chunks_mut(dim).enumerate() {
                let row = sample * rows.len + place;
                let y = &right[row * dim..][..dim];
                let grad = &upstream[row * dim..][..dim];
                let at = rows.chunk(row, 2);
                let gate = &gates[at..][..dim];
                let dgate = &mut dchunks[at - sample * 6 * dim..][..dim];
                vectorized!(|| {
                    for i in 0..dim {
                        dy[i] = grad[i] * gate[i];
                        dgate[i] += grad[i] * y[i];
                    }
                });
            }
        },
    );
    [tensor(dy, &y), tensor(dchunks, &chunks)]
}

pub fn norm_rotate(inputs: [&Values; 5], eps: f32) -> Values {
    let [x, gamma, beta, cos, sin] = inputs.map(Values::to_contiguous);
    let shape = x.shape();
    let [b, s, heads, dim] = [shape[0], shape[1], shape[2], shape[3]];
    let (input, gamma, beta) = (slice(&x), slice(&gamma), slice(&beta));
    let (cos, sin) = (slice(&cos), slice(&sin));
    let mut out = vec![0.0; input.len()];
    out.par_chunks_mut(s * dim).enumerate().for_each(|(index, out)| {
        let (sample, head) = (index / heads, index % heads);
        let mut normed = vec![0.0; dim];
        for (place, out) in out.chunks_mut(dim).enumerate() {
            let x = &input[((sample * s + place) * heads + head) * dim..][..dim];
            let (cos, sin) = (&cos[place * dim..][..dim], &sin[place * dim..][..dim]);
            vectorized!(|| {
                let (mean, rstd) = statistics(x, eps);
                for i in 0..dim {
                    normed[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
                }
                for i in (0..dim).step_by(2) {
                    out[i] = normed[i] * cos[i] + normed[i + 1] * sin[i];
                    out[i + 1] = normed[i + 1] * cos[i + 1] + normed[i] * sin[i + 1];
                }
            });
        }
    });
    Values::from_data(TensorData::new(out, [b, heads, s, dim]))
}

pub fn norm_rotate_grad(inputs: [&Values; 5], eps: f32, grad: &Values) -> [Values; 3] {
    let [x, gamma, beta, cos, sin] = inputs.map(Values::to_contiguous);
    let grad = grad.to_contiguous();
    let shape = x.shape();
    let [s, heads, dim] = [shape[1], shape[2], shape[3]];
    let (input, weights, upstream) = (slice(&x), slice(&gamma), slice(&grad));
    let (cos, sin) = (slice(&cos), slice(&sin));
    let mut dx = vec![0.0; input.len()];
    let affine: Vec<Vec<f32>> = dx
        .par_chunks_mut(s * heads * dim)
        .enumerate()
        .map(|(sample, dx)| {
            let mut affine = vec![0.0; 2 * dim];
            let (dgamma, dbeta) = affine.split_at_mut(dim);
            let (mut normed, mut dnormed) = (vec![0.0; dim], vec![0.0; dim]);
            for (row, dx) in dx.chunks_mut(dim).enumerate() {
                let (place, head) = (row / heads, row % heads);
                let x = &input[(sample * s * heads + row) * dim..][..dim];
                let grad = &upstream[((sample * heads + head) * s + place) * dim..][..dim];
                let (cos, sin) = (&cos[place * dim..][..dim], &sin[place * dim..][..dim]);
                vectorized!(|| {
                    let (mean, rstd) = statistics(x, eps);
                    for i in (0..dim).step_by(2) {
                        dnormed[i] = grad[i] * cos[i] + grad[i + 1] * sin[i + 1];
                        dnormed[i + 1] = grad[i + 1] * cos[i + 1] + grad[i] * sin[i];
                    }
                    for i in 0..dim {
                        let unit = (x[i] - mean) * rstd;
                        dgamma[i] += dnormed[i] * unit;
                        dbeta[i] += dnormed[i];
                        normed[i] = unit;
                        dnormed[i] *= weights[i];
                    }
                    norm_grad(dx, &normed, &dnormed, rstd);
                });
            }
            affine
        })
        .collect();
    let [dgamma, dbeta] = add_up(&affine, dim);
    [tensor(dx, &x), tensor(dgamma, &gamma), tensor(dbeta, &beta)]
}

/// `softmax(scale * row)` in place.
pub fn softmax(row: &mut [f32], scale: f32) {
    vectorized!(|| {
        let largest = largest(row);
        for value in row.iter_mut() {
            *value = exp((*value - largest) * scale);
        }
        let factor = 1.0 / sum(row, |_, x| x);
        for value in row.iter_mut() {
            *value *= factor;
        }
    });
}

/// The gradient of one row of scores: `scale * p * (dp - output . grad)`.
pub fn softmax_grad(out: &mut [f32], [p, dp, output, grad]: [&[f32]; 4], scale: f32) {
    vectorized!(|| {
        let along = sum(output, |i, x| x * grad[i]);
        for i in 0..out.len() {
            out[i] = scale * p[i] * (dp[i] - along);
        }
    });
}

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Mean, and one over the standard deviation.
#[inline(always)]
fn statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let len = x.len() as f32;
    let mean = sum(x, |_, x| x) / len;
    let variance = sum(x, |_, x| (x - mean) * (x - mean)) / len;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// The gradient through `(x - mean) * rstd`.
#[inline(always)]
fn norm_grad(dx: &mut [f32], normed: &[f32], dnormed: &[f32], rstd: f32) {
    let len = dx.len() as f32;
    let mean = sum(dnormed, |_, d| d) / len;
    let along = sum(dnormed, |i, d| d * normed[i]) / len;
    for i in 0..dx.len() {
        dx[i] = rstd * (dnormed[i] - mean - normed[i] * along);
    }
}

/// Adds up each sample's gradients, in order, so that results do not depend on threads.
fn add_up(samples: &[Vec<f32>], dim: usize) -> [Vec<f32>; 2] {
    let mut total = vec![0.0; 2 * dim];
    for sample in samples {
        for (total, value) in total.iter_mut().zip(sample) {
            *total += value;
        }
    }
    let beta = total.split_off(dim);
    [total, beta]
}

/// The values of a contiguous tensor.
pub fn slice(x: &Values) -> &[f32] {
    x.as_slice().expect("contiguous f32")
}

/// A tensor of the shape of `like`.
pub fn tensor(values: Vec<f32>, like: &Values) -> Values {
    Values::from_data(TensorData::new(values, like.shape()))
}
