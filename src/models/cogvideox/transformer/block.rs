//! The block of the transformer, which all layers repeat.

use burn::tensor::Tensor;

use crate::models::{
    ParamReader,
    cogvideox::{config::TransformerConfig, rotary::Rotary},
    nn::{LayerNorm, Linear, StreamModulation, attention, gelu_tanh, silu},
};

const QUERY_KEY_EPS: f64 = 1e-6;

/// One block: joint attention, then feed-forward, both modulated and gated.
#[derive(Clone, Debug)]
pub(super) struct Block {
    norm1: ModulatedNorm,
    attn1: Attention,
    norm2: ModulatedNorm,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

impl Block {
    /// Reads `transformer_blocks.N`.
    pub fn new(config: &TransformerConfig, params: &ParamReader<'_>) -> Self {
        let dim = config.inner_dim();
        Self {
            norm1: ModulatedNorm::new(config, &params.scope("norm1")),
            attn1: Attention::new(config, &params.scope("attn1")),
            norm2: ModulatedNorm::new(config, &params.scope("norm2")),
            feed_forward_in: params.linear("ff.net.0.proj", [dim, 4 * dim]),
            feed_forward_out: params.linear("ff.net.2", [4 * dim, dim]),
        }
    }

    /// Tokens `[B, S, D]` to tokens, with the time embedding `[B, 1, time_embed_dim]`.
    pub fn forward(
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
            to_q: params.linear_with_bias_if(config.attention_bias, "to_q", [dim, dim]),
            to_k: params.linear_with_bias_if(config.attention_bias, "to_k", [dim, dim]),
            to_v: params.linear_with_bias_if(config.attention_bias, "to_v", [dim, dim]),
            to_out: params.linear("to_out.0", [dim, dim]),
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
