//! The first frame as LTX-Video's condition pipeline (0.9.5) gives it.
//!
//! It differs from the basic pipeline in four things: the image is mixed into the first frame by a
//! strength; before each step noise is added to it, the less the later; a frame that is given in
//! part is denoised too, once the others have come down to its noise; and time is counted from the
//! first video frame (see [`TimeAxis`](crate::models::TimeAxis)).
//!
//! Follows `LTXConditionPipeline`, `src/diffusers/pipelines/ltx/pipeline_ltx_condition.py` at
//! v0.42.1, with one image at frame 0.

use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rng::TorchRng;

/// Differences of strength and noise below which the reference sees none.
const EPS: f64 = 1e-6;

/// How firmly the image holds the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Condition {
    /// From 0, noise like the other frames, to 1, the image itself.
    pub strength: f64,
    /// Noise added to an image of strength 1 before each step, times the square of the step's share
    /// of noise; it keeps videos from standing still.
    pub noise_scale: f64,
}

impl Default for Condition {
    fn default() -> Self {
        Self { strength: 1.0, noise_scale: 0.15 }
    }
}

impl Condition {
    /// Initial latents `[1, C, f, h, w]`: noise, with the image `[1, C, 1, h, w]` in its first
    /// frame.
    pub(super) fn place(self, noise: Tensor<5>, image: &Tensor<5>) -> Tensor<5> {
        let first = noise.clone().narrow(2, 0, 1);
        let first = first * (1.0 - self.strength) + image.clone() * self.strength;
        with_first(first, noise)
    }

    /// The latents with new noise on their first frame, which is `first` without it, at a share of
    /// noise of `sigma`. Noise is drawn for all frames, token by token, as the reference does.
    pub(super) fn add_noise(
        self,
        latents: Tensor<5>,
        first: &Tensor<5>,
        sigma: f64,
        rng: &mut TorchRng,
    ) -> Tensor<5> {
        if self.noise_scale <= 0.0 {
            return latents;
        }
        let noise = draw(latents.dims(), rng, &latents.device());
        if self.strength <= 1.0 - EPS {
            return latents;
        }
        let noise = noise.narrow(2, 0, 1) * (self.noise_scale * sigma * sigma);
        with_first(first.clone() + noise, latents)
    }

    /// The timesteps of the frames, of a step at `timestep` of `train_timesteps`.
    pub(super) fn timesteps(
        self,
        timestep: f32,
        frames: usize,
        train_timesteps: usize,
    ) -> Vec<f32> {
        let mut timesteps = vec![timestep; frames];
        let most = (1.0 - self.strength) * train_timesteps as f64;
        timesteps[0] = timestep.min(most as f32);
        timesteps
    }

    /// What a step gave, or for a first frame with less noise than `sigma` what it came from.
    pub(super) fn keep(self, before: Tensor<5>, after: Tensor<5>, sigma: f64) -> Tensor<5> {
        if sigma - EPS < 1.0 - self.strength {
            return after;
        }
        with_first(before.narrow(2, 0, 1), after)
    }

    /// Draws what the steps of a run draw for latents of this size, for who comes after them.
    pub(super) fn skip(self, size: [usize; 4], steps: usize, rng: &mut TorchRng) {
        if self.noise_scale > 0.0 {
            for _ in 0..steps {
                rng.normal(size.iter().product());
            }
        }
    }
}

fn draw([b, c, f, h, w]: [usize; 5], rng: &mut TorchRng, device: &Device) -> Tensor<5> {
    rng.normal_tensor::<5>([b, f, h, w, c], device).permute([0, 4, 1, 2, 3])
}

fn with_first(first: Tensor<5>, others: Tensor<5>) -> Tensor<5> {
    let frames = others.dims()[2];
    if frames == 1 {
        return first;
    }
    Tensor::cat(vec![first, others.narrow(2, 1, frames - 1)], 2)
}
