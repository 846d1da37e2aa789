//! Low-rank adapters: `y = W x + b + (alpha / rank) B (A x)`.
//!
//! Target sets: spec C.4. Files: diffusers' `pytorch_lora_weights.safetensors`, spec C.5.

use serde::{Deserialize, Serialize};

use super::params::{Param, Params};

/// Which modules get a low-rank branch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LoraTargets {
    /// Query and key projections.
    Qk,
    /// Value and output projections.
    Vo,
    /// All four attention projections.
    #[default]
    Qkvo,
    /// The attention projections and the feed-forward layers of every block.
    AllLinearBlocks,
    /// Every linear layer, also modulation, embeddings and output.
    AllLinear,
}

/// The trained factors of one adapter.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Rank of every branch.
    pub rank: usize,
    /// The branch is scaled by `alpha / rank`.
    pub alpha: f64,
    /// `<module path>.lora_A.weight` `[rank, in]` and `<module path>.lora_B.weight` `[out, rank]`.
    pub factors: Params,
}

impl Adapter {
    /// The scale of the branch.
    pub fn scale(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let rank = self.rank as f64;
        self.alpha / rank
    }

    /// The factors `(A, B)` of a module.
    pub fn factors(&self, module: &str) -> Option<(&Param, &Param)> {
        let a = self.factors.0.get(&format!("{module}.lora_A.weight"))?;
        let b = self.factors.0.get(&format!("{module}.lora_B.weight"))?;
        Some((a, b))
    }
}
