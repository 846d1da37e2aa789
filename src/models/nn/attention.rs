//! Scaled dot-product attention: the one place where the kernel is chosen.

use burn::tensor::Tensor;

use super::fused;

/// `softmax(q k^T / sqrt(D)) v` of `[B, heads, S, D]` tensors, without a mask.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    if fused::applies(&q) { fused::attention(q, k, v) } else { fused::blocked_attention(q, k, v) }
}

/// The same of tokens `[B, S, heads D]`, to the like.
pub fn attention_by_token([q, k, v]: [Tensor<3>; 3], heads: usize) -> Tensor<3> {
    if !fused::applies(&q) {
        return fused::blocked_attention_by_token([q, k, v], heads);
    }
    let [b, s, width] = q.dims();
    let [q, k, v] = [q, k, v].map(|x| {
        let len = x.dims()[1];
        x.reshape([b, len, heads, width / heads]).swap_dims(1, 2)
    });
    fused::attention(q, k, v).swap_dims(1, 2).reshape([b, s, width])
}

/// Scores of attention that are in memory, in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionMemory {
    /// Kept by each call for the backward pass.
    pub kept: u64,
    /// Alive at once in the backward pass of one call.
    pub working: u64,
    /// Alive at once in a call that keeps nothing.
    pub forward: u64,
}

/// The scores of [`attention`] over a sequence of `tokens` by heads of `width`, made in blocks of
/// queries. On a GPU values are of two bytes, but softmax is in f32, and none are kept; heads of
/// the width that the kernels are made for have none at all. (Where those cannot be compiled, on a
/// card before compute capability 8.0, there are some, and more than is told.)
pub fn attention_memory(
    on_host: bool,
    batch: usize,
    [heads, width]: [usize; 2],
    tokens: usize,
) -> AttentionMemory {
    if !on_host && width == fused::TILED_HEAD {
        return AttentionMemory { kept: 0, working: 0, forward: 0 };
    }
    let scores = (batch * heads * tokens) as u64 * tokens as u64;
    if !on_host {
        let rows = fused::block_rows(batch * heads, tokens, tokens).min(tokens);
        let block = (batch * heads * rows) as u64 * tokens as u64;
        // Going back, probabilities, their gradient and that of the scores, in f32 and in bf16.
        // Going forward, what choosing a kernel may try.
        return AttentionMemory { kept: 0, working: 9 * block, forward: 2 * block };
    }
    // Halves of a batch are computed side by side.
    let halves = [batch.div_ceil(2), batch / 2].map(|half| (half * heads * tokens * tokens) as u64);
    let blocks = halves.map(|half| half.min(fused::MAX_SCORES as u64));
    let kept = if blocks == halves { scores } else { 0 };
    let block = blocks.iter().sum();
    AttentionMemory { kept, working: 3 * block, forward: block }
}
