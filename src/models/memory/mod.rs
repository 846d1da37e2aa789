//! The memory that passes through a model take, from its configuration: nothing is loaded.
//!
//! Weights and trained values are counted exactly. What a pass keeps is counted in maps, a map
//! being one value per token and channel (or, in an autoencoder, the largest tensor between two
//! layers); how many maps a block keeps is measured (`benches/maps.py`, `benches/memory.py`).
//! Estimates are of the least that is needed: the program itself, a kernel's workspace and an
//! allocator's spare blocks come on top. On the CPU that was 30 MiB for the program and mostly 30
//! to 100 MiB more, see `benches/results/`; on a GPU 0.2 to 0.3 GB of pages that are not full and
//! 0.6 GB for CUDA's context and its libraries. Weights have memory of their own there
//! (`device::lasting`). Pages stay as large as the largest tensor that the process has made, which
//! is not planned: after an autoencoder with tensors of 1.6 GB, models that need less had two pages
//! of 1.6 GB (`benches/results/2026-11-27-h100-2.md`).

mod held;
mod host;
mod pretraining;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    Compression, Denoiser, LoadError, LoraTargets, ModelSource, ParamReader, TextFormat,
    VideoDiffusion, VideoVae, family, family_of_vae,
    lora::num_factors,
    nn::attention_memory,
    published_text_format,
    t5::{T5Config, T5Encoder},
};
use crate::units::bytes;
use held::LatentValues;
use host::{held_on_host, largest};

pub use held::{AdapterSize, Given, HeldClips};
pub use pretraining::Pretraining;

/// Maps that are alive at once in a forward pass that keeps nothing.
const FORWARD: u64 = 14;
/// Maps that are alive at once on the way back through a block, beside what it kept.
const BACKWARD: u64 = 20;
/// Largest tensors that are alive at once in an encoder, and in a decoder, whose norms see the
/// latents at full size, too: on the CPU, and on a GPU, whose convolutions have workspaces. A
/// decoder of `CogVideoX` had 9.4 of them at its peak on an H100, and 6 when its calls were over
/// (`benches/results/2026-11-27-h100-2.md`, Memory).
const ENCODER_MAPS: [u64; 2] = [4, 6];
const DECODER_MAPS: [u64; 2] = [6, 10];
/// Largest tensors that an autoencoder keeps for the backward pass.
const VAE_KEPT: u64 = 18;
/// Latents of each clip that sampling holds: noise, image, the last prediction and the sampler's
/// own.
const SAMPLED: usize = 4;
/// Bytes of a value in f32.
const F32: u64 = 4;
/// Bytes of a trained value: itself, its gradient and two moments of the optimizer, each in f32.
const TRAINED: u64 = 16;
/// What a checkpoint of it takes on the host while it is made: itself and two moments, as the
/// tensors' bytes and as those of the file.
const CHECKPOINT: u64 = 24;
/// Bytes of a trained value on the host meanwhile: the checkpoint, and what it is of.
const TRAINED_ON_HOST: u64 = 12 + CHECKPOINT;

/// The size of a clip in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipSize {
    /// Frames.
    pub frames: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Bytes, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Frozen weights.
    pub weights: u64,
    /// Trained values with their gradients and the optimizer's moments.
    pub trained: u64,
    /// What a pass keeps and works with, without attention.
    pub activations: u64,
    /// Scores of attention.
    pub attention: u64,
    /// Encoded clips, and encodings of their images, that are held all at once.
    pub clips: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The one of two phases that takes more, of which one is over before the other begins.
    #[must_use]
    pub fn or_larger(self, other: Self) -> Self {
        if other.total() > self.total() { other } else { self }
    }

    /// Each part with its name.
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        let Self { weights, trained, activations, attention, clips } = *self;
        [
            ("weights", weights),
            ("trained", trained),
            ("activations", activations),
            ("attention", attention),
            ("clips", clips),
        ]
    }
}

impl fmt::Display for Memory {
    /// `16.2 GiB of memory (weights 10.4 GiB, trained 1.0 GiB)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts().into_iter().filter(|(_, size)| *size > 0);
        let parts: Vec<_> = parts.map(|(name, size)| format!("{name} {}", bytes(size))).collect();
        write!(f, "{} of memory ({})", bytes(self.total()), parts.join(", "))
    }
}

/// The sizes of one pass through a denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassSizes {
    /// Channels of a token.
    pub dim: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Blocks.
    pub blocks: usize,
    /// Tokens that attend to each other.
    pub tokens: usize,
}

impl PassSizes {
    /// Heads, and channels of each.
    fn heads_of_width(&self) -> [usize; 2] {
        [self.heads, self.dim / self.heads.max(1)]
    }
}

/// How an adapter is trained.
#[derive(Clone, Copy, Debug)]
pub struct LoraTraining {
    /// Its modules; the family's own by default.
    pub targets: Option<LoraTargets>,
    /// Its rank.
    pub rank: usize,
    /// Clips per batch.
    pub batch: usize,
    /// Blocks that are computed again on the way back, or more than there are.
    pub recomputed: usize,
    /// Whether gradients of several batches are added up.
    pub accumulates: bool,
}

/// Estimates for one model on one kind of device.
pub struct Estimator<'a> {
    source: &'a ModelSource,
    family: &'static dyn VideoDiffusion,
    /// The family of the autoencoder.
    vae_family: &'static dyn VideoDiffusion,
    /// Whether the device is the CPU, which computes in f32; GPUs compute in bf16.
    on_host: bool,
}

type Shapes = BTreeMap<String, Vec<usize>>;

impl<'a> Estimator<'a> {
    /// Estimates for the model in `source`.
    pub fn new(source: &'a ModelSource, on_host: bool) -> Result<Self, LoadError> {
        let vae_family = family_of_vae(source)?;
        let is_vae_alone = !source.has("transformer/config.json") && source.has("vae/config.json");
        let family = if is_vae_alone { vae_family } else { family(source)? };
        Ok(Self { source, family, vae_family, on_host })
    }

    /// Bytes of one value of weights and activations.
    fn value(&self) -> u64 {
        if self.on_host { 4 } else { 2 }
    }

    /// The transformer without its weights, and what they are.
    fn denoiser(&self) -> Result<(Box<dyn Denoiser>, Shapes), LoadError> {
        let reader = ParamReader::shapes();
        let denoiser = self.family.denoiser(&self.source.config("transformer")?, &reader)?;
        Ok((denoiser, reader.into_shapes()))
    }

    /// The autoencoder without its weights, and what they are.
    fn vae(&self) -> Result<(Box<dyn VideoVae>, Shapes), LoadError> {
        let reader = ParamReader::shapes();
        let vae = self.vae_family.vae(&self.source.config("vae")?, &reader)?;
        Ok((vae, reader.into_shapes()))
    }

    /// Frozen weights of these shapes.
    fn frozen(&self, shapes: &Shapes) -> Memory {
        Memory { weights: values(shapes) * self.value(), ..Memory::default() }
    }

    /// The sizes of a pass over a prompt of so many tokens, by default as many as the model was
    /// trained with.
    fn pass(
        &self,
        clip: ClipSize,
        vae: &dyn VideoVae,
        tokens: Option<usize>,
    ) -> Result<PassSizes, LoadError> {
        let transformer = self.source.config("transformer")?;
        let format = || self.family.prompt_format(&transformer, self.family.text_formats()[0]);
        let text = tokens.map_or_else(|| format().map(|format| format.tokens), Ok)?;
        self.family.pass(&transformer, latents(clip, vae.compression()), text)
    }

    /// Blocks of the transformer.
    pub fn num_blocks(&self) -> Result<usize, LoadError> {
        Ok(self.denoiser()?.0.num_blocks())
    }

    /// Training of an adapter on latents of clips of this size.
    pub fn lora_training(
        &self,
        clip: ClipSize,
        training: &LoraTraining,
        given: &Given,
    ) -> Result<Memory, LoadError> {
        let (denoiser, shapes) = self.denoiser()?;
        let (vae, _) = self.vae()?;
        let targets = training.targets.unwrap_or_else(|| self.family.default_lora_targets());
        let factors = self.factors(training, &shapes);
        // On the host there are no gradients while the most is taken.
        let summed = training.accumulates && !self.on_host;
        let pass = self.pass(clip, &*vae, given.tokens)?;
        let map = map(&pass, training.batch) * self.value();
        let (maps, attention) = passes(
            &pass,
            self.family.kept_maps(Some(targets)),
            (training.batch, training.recomputed, self.on_host),
        );
        let latents = latent_values(clip, &*vae, &*denoiser);
        Ok(Memory {
            trained: factors * (trained(self.on_host) + if summed { F32 } else { 0 }),
            activations: maps * map,
            attention: attention * self.value(),
            clips: held_on_device(&latents, given, self.on_host),
            ..self.frozen(&shapes)
        })
    }

    /// Values of an adapter that is trained.
    fn factors(&self, training: &LoraTraining, shapes: &Shapes) -> u64 {
        let targets = training.targets.unwrap_or_else(|| self.family.default_lora_targets());
        num_factors(shapes, self.family.lora_targets(targets), training.rank) as u64
    }

    /// Sampling of clips of this size, so many at a time, of which `parallel` at once.
    pub fn sampling(
        &self,
        clip: ClipSize,
        [batch, parallel]: [usize; 2],
        tiled: bool,
        given: &Given,
    ) -> Result<Memory, LoadError> {
        let (denoiser, shapes) = self.denoiser()?;
        let (vae, _) = self.vae()?;
        let pass = self.pass(clip, &*vae, given.tokens)?;
        let image = self.encoding(ClipSize { frames: 1, ..clip }, tiled)?;
        let scores = attention_memory(self.on_host, parallel, pass.heads_of_width(), pass.tokens);
        let forward = FORWARD * map(&pass, parallel) * self.value();
        let held = HeldClips { clips: batch * SAMPLED, images: 0 };
        let [held, _] = latent_values(clip, &*vae, &*denoiser).bytes(&[held]);
        let frozen = self.frozen(&shapes);
        Ok(Memory {
            weights: frozen.weights + image.weights + given.adapter.bytes(self.family, &shapes),
            activations: forward.max(image.activations),
            attention: scores.forward * self.value(),
            clips: held,
            ..Memory::default()
        })
    }

    /// Encoding of a clip of this size, whole or on tiles.
    pub fn encoding(&self, clip: ClipSize, tiled: bool) -> Result<Memory, LoadError> {
        self.coding(clip, tiled, ENCODER_MAPS)
    }

    /// Decoding of a clip of this size, whole or on tiles.
    pub fn decoding(&self, clip: ClipSize, tiled: bool) -> Result<Memory, LoadError> {
        self.coding(clip, tiled, DECODER_MAPS)
    }

    fn coding(
        &self,
        clip: ClipSize,
        tiled: bool,
        [on_host, on_gpu]: [u64; 2],
    ) -> Result<Memory, LoadError> {
        let maps = if self.on_host { on_host } else { on_gpu };
        let config = self.source.config("vae")?;
        let tile = self.vae_family.tile_size(&config)?.filter(|_| tiled);
        let part = tile.map_or(clip, |[height, width]| ClipSize {
            height: clip.height.min(height),
            width: clip.width.min(width),
            ..clip
        });
        let map = self.vae_family.largest_map(&config, part)?;
        // Tiles are put together as pixels.
        let pixels = tile.map_or(0, |_| 2 * 3 * (clip.frames * clip.height * clip.width) as u64);
        let activations = (maps * map + pixels) * self.value();
        Ok(Memory { activations, ..self.frozen(&self.vae()?.1) })
    }

    /// Encoding of a prompt of so many tokens, by default as many as the model takes of its format,
    /// which by default is that of the published pipeline.
    pub fn text(
        &self,
        tokens: Option<usize>,
        format: Option<TextFormat>,
    ) -> Result<Memory, LoadError> {
        let file = self.source.config("text_encoder")?;
        let reader = ParamReader::shapes();
        T5Encoder::new(&file, &reader)?;
        let config = T5Config::read(&file)?;
        let format = format.map_or_else(|| published_text_format(self.source), Ok)?;
        let format = self.family.prompt_format(&self.source.config("transformer")?, format)?;
        let tokens = tokens.unwrap_or(format.tokens) as u64;
        let wide = config.d_ff.max(config.num_heads * config.d_kv) as u64;
        Ok(Memory {
            activations: 4 * tokens * wide * self.value(),
            attention: 3 * config.num_heads as u64 * tokens * tokens * self.value(),
            ..self.frozen(&reader.into_shapes())
        })
    }
}

/// Merging of an adapter into a transformer, which is done in f32 on the host whatever the device
/// is, one tensor after the other: of the largest, the bytes that are read, its values, the change,
/// the sum and the bytes that are written.
pub fn merging(source: &ModelSource) -> Result<Memory, LoadError> {
    const COPIES: u64 = 5;
    let (_, shapes) = Estimator::new(source, true)?.denoiser()?;
    Ok(Memory { activations: COPIES * largest(&shapes), ..Memory::default() })
}

/// Bytes of a trained value.
fn trained(on_host: bool) -> u64 {
    if on_host { TRAINED_ON_HOST } else { TRAINED }
}

/// Values of the latents of a clip, padded to the frames that the denoiser takes.
fn latent_values(clip: ClipSize, vae: &dyn VideoVae, denoiser: &dyn Denoiser) -> LatentValues {
    let [frames, height, width] = latents(clip, vae.compression());
    let frame = (vae.latent_channels() * height * width) as u64;
    let padded = frames + denoiser.num_padding_frames(frames);
    LatentValues { clip: padded as u64 * frame, frame }
}

/// Bytes of the clips that a training holds on its device.
fn held_on_device(latents: &LatentValues, given: &Given, on_host: bool) -> u64 {
    let [clips, images] = latents.bytes(&[given.clips, given.held_out]);
    clips + if on_host { images } else { 0 }
}

/// Frames, rows and columns of the latents of a clip.
fn latents(clip: ClipSize, Compression { time, space }: Compression) -> [usize; 3] {
    [clip.frames.saturating_sub(1) / time + 1, clip.height / space, clip.width / space]
}

/// Maps, and scores of attention, that a training keeps and works with, where a block keeps so many
/// maps.
fn passes(
    pass: &PassSizes,
    kept: u64,
    (batch, recomputed, on_host): (usize, usize, bool),
) -> (u64, u64) {
    let again = recomputed.min(pass.blocks) as u64;
    let scores = attention_memory(on_host, batch, pass.heads_of_width(), pass.tokens);
    // The others whole, or the one that is being computed again.
    let whole = (pass.blocks as u64 - again).max(1);
    // The inputs of those that are computed again, and what comes behind them.
    let inputs = if again == 0 { 0 } else { again + 1 };
    (inputs + whole * kept + BACKWARD, whole * scores.kept + scores.working)
}

/// Values of one map.
fn map(pass: &PassSizes, batch: usize) -> u64 {
    (batch * pass.tokens * pass.dim) as u64
}

fn values(shapes: &Shapes) -> u64 {
    shapes.values().map(|shape| shape.iter().product::<usize>() as u64).sum()
}
