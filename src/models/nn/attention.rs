//! Scaled dot-product attention: the one place where the kernel is chosen.

use burn::tensor::{Tensor, module, ops::AttentionModuleOptions};

/// `softmax(q k^T / sqrt(D)) v` of `[B, heads, S, D]` tensors, without a mask.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    module::attention(q, k, v, None, None, AttentionModuleOptions::default())
}
