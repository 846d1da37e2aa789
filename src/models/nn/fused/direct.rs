//! Convolutions of stride 1 straight from the frames: no columns, sums kept in registers.
//!
//! Frames are laid out as padded planes, one after the other. On a plane of pitch `P`, the output
//! at place `m` of its rows is the sum over taps of the input at `m + y P + x`, so one loop over
//! places serves every row; the few places between rows hold nonsense, which is left out when
//! planes are copied to rows again. The gradient of the input is the same convolution with the
//! weights turned round; that of the weights is a sum over the same places.
#![expect(clippy::inline_always, reason = "what is not inlined has no vector instructions")]

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Output channels, or input channels of a gradient, that one pass computes.
const BLOCK: usize = 8;
/// Vectors of places that one pass computes; with [`BLOCK`] channels their sums fill half of the
/// registers.
const VECTORS: usize = 2;
/// Zeros after a plane, for the last vectors of a pass: more than any processor's.
const SLACK: usize = 64;
/// Places of a weight gradient that are summed before the next tap, so that they stay in the cache.
const TILE: usize = 512;
/// The widest kernel.
pub const MAX_KERNEL: usize = 3;

/// Frames of several channels as padded planes.
pub struct Planes {
    values: Vec<f32>,
    channels: usize,
    frames: usize,
    rows: usize,
    pitch: usize,
    stride: usize,
}

impl Planes {
    /// Copies `[channels, frames, height, width]` with these margins above, below, left and right.
    pub fn new(
        x: &[f32],
        [channels, frames, height, width]: [usize; 4],
        [top, bottom, left, right]: [usize; 4],
    ) -> Self {
        let (rows, pitch) = (height + top + bottom, width + left + right);
        let stride = rows * pitch + SLACK;
        let mut values = vec![0.0; channels * frames * stride];
        values.par_chunks_mut(stride).zip(x.par_chunks(height * width)).for_each(|(plane, x)| {
            let rows = plane[top * pitch..].chunks_mut(pitch);
            for (row, x) in rows.zip(x.chunks(width)) {
                row[left..left + width].copy_from_slice(x);
            }
        });
        Self { values, channels, frames, rows, pitch, stride }
    }

    fn plane(&self, channel: usize, frame: usize) -> &[f32] {
        &self.values[(channel * self.frames + frame) * self.stride..][..self.stride]
    }
}

/// The weights of a convolution in the order in which they are used: for each block of outputs, by
/// input channel and tap.
pub struct Packed {
    values: Vec<f32>,
    outputs: usize,
    kernel: [usize; 3],
    /// Zero frames before the first one, as many as after the last.
    frames_before: usize,
}

impl Packed {
    /// From `[out, in, t, h, w]`, for the values.
    pub fn forward(weight: &[f32], [output, input, kt, kh, kw]: [usize; 5]) -> Self {
        let taps = kt * kh * kw;
        Self::pack(output, input, [kt, kh, kw], 0, |o, i, tap| weight[(o * input + i) * taps + tap])
    }

    /// From `[out, in, t, h, w]`, for the gradient of the input: channels exchanged, taps reversed.
    pub fn backward(weight: &[f32], [output, input, kt, kh, kw]: [usize; 5]) -> Self {
        let taps = kt * kh * kw;
        let at = |i: usize, o: usize, tap: usize| weight[(o * input + i) * taps + taps - 1 - tap];
        Self::pack(input, output, [kt, kh, kw], kt - 1, at)
    }

    fn pack(
        outputs: usize,
        inputs: usize,
        kernel: [usize; 3],
        frames_before: usize,
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let taps: usize = kernel.iter().product();
        let mut values = Vec::with_capacity(outputs.next_multiple_of(BLOCK) * inputs * taps);
        for first in (0..outputs).step_by(BLOCK) {
            for (input, tap) in (0..inputs).flat_map(|i| (0..taps).map(move |tap| (i, tap))) {
                values.extend(
                    (first..first + BLOCK).map(|output| {
                        if output < outputs { weight(output, input, tap) } else { 0.0 }
                    }),
                );
            }
        }
        Self { values, outputs, kernel, frames_before }
    }
}

/// Writes the convolution of `x`, plus `bias` per channel, to `out`:
/// `[outputs, frames, rows - h + 1, pitch - w + 1]`.
pub fn convolve(x: &Planes, weight: &Packed, bias: Option<&[f32]>, out: &mut [f32]) {
    let [kt, kh, kw] = weight.kernel;
    let frames = x.frames + 2 * weight.frames_before - (kt - 1);
    let (height, width) = (x.rows - kh + 1, x.pitch - kw + 1);
    let size = x.channels * kt * kh * kw * BLOCK;
    let tasks = weight.outputs.div_ceil(BLOCK) * frames;
    let blocks: Vec<Vec<f32>> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let (block, frame) = (task / frames, task % frames);
            let weights = &weight.values[block * size..][..size];
            let bias = std::array::from_fn(|lane| {
                bias.and_then(|bias| bias.get(block * BLOCK + lane)).copied().unwrap_or_default()
            });
            let places = height * x.pitch;
            Arch::new().dispatch(Pass { x, weight, weights, bias, frame, places })
        })
        .collect();
    out.par_chunks_mut(height * width).enumerate().for_each(|(plane, out)| {
        let (output, frame) = (plane / frames, plane % frames);
        let block = &blocks[output / BLOCK * frames + frame];
        let stride = block.len() / BLOCK;
        let values = &block[output % BLOCK * stride..];
        for (out, row) in out.chunks_mut(width).zip(values.chunks(x.pitch)) {
            out.copy_from_slice(&row[..width]);
        }
    });
}

/// One frame of one block of outputs.
struct Pass<'a> {
    x: &'a Planes,
    weight: &'a Packed,
    weights: &'a [f32],
    bias: [f32; BLOCK],
    frame: usize,
    places: usize,
}

impl WithSimd for Pass<'_> {
    /// The block's planes, one after the other, at the pitch of the input.
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let step = VECTORS * S::F32_LANES;
        let stride = self.places.next_multiple_of(step);
        let mut out = vec![0.0; BLOCK * stride];
        for start in (0..stride).step_by(step) {
            let sums = self.places_from(simd, start);
            for (lane, sums) in sums.iter().enumerate() {
                let out = S::as_mut_simd_f32s(&mut out[lane * stride + start..][..step]).0;
                out.copy_from_slice(sums);
            }
        }
        out
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn places_from<S: Simd>(&self, simd: S, start: usize) -> [[S::f32s; VECTORS]; BLOCK] {
        let Self { x, weight, weights, frame, .. } = *self;
        let [kt, kh, kw] = weight.kernel;
        let step = VECTORS * S::F32_LANES;
        let mut sums = self.bias.map(|bias| [simd.splat_f32s(bias); VECTORS]);
        for channel in 0..x.channels {
            for tap_t in 0..kt {
                let Some(frame) = (frame + tap_t).checked_sub(weight.frames_before) else {
                    continue;
                };
                if frame >= x.frames {
                    continue;
                }
                let plane = &x.plane(channel, frame)[start..];
                for tap_h in 0..kh {
                    let row = &plane[tap_h * x.pitch..][..step + kw - 1];
                    let first = ((channel * kt + tap_t) * kh + tap_h) * kw * BLOCK;
                    let taps = weights[first..][..kw * BLOCK].chunks_exact(BLOCK);
                    for (tap_w, taps) in taps.enumerate() {
                        let x = S::as_simd_f32s(&row[tap_w..][..step]).0;
                        let x: [S::f32s; VECTORS] = [x[0], x[1]];
                        for (sums, tap) in sums.iter_mut().zip(taps) {
                            let tap = simd.splat_f32s(*tap);
                            for (sum, x) in sums.iter_mut().zip(x) {
                                *sum = simd.mul_add_f32s(tap, x, *sum);
                            }
                        }
                    }
                }
            }
        }
        sums
    }
}

/// Adds the gradient of the weights `[out, in, t, h, w]` of one clip to `dw`. `grad` has its margin
/// on the right, so that its pitch is that of `x`.
pub fn weight_gradient(x: &Planes, grad: &Planes, kernel: [usize; 3], dw: &mut [f32]) {
    debug_assert_eq!(x.pitch, grad.pitch, "planes of one pitch");
    let taps: usize = kernel.iter().product();
    let blocks: Vec<Vec<f32>> = (0..grad.channels.div_ceil(BLOCK) * x.channels)
        .into_par_iter()
        .map(|task| {
            let (block, input) = (task / x.channels, task % x.channels);
            let pass = WeightPass { x, grad, kernel, input, first: block * BLOCK };
            match kernel[2] {
                1 => Arch::new().dispatch(Columns::<1>(pass)),
                2 => Arch::new().dispatch(Columns::<2>(pass)),
                _ => Arch::new().dispatch(Columns::<MAX_KERNEL>(pass)),
            }
        })
        .collect();
    for (index, dw) in dw.chunks_mut(taps).enumerate() {
        let (output, input) = (index / x.channels, index % x.channels);
        let block = &blocks[output / BLOCK * x.channels + input];
        for (tap, dw) in dw.iter_mut().enumerate() {
            *dw += block[tap * BLOCK + output % BLOCK];
        }
    }
}

/// The gradient of the weights from one input channel to one block of outputs.
#[derive(Clone, Copy)]
struct WeightPass<'a> {
    x: &'a Planes,
    grad: &'a Planes,
    kernel: [usize; 3],
    input: usize,
    /// The block's first output.
    first: usize,
}

/// The pass for kernels of `W` columns.
struct Columns<'a, const W: usize>(WeightPass<'a>);

impl<const W: usize> WithSimd for Columns<'_, W> {
    /// By tap and output.
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let WeightPass { x, grad, kernel: [kt, kh, _], input, first } = self.0;
        let places = grad.rows * grad.pitch;
        let mut sums = vec![[[simd.splat_f32s(0.0); W]; BLOCK]; kt * kh];
        for frame in 0..grad.frames {
            for start in (0..places).step_by(TILE) {
                let len = (places - start).min(TILE).next_multiple_of(S::F32_LANES);
                // Outputs beyond the last repeat it; nobody reads their sums.
                let grads: [&[f32]; BLOCK] = std::array::from_fn(|lane| {
                    let output = (first + lane).min(grad.channels - 1);
                    &grad.plane(output, frame)[start..][..len]
                });
                for (tap, sums) in sums.iter_mut().enumerate() {
                    let plane = x.plane(input, frame + tap / kh);
                    let x = &plane[start + tap % kh * x.pitch..][..len + W - 1];
                    *sums = tile(simd, x, grads, *sums);
                }
            }
        }
        let mut by_tap = Vec::with_capacity(sums.len() * W * BLOCK);
        for sums in &sums {
            for tap in 0..W {
                for sums in sums {
                    by_tap.push(simd.reduce_sum_f32s(sums[tap]));
                }
            }
        }
        by_tap
    }
}

#[inline(always)]
fn tile<S: Simd, const W: usize>(
    simd: S,
    x: &[f32],
    grads: [&[f32]; BLOCK],
    mut sums: [[S::f32s; W]; BLOCK],
) -> [[S::f32s; W]; BLOCK] {
    let shifted: [&[S::f32s]; W] =
        std::array::from_fn(|tap| S::as_simd_f32s(&x[tap..][..x.len() - (W - 1)]).0);
    let grads = grads.map(|grad| S::as_simd_f32s(grad).0);
    for at in 0..grads[0].len() {
        let x: [S::f32s; W] = std::array::from_fn(|tap| shifted[tap][at]);
        for (sums, grad) in sums.iter_mut().zip(grads) {
            let grad = grad[at];
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = simd.mul_add_f32s(grad, x, *sum);
            }
        }
    }
    sums
}
