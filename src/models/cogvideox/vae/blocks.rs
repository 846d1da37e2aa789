//! What encoder and decoder share: causal convolutions, norms and residual blocks.

use std::{collections::VecDeque, mem};

use burn::tensor::{FloatDType, Tensor};

use crate::models::{
    ParamReader,
    nn::{Conv3d, GroupNorm, fused, nearest_upsample, silu},
    params::Init,
};

const NORM_EPS: f64 = 1e-6;
const KERNEL: usize = 3;
/// The logarithm of the latents' variance that a new encoder starts near.
const FIRST_LOGVAR: f32 = -6.0;

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

    /// The same for the moments of `latents` channels. A new one starts with little noise: from
    /// the usual start, noise of one drowns all that the decoder could learn of a small signal.
    pub fn moments(params: &ParamReader<'_>, name: &str, input: usize, latents: usize) -> Self {
        let scope = params.scope(name).scope("conv");
        let init = Init::fan_in(input * KERNEL.pow(3));
        let weight = scope.tensor("weight", [2 * latents, input, KERNEL, KERNEL, KERNEL], init);
        let bias = scope.tensor_or("bias", [2 * latents], |rng, device| {
            let means = init.make(latents, rng, device);
            Tensor::cat(vec![means, Tensor::full([latents], FIRST_LOGVAR, device)], 0)
        });
        Self(Conv3d { weight, bias })
    }

    /// The type of the weights.
    pub fn dtype(&self) -> FloatDType {
        self.0.weight.dtype().into()
    }

    /// `[B, in, T, H, W]` to `[B, out, T, H, W]`.
    pub fn forward(&self, x: Tensor<5>, cache: &mut ConvCache) -> Tensor<5> {
        self.0.forward(cache.extend(x))
    }
}

/// A group norm, then `SiLU`; in the decoder the latents scale and shift what is in between.
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
        // The convolutions see one place at a time, so they may go before the upsampling.
        let modulation = self
            .scale_shift
            .as_ref()
            .zip(latents)
            .map(|(convs, latents)| convs.each_ref().map(|conv| conv.forward(latents.clone())));
        if fused::applies(&x) || fused::device_norm::applies(&x) {
            return self.norm.forward_silu(x, modulation);
        }
        self.composed(x, modulation)
    }

    fn composed(&self, x: Tensor<5>, modulation: Option<[Tensor<5>; 2]>) -> Tensor<5> {
        let [_, _, t, h, w] = x.dims();
        let x = self.norm.forward(x);
        let Some(modulation) = modulation else { return silu(x) };
        let [scale, shift] = modulation.map(|latents| resize_composed(latents, [t, h, w]));
        silu(x * scale + shift)
    }
}

/// Nearest-neighbour resizing; the first of an odd number of frames stays one frame.
fn resize(x: Tensor<5>, to: [usize; 3]) -> Tensor<5> {
    if fused::applies(&x) {
        return fused::resize::upsample(x, to);
    }
    resize_composed(x, to)
}

fn resize_composed(x: Tensor<5>, [t, h, w]: [usize; 3]) -> Tensor<5> {
    let [_, _, frames, rows, columns] = x.dims();
    if t % 2 == 1 && t != frames {
        let first = x.clone().narrow(2, 0, 1);
        let rest = x.narrow(2, 1, frames - 1);
        let parts = vec![resize_composed(first, [1, h, w]), resize_composed(rest, [t - 1, h, w])];
        return Tensor::cat(parts, 2);
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
        let y = self.norm1.forward(x.clone(), latents);
        let y = self.conv1.forward(y, cache);
        let y = self.norm2.forward(y, latents);
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
    let [_, _, t, h, w] = x.dims();
    match t {
        1 => x,
        _ if fused::applies(&x) => fused::resize::downsample(x, [t.div_ceil(2), h, w]),
        _ => halve_composed(x),
    }
}

fn halve_composed(x: Tensor<5>) -> Tensor<5> {
    let [b, c, t, h, w] = x.dims();
    if t % 2 == 1 {
        let first = x.clone().narrow(2, 0, 1);
        return Tensor::cat(vec![first, halve_composed(x.narrow(2, 1, t - 1))], 2);
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
    resize(x, [doubled, 2 * h, 2 * w])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::rng::TorchRng;

    /// Values and gradients of `f` at `inputs`, of which the last is the weight of the result.
    fn with_gradients(
        inputs: &[Tensor<5>],
        f: impl Fn(&[Tensor<5>]) -> Tensor<5>,
    ) -> Vec<Tensor<5>> {
        let (weight, inputs) = inputs.split_last().unwrap();
        let leaves: Vec<_> = inputs.iter().map(|x| x.clone().autodiff().require_grad()).collect();
        let y = f(&leaves);
        let grads = (y.clone() * weight.clone()).sum().backward();
        let gradients = leaves.iter().map(|leaf| leaf.grad(&grads).unwrap());
        [y.without_autodiff()].into_iter().chain(gradients).collect()
    }

    fn assert_close(what: &str, found: &[Tensor<5>], wanted: &[Tensor<5>]) {
        assert_eq!(found.len(), wanted.len());
        for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            assert_eq!(found.dims(), wanted.dims());
            let error = (found.clone() - wanted.clone()).abs().max() / wanted.clone().abs().max();
            let error = error.into_scalar::<f32>();
            assert!(error < 1e-5, "{what}, result {i}: {error}");
        }
    }

    fn norm(groups: usize, gamma: &Tensor<5>, beta: &Tensor<5>) -> Norm {
        let [gamma, beta] = [gamma, beta].map(|x| x.clone().reshape([-1]));
        Norm { norm: GroupNorm::with_affine([gamma, beta], groups, NORM_EPS), scale_shift: None }
    }

    /// `x`, parameters, scale and shift if there are latents, and a weight for the result.
    fn norm_inputs(dims: [usize; 5], latents: Option<[usize; 3]>) -> Vec<Tensor<5>> {
        let mut rng = TorchRng::new(5);
        let device = Device::flex();
        let [b, c, ..] = dims;
        let mut shapes = vec![dims, [1, c, 1, 1, 1], [1, c, 1, 1, 1]];
        shapes.extend(latents.map(|[f, h, w]| [[b, c, f, h, w]; 2]).into_iter().flatten());
        shapes.push(dims);
        let mut inputs: Vec<Tensor<5>> =
            shapes.into_iter().map(|shape| rng.normal_tensor(shape, &device)).collect();
        inputs[0] = inputs[0].clone() * 0.7 + 3.0;
        inputs
    }

    fn modulation(inputs: &[Tensor<5>]) -> Option<[Tensor<5>; 2]> {
        inputs.get(3..).and_then(|given| Some([given.first()?.clone(), given.get(1)?.clone()]))
    }

    #[test]
    fn the_fused_norm_is_the_composed_one() {
        let cases = [
            ([2, 8, 1, 4, 6], 4, Some([1, 2, 3])),
            ([2, 6, 3, 4, 4], 2, Some([3, 4, 4])),
            ([1, 16, 9, 16, 24], 4, Some([3, 4, 3])),
            ([2, 9, 4, 5, 7], 3, Some([2, 5, 7])),
            ([1, 2, 8, 64, 96], 1, Some([2, 8, 12])),
            ([1, 5, 5, 3, 7], 5, Some([3, 1, 1])),
            ([2, 6, 5, 7, 11], 2, None),
            ([1, 4, 9, 32, 32], 4, None),
        ];
        for (dims, groups, latents) in cases {
            let inputs = norm_inputs(dims, latents);
            let fused = |x: &[Tensor<5>]| {
                norm(groups, &x[1], &x[2]).norm.forward_silu(x[0].clone(), modulation(x))
            };
            let composed =
                |x: &[Tensor<5>]| norm(groups, &x[1], &x[2]).composed(x[0].clone(), modulation(x));
            let wanted = with_gradients(&inputs, composed);
            assert_close(&format!("{dims:?}"), &with_gradients(&inputs, fused), &wanted);
            let (_, inputs) = inputs.split_last().unwrap();
            assert_close("without tape", &[fused(inputs)], &wanted[..1]);
        }
    }

    #[test]
    fn fused_resizing_is_the_composed_one() {
        let mut rng = TorchRng::new(6);
        let mut random =
            |dims: [usize; 5]| -> Tensor<5> { rng.normal_tensor(dims, &Device::flex()) };
        let cases = [
            ([1, 4, 6], [1, 8, 12]),
            ([3, 5, 4], [5, 5, 12]),
            ([5, 3, 7], [5, 6, 14]),
            ([2, 4, 3], [4, 8, 15]),
        ];
        for ([f, h, w], to) in cases {
            let [t, height, width] = to;
            let inputs = [random([2, 3, f, h, w]), random([2, 3, t, height, width])];
            let fused = with_gradients(&inputs, |x| resize(x[0].clone(), to));
            let composed = with_gradients(&inputs, |x| resize_composed(x[0].clone(), to));
            assert_close(&format!("{to:?}"), &fused, &composed);
        }
        for t in [2, 3, 9] {
            let inputs = [random([2, 3, t, 5, 6]), random([2, 3, t.div_ceil(2), 5, 6])];
            let fused = with_gradients(&inputs, |x| halve_frames(x[0].clone()));
            let composed = with_gradients(&inputs, |x| halve_composed(x[0].clone()));
            assert_close(&format!("{t} frames"), &fused, &composed);
        }
    }

    #[test]
    fn the_fused_norm_does_not_depend_on_threads() {
        let inputs = norm_inputs([2, 12, 3, 16, 24], Some([3, 4, 6]));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let results = pool.install(|| {
                with_gradients(&inputs, |x| {
                    norm(3, &x[1], &x[2]).norm.forward_silu(x[0].clone(), modulation(x))
                })
            });
            results
                .into_iter()
                .map(|x| x.into_data().try_to_vec::<f32>().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(3));
    }
}
