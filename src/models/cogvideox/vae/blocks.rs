//! What encoder and decoder share: causal convolutions, norms and residual blocks.

use std::{collections::VecDeque, mem};

use burn::tensor::Tensor;

use crate::models::{
    ParamReader,
    nn::{Conv3d, GroupNorm, nearest_upsample, silu},
};

const NORM_EPS: f64 = 1e-6;
const KERNEL: usize = 3;

/// The last frames that each causal convolution saw, for the next chunk.
///
/// Convolutions run in the same order in every chunk, so the memory is a queue.
#[derive(Debug, Default)]
pub struct ConvCache {
    previous: VecDeque<Tensor<5>>,
    current: VecDeque<Tensor<5>>,
    last: bool,
}

impl ConvCache {
    /// Starts a chunk; nothing is kept from the last one.
    pub fn next_chunk(&mut self, last: bool) {
        self.previous = mem::take(&mut self.current);
        self.last = last;
    }

    /// Puts the frames before `x` in front of it: those of the last chunk, or its first frame.
    fn extend(&mut self, x: Tensor<5>) -> Tensor<5> {
        let past = match self.previous.pop_front() {
            Some(past) => vec![past],
            None => vec![x.clone().narrow(2, 0, 1); KERNEL - 1],
        };
        let x = Tensor::cat([past, vec![x]].concat(), 2);
        if !self.last {
            let frames = x.dims()[2];
            self.current.push_back(x.clone().narrow(2, frames - (KERNEL - 1), KERNEL - 1));
        }
        x
    }
}

/// A 3x3x3 convolution that sees no later frames.
#[derive(Clone, Debug)]
pub struct CausalConv(Conv3d);

impl CausalConv {
    /// Reads `<name>.conv`.
    pub fn new(params: &ParamReader<'_>, name: &str, channels: [usize; 2]) -> Self {
        Self(params.scope(name).conv3d("conv", channels, [KERNEL; 3]))
    }

    /// `[B, in, T, H, W]` to `[B, out, T, H, W]`.
    pub fn forward(&self, x: Tensor<5>, cache: &mut ConvCache) -> Tensor<5> {
        self.0.forward(cache.extend(x))
    }
}

/// A group norm; in the decoder its result is scaled and shifted by the latents.
#[derive(Clone, Debug)]
pub struct Norm {
    norm: GroupNorm,
    scale_shift: Option<[Conv3d; 2]>,
}

impl Norm {
    /// Reads a plain group norm.
    pub fn group(
        params: &ParamReader<'_>,
        name: &str,
        channels: usize,
        groups: usize,
        eps: f64,
    ) -> Self {
        Self { norm: GroupNorm::new(params, name, channels, groups, eps), scale_shift: None }
    }

    /// Reads a norm conditioned on latents of `latent_channels`.
    pub fn spatial(
        params: &ParamReader<'_>,
        name: &str,
        channels: usize,
        groups: usize,
        latent_channels: usize,
    ) -> Self {
        let scope = params.scope(name);
        let norm = GroupNorm::new(&scope, "norm_layer", channels, groups, NORM_EPS);
        let conv =
            |name: &str| scope.scope(name).conv3d("conv", [latent_channels, channels], [1; 3]);
        let (scale, shift) = (conv("conv_y"), conv("conv_b"));
        Self { norm, scale_shift: Some([scale, shift]) }
    }

    /// `[B, C, T, H, W]` to the same; `latents` are those of the chunk.
    pub fn forward(&self, x: Tensor<5>, latents: Option<&Tensor<5>>) -> Tensor<5> {
        let [_, _, t, h, w] = x.dims();
        let x = self.norm.forward(x);
        let (Some([scale, shift]), Some(latents)) = (&self.scale_shift, latents) else { return x };
        // The convolutions see one place at a time, so they may go before the upsampling.
        let upsampled = |conv: &Conv3d| resize(conv.forward(latents.clone()), [t, h, w]);
        x * upsampled(scale) + upsampled(shift)
    }
}

/// Nearest-neighbour resizing; the first of an odd number of frames stays one frame.
fn resize(x: Tensor<5>, [t, h, w]: [usize; 3]) -> Tensor<5> {
    let [_, _, frames, rows, columns] = x.dims();
    if t > 1 && t % 2 == 1 {
        let first = x.clone().narrow(2, 0, 1);
        let rest = x.narrow(2, 1, frames - 1);
        return Tensor::cat(vec![resize(first, [1, h, w]), resize(rest, [t - 1, h, w])], 2);
    }
    nearest_upsample(x, [t / frames, h / rows, w / columns])
}

/// Norm, `SiLU`, convolution, twice, beside a shortcut.
#[derive(Clone, Debug)]
pub struct Resnet {
    norm1: Norm,
    conv1: CausalConv,
    norm2: Norm,
    conv2: CausalConv,
    shortcut: Option<Conv3d>,
}

/// Which norm the residual blocks of a part have.
#[derive(Clone, Copy, Debug)]
pub enum NormKind {
    /// Group norm with this epsilon.
    Group(f64),
    /// Group norm conditioned on latents of this many channels.
    Spatial(usize),
}

impl Resnet {
    /// Reads one residual block.
    pub fn new(
        params: &ParamReader<'_>,
        [input, output]: [usize; 2],
        groups: usize,
        kind: NormKind,
    ) -> Self {
        let norm = |name: &str, channels: usize| match kind {
            NormKind::Group(eps) => Norm::group(params, name, channels, groups, eps),
            NormKind::Spatial(latents) => Norm::spatial(params, name, channels, groups, latents),
        };
        Self {
            norm1: norm("norm1", input),
            conv1: CausalConv::new(params, "conv1", [input, output]),
            norm2: norm("norm2", output),
            conv2: CausalConv::new(params, "conv2", [output, output]),
            shortcut: (input != output)
                .then(|| params.conv3d("conv_shortcut", [input, output], [1; 3])),
        }
    }

    /// `[B, in, T, H, W]` to `[B, out, T, H, W]`.
    pub fn forward(
        &self,
        x: Tensor<5>,
        latents: Option<&Tensor<5>>,
        cache: &mut ConvCache,
    ) -> Tensor<5> {
        let y = silu(self.norm1.forward(x.clone(), latents));
        let y = self.conv1.forward(y, cache);
        let y = silu(self.norm2.forward(y, latents));
        let y = self.conv2.forward(y, cache);
        match &self.shortcut {
            Some(shortcut) => y + shortcut.forward(x),
            None => y + x,
        }
    }
}

/// A run of residual blocks, `<name>.resnets.*`; the first changes the number of channels.
pub fn resnets(
    params: &ParamReader<'_>,
    [input, output]: [usize; 2],
    count: usize,
    groups: usize,
    kind: NormKind,
) -> Vec<Resnet> {
    let channels = |index: usize| [if index == 0 { input } else { output }, output];
    (0..count)
        .map(|i| Resnet::new(&params.scope(format_args!("resnets.{i}")), channels(i), groups, kind))
        .collect()
}

/// The mean of neighbouring frames; the first of an odd number stays as it is.
pub fn halve_frames(x: Tensor<5>) -> Tensor<5> {
    let [b, c, t, h, w] = x.dims();
    if t == 1 {
        return x;
    }
    if t % 2 == 1 {
        let first = x.clone().narrow(2, 0, 1);
        return Tensor::cat(vec![first, halve_frames(x.narrow(2, 1, t - 1))], 2);
    }
    let pairs: Tensor<4> = x.reshape([b * c, t / 2, 2, h * w]);
    pairs.mean_dim(2).reshape([b, c, t / 2, h, w])
}

/// Repeats pixels, and frames too if `time`; the first of an odd number of frames stays one frame.
pub fn double(x: Tensor<5>, time: bool) -> Tensor<5> {
    let [_, _, t, h, w] = x.dims();
    let doubled = match (time, t) {
        (false, _) | (true, 1) => t,
        (true, t) => 2 * t - t % 2,
    };
    if doubled == t {
        return nearest_upsample(x, [1, 2, 2]);
    }
    resize(x, [doubled, 2 * h, 2 * w])
}
