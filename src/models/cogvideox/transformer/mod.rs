//! The expert transformer of CogVideoX 1.0 and 1.5.
//!
//! Legend: B batch, C latent channels, F/H/W latent frames/rows/columns, S tokens, D token size.
//! Text and video are one sequence `[text, video]` throughout; see
//! [`StreamModulation`](crate::models::nn::StreamModulation).
//!
//! Follows `CogVideoXTransformer3DModel`,
//! `src/diffusers/models/transformers/cogvideox_transformer_3d.py` at v0.42.1.

mod block;
mod patch_embed;

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor};

use self::{block::Block, patch_embed::PatchEmbed};
use super::{config::TransformerConfig, rotary::Rotary};
use crate::models::{
    Denoiser, DenoiserInput, ImageConditioning, LoadError, ParamReader, SizeError,
    nn::{LayerNorm, Linear, TimestepEmbedding, silu, sinusoid},
    tables::Tables,
};

/// The constant that 1.5 embeds beside the timestep.
const OFFSET: f32 = 2.0;

/// The transformer with its weights.
#[derive(Debug)]
pub struct Transformer {
    config: TransformerConfig,
    patch_embed: PatchEmbed,
    time_embedding: TimestepEmbedding,
    ofs_embedding: Option<TimestepEmbedding>,
    blocks: Vec<Block>,
    norm_final: LayerNorm,
    norm_out: AdaLayerNorm,
    proj_out: Linear,
    /// Holds the rotations, which all blocks share.
    tables: Arc<Tables>,
}

impl Transformer {
    /// Takes the parameters by their published names, every one of them.
    pub fn new(config: TransformerConfig, params: &ParamReader<'_>) -> Result<Self, LoadError> {
        let dim = config.inner_dim();
        let time_dim = config.time_embed_dim;
        let token_out = config.out_channels * config.patch_size.pow(2) * config.frames_per_token();
        let blocks = (0..config.num_layers)
            .map(|i| Block::new(&config, &params.scope(format_args!("transformer_blocks.{i}"))))
            .collect();
        let transformer = Self {
            patch_embed: PatchEmbed::new(&config, &params.scope("patch_embed")),
            time_embedding: TimestepEmbedding::new(&params.scope("time_embedding"), dim, time_dim),
            ofs_embedding: config
                .ofs_embed_dim
                .map(|dim| TimestepEmbedding::new(&params.scope("ofs_embedding"), dim, dim)),
            blocks,
            norm_final: LayerNorm::new(params, "norm_final", dim, config.norm_eps),
            norm_out: AdaLayerNorm::new(&config, &params.scope("norm_out")),
            proj_out: params.linear("proj_out", [dim, token_out]),
            tables: params.tables(),
            config,
        };
        params.finish()?;
        Ok(transformer)
    }

    /// Tokens on each axis for latents of `[f, h, w]`, padding included.
    fn grid(&self, latents: &Tensor<5>) -> [usize; 3] {
        let [_, _, f, h, w] = latents.dims();
        let patch = self.config.patch_size;
        [f / self.config.frames_per_token(), h / patch, w / patch]
    }

    fn dtype(&self) -> FloatDType {
        float_dtype(self.proj_out.weight.dtype())
    }

    fn rotary(&self, input: &DenoiserInput) -> Option<Arc<Rotary>> {
        if !self.config.use_rotary_positional_embeddings {
            return None;
        }
        let [_, text_len, _] = input.text.dims();
        let size = (text_len, self.grid(&input.latents), plain_device(&input.latents));
        let rotary = self.tables.get(size, |(text_len, grid, device)| {
            Rotary::new(&self.config, *text_len, *grid, device)
        });
        Some(rotary)
    }

    /// The embedding of timestep and offset, `[B, time_embed_dim]`.
    fn embed_time(&self, timesteps: &[f32], device: &Device) -> Tensor<2> {
        let shift = self.config.freq_shift;
        let dtype = self.dtype();
        let embed = |values: &[f32], dim: usize, mlp: &TimestepEmbedding| {
            mlp.forward(sinusoid(values, dim, shift, device).cast(dtype))
        };
        let time = embed(timesteps, self.config.inner_dim(), &self.time_embedding);
        match (&self.ofs_embedding, self.config.ofs_embed_dim) {
            (Some(mlp), Some(dim)) => time + embed(&[OFFSET], dim, mlp),
            _ => time,
        }
    }
}

impl Denoiser for Transformer {
    /// Returns the tokens `[B, S, D]`, the time embedding `[B, 1, time_embed_dim]`, which
    /// every block takes as it is.
    fn begin(&self, input: &DenoiserInput) -> Vec<Tensor<3>> {
        let [b, c, f, h, w] = input.latents.dims();
        let device = plain_device(&input.latents);
        let mut image = input.image.clone();
        let frames = image.dims()[2];
        if frames < f {
            let empty = Tensor::zeros([b, c, f - frames, h, w], (&device, image.dtype()));
            image = Tensor::cat(vec![image, empty], 2);
        }
        let video = Tensor::cat(vec![input.latents.clone(), image], 1);
        let tokens = self.patch_embed.forward(
            &self.config,
            video.cast(self.dtype()),
            input.text.clone().cast(self.dtype()),
        );
        let time = self.embed_time(&input.timesteps, &device).unsqueeze_dim(1);
        vec![tokens, time]
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn block(&self, index: usize, hidden: Vec<Tensor<3>>, input: &DenoiserInput) -> Vec<Tensor<3>> {
        let [tokens, time] = unpack(hidden);
        let text_len = input.text.dims()[1];
        let rotary = self.rotary(input);
        let tokens = self.blocks[index].forward(tokens, &time, text_len, rotary.as_deref());
        vec![tokens, time]
    }

    fn end(&self, hidden: Vec<Tensor<3>>, input: &DenoiserInput) -> Tensor<5> {
        let [tokens, time] = unpack(hidden);
        let text_len = input.text.dims()[1];
        let video_len = tokens.dims()[1] - text_len;
        let video = self.norm_final.forward(tokens.narrow(1, text_len, video_len));
        let patches = self.proj_out.forward(self.norm_out.forward(video, time));
        let [b, c, f, h, w] = input.latents.dims();
        let [tokens_t, tokens_h, tokens_w] = self.grid(&input.latents);
        let (patch, patch_t) = (self.config.patch_size, self.config.frames_per_token());
        patches
            .reshape([b, tokens_t, tokens_h, tokens_w, c, patch_t, patch, patch])
            .permute([0, 4, 1, 5, 2, 6, 3, 7])
            .reshape([b, c, f, h, w])
            .cast(float_dtype(input.latents.dtype()))
    }

    fn image_conditioning(&self) -> ImageConditioning {
        ImageConditioning::Channels
    }

    fn latent_channels(&self) -> usize {
        self.config.out_channels
    }

    fn text_channels(&self) -> usize {
        self.config.text_embed_dim
    }

    fn pad_frames(&self, latents: Tensor<5>) -> Tensor<5> {
        let first = latents.clone().narrow(2, 0, 1);
        let mut frames = vec![first; self.num_padding_frames(latents.dims()[2])];
        frames.push(latents);
        Tensor::cat(frames, 2)
    }

    fn num_padding_frames(&self, frames: usize) -> usize {
        frames.next_multiple_of(self.config.frames_per_token()) - frames
    }

    fn check_size(&self, [_, h, w]: [usize; 3], text: usize) -> Result<(), SizeError> {
        let TransformerConfig { patch_size, sample_height, sample_width, .. } = self.config;
        for (what, found, trained) in
            [("latent height", h, sample_height), ("latent width", w, sample_width)]
        {
            let error = |wanted| Err(SizeError { what, wanted, found });
            if self.config.use_learned_positional_embeddings && found != trained {
                return error(trained.to_string());
            }
            if found == 0 || found % patch_size != 0 {
                return error(format!("a multiple of {patch_size}"));
            }
            if self.config.patch_size_t.is_some() && found > trained {
                return error(format!("at most {trained}"));
            }
        }
        self.check_text(text)
    }

    fn trained_frames(&self) -> Option<usize> {
        self.config.use_learned_positional_embeddings.then_some(self.config.sample_frames)
    }

    fn check_text(&self, text: usize) -> Result<(), SizeError> {
        let wanted = self.config.max_text_seq_length;
        if self.config.has_additive_positions() && text != wanted {
            let wanted = wanted.to_string();
            return Err(SizeError { what: "number of text tokens", wanted, found: text });
        }
        Ok(())
    }
}

/// The last norm: shift and scale from the time embedding.
#[derive(Clone, Debug)]
struct AdaLayerNorm {
    linear: Linear,
    norm: LayerNorm,
}

impl AdaLayerNorm {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        Self {
            linear: params.zero_linear("linear", [config.time_embed_dim, 2 * dim]),
            norm: LayerNorm::new(params, "norm", dim, config.norm_eps),
        }
    }

    fn forward(&self, video: Tensor<3>, time: Tensor<3>) -> Tensor<3> {
        let dim = video.dims()[2];
        let modulation = self.linear.forward(silu(time)); // [B, 1, shift | scale]
        let shift = modulation.clone().narrow(2, 0, dim);
        let scale = modulation.narrow(2, dim, dim);
        self.norm.forward(video) * (scale + 1.0) + shift
    }
}

fn unpack(hidden: Vec<Tensor<3>>) -> [Tensor<3>; 2] {
    hidden.try_into().expect("`begin` made two tensors")
}

/// The device for constants: not part of any tape.
fn plain_device<const D: usize>(x: &Tensor<D>) -> Device {
    x.device().without_autodiff()
}

fn float_dtype(dtype: DType) -> FloatDType {
    dtype.into()
}
