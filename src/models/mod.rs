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
mod parts;
pub mod pixels;
pub mod sampling;
pub mod schedulers;
pub mod source;
pub mod t5;
pub mod tables;

pub use cache::{
    MODELS_KEPT, ModelCache, family, family_of_vae, published_sampler, published_text_format,
    weight_dtype,
};
pub use conditioning::ImageConditioning;
pub use examine::{FileError, Shapes};
pub use lora::{Adapter, LoraTargets};
pub use memory::{ClipSize, Given, Memory};
pub use params::{LoadError, ParamReader, Params, Start};
pub use parts::{
    Compression, DecodeNoise, Denoiser, DenoiserInput, Posterior, SizeError, TextEncoder, TimeAxis,
    VideoVae,
};
pub use schedulers::{NoiseScheduler, TimestepDistribution};
pub use source::{
    FilePlace, FileState, INDEX_ENDING, Likeness, ModelRef, ModelSource, PartFile, PartLook,
    PartRead,
};

use memory::PassSizes;
use serde_json::Value;

/// Every family a `transformer/config.json` can name.
pub static MODELS: &[&dyn VideoDiffusion] = &[&cogvideox::CogVideoX, &ltx_video::LtxVideo];

/// One family of image-to-video diffusion models: how its parts are built and fitted together.
pub trait VideoDiffusion: Sync {
    /// The `_class_name` of `transformer/config.json`.
    fn class_name(&self) -> &'static str;

    /// The `_class_name` of `vae/config.json`.
    fn vae_class(&self) -> &'static str;

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

    /// How prompts of one of [`Self::text_formats`] are given to a transformer of this
    /// `config.json`.
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

    /// Maps that one block keeps for the backward pass, where an adapter on these modules is
    /// trained, or all parameters: measured on the CPU (`benches/results/2026-11-26-maps.md`).
    fn kept_maps(&self, trained: Option<LoraTargets>) -> u64;

    /// The modules of a LoRA target set, as regular expressions over published module names.
    fn lora_targets(&self, targets: LoraTargets) -> &'static [&'static str];
}

/// The published pipeline in whose way a prompt is encoded. Two pipelines of one model can differ
/// in it, and a denoiser must be sampled with what it was trained with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// Padding is attended to as the prompt is: CogVideoX, and LTX-Video up to 0.9.1 with 128
    /// tokens.
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
    /// The same as LTX-Video's condition pipeline (0.9.5) makes them: small steps first, noise on
    /// the image, and time counted from the first video frame.
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
