//! Learning rates along a run, as `get_scheduler` defines them (`src/diffusers/optimization.py` at
//! v0.42.1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate changes over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// The same at every step.
    #[default]
    Constant,
    /// Rises linearly from 0 over the warmup steps, then stays.
    ConstantWithWarmup,
    /// Rises linearly over the warmup steps, then falls to 0 along half a cosine.
    Cosine,
}

impl LrSchedule {
    /// The factor of the learning rate at `step` (from 0) of `steps`.
    pub fn factor(self, step: usize, warmup: usize, steps: usize) -> f64 {
        let rising = step < warmup;
        match self {
            Self::ConstantWithWarmup | Self::Cosine if rising => step as f64 / warmup.max(1) as f64,
            Self::Constant | Self::ConstantWithWarmup => 1.0,
            Self::Cosine => {
                let share = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
                (0.5 * (1.0 + (std::f64::consts::PI * share).cos())).max(0.0)
            }
        }
    }

    /// Whether a step's learning rate depends on how many steps there will be.
    pub fn depends_on_steps(self) -> bool {
        self == Self::Cosine
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_diffusers() {
        let cosine = |step| LrSchedule::Cosine.factor(step, 10, 110);
        assert_eq!([cosine(0), cosine(5), cosine(10)], [0.0, 0.5, 1.0]);
        assert!((cosine(60) - 0.5).abs() < 1e-12 && cosine(110).abs() < 1e-12);
        let warm = |step| LrSchedule::ConstantWithWarmup.factor(step, 4, 9);
        assert_eq!([warm(0), warm(1), warm(4), warm(8)], [0.0, 0.25, 1.0, 1.0]);
        assert_eq!(LrSchedule::Constant.factor(0, 4, 9), 1.0);
    }
}
