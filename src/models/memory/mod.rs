//! The memory that passes through a model take, from its configuration: nothing is loaded.
//!
//! Weights and trained values are counted exactly. What a pass keeps is counted in maps, a map being
//! one value per token and channel (or, in an autoencoder, the largest tensor between two layers); how
//! many maps a block keeps is measured (`benches/maps.py`, `benches/memory.py`). Estimates are of the least that is
//! needed: the program itself, an allocator's spare blocks and a kernel's workspace come on top. On the
//! CPU that was 30 MiB for the program and mostly 30 to 100 MiB more; on a GPU the allocator reserved up to 15 %
//! more, see `benches/results/`.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

use super::{
    Compression, LoadError, LoraTargets, ModelSource, ParamReader, TextFormat, VideoDiffusion,
    family,
    lora::num_factors,
    nn::attention_memory,
    published_text_format,
    t5::{T5Config, T5Encoder},
};
use crate::units::bytes;

/// Maps that are alive at once in a forward pass that keeps nothing.
const FORWARD: u64 = 14;
/// Maps that are alive at once on the way back through a block, beside what it kept.
const BACKWARD: u64 = 20;
/// Largest tensors that are alive at once in an encoder, and in a decoder, whose norms see the latents
/// at full size, too: on the CPU, and on a GPU, whose convolutions have workspaces.
const ENCODER_MAPS: [u64; 2] = [4, 6];
const DECODER_MAPS: [u64; 2] = [6, 8];
/// Largest tensors that an autoencoder keeps for the backward pass.
const VAE_KEPT: u64 = 18;
/// Bytes of a value in f32.
const F32: u64 = 4;
/// Bytes of a trained value: itself, its gradient and two moments of the optimizer, each in f32.
const TRAINED: u64 = 16;
/// The same on the host while a checkpoint is made: itself and two moments, and these twice more, as the
/// tensors' bytes and as those of the file.
const TRAINED_ON_HOST: u64 = 36;

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
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Each part with its name.
    pub fn parts(&self) -> [(&'static str, u64); 4] {
        let Self { weights, trained, activations, attention } = *self;
        [
            ("weights", weights),
            ("trained", trained),
            ("activations", activations),
            ("attention", attention),
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
    /// Whether each block is computed again on the way back.
    pub recompute: bool,
    /// Whether gradients of several batches are added up.
    pub accumulates: bool,
}

/// Estimates for one model on one kind of device.
pub struct Estimator<'a> {
    source: &'a ModelSource,
    family: &'static dyn VideoDiffusion,
    /// Whether the device is the CPU, which computes in f32; GPUs compute in bf16.
    on_host: bool,
}

type Shapes = BTreeMap<String, Vec<usize>>;

impl<'a> Estimator<'a> {
    /// Estimates for the model in `source`.
    pub fn new(source: &'a ModelSource, on_host: bool) -> Result<Self, LoadError> {
        Ok(Self { source, family: family(source)?, on_host })
    }

    /// Bytes of one value of weights and activations.
    fn value(&self) -> u64 {
        if self.on_host { 4 } else { 2 }
    }

    fn denoiser_shapes(&self) -> Result<Shapes, LoadError> {
        let reader = ParamReader::shapes();
        self.family.denoiser(&self.source.config("transformer")?, &reader)?;
        Ok(reader.into_shapes())
    }

    /// The bytes of the VAE's weights.
    fn vae_weights(&self) -> Result<u64, LoadError> {
        let reader = ParamReader::shapes();
        self.family.vae(&self.source.config("vae")?, &reader)?;
        Ok(values(&reader.into_shapes()) * self.value())
    }

    fn pass(&self, clip: ClipSize) -> Result<PassSizes, LoadError> {
        let vae = self.family.vae(&self.source.config("vae")?, &ParamReader::shapes())?;
        let transformer = self.source.config("transformer")?;
        let text = self.family.prompt_format(&transformer, self.family.text_formats()[0])?.tokens;
        self.family.pass(&transformer, latents(clip, vae.compression()), text)
    }

    /// Training of an adapter on latents of clips of this size.
    pub fn lora_training(
        &self,
        clip: ClipSize,
        training: &LoraTraining,
    ) -> Result<Memory, LoadError> {
        let shapes = self.denoiser_shapes()?;
        let targets = training.targets.unwrap_or_else(|| self.family.default_lora_targets());
        let factors = num_factors(&shapes, self.family.lora_targets(targets), training.rank) as u64;
        // On the host there are no gradients while the most is taken.
        let summed = training.accumulates && !self.on_host;
        let pass = self.pass(clip)?;
        let map = map(&pass, training.batch) * self.value();
        let (maps, attention) = passes(
            &pass,
            self.family.kept_maps(Some(targets)),
            (training.batch, training.recompute, self.on_host),
        );
        Ok(Memory {
            weights: values(&shapes) * self.value(),
            trained: factors * (trained(self.on_host) + if summed { F32 } else { 0 }),
            activations: maps * map,
            attention: attention * self.value(),
        })
    }

    /// Sampling of clips of this size, `parallel` at a time.
    pub fn sampling(
        &self,
        clip: ClipSize,
        parallel: usize,
        tiled: bool,
    ) -> Result<Memory, LoadError> {
        let pass = self.pass(clip)?;
        let image = self.encoding(ClipSize { frames: 1, ..clip }, tiled)?;
        let scores = attention_memory(self.on_host, parallel, pass.heads_of_width(), pass.tokens);
        let forward = FORWARD * map(&pass, parallel) * self.value();
        Ok(Memory {
            weights: values(&self.denoiser_shapes()?) * self.value() + image.weights,
            activations: forward.max(image.activations),
            attention: scores.forward * self.value(),
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
        let tile = self.family.tile_size(&config)?.filter(|_| tiled);
        let part = tile.map_or(clip, |[height, width]| ClipSize {
            height: clip.height.min(height),
            width: clip.width.min(width),
            ..clip
        });
        let map = self.family.largest_map(&config, part)?;
        // Tiles are put together as pixels.
        let pixels = tile.map_or(0, |_| 2 * 3 * (clip.frames * clip.height * clip.width) as u64);
        Ok(Memory {
            weights: self.vae_weights()?,
            activations: (maps * map + pixels) * self.value(),
            ..Memory::default()
        })
    }

    /// Encoding of a prompt of so many tokens, by default as many as the model takes of its format, which
    /// by default is that of the published pipeline.
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
            weights: values(&reader.into_shapes()) * self.value(),
            activations: 4 * tokens * wide * self.value(),
            attention: 3 * config.num_heads as u64 * tokens * tokens * self.value(),
            ..Memory::default()
        })
    }
}

/// Training of all parameters of one part, in f32.
#[derive(Clone, Copy)]
pub struct Pretraining<'a> {
    /// The part's family.
    pub family: &'static dyn VideoDiffusion,
    /// Its `config.json`.
    pub config: &'a Value,
    /// Clips per batch.
    pub batch: usize,
    /// Whether an average of the parameters is kept.
    pub averages: bool,
    /// Whether the device is the CPU.
    pub on_host: bool,
}

impl Pretraining<'_> {
    fn trained(&self, shapes: &Shapes) -> u64 {
        let average = match (self.averages, self.on_host) {
            (false, _) => 0,
            (true, false) => F32,
            (true, true) => 3 * F32,
        };
        values(shapes) * (trained(self.on_host) + average)
    }

    /// Training of an autoencoder on pieces of this size.
    pub fn vae(&self, piece: ClipSize) -> Result<Memory, LoadError> {
        let reader = ParamReader::shapes();
        self.family.vae(self.config, &reader)?;
        let map = self.family.largest_map(self.config, piece)? * self.batch as u64;
        Ok(Memory {
            trained: self.trained(&reader.into_shapes()),
            activations: VAE_KEPT * map * F32,
            ..Memory::default()
        })
    }

    /// Training of a denoiser on latents that this VAE makes of such clips; `recompute` as in
    /// [`LoraTraining`].
    pub fn denoiser(
        &self,
        clip: ClipSize,
        vae: &Value,
        recompute: bool,
    ) -> Result<Memory, LoadError> {
        let reader = ParamReader::shapes();
        self.family.denoiser(self.config, &reader)?;
        let compression = self.family.vae(vae, &ParamReader::shapes())?.compression();
        let text = self.family.prompt_format(self.config, self.family.text_formats()[0])?.tokens;
        let pass = self.family.pass(self.config, latents(clip, compression), text)?;
        let (maps, scores) =
            passes(&pass, self.family.kept_maps(None), (self.batch, recompute, self.on_host));
        Ok(Memory {
            trained: self.trained(&reader.into_shapes()),
            activations: maps * map(&pass, self.batch) * F32,
            attention: scores * F32,
            ..Memory::default()
        })
    }
}

/// Merging of an adapter into a transformer, which is done in f32 on the host whatever the device is, one
/// tensor after the other: of the largest, the bytes that are read, its values, the change, the sum and
/// the bytes that are written.
pub fn merging(source: &ModelSource) -> Result<Memory, LoadError> {
    const COPIES: u64 = 5;
    let shapes = Estimator::new(source, true)?.denoiser_shapes()?;
    let sizes = shapes.values().map(|shape| shape.iter().product::<usize>() as u64);
    let activations = COPIES * sizes.max().unwrap_or(0) * F32;
    Ok(Memory { activations, ..Memory::default() })
}

/// Bytes of a trained value.
fn trained(on_host: bool) -> u64 {
    if on_host { TRAINED_ON_HOST } else { TRAINED }
}

/// Frames, rows and columns of the latents of a clip.
fn latents(clip: ClipSize, Compression { time, space }: Compression) -> [usize; 3] {
    [clip.frames.saturating_sub(1) / time + 1, clip.height / space, clip.width / space]
}

/// Maps, and scores of attention, that a training keeps and works with, where a block keeps so many maps.
fn passes(
    pass: &PassSizes,
    kept: u64,
    (batch, recompute, on_host): (usize, bool, bool),
) -> (u64, u64) {
    let blocks = pass.blocks as u64;
    let scores = attention_memory(on_host, batch, pass.heads_of_width(), pass.tokens);
    let (maps, attention) = if recompute {
        // The inputs of all blocks, and one block whole.
        (blocks + 1 + kept, scores.kept + scores.working)
    } else {
        (blocks * kept, blocks * scores.kept + scores.working)
    };
    (maps + BACKWARD, attention)
}

/// Values of one map.
fn map(pass: &PassSizes, batch: usize) -> u64 {
    (batch * pass.tokens * pass.dim) as u64
}

fn values(shapes: &Shapes) -> u64 {
    shapes.values().map(|shape| shape.iter().product::<usize>() as u64).sum()
}
