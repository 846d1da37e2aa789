//! Scaled dot-product attention: the one place where the kernel is chosen.

use burn::tensor::{Tensor, module, ops::AttentionModuleOptions};

use super::fused;

/// `softmax(q k^T / sqrt(D)) v` of `[B, heads, S, D]` tensors, without a mask.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    if fused::applies(&q) {
        return fused::attention(q, k, v);
    }
    module::attention(q, k, v, None, None, AttentionModuleOptions::default())
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

/// The scores of [`attention`] over a sequence of `tokens`. On the CPU they are made in blocks of
/// queries. On a GPU a pass that is trained through makes all of them: burn has no backward pass of
/// its fused kernel.
pub fn attention_memory(
    on_host: bool,
    batch: usize,
    heads: usize,
    tokens: usize,
) -> AttentionMemory {
    let scores = (batch * heads * tokens) as u64 * tokens as u64;
    if !on_host {
        return AttentionMemory { kept: 3 * scores, working: 3 * scores, forward: 0 };
    }
    // Halves of a batch are computed side by side.
    let halves = [batch.div_ceil(2), batch / 2].map(|half| (half * heads * tokens * tokens) as u64);
    let blocks = halves.map(|half| half.min(fused::MAX_SCORES as u64));
    let kept = if blocks == halves { scores } else { 0 };
    let block = blocks.iter().sum();
    AttentionMemory { kept, working: 3 * block, forward: block }
}
