//! Adaptive modulation of a joint sequence of text and video tokens.

use burn::tensor::Tensor;

use super::{LayerNorm, fused};

/// Shift, scale and gate of both streams of one sub-layer, from the timestep embedding.
///
/// The sequence is kept joint, `[text, video]`, because attention and feed-forward want it so; only
/// the modulation tells the streams apart.
#[derive(Clone, Debug)]
pub struct StreamModulation {
    /// `[B, 6, D]` in the published order: shift, scale, gate of the video, then of the text.
    pub chunks: Tensor<3>,
    /// Number of text tokens in front.
    pub text_len: usize,
}

impl StreamModulation {
    /// `norm(x) * (1 + scale) + shift`, each token by its stream's; `[B, S, D]`.
    pub fn norm_scale_shift(&self, norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
        let affine = [norm.gamma.clone(), norm.beta.clone()];
        fused::norm_modulate(x, affine, self.chunks.clone(), self.text_len, norm.eps)
    }

    /// `x + gate * y`, each token by its stream's gate; `[B, S, D]`.
    pub fn gated_add(&self, x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
        fused::gated_add(x, y, self.chunks.clone(), self.text_len)
    }
}

/// The same, from Burn's operations.
#[cfg(test)]
impl StreamModulation {
    pub(super) fn norm_scale_shift_composed(&self, norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
        let [text, video] = self.split(norm.forward(x));
        let modulate = |x: Tensor<3>, shift: usize, scale: usize| {
            x * (self.chunk(scale) + 1.0) + self.chunk(shift)
        };
        Tensor::cat(vec![modulate(text, 3, 4), modulate(video, 0, 1)], 1)
    }

    pub(super) fn gated_add_composed(&self, x: Tensor<3>, y: Tensor<3>) -> Tensor<3> {
        let [text, video] = self.split(y);
        x + Tensor::cat(vec![text * self.chunk(5), video * self.chunk(2)], 1)
    }

    fn chunk(&self, index: usize) -> Tensor<3> {
        self.chunks.clone().narrow(1, index, 1)
    }

    fn split(&self, x: Tensor<3>) -> [Tensor<3>; 2] {
        let len = x.dims()[1];
        [x.clone().narrow(1, 0, self.text_len), x.narrow(1, self.text_len, len - self.text_len)]
    }
}
