//! Video diffusion models: tensors in, tensors out. Nothing here knows stages, stores or TOML.
//!
//! Every model takes video as `[B, C, F, H, W]`; where the published code uses another order, the
//! permutation is inside the model's folder, once. Parameters are addressed by their published
//! names (see [`params`]), so a checkpoint in diffusers' layout needs no key map.

#![expect(clippy::many_single_char_names, reason = "sizes have the letters of the legend")]

pub mod builtin;
pub mod cache;
pub mod cogvideox;
mod conditioning;
mod config;
mod examine;
pub mod hub;
pub mod lora;
pub mod ltx_video;
pub mod memory;
pub mod nn;
pub mod params;
pub mod pixels;
pub mod sampling;
pub mod schedulers;
pub mod source;
pub mod t5;

pub use cache::{ModelCache, family, published_sampler, published_text_format, weight_dtype};
pub use conditioning::ImageConditioning;
pub use examine::{Flaw, Shapes};
pub use lora::{Adapter, LoraTargets};
pub use memory::{ClipSize, Memory};
pub use params::{LoadError, ParamReader, Params, Start};
pub use schedulers::{NoiseScheduler, TimestepDistribution};
pub use source::{FileState, Likeness, ModelRef, ModelSource, PartFile, PartLook};

use std::sync::Arc;

use burn::tensor::{Bool, Int, Tensor};
use memory::PassSizes;
use serde_json::Value;

use crate::rng::TorchRng;

/// Every family a `transformer/config.json` can name.
pub static MODELS: &[&dyn VideoDiffusion] = &[&cogvideox::CogVideoX, &ltx_video::LtxVideo];

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

    /// The samplers the family knows, its default first.
    fn samplers(&self) -> &'static [Sampler];

    /// The distributions of timesteps the family can be trained with, its default first.
    fn timestep_distributions(&self) -> &'static [TimestepDistribution];

    /// Builds the scheduler from `scheduler/scheduler_config.json`; `sampler` must be one of
    /// [`Self::samplers`].
    fn scheduler(
        &self,
        config: &Value,
        sampler: Sampler,
    ) -> Result<Box<dyn NoiseScheduler>, LoadError>;

    /// The sampler of the pipeline that a model of this `scheduler_config.json` is published with.
    fn published_sampler(&self, _scheduler: &Value) -> Sampler {
        self.samplers()[0]
    }

    /// The formats of prompts that the family's samplers take, its default first.
    fn text_formats(&self) -> &'static [TextFormat] {
        &[TextFormat::Basic]
    }

    /// How prompts of one of [`Self::text_formats`] are given to a transformer of this `config.json`.
    fn prompt_format(
        &self,
        transformer: &Value,
        format: TextFormat,
    ) -> Result<PromptFormat, LoadError>;

    /// The sizes of a pass through a transformer of this `config.json`, for latents `[f, h, w]`
    /// without padding and prompts of `text` tokens.
    fn pass(
        &self,
        transformer: &Value,
        latents: [usize; 3],
        text: usize,
    ) -> Result<PassSizes, LoadError>;

    /// Values in the largest tensor that a VAE of this `config.json` makes of a clip.
    fn largest_map(&self, vae: &Value, clip: ClipSize) -> Result<u64, LoadError>;

    /// Height and width of the tiles that a VAE of this `config.json` can work on, if it can.
    fn tile_size(&self, _vae: &Value) -> Result<Option<[usize; 2]>, LoadError> {
        Ok(None)
    }

    /// Whether the last frame can be decoded at less cost than all; see [`VideoVae::decode_last`].
    fn decodes_last(&self) -> bool {
        false
    }

    /// How the conditioning image enters the denoiser.
    fn image_conditioning(&self) -> ImageConditioning;

    /// The modules an adapter gets where none are asked for.
    fn default_lora_targets(&self) -> LoraTargets;

    /// Maps that one block keeps for the backward pass, where an adapter on these modules is trained, or all
    /// parameters: measured on the CPU (`benches/results/2026-11-26-maps.md`).
    fn kept_maps(&self, trained: Option<LoraTargets>) -> u64;

    /// The modules of a LoRA target set, as regular expressions over published module names.
    fn lora_targets(&self, targets: LoraTargets) -> &'static [&'static str];
}

/// The published pipeline in whose way a prompt is encoded. Two pipelines of one model can differ in it,
/// and a denoiser must be sampled with what it was trained with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// Padding is attended to as the prompt is: CogVideoX, and LTX-Video up to 0.9.1 with 128 tokens.
    Basic,
    /// Padding is masked: LTX-Video's condition pipeline (0.9.5), with up to 256 tokens.
    Condition,
}

/// How a prompt is given to the denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptFormat {
    /// Tokens to cut or pad the prompt to before it is encoded.
    pub tokens: usize,
    /// Whether the text encoder leaves padding out of its attention.
    pub masks_padding: bool,
    /// Whether the denoiser reads the encoded padding too.
    pub keeps_padding: bool,
}

/// How samples are drawn from the denoiser.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Deterministic DDIM (CogVideoX).
    Ddim,
    /// Second-order stochastic DPM-Solver++, the choice of CogVideoX's official demo.
    Dpm,
    /// Euler steps along the straight lines of flow matching (LTX-Video).
    FlowEuler,
    /// The same as LTX-Video's condition pipeline (0.9.5) makes them: small steps first, noise on the
    /// image, and time counted from the first video frame.
    FlowCondition,
}

impl Sampler {
    /// The format of prompts in the pipeline that samples so.
    pub fn text_format(self) -> TextFormat {
        match self {
            Self::Ddim | Self::Dpm | Self::FlowEuler => TextFormat::Basic,
            Self::FlowCondition => TextFormat::Condition,
        }
    }
}

/// The one of `known` that is asked for as the parameter `key`, or the first of them.
pub fn one_of<T: Copy + PartialEq + serde::Serialize>(
    key: &'static str,
    asked: Option<T>,
    known: &[T],
) -> Result<T, LoadError> {
    let name = |value: &T| serde_json::to_string(value).unwrap_or_default().replace('"', "`");
    match asked {
        None => Ok(known[0]),
        Some(asked) if known.contains(&asked) => Ok(asked),
        Some(asked) => {
            let known: Vec<_> = known.iter().map(name).collect();
            Err(LoadError::Choice { key, known: known.join(" or "), found: name(&asked) })
        }
    }
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

/// How a decoder that takes a timestep ends the denoising.
pub struct DecodeNoise<'a> {
    /// From 0 (clean) to 1.
    pub timestep: f64,
    /// The share of noise that is mixed into the latents first.
    pub scale: f64,
    /// Source of the noise.
    pub rng: &'a mut TorchRng,
}

impl DecodeNoise<'_> {
    /// The timestep that is published with LTX-Video 0.9.1.
    pub const TIMESTEP: f64 = 0.05;
    /// The share of noise that is published with LTX-Video 0.9.1.
    pub const SCALE: f64 = 0.025;
}

/// The autoencoder between pixels and latents.
pub trait VideoVae: Send + Sync {
    /// Video `[B, 3, F, H, W]` in [-1, 1] to the posterior of its latents, not scaled.
    fn encode(&self, video: Tensor<5>) -> Posterior;

    /// Latents `[B, C, f, h, w]`, not scaled, to video `[B, 3, F, H, W]`, about [-1, 1].
    fn decode(&self, latents: Tensor<5>) -> Tensor<5>;

    /// Decodes what sampling made, with noise where the decoder takes some.
    fn decode_sampled(&self, latents: Tensor<5>, _noise: DecodeNoise<'_>) -> Tensor<5> {
        self.decode(latents)
    }

    /// Whether [`Self::decode_sampled`] does anything with its noise.
    fn takes_noise(&self) -> bool {
        false
    }

    /// The last frame alone of [`Self::decode_sampled`], at less cost; none where each frame takes
    /// part in all, as in norms over frames (CogVideoX).
    fn decode_last(&self, _latents: Tensor<5>, _noise: DecodeNoise<'_>) -> Option<Tensor<5>> {
        None
    }

    /// The same working on overlapping tiles, which bounds memory and changes results a little; none
    /// where there is no code for it.
    fn tiled(&self) -> Option<Arc<dyn VideoVae>> {
        None
    }

    /// Latents with mean 0 and deviation 1 in each channel, where the VAE states how; the scaling
    /// factor comes after it.
    fn standardize(&self, latents: Tensor<5>) -> Tensor<5> {
        latents
    }

    /// The inverse of [`Self::standardize`].
    fn restore(&self, latents: Tensor<5>) -> Tensor<5> {
        latents
    }

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// How much smaller latents are than pixels.
    fn compression(&self) -> Compression;

    /// How much larger decoded pixels are than latents: where a configuration states the decoder's
    /// levels apart, it need not be what the encoder shrinks them by.
    fn expansion(&self) -> Compression {
        self.compression()
    }

    /// Frames that so many latent frames are decoded to.
    fn decoded_frames(&self, latent_frames: usize) -> usize {
        (latent_frames - 1) * self.compression().time + 1
    }

    /// Latents are multiplied by this before diffusion.
    fn scaling_factor(&self) -> f32;
}

/// One batch for the denoiser.
#[derive(Clone)]
pub struct DenoiserInput {
    /// Noisy video latents `[B, C, f, h, w]`, scaled; where the image is the first frame, with it.
    pub latents: Tensor<5>,
    /// The conditioning image's latent `[B, C, 1, h, w]`, scaled; frames that it lacks are zero.
    /// Families whose image is the first frame read it from `latents` alone.
    pub image: Tensor<5>,
    /// Encoded prompt `[B, L, D]`.
    pub text: Tensor<3>,
    /// Timesteps: one per sample, or, in families whose image is the first frame, also one per
    /// latent frame or per token of each sample; sample by sample, frame by frame.
    pub timesteps: Vec<f32>,
    /// How positions count time and space; for families that count them in seconds and pixels.
    pub time: TimeAxis,
}

/// How positions count, where they are in seconds and pixels (LTX-Video).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeAxis {
    /// Whether time is counted from the first video frame, as the condition pipeline of LTX-Video 0.9.5
    /// does, and not by latent frames.
    pub causal: bool,
    /// Video frames per second.
    pub frame_rate: f64,
    /// What the autoencoder of the latents makes of frames and pixels.
    pub compression: Compression,
}

impl TimeAxis {
    /// The frame rate of the published pipelines.
    pub const FRAME_RATE: f64 = 25.0;

    /// The compression of the published autoencoders, which counts where none is known.
    const COMPRESSION: Compression = Compression { time: 8, space: 32 };

    /// Counts at a frame rate, by default that of the published pipelines, with their compression.
    pub fn new(causal: bool, frame_rate: Option<f64>) -> Self {
        let frame_rate = frame_rate.unwrap_or(Self::FRAME_RATE);
        Self { causal, frame_rate, compression: Self::COMPRESSION }
    }

    /// The same for latents of another autoencoder.
    #[must_use]
    pub fn compressed(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }
}

impl Default for TimeAxis {
    fn default() -> Self {
        Self::new(false, None)
    }
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

    /// Applies block `index`. It changes the first tensor alone; the others are what every block takes, and
    /// come out as they went in: training with recomputation panics where they do not.
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

    /// How the conditioning image enters.
    fn image_conditioning(&self) -> ImageConditioning;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// Size of the text encoder's output.
    fn text_channels(&self) -> usize;

    /// Video latents `[B, C, f, h, w]` to the number of frames the transformer takes, by repeating
    /// the first one in front (CogVideoX 1.5); training noises and scores all of them.
    fn pad_frames(&self, latents: Tensor<5>) -> Tensor<5>;

    /// Number of frames [`Self::pad_frames`] adds to `frames` latent frames; sampling drops as
    /// many from the front.
    fn num_padding_frames(&self, frames: usize) -> usize;

    /// Checks that latents of `[f, h, w]` (before padding) and prompts of `text` tokens fit.
    fn check_size(&self, latent_size: [usize; 3], text: usize) -> Result<(), SizeError>;

    /// Frames of the videos it was trained on, where it has learnt positions for these alone.
    fn trained_frames(&self) -> Option<usize> {
        None
    }

    /// Checks that prompts of `text` tokens fit, whatever the latents.
    fn check_text(&self, _text: usize) -> Result<(), SizeError> {
        Ok(())
    }
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
    /// Token ids `[B, L]` to embeddings `[B, L, D]`. With a mask `[B, L]`, only its tokens are attended
    /// to; without one all are, padding too.
    fn encode(&self, ids: Tensor<2, Int>, mask: Option<Tensor<2, Bool>>) -> Tensor<3>;
}
