//! Video diffusion models: tensors in, tensors out. Nothing here knows stages, stores or TOML.
//!
//! Every model takes video as `[B, C, F, H, W]`; where the published code uses another order, the
//! permutation is inside the model's folder, once. Parameters are addressed by their published
//! names (see [`params`]), so a checkpoint in diffusers' layout needs no key map.

#![expect(clippy::many_single_char_names, reason = "sizes have the letters of the legend")]

pub mod builtin;
pub mod cache;
pub mod cogvideox;
pub mod lora;
pub mod nn;
pub mod params;
pub mod pixels;
pub mod sampling;
pub mod schedulers;
pub mod source;
pub mod t5;

pub use cache::{ModelCache, family, weight_dtype};
pub use lora::{Adapter, LoraTargets};
pub use params::{LoadError, ParamReader, Params};
pub use schedulers::NoiseScheduler;
pub use source::{ModelRef, ModelSource};

use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

/// Every family a `transformer/config.json` can name.
pub static MODELS: &[&dyn VideoDiffusion] = &[&cogvideox::CogVideoX];

/// One family of image-to-video diffusion models: how its parts are built and fitted together.
pub trait VideoDiffusion: Sync {
    /// The `_class_name` of `transformer/config.json`.
    fn class_name(&self) -> &'static str;

    /// Builds the VAE from `vae/config.json` and its parameters.
    fn vae(&self, config: &Value, params: &ParamReader<'_>)
    -> Result<Box<dyn VideoVae>, LoadError>;

    /// Builds the transformer; linears named by the reader's adapter get their low-rank branch.
    fn denoiser(
        &self,
        config: &Value,
        params: &ParamReader<'_>,
    ) -> Result<Box<dyn Denoiser>, LoadError>;

    /// Builds the scheduler from `scheduler/scheduler_config.json`.
    fn scheduler(
        &self,
        config: &Value,
        sampler: Sampler,
    ) -> Result<Box<dyn NoiseScheduler>, LoadError>;

    /// The modules of a LoRA target set, as regular expressions over published module names.
    fn lora_targets(&self, targets: LoraTargets) -> &'static [&'static str];
}

/// How samples are drawn from the denoiser.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Deterministic DDIM.
    Ddim,
    /// Second-order stochastic DPM-Solver++, the official demo's choice.
    #[default]
    Dpm,
}

/// How much smaller latents are than pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Frames per latent frame, the first frame apart: `f = (F - 1) / time + 1`.
    pub time: usize,
    /// Pixels per latent row or column.
    pub space: usize,
}

/// The distribution an encoder gives for a clip, not scaled: `[B, C, f, h, w]` each.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// Mean.
    pub mean: Tensor<5>,
    /// Logarithm of the variance, clamped to [-30, 20].
    pub logvar: Tensor<5>,
}

impl Posterior {
    /// `mean + exp(logvar / 2) * noise`.
    pub fn sample(&self, noise: Tensor<5>) -> Tensor<5> {
        self.mean.clone() + (self.logvar.clone() * 0.5).exp() * noise
    }
}

/// The autoencoder between pixels and latents.
pub trait VideoVae: Send + Sync {
    /// Video `[B, 3, F, H, W]` in [-1, 1] to the posterior of its latents, not scaled.
    fn encode(&self, video: Tensor<5>) -> Posterior;

    /// Latents `[B, C, f, h, w]`, not scaled, to video `[B, 3, F, H, W]`, about [-1, 1].
    fn decode(&self, latents: Tensor<5>) -> Tensor<5>;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// How much smaller latents are than pixels.
    fn compression(&self) -> Compression;

    /// Latents are multiplied by this before diffusion.
    fn scaling_factor(&self) -> f32;

    /// Whether the published pipeline divides the conditioning image's latent by the scaling
    /// factor where it multiplies the video's (CogVideoX 1.5).
    fn invert_scale_latents(&self) -> bool;
}

/// One batch for the denoiser.
#[derive(Clone)]
pub struct DenoiserInput {
    /// Noisy video latents `[B, C, f, h, w]`, scaled.
    pub latents: Tensor<5>,
    /// The conditioning image's latent `[B, C, 1, h, w]`, scaled; frames that it lacks are zero.
    pub image: Tensor<5>,
    /// Encoded prompt `[B, L, D]`.
    pub text: Tensor<3>,
    /// Integer timesteps, one per sample.
    pub timesteps: Vec<f32>,
}

/// The transformer that predicts noise, cut where recomputation cuts it.
///
/// `forward` is `begin`, every block, `end`. What passes between them is a list of `[B, S, D]`
/// tensors, so that training can drop a block's activations and compute them again.
pub trait Denoiser: Send + Sync {
    /// Embeds the input.
    fn begin(&self, input: &DenoiserInput) -> Vec<Tensor<3>>;

    /// Number of blocks.
    fn num_blocks(&self) -> usize;

    /// Applies block `index`.
    fn block(&self, index: usize, hidden: Vec<Tensor<3>>, input: &DenoiserInput) -> Vec<Tensor<3>>;

    /// Projects to the prediction, in the shape of `input.latents`.
    fn end(&self, hidden: Vec<Tensor<3>>, input: &DenoiserInput) -> Tensor<5>;

    /// Predicts what the scheduler's `target` names, in the shape of `input.latents`.
    fn forward(&self, input: &DenoiserInput) -> Tensor<5> {
        let mut hidden = self.begin(input);
        for index in 0..self.num_blocks() {
            hidden = self.block(index, hidden, input);
        }
        self.end(hidden, input)
    }

    /// Video latents `[B, C, f, h, w]` to the number of frames the transformer takes, by repeating
    /// the first one in front (CogVideoX 1.5); training noises and scores all of them.
    fn pad_frames(&self, latents: Tensor<5>) -> Tensor<5>;

    /// Number of frames [`Self::pad_frames`] adds to `frames` latent frames; sampling drops as
    /// many from the front.
    fn num_padding_frames(&self, frames: usize) -> usize;

    /// Checks that latents of `[f, h, w]` (before padding) and prompts of `text` tokens fit.
    fn check_size(&self, latent_size: [usize; 3], text: usize) -> Result<(), SizeError>;
}

/// A size the model cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {wanted}, but is {found}")]
pub struct SizeError {
    /// The quantity, in the user's units: `width`, `frames`.
    pub what: &'static str,
    /// What the model takes: `a multiple of 16`.
    pub wanted: String,
    /// What it got.
    pub found: usize,
}

/// The prompt encoder.
pub trait TextEncoder: Send + Sync {
    /// Token ids `[B, L]` to embeddings `[B, L, D]`, without an attention mask as both published
    /// pipelines call it.
    fn encode(&self, ids: Tensor<2, Int>) -> Tensor<3>;
}

/// Where tensors live and in what type weights are kept there.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// bf16 on GPUs, f32 on the CPU, where bf16 arithmetic is a detour over f32.
    pub dtype: burn::tensor::FloatDType,
}
