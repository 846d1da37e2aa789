//! Attention in blocks of queries: matrix products by the backend, softmax in one pass.
//!
//! Memory is bounded by [`MAX_SCORES`], whatever the length: blocks of queries see all keys, and
//! the backward pass computes probabilities again unless there was only one block.

use burn::backend::{Flex, TensorMetadata, ops::FloatTensorOps};
use rayon::prelude::*;

use super::{
    attention::Attended,
    blocked::{add, join, ranges, slice},
    kernels::{self, Values},
};

/// Scores of one block.
pub const MAX_SCORES: usize = 1 << 22;

/// `softmax(q k^T / sqrt(D)) v`.
pub fn forward(q: &Values, k: &Values, v: &Values) -> Attended<Flex> {
    let (len, rows) = blocks(q, k);
    let mut outputs = Vec::new();
    let mut kept = None;
    for (start, size) in ranges(len, rows) {
        let p = probabilities(&slice::<Flex>(q, start, size), k);
        outputs.push(Flex::float_matmul(p.clone(), v.clone()));
        kept = (size == len).then_some(p);
    }
    Attended { output: join::<Flex>(outputs), probabilities: kept }
}

/// The gradients with respect to `q`, `k` and `v`.
pub fn backward([q, k, v]: [&Values; 3], kept: &Attended<Flex>, grad: &Values) -> [Values; 3] {
    let (len, rows) = blocks(q, k);
    let scale = scale(q);
    let (mut dq, mut dk, mut dv) = (Vec::new(), None, None);
    for (start, size) in ranges(len, rows) {
        let [q, grad, output] = [q, grad, &kept.output].map(|x| slice::<Flex>(x, start, size));
        let p = match &kept.probabilities {
            Some(p) => p.clone(),
            None => probabilities(&q, k),
        };
        add::<Flex>(&mut dv, Flex::float_matmul(Flex::float_transpose(p.clone()), grad.clone()));
        let dp = Flex::float_matmul(grad.clone(), Flex::float_transpose(v.clone()));
        let ds = scores_grad([&p, &dp, &output, &grad], scale);
        dq.push(Flex::float_matmul(ds.clone(), k.clone()));
        add::<Flex>(&mut dk, Flex::float_matmul(Flex::float_transpose(ds), q));
    }
    [join::<Flex>(dq), dk.expect("at least one block"), dv.expect("at least one block")]
}

/// Number of queries, and of those in one block.
fn blocks(q: &Values, k: &Values) -> (usize, usize) {
    let (q, k) = (q.shape(), k.shape());
    (q[2], (MAX_SCORES / (q[0] * q[1] * k[2])).clamp(1, q[2]))
}

fn scale(q: &Values) -> f32 {
    1.0 / (q.shape()[3] as f32).sqrt()
}

fn probabilities(q: &Values, k: &Values) -> Values {
    let scale = scale(q);
    let scores = Flex::float_matmul(q.clone(), Flex::float_transpose(k.clone()));
    let mut scores = scores.to_contiguous();
    let keys = k.shape()[2];
    let values: &mut [f32] = scores.storage_mut();
    values.par_chunks_mut(keys).with_min_len(16).for_each(|row| kernels::softmax(row, scale));
    scores
}

/// The gradient of `q k^T` from that of the probabilities.
fn scores_grad(inputs: [&Values; 4], scale: f32) -> Values {
    let [p, dp, output, grad] = inputs.map(Values::to_contiguous);
    let (keys, dim) = (p.shape()[3], output.shape()[3]);
    let mut out = vec![0.0; kernels::slice(&p).len()];
    let rows = kernels::slice(&p).par_chunks(keys).zip(kernels::slice(&dp).par_chunks(keys));
    let ends = kernels::slice(&output).par_chunks(dim).zip(kernels::slice(&grad).par_chunks(dim));
    out.par_chunks_mut(keys).zip(rows.zip(ends)).with_min_len(16).for_each(
        |(out, ((p, dp), (output, grad)))| kernels::softmax_grad(out, [p, dp, output, grad], scale),
    );
    kernels::tensor(out, &p)
}
