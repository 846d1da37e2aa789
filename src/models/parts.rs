//! What every family's parts do: the autoencoder, the transformer and the prompt encoder, as seen
//! by stages.

use std::sync::Arc;

use burn::tensor::{Bool, Int, Tensor};

use super::ImageConditioning;
use crate::rng::TorchRng;

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

    /// The same working on overlapping tiles, which bounds memory and changes results a little;
    /// none where there is no code for it.
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
    /// Whether time is counted from the first video frame, as the condition pipeline of LTX-Video
    /// 0.9.5 does, and not by latent frames.
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

    /// Applies block `index`. It changes the first tensor alone; the others are what every block
    /// takes, and come out as they went in: training with recomputation panics where they do not.
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
    /// Token ids `[B, L]` to embeddings `[B, L, D]`. With a mask `[B, L]`, only its tokens are
    /// attended to; without one all are, padding too.
    fn encode(&self, ids: Tensor<2, Int>, mask: Option<Tensor<2, Bool>>) -> Tensor<3>;
}
