//! Noise schedules and the steps of sampling.

mod cogvideox;
mod config;
mod flow;

pub use cogvideox::cogvideox;
pub use flow::{flow_matching, linear_quadratic};

use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rng::TorchRng;

/// How training draws the timestep of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimestepDistribution {
    /// All timesteps alike.
    Uniform,
    /// The sigmoid of a standard normal number: mostly the middle of the schedule.
    LogitNormal,
    /// The sigmoid of a normal number whose mean grows with the size of the clip: the larger the
    /// clip, the more noise (flow matching only).
    ShiftedLogitNormal,
}

/// A place in a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// The share of the distribution below it.
    pub share: f64,
    /// Where this share of the standard normal distribution ends.
    pub normal: f64,
}

/// The noise schedule and sampler of one model, in f32 whatever the model's type.
///
/// Where a method takes `positions`, that is the number of latent positions `f h w` of a clip, on
/// which the schedule of some families depends.
pub trait NoiseScheduler: Send + Sync {
    /// Timesteps of a sampling run, falling; `num_steps` must be from 1 to
    /// [`Self::num_train_timesteps`].
    fn timesteps(&self, num_steps: usize, positions: usize) -> Vec<f32>;

    /// Number of timesteps of training.
    fn num_train_timesteps(&self) -> usize;

    /// Draws one timestep per sample; `distribution` must be one of the family's
    /// [`timestep_distributions`](super::VideoDiffusion::timestep_distributions).
    fn draw_timesteps(
        &self,
        distribution: TimestepDistribution,
        positions: usize,
        samples: usize,
        rng: &mut TorchRng,
    ) -> Vec<f32>;

    /// The timestep below which such a share of the drawn ones lies.
    fn timestep_at(
        &self,
        distribution: TimestepDistribution,
        positions: usize,
        quantile: Quantile,
    ) -> f32;

    /// What training tells the denoiser of noise at these timesteps.
    fn told(&self, timesteps: &[f32]) -> Vec<f32> {
        timesteps.to_vec()
    }

    /// Noise for latents `[B, C, f, h, w]`, in the order in which the reference draws it.
    fn draw_noise(&self, shape: [usize; 5], rng: &mut TorchRng, device: &Device) -> Tensor<5>;

    /// Mixes clean latents and noise at one timestep per sample.
    fn add_noise(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5>;

    /// What the denoiser is trained to predict.
    fn target(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5>;

    /// Starts a sampling run of `num_steps`.
    fn start(&self, num_steps: usize, positions: usize) -> Box<dyn SamplingRun>;
}

/// The state of one sampling run.
pub trait SamplingRun {
    /// One step from `latents` with the denoiser's `prediction` at step `index`; draws noise from
    /// `rng` in the reference's order if the sampler is stochastic.
    fn step(
        &mut self,
        index: usize,
        prediction: Tensor<5>,
        latents: Tensor<5>,
        rng: &mut TorchRng,
    ) -> Tensor<5>;
}

/// [`logistic`] of `mean + z` for standard normal `z`.
fn logit_normal(mean: f64, samples: usize, rng: &mut TorchRng) -> Vec<f64> {
    rng.normal(samples).iter().map(|z| logistic(mean + f64::from(*z))).collect()
}

/// `1 / (1 + e^-x)`.
fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
