//! Group norm, scale, shift and `SiLU` of f32 slices: one task per sample and group.
#![expect(clippy::inline_always, reason = "what is not inlined has no vector instructions")]

use burn::backend::TensorMetadata;
use rayon::prelude::*;

use super::{
    group_norm::Settings,
    kernels::{Values, slice, tensor},
    simd::{sigmoid, sum, vectorized},
    upsampling::{Block, Upsampling},
};

/// Values that are added up in f32; sums of these are in f64.
const SUMMED: usize = 1024;

/// Mean, and one over the standard deviation, of one group of one sample.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    mean: f32,
    rstd: f32,
}

impl Statistics {
    fn new(x: &[f32], eps: f64) -> Self {
        vectorized!(|| {
            let mean = average(x, |x| x) as f32;
            let variance = average(x, |x| (x - mean) * (x - mean));
            Self { mean, rstd: (1.0 / (variance + eps).sqrt()) as f32 }
        })
    }
}

#[inline(always)]
fn average(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for part in x.chunks(SUMMED) {
        total += f64::from(sum(part, |_, x| f(x)));
    }
    total / x.len() as f64
}

/// Sizes of one call, and scale and shift where none are given.
struct Layout {
    channels: usize,
    per_group: usize,
    upsampling: Upsampling,
    neutral: [Vec<f32>; 2],
}

impl Layout {
    fn new(inputs: &[Values], settings: Settings) -> Self {
        let [batch, channels, t, h, w] = dims(&inputs[0]);
        let (upsampling, neutral_len) = match inputs.get(3).map(dims) {
            Some([_, _, f, rows, columns]) => (Upsampling::new([f, rows, columns], [t, h, w]), 0),
            None => (Upsampling::constant(t * h * w), batch * channels),
        };
        let neutral = [1.0, 0.0].map(|value| vec![value; neutral_len]);
        Self { channels, per_group: channels / settings.groups, upsampling, neutral }
    }

    /// The values of one group of one sample.
    fn group_len(&self) -> usize {
        self.per_group * self.upsampling.after()
    }

    /// `gamma`, `beta`, scale and shift.
    fn parameters<'a>(&'a self, inputs: &'a [Values]) -> [&'a [f32]; 4] {
        let [scale, shift] = match inputs {
            [_, _, _, scale, shift] => [slice(scale), slice(shift)],
            _ => self.neutral.each_ref().map(Vec::as_slice),
        };
        [slice(&inputs[1]), slice(&inputs[2]), scale, shift]
    }

    /// The parameters of group `index` of the batch.
    fn group<'a>(&self, index: usize, [gamma, beta, scale, shift]: [&'a [f32]; 4]) -> Group<'a> {
        let (channel, per_group) = (index * self.per_group, self.per_group);
        let before = self.upsampling.before();
        Group {
            affine: [gamma, beta].map(|x| &x[channel % self.channels..][..per_group]),
            modulation: [scale, shift].map(|x| &x[channel * before..][..per_group * before]),
            upsampling: self.upsampling,
        }
    }
}

fn dims(x: &Values) -> [usize; 5] {
    let shape = x.shape();
    [0, 1, 2, 3, 4].map(|axis| shape[axis])
}

/// What one task is given beside `x`.
struct Group<'a> {
    /// `gamma` and `beta` of the channels of the group.
    affine: [&'a [f32]; 2],
    /// Scale and shift of its channels, before upsampling.
    modulation: [&'a [f32]; 2],
    upsampling: Upsampling,
}

impl Group<'_> {
    fn forward(&self, out: &mut [f32], x: &[f32], statistics: Statistics) {
        let Statistics { mean, rstd } = statistics;
        let len = self.upsampling.after();
        let [mut a, mut b] = self.buffers();
        for (channel, (out, x)) in out.chunks_mut(len).zip(x.chunks(len)).enumerate() {
            for block in self.upsampling.blocks() {
                let [a, b] = self.factors(channel, &block, [&mut a, &mut b]);
                for range in self.upsampling.targets(&block) {
                    activate(&mut out[range.clone()], &x[range], [a, b], [mean, rstd]);
                }
            }
        }
    }

    /// Writes `dx` and the gradients of scale and shift; gives those of `gamma` and `beta`.
    fn backward(
        &self,
        [dx, dscale, dshift]: [&mut [f32]; 3],
        [x, grad]: [&[f32]; 2],
        Statistics { mean, rstd }: Statistics,
    ) -> Vec<[f64; 2]> {
        let (len, before) = (self.upsampling.after(), self.upsampling.before());
        let [mut a, mut b] = self.buffers();
        let [mut total, mut along] = self.buffers();
        let mut affine = Vec::with_capacity(self.affine[0].len());
        let places = dscale.chunks_mut(before).zip(dshift.chunks_mut(before));
        for (channel, (dscale, dshift)) in places.enumerate() {
            let at = channel * len;
            for block in self.upsampling.blocks() {
                let [a, b] = self.factors(channel, &block, [&mut a, &mut b]);
                let [total, along] = [&mut total[..a.len()], &mut along[..a.len()]];
                total.fill(0.0);
                along.fill(0.0);
                for range in self.upsampling.targets(&block) {
                    let range = at + range.start..at + range.end;
                    let inputs = [&x[range.clone()], &grad[range.clone()], a, b];
                    activate_grad([&mut dx[range], total, along], inputs, [mean, rstd]);
                }
                let source = self.upsampling.source(&block);
                vectorized!(|| {
                    self.upsampling.gather(total, &mut dshift[source.clone()]);
                    self.upsampling.gather(along, &mut dscale[source]);
                });
            }
            affine.push(self.place_grads(channel, [dscale, dshift]));
        }
        let mean_of = |index: usize| {
            let weighted =
                self.affine[0].iter().zip(&affine).map(|(g, d)| f64::from(*g) * d[index]);
            (weighted.sum::<f64>() / dx.len() as f64) as f32
        };
        norm_grad(dx, x, [mean, rstd], [mean_of(1), mean_of(0)]);
        affine
    }

    /// Turns sums over the copies of each place, of the gradient of the modulated value times the
    /// normed one and of that gradient, into the gradients of scale and shift; gives those of
    /// `gamma` and `beta`.
    fn place_grads(&self, channel: usize, [dscale, dshift]: [&mut [f32]; 2]) -> [f64; 2] {
        let [gamma, beta] = self.affine.map(|values| values[channel]);
        let scale = &self.modulation[0][channel * dscale.len()..];
        let [mut dgamma, mut dbeta] = [0.0; 2];
        for ((dscale, dshift), scale) in dscale.iter_mut().zip(dshift).zip(scale) {
            dgamma += f64::from(scale * *dscale);
            dbeta += f64::from(scale * *dshift);
            *dscale = gamma * *dscale + beta * *dshift;
        }
        [dgamma, dbeta]
    }

    fn buffers(&self) -> [Vec<f32>; 2] {
        [(); 2].map(|()| vec![0.0; self.upsampling.max_len()])
    }

    /// `[a, b]` of each value of a block, such that `a * normed + b` is scaled and shifted.
    fn factors<'b>(
        &self,
        channel: usize,
        block: &Block,
        [a, b]: [&'b mut [f32]; 2],
    ) -> [&'b [f32]; 2] {
        let [gamma, beta] = self.affine.map(|values| values[channel]);
        let source = self.upsampling.source(block);
        let at = channel * self.upsampling.before() + source.start;
        let [scale, shift] = self.modulation.map(|values| &values[at..][..source.len()]);
        let len = self.upsampling.len(block);
        let (a, b) = (&mut a[..len], &mut b[..len]);
        vectorized!(|| {
            self.upsampling.spread(scale.iter().map(|scale| gamma * scale), a);
            self.upsampling.spread(scale.iter().zip(shift).map(|(s, shift)| beta * s + shift), b);
        });
        [a, b]
    }
}

/// `SiLU` of `a * normed + b`.
fn activate(out: &mut [f32], x: &[f32], [a, b]: [&[f32]; 2], [mean, rstd]: [f32; 2]) {
    vectorized!(|| {
        let len = out.len();
        let (x, a, b) = (&x[..len], &a[..len], &b[..len]);
        for i in 0..len {
            let u = (x[i] - mean) * rstd * a[i] + b[i];
            out[i] = u * sigmoid(u);
        }
    });
}

/// The gradient of `normed`; adds that of `a * normed + b` to `total`, and times `normed` to
/// `along`.
fn activate_grad(
    [dnormed, total, along]: [&mut [f32]; 3],
    [x, grad, a, b]: [&[f32]; 4],
    [mean, rstd]: [f32; 2],
) {
    vectorized!(|| {
        let len = dnormed.len();
        let (x, grad, a, b) = (&x[..len], &grad[..len], &a[..len], &b[..len]);
        let (total, along) = (&mut total[..len], &mut along[..len]);
        for i in 0..len {
            let normed = (x[i] - mean) * rstd;
            let u = normed * a[i] + b[i];
            let s = sigmoid(u);
            let du = grad[i] * s * (1.0 + u * (1.0 - s));
            total[i] += du;
            along[i] += du * normed;
            dnormed[i] = du * a[i];
        }
    });
}

/// The gradient through the norm, in place of that of the normed values, with the means of that and
/// of it times them.
fn norm_grad(dx: &mut [f32], x: &[f32], [mean, rstd]: [f32; 2], [total, along]: [f32; 2]) {
    vectorized!(|| {
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = rstd * (*dx - total - (x - mean) * rstd * along);
        }
    });
}

/// The result, and the statistics of each group of each sample.
pub fn forward(inputs: &[Values], settings: Settings) -> (Values, Vec<Statistics>) {
    let inputs: Vec<Values> = inputs.iter().map(Values::to_contiguous).collect();
    let layout = Layout::new(&inputs, settings);
    let (parameters, x) = (layout.parameters(&inputs), slice(&inputs[0]));
    let mut out = vec![0.0; x.len()];
    let len = layout.group_len();
    let statistics = out
        .par_chunks_mut(len)
        .zip(x.par_chunks(len))
        .enumerate()
        .map(|(index, (out, x))| {
            let statistics = Statistics::new(x, settings.eps);
            layout.group(index, parameters).forward(out, x, statistics);
            statistics
        })
        .collect();
    (tensor(out, &inputs[0]), statistics)
}

/// The gradients with respect to `inputs`.
///
/// The others are by-products of that of `x`, which is always wanted: what comes before a norm is
/// trained with it.
pub fn backward(
    inputs: &[Values],
    settings: Settings,
    statistics: &[Statistics],
    grad: &Values,
) -> Vec<Values> {
    let inputs: Vec<Values> = inputs.iter().map(Values::to_contiguous).collect();
    let grad = grad.to_contiguous();
    let layout = Layout::new(&inputs, settings);
    let (parameters, x, grad) = (layout.parameters(&inputs), slice(&inputs[0]), slice(&grad));
    let (len, places) = (layout.group_len(), layout.per_group * layout.upsampling.before());
    let mut dx = vec![0.0; x.len()];
    let [mut dscale, mut dshift] = [2, 3].map(|which| vec![0.0; parameters[which].len()]);
    let dmodulation = dscale.par_chunks_mut(places).zip(dshift.par_chunks_mut(places));
    let sums: Vec<Vec<[f64; 2]>> = dx
        .par_chunks_mut(len)
        .zip(dmodulation)
        .zip(x.par_chunks(len).zip(grad.par_chunks(len)))
        .zip(statistics)
        .enumerate()
        .map(|(index, (((dx, (dscale, dshift)), (x, grad)), statistics))| {
            let group = layout.group(index, parameters);
            group.backward([dx, dscale, dshift], [x, grad], *statistics)
        })
        .collect();
    let [dgamma, dbeta] = add_up(sums.into_iter().flatten(), layout.channels);
    let results = [dx, dgamma, dbeta, dscale, dshift];
    results.into_iter().zip(&inputs).map(|(values, like)| tensor(values, like)).collect()
}

/// Adds up the samples in order, so that results do not depend on threads.
fn add_up(sums: impl Iterator<Item = [f64; 2]>, channels: usize) -> [Vec<f32>; 2] {
    let mut totals = vec![[0.0; 2]; channels];
    for (index, [dgamma, dbeta]) in sums.enumerate() {
        totals[index % channels][0] += dgamma;
        totals[index % channels][1] += dbeta;
    }
    [0, 1].map(|which| totals.iter().map(|total| total[which] as f32).collect())
}
