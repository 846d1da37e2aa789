//! The expert transformer of CogVideoX 1.0 and 1.5.
//!
//! Legend: B batch, C latent channels, F/H/W latent frames/rows/columns, S tokens, D token size.
//! Text and video are one sequence `[text, video]` throughout; see [`StreamModulation`]. The
//! reference is `CogVideoXTransformer3DModel` of diffusers 0.42.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::{
    config::TransformerConfig,
    rotary::{Rotary, additive_positions},
};
use crate::models::{
    Denoiser, DenoiserInput, ImageConditioning, LoadError, ParamReader, SizeError,
    nn::{
        LayerNorm, Linear, StreamModulation, TimestepEmbedding, attention, gelu_tanh, silu,
        sinusoid,
    },
    params::Init,
};
use crate::rng::TorchRng;

/// The constant that 1.5 embeds beside the timestep.
const OFFSET: f32 = 2.0;
const QUERY_KEY_EPS: f64 = 1e-6;

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
    /// The rotations of the last size, which all blocks share.
    rotary: Mutex<Option<(RotarySize, Arc<Rotary>)>>,
}

/// What rotations depend on: text tokens, video tokens on each axis, and the device.
type RotarySize = (usize, [usize; 3], Device);

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
            proj_out: params.linear("proj_out", [dim, token_out], true),
            rotary: Mutex::default(),
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
        let mut last = self.rotary.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, rotary)) if *known == size => Some(Arc::clone(rotary)),
            _ => {
                let rotary = Arc::new(Rotary::new(&self.config, size.0, size.1, &size.2));
                *last = Some((size, Arc::clone(&rotary)));
                Some(rotary)
            }
        }
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
        let wanted = self.config.max_text_seq_length;
        if self.config.has_additive_positions() && text != wanted {
            let wanted = wanted.to_string();
            return Err(SizeError { what: "number of text tokens", wanted, found: text });
        }
        Ok(())
    }
}

/// Patches of the video and projected text, as one sequence.
#[derive(Clone, Debug)]
struct PatchEmbed {
    proj: Linear,
    text_proj: Linear,
    /// The stored table of positions of the trained size.
    positions: Option<Tensor<3>>,
}

impl PatchEmbed {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        let patch = config.patch_size;
        let features = config.in_channels * patch * patch * config.frames_per_token();
        let proj = if config.patch_size_t.is_some() {
            params.linear("proj", [features, dim], true)
        } else {
            // A convolution whose stride is its kernel is a linear layer over patches.
            let proj = params.scope("proj");
            let init = Init::fan_in(features);
            let weight = proj.tensor("weight", [dim, config.in_channels, patch, patch], init);
            let bias = config.patch_bias.then(|| proj.tensor("bias", [dim], init));
            Linear { weight: weight.reshape([dim, features]), bias, lora: None }
        };
        let positions = config.use_learned_positional_embeddings.then(|| {
            let tokens =
                config.max_text_seq_length + trained_grid(config).iter().product::<usize>();
            let table = |_: &mut TorchRng, device: &Device| {
                additive_positions(config, config.max_text_seq_length, trained_grid(config), device)
                    .reshape([tokens * dim])
            };
            params.tensor_or::<3>("pos_embedding", [1, tokens, dim], table)
        });
        let text_proj = params.linear("text_proj", [config.text_embed_dim, dim], true);
        Self { proj, text_proj, positions }
    }

    /// `[B, C, F, H, W]` and `[B, L, text]` to `[B, S, D]`.
    fn forward(&self, config: &TransformerConfig, video: Tensor<5>, text: Tensor<3>) -> Tensor<3> {
        let [b, c, f, h, w] = video.dims();
        let (patch, patch_t) = (config.patch_size, config.frames_per_token());
        let grid = [f / patch_t, h / patch, w / patch];
        let text_len = text.dims()[1];
        let device = plain_device(&video);
        // Within a token: channel, frame, row, column.
        let patches = video
            .reshape([b, c, grid[0], patch_t, grid[1], patch, grid[2], patch])
            .permute([0, 2, 4, 6, 1, 3, 5, 7])
            .reshape([b, grid.iter().product(), c * patch_t * patch * patch]);
        let tokens = Tensor::cat(vec![self.text_proj.forward(text), self.proj.forward(patches)], 1);
        if !config.has_additive_positions() {
            return tokens;
        }
        let positions = match &self.positions {
            Some(table) if grid == trained_grid(config) => table.clone(),
            _ => additive_positions(config, text_len, grid, &device),
        };
        let dtype = float_dtype(tokens.dtype());
        tokens + positions.cast(dtype)
    }
}

/// Tokens on each axis of the size the model was trained on; only 1.0 stores positions for it.
fn trained_grid(config: &TransformerConfig) -> [usize; 3] {
    let frames = (config.sample_frames - 1) / config.temporal_compression_ratio + 1;
    [frames, config.sample_height / config.patch_size, config.sample_width / config.patch_size]
}

/// One block: joint attention, then feed-forward, both modulated and gated.
#[derive(Clone, Debug)]
struct Block {
    norm1: ModulatedNorm,
    attn1: Attention,
    norm2: ModulatedNorm,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

impl Block {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        Self {
            norm1: ModulatedNorm::new(config, &params.scope("norm1")),
            attn1: Attention::new(config, &params.scope("attn1")),
            norm2: ModulatedNorm::new(config, &params.scope("norm2")),
            feed_forward_in: params.linear("ff.net.0.proj", [dim, 4 * dim], true),
            feed_forward_out: params.linear("ff.net.2", [4 * dim, dim], true),
        }
    }

    fn forward(
        &self,
        tokens: Tensor<3>,
        time: &Tensor<3>,
        text_len: usize,
        rotary: Option<&Rotary>,
    ) -> Tensor<3> {
        let (normed, modulation) = self.norm1.forward(tokens.clone(), time, text_len);
        let tokens = modulation.gated_add(tokens, self.attn1.forward(normed, rotary));
        let (normed, modulation) = self.norm2.forward(tokens.clone(), time, text_len);
        let hidden = gelu_tanh(self.feed_forward_in.forward(normed));
        modulation.gated_add(tokens, self.feed_forward_out.forward(hidden))
    }
}

/// Layer norm whose shift, scale and gate come from the time embedding, apart for each stream.
#[derive(Clone, Debug)]
struct ModulatedNorm {
    linear: Linear,
    norm: LayerNorm,
}

impl ModulatedNorm {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        Self {
            linear: params.zero_linear("linear", [config.time_embed_dim, 6 * dim]),
            norm: LayerNorm::new(params, "norm", dim, config.norm_eps),
        }
    }

    fn forward(
        &self,
        tokens: Tensor<3>,
        time: &Tensor<3>,
        text_len: usize,
    ) -> (Tensor<3>, StreamModulation) {
        let [b, _, dim] = tokens.dims();
        let chunks = self.linear.forward(silu(time.clone())).reshape([b, 6, dim]);
        let modulation = StreamModulation { chunks, text_len };
        (modulation.norm_scale_shift(&self.norm, tokens), modulation)
    }
}

/// Attention over the joint sequence, query and key normalised per head and rotated.
#[derive(Clone, Debug)]
struct Attention {
    num_heads: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: LayerNorm,
    norm_k: LayerNorm,
}

impl Attention {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let (dim, head_dim) = (config.inner_dim(), config.attention_head_dim);
        Self {
            num_heads: config.num_attention_heads,
            to_q: params.linear("to_q", [dim, dim], config.attention_bias),
            to_k: params.linear("to_k", [dim, dim], config.attention_bias),
            to_v: params.linear("to_v", [dim, dim], config.attention_bias),
            to_out: params.linear("to_out.0", [dim, dim], true),
            norm_q: LayerNorm::new(params, "norm_q", head_dim, QUERY_KEY_EPS),
            norm_k: LayerNorm::new(params, "norm_k", head_dim, QUERY_KEY_EPS),
        }
    }

    fn forward(&self, x: Tensor<3>, rotary: Option<&Rotary>) -> Tensor<3> {
        let [b, s, dim] = x.dims();
        let split = |x: Tensor<3>| x.reshape([b, s, self.num_heads, dim / self.num_heads]);
        // [B, heads, S, D / heads]
        let rotate = |norm: &LayerNorm, x: Tensor<4>| match rotary {
            Some(rotary) => rotary.norm_and_apply(norm, x),
            None => norm.forward(x).swap_dims(1, 2),
        };
        let q = rotate(&self.norm_q, split(self.to_q.forward(x.clone())));
        let k = rotate(&self.norm_k, split(self.to_k.forward(x.clone())));
        let v = split(self.to_v.forward(x)).swap_dims(1, 2);
        let y = attention(q, k, v).swap_dims(1, 2).reshape([b, s, dim]);
        self.to_out.forward(y)
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
