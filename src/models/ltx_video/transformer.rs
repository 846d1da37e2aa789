//! The transformer of LTX-Video.
//!
//! Legend: B batch, C latent channels, F/H/W latent frames/rows/columns, S = F H W tokens, L text
//! tokens, D token size, N timesteps per sample.
//!
//! Follows `LTXVideoTransformer3DModel`, `src/diffusers/models/transformers/transformer_ltx.py` at
//! v0.42.1.
//!
//! A sample has one timestep, or one per latent frame, or one per token: N is 1, F or S, and each
//! timestep modulates S / N tokens in a row. The reference masks padded text in the attention; here
//! the text has no padding to begin with, which gives the same.

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::{config::TransformerConfig, rotary::Rotary};
use crate::models::{
    Denoiser, DenoiserInput, ImageConditioning, LoadError, ParamReader, SizeError,
    nn::{
        Linear, RmsNorm, TimestepEmbedding, attention_by_token, fused, gelu_tanh, silu, sinusoid,
        standardize,
    },
    params::Init,
    tables::Tables,
};

const QUERY_KEY_EPS: f64 = 1e-5;
const NORM_OUT_EPS: f64 = 1e-6;
/// Size of the timestep's sinusoids.
const SINUSOIDS: usize = 256;

/// The transformer with its weights.
#[derive(Debug)]
pub struct Transformer {
    config: TransformerConfig,
    proj_in: Linear,
    timestep_embedder: TimestepEmbedding,
    time_linear: Linear,
    caption_projection: [Linear; 2],
    blocks: Vec<Block>,
    scale_shift_table: Tensor<2>, // [2, D]
    proj_out: Linear,
    /// Holds the rotations, which all blocks share.
    tables: Arc<Tables>,
}

impl Transformer {
    /// Takes the parameters by their published names, every one of them.
    pub fn new(config: TransformerConfig, params: &ParamReader<'_>) -> Result<Self, LoadError> {
        let (dim, channels) = (config.inner_dim(), config.in_channels);
        let embedder = params.scope("time_embed.emb.timestep_embedder");
        let table = table(params, 2, dim);
        // One for all blocks, as it is made on the device.
        let one = Tensor::ones([1], &table.device().without_autodiff());
        let block = |i| {
            let params = params.scope(format_args!("transformer_blocks.{i}"));
            Block::new(&config, &params, one.clone())
        };
        let blocks = (0..config.num_layers).map(block).collect();
        let transformer = Self {
            proj_in: params.linear("proj_in", [channels, dim]),
            timestep_embedder: TimestepEmbedding::new(&embedder, SINUSOIDS, dim),
            time_linear: params.linear("time_embed.linear", [dim, 6 * dim]),
            caption_projection: [
                params.linear("caption_projection.linear_1", [config.caption_channels, dim]),
                params.linear("caption_projection.linear_2", [dim, dim]),
            ],
            blocks,
            scale_shift_table: table,
            proj_out: params.linear("proj_out", [dim, channels]),
            tables: params.tables(),
            config,
        };
        params.finish()?;
        Ok(transformer)
    }

    fn dtype(&self) -> FloatDType {
        self.proj_out.weight.dtype().into()
    }

    fn rotary(&self, input: &DenoiserInput) -> Arc<Rotary> {
        let [_, _, f, h, w] = input.latents.dims();
        let device = input.latents.device().without_autodiff();
        let size = ([f, h, w], input.time, device);
        let dim = self.config.inner_dim();
        self.tables.get(size, |(grid, time, device)| Rotary::new(dim, *grid, *time, device))
    }

    /// The embedded timesteps `[B, N, D]`.
    fn embed_time(&self, timesteps: &[f32], batch: usize, device: &Device) -> Tensor<3> {
        let waves = sinusoid(timesteps, SINUSOIDS, 0.0, device).cast(self.dtype());
        let embedded = self.timestep_embedder.forward(waves);
        let dim = self.config.inner_dim();
        embedded.reshape([batch, timesteps.len() / batch, dim])
    }
}

impl Denoiser for Transformer {
    /// Returns the tokens `[B, S, D]`; then what every block takes as it is: the text `[B, L, D]`,
    /// the modulation `[B, N, 6 D]` and the embedded timesteps `[B, N, D]`.
    fn begin(&self, input: &DenoiserInput) -> Vec<Tensor<3>> {
        let [b, c, f, h, w] = input.latents.dims();
        let device = input.latents.device().without_autodiff();
        let tokens: Tensor<3> = input
            .latents
            .clone()
            .cast(self.dtype())
            .permute([0, 2, 3, 4, 1])
            .reshape([b, f * h * w, c]);
        let [project, out] = &self.caption_projection;
        let text = input.text.clone().cast(self.dtype());
        let text = out.forward(gelu_tanh(project.forward(text)));
        let time = self.embed_time(&input.timesteps, b, &device);
        let modulation = self.time_linear.forward(silu(time.clone()));
        vec![self.proj_in.forward(tokens), text, modulation, time]
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn block(&self, index: usize, hidden: Vec<Tensor<3>>, input: &DenoiserInput) -> Vec<Tensor<3>> {
        let [tokens, text, modulation, time] = unpack(hidden);
        let rotary = self.rotary(input);
        let tokens = self.blocks[index].forward(tokens, &text, &modulation, &rotary);
        vec![tokens, text, modulation, time]
    }

    fn end(&self, hidden: Vec<Tensor<3>>, input: &DenoiserInput) -> Tensor<5> {
        let [tokens, _, _, time] = unpack(hidden);
        let [b, n, dim] = time.dims();
        // Both rows of the table are added to the same embedding.
        let both = Tensor::cat(vec![time.clone(), time], 2).reshape([b, n, 2, dim]);
        let modulation = Modulation::new(&self.scale_shift_table, both);
        let tokens = modulation.scale_shift(standardize(tokens, 2, NORM_OUT_EPS), 0, 1);
        let [b, c, f, h, w] = input.latents.dims();
        self.proj_out
            .forward(tokens)
            .reshape([b, f, h, w, c])
            .permute([0, 4, 1, 2, 3])
            .cast(FloatDType::from(input.latents.dtype()))
    }

    fn image_conditioning(&self) -> ImageConditioning {
        ImageConditioning::FirstFrame
    }

    fn latent_channels(&self) -> usize {
        self.config.in_channels
    }

    fn text_channels(&self) -> usize {
        self.config.caption_channels
    }

    fn pad_frames(&self, latents: Tensor<5>) -> Tensor<5> {
        latents
    }

    fn num_padding_frames(&self, _frames: usize) -> usize {
        0
    }

    fn check_size(&self, latent_size: [usize; 3], _text: usize) -> Result<(), SizeError> {
        // The first frame is the image, so there must be another one to make.
        let wanted = [("number of latent frames", 2), ("latent height", 1), ("latent width", 1)];
        for ((what, least), found) in wanted.into_iter().zip(latent_size) {
            if found < least {
                return Err(SizeError { what, wanted: format!("at least {least}"), found });
            }
        }
        Ok(())
    }
}

/// A table of `rows` shifts, scales and gates.
fn table(params: &ParamReader<'_>, rows: usize, dim: usize) -> Tensor<2> {
    params.tensor("scale_shift_table", [rows, dim], Init::Normal(1.0 / (dim as f64).sqrt()))
}

/// Shifts, scales and gates of each timestep, `[B, N, rows, D]` in f32.
struct Modulation(Tensor<4>);

impl Modulation {
    /// The sum is f32 whatever the model's type: the original files keep the table so.
    fn new(table: &Tensor<2>, embedded: Tensor<4>) -> Self {
        let table = table.clone().cast(FloatDType::F32).unsqueeze::<4>();
        Self(embedded.cast(FloatDType::F32) + table)
    }

    /// Row `index` as `[B, N, 1, D]` of the given type.
    fn row(&self, index: usize, dtype: DType) -> Tensor<4> {
        self.0.clone().narrow(2, index, 1).cast(FloatDType::from(dtype))
    }

    /// Applies `f` to tokens `[B, S, D]` grouped by timestep, `[B, N, S / N, D]`.
    fn grouped(&self, x: Tensor<3>, f: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<3> {
        let [b, s, dim] = x.dims();
        let n = self.0.dims()[1];
        f(x.reshape([b, n, s / n, dim])).reshape([b, s, dim])
    }

    /// Whether nothing is trained through it, on a device that has it in one pass.
    fn is_constant(&self, x: &Tensor<3>) -> bool {
        !fused::applies(x) && !self.0.is_tracked()
    }

    /// `x * (1 + scale) + shift`.
    fn scale_shift(&self, x: Tensor<3>, shift: usize, scale: usize) -> Tensor<3> {
        if self.is_constant(&x) {
            return fused::scale_shift(x, self.0.clone(), shift, scale);
        }
        let dtype = x.dtype();
        self.grouped(x, |x| x * (self.row(scale, dtype) + 1.0) + self.row(shift, dtype))
    }

    /// `x + gate * y`.
    fn gate_onto(&self, x: Tensor<3>, y: Tensor<3>, gate: usize) -> Tensor<3> {
        if self.is_constant(&x) {
            return fused::gate_onto(x, y, self.0.clone(), gate);
        }
        let dtype = y.dtype();
        x + self.grouped(y, |y| y * self.row(gate, dtype))
    }
}

/// One block: attention among tokens, to the text, then feed-forward.
#[derive(Clone, Debug)]
struct Block {
    scale_shift_table: Tensor<2>, // [6, D]
    one: Tensor<1>,
    eps: f64,
    attn1: Attention,
    attn2: Attention,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

impl Block {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>, one: Tensor<1>) -> Self {
        let dim = config.inner_dim();
        Self {
            scale_shift_table: table(params, 6, dim),
            one,
            eps: config.norm_eps,
            attn1: Attention::new(config, &params.scope("attn1")),
            attn2: Attention::new(config, &params.scope("attn2")),
            feed_forward_in: params.linear("ff.net.0.proj", [dim, 4 * dim]),
            feed_forward_out: params.linear("ff.net.2", [4 * dim, dim]),
        }
    }

    fn forward(
        &self,
        tokens: Tensor<3>,
        text: &Tensor<3>,
        modulation: &Tensor<3>,
        rotary: &Rotary,
    ) -> Tensor<3> {
        let [b, n, _] = modulation.dims();
        let dim = tokens.dims()[2];
        let embedded = modulation.clone().reshape([b, n, 6, dim]);
        // Shift, scale and gate of the attention, then of the feed-forward.
        let modulation = Modulation::new(&self.scale_shift_table, embedded);

        let normed = modulation.scale_shift(self.norm(&tokens), 0, 1);
        let attended = self.attn1.forward(normed, None, Some(rotary));
        let tokens = modulation.gate_onto(tokens, attended, 2);
        let tokens = tokens.clone() + self.attn2.forward(tokens, Some(text), None);
        let normed = modulation.scale_shift(self.norm(&tokens), 3, 4);
        let hidden = gelu_tanh(self.feed_forward_in.forward(normed));
        modulation.gate_onto(tokens, self.feed_forward_out.forward(hidden), 5)
    }

    /// The root-mean-square norm, which has no weight here.
    fn norm(&self, tokens: &Tensor<3>) -> Tensor<3> {
        fused::rms_norm(tokens.clone(), self.one.clone(), self.eps)
    }
}

/// Attention of tokens to each other, or to the text; query and key normalised over all heads.
#[derive(Clone, Debug)]
struct Attention {
    num_heads: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
}

impl Attention {
    fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        let bias = config.attention_bias;
        Self {
            num_heads: config.num_attention_heads,
            to_q: params.linear_with_bias_if(bias, "to_q", [dim, dim]),
            to_k: params.linear_with_bias_if(bias, "to_k", [dim, dim]),
            to_v: params.linear_with_bias_if(bias, "to_v", [dim, dim]),
            to_out: params.linear_with_bias_if(config.attention_out_bias, "to_out.0", [dim, dim]),
            norm_q: RmsNorm::new(params, "norm_q", dim, QUERY_KEY_EPS),
            norm_k: RmsNorm::new(params, "norm_k", dim, QUERY_KEY_EPS),
        }
    }

    /// `[B, S, D]` to the same, attending to `text` or to itself.
    fn forward(
        &self,
        x: Tensor<3>,
        text: Option<&Tensor<3>>,
        rotary: Option<&Rotary>,
    ) -> Tensor<3> {
        let seen = text.cloned().unwrap_or_else(|| x.clone());
        let rotate = |x| match rotary {
            Some(rotary) => rotary.apply(x),
            None => x,
        };
        let q = rotate(self.norm_q.forward(self.to_q.forward(x)));
        let k = rotate(self.norm_k.forward(self.to_k.forward(seen.clone())));
        let v = self.to_v.forward(seen);
        self.to_out.forward(attention_by_token([q, k, v], self.num_heads))
    }
}

fn unpack(hidden: Vec<Tensor<3>>) -> [Tensor<3>; 4] {
    hidden.try_into().expect("`begin` made four tensors")
}
