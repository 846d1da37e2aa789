//! The causal video autoencoder of CogVideoX.
//!
//! Legend: B batch, C channels, T/H/W frames/rows/columns.
//!
//! Group norms see one chunk of frames, and one tile, at a time, so the chunk lengths are part of
//! the model: eight video frames to encode, two latent frames to decode, the remainder in the first
//! chunk.
//!
//! Follows `AutoencoderKLCogVideoX`,
//! `src/diffusers/models/autoencoders/autoencoder_kl_cogvideox.py` at v0.42.1.

mod blocks;
mod decoder;
mod encoder;
mod tiling;

use std::sync::Arc;

use burn::tensor::{FloatDType, Tensor};

use self::{blocks::ConvCache, decoder::Decoder, encoder::Encoder, tiling::Tiling};
use super::config::VaeConfig;
use crate::models::{Compression, LoadError, ParamReader, Posterior, VideoVae};

const ENCODE_CHUNK: usize = 8;
const DECODE_CHUNK: usize = 2;

/// The autoencoder with its weights.
#[derive(Clone, Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Encoder,
    decoder: Decoder,
    tiling: Option<Tiling>,
}

impl Vae {
    /// Takes the parameters by their published names, every one of them.
    pub fn new(config: VaeConfig, params: &ParamReader<'_>) -> Result<Self, LoadError> {
        let encoder = Encoder::new(&config, &params.scope("encoder"));
        let decoder = Decoder::new(&config, &params.scope("decoder"));
        params.finish()?;
        Ok(Self { config, encoder, decoder, tiling: None })
    }

    fn encode_chunks(&self, video: &Tensor<5>) -> Tensor<5> {
        by_chunks(video, ENCODE_CHUNK, |chunk, cache| self.encoder.forward(chunk, cache))
    }

    fn decode_chunks(&self, latents: &Tensor<5>) -> Tensor<5> {
        by_chunks(latents, DECODE_CHUNK, |chunk, cache| self.decoder.forward(&chunk, cache))
    }
}

impl VideoVae for Vae {
    fn encode(&self, video: Tensor<5>) -> Posterior {
        let dtype = FloatDType::from(video.dtype());
        let video = video.cast(self.encoder.dtype());
        let moments = match &self.tiling {
            Some(tiling) => tiling.encode(&video, |tile| self.encode_chunks(tile)),
            None => self.encode_chunks(&video),
        };
        let moments = moments.cast(dtype);
        let channels = self.config.latent_channels;
        Posterior {
            mean: moments.clone().narrow(1, 0, channels),
            logvar: moments.narrow(1, channels, channels).clamp(-30.0, 20.0),
        }
    }

    fn decode(&self, latents: Tensor<5>) -> Tensor<5> {
        let dtype = FloatDType::from(latents.dtype());
        let latents = latents.cast(self.encoder.dtype());
        let video = match &self.tiling {
            Some(tiling) => tiling.decode(&latents, |tile| self.decode_chunks(tile)),
            None => self.decode_chunks(&latents),
        };
        video.cast(dtype)
    }

    /// Tiles of half the trained height and width; group norms then see one tile.
    fn tiled(&self) -> Option<Arc<dyn VideoVae>> {
        Some(Arc::new(Self { tiling: Some(Tiling::new(&self.config)), ..self.clone() }))
    }

    fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    fn compression(&self) -> Compression {
        Compression {
            time: self.config.temporal_compression_ratio,
            space: self.config.spatial_compression(),
        }
    }

    /// An even number has no first frame of its own: all of them are doubled.
    fn decoded_frames(&self, latent_frames: usize) -> usize {
        let time = self.compression().time;
        match latent_frames % 2 {
            0 => latent_frames * time,
            _ => (latent_frames - 1) * time + 1,
        }
    }

    fn scaling_factor(&self) -> f32 {
        self.config.scaling_factor
    }
}

/// Runs `part` over chunks of `len` frames, the remainder in the first one.
fn by_chunks(
    x: &Tensor<5>,
    len: usize,
    part: impl Fn(Tensor<5>, &mut ConvCache) -> Tensor<5>,
) -> Tensor<5> {
    let frames = x.dims()[2];
    let lens = chunk_lens(frames, len);
    let mut cache = ConvCache::default();
    let (mut start, mut parts) = (0, Vec::with_capacity(lens.len()));
    for (index, len) in lens.iter().enumerate() {
        cache.next_chunk(index + 1 == lens.len());
        parts.push(part(x.clone().narrow(2, start, *len), &mut cache));
        start += len;
    }
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 2) }
}

/// Height and width of a tile in pixels.
pub(super) fn tile_size(config: &VaeConfig) -> [usize; 2] {
    Tiling::new(config).pixels()
}

/// Frames of the longest chunk of a clip of so many.
pub(super) fn first_chunk(frames: usize) -> usize {
    chunk_lens(frames, ENCODE_CHUNK)[0]
}

fn chunk_lens(frames: usize, len: usize) -> Vec<usize> {
    let count = (frames / len).max(1);
    let mut lens = vec![len; count];
    lens[0] = frames - (count - 1) * len;
    lens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_go_into_the_first_chunk() {
        assert_eq!(chunk_lens(9, ENCODE_CHUNK), [9]);
        assert_eq!(chunk_lens(1, ENCODE_CHUNK), [1]);
        assert_eq!(chunk_lens(49, ENCODE_CHUNK), [9, 8, 8, 8, 8, 8]);
        assert_eq!(chunk_lens(3, DECODE_CHUNK), [3]);
        assert_eq!(chunk_lens(13, DECODE_CHUNK), [3, 2, 2, 2, 2, 2]);
    }
}
