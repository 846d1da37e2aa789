//! Noise schedules and the steps of sampling.

mod cogvideox;

pub use cogvideox::cogvideox;

use burn::tensor::Tensor;

use crate::rng::TorchRng;

/// The noise schedule and sampler of one model, in f32 whatever the model's type.
pub trait NoiseScheduler: Send + Sync {
    /// Timesteps of a sampling run, falling; `num_steps` must be from 1 to
    /// [`Self::num_train_timesteps`].
    fn timesteps(&self, num_steps: usize) -> Vec<f32>;

    /// Number of timesteps of training.
    fn num_train_timesteps(&self) -> usize;

    /// Mixes clean latents and noise at one timestep per sample.
    fn add_noise(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5>;

    /// What the denoiser is trained to predict.
    fn target(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5>;

    /// Starts a sampling run of `num_steps`.
    fn start(&self, num_steps: usize) -> Box<dyn SamplingRun>;
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
