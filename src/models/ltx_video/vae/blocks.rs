//! What encoder and decoder share: convolutions, residual blocks, folding of space into channels.

use burn::tensor::{Device, FloatDType, Tensor};

use crate::{
    models::{
        ParamReader,
        nn::{Conv3d, TimestepEmbedding, rms_norm, silu, sinusoid},
        params::Init,
    },
    rng::TorchRng,
};

/// Epsilon of the norm over channels at one place, which has no weights.
const PIXEL_NORM_EPS: f64 = 1e-8;
/// Size of a timestep's sinusoids.
const SINUSOIDS: usize = 256;

/// `x / rms(x)` over the channels at each place.
pub fn pixel_norm(x: Tensor<5>) -> Tensor<5> {
    rms_norm(x, 1, PIXEL_NORM_EPS)
}

/// A convolution that keeps the number of frames by repeating those at the ends: the first one only
/// if it is causal, else the first and the last.
#[derive(Clone, Debug)]
pub struct Conv {
    inner: Conv3d,
    kernel: usize,
    causal: bool,
}

impl Conv {
    /// Reads `<name>.conv` with a cube as its kernel.
    pub fn new(
        params: &ParamReader<'_>,
        name: &str,
        channels: [usize; 2],
        kernel: usize,
        causal: bool,
    ) -> Self {
        Self { inner: params.scope(name).conv3d("conv", channels, [kernel; 3]), kernel, causal }
    }

    /// Reads a strided convolution that is not wrapped: `<name>.weight`.
    pub fn bare(params: &ParamReader<'_>, name: &str, channels: usize, causal: bool) -> Self {
        Self { inner: params.conv3d(name, [channels; 2], [3; 3]), kernel: 3, causal }
    }

    /// `[B, in, T, H, W]` to `[B, out, T, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        self.inner.forward(self.extend(x))
    }

    /// Every `stride`th place of [`Self::forward`] in time and in space.
    pub fn strided(&self, x: Tensor<5>, stride: [usize; 2]) -> Tensor<5> {
        self.inner.strided(self.extend(x), stride)
    }

    /// Earlier frames that a frame depends on.
    pub fn reach(&self) -> usize {
        if self.causal { self.kernel - 1 } else { self.kernel / 2 }
    }

    fn extend(&self, x: Tensor<5>) -> Tensor<5> {
        if self.kernel == 1 {
            return x;
        }
        let frames = x.dims()[2];
        let half = self.kernel / 2;
        let (before, after) = if self.causal { (2 * half, 0) } else { (half, half) };
        let mut parts = vec![x.clone().narrow(2, 0, 1); before];
        parts.push(x.clone());
        parts.extend(vec![x.narrow(2, frames - 1, 1); after]);
        Tensor::cat(parts, 2)
    }
}

/// What a kind of residual block has besides its convolutions.
#[derive(Clone, Copy, Debug)]
pub struct ResnetKind {
    /// Whether convolutions see no later frames.
    pub causal: bool,
    /// Whether scale and shift come from a timestep.
    pub timestep: bool,
    /// Whether noise is added after each convolution.
    pub noise: bool,
    /// Epsilon of the shortcut's norm.
    pub eps: f64,
}

/// What a decoder's residual blocks get besides the picture.
pub struct Conditions<'a> {
    /// Embedded timestep `[B, 4 C]`, where blocks take one.
    pub time: Option<Tensor<2>>,
    /// Source of noise; without it, none is added.
    pub rng: Option<&'a mut TorchRng>,
}

impl Conditions<'_> {
    /// None of them: the encoder's.
    pub fn none() -> Self {
        Self { time: None, rng: None }
    }
}

/// Norm, `SiLU`, convolution, twice, beside a shortcut.
#[derive(Clone, Debug)]
pub struct Resnet {
    conv1: Conv,
    conv2: Conv,
    shortcut: Option<Shortcut>,
    scale_shift_table: Option<Tensor<2>>, // [4, C]
    noise_scales: Option<[Tensor<3>; 2]>, // [C, 1, 1] each
}

impl Resnet {
    /// Reads one residual block.
    pub fn new(params: &ParamReader<'_>, [input, output]: [usize; 2], kind: ResnetKind) -> Self {
        let noise_scales = kind.noise.then(|| {
            ["per_channel_scale1", "per_channel_scale2"]
                .map(|name| params.tensor(name, [input, 1, 1], Init::Zeros))
        });
        let scale_shift_table = kind.timestep.then(|| table(params, 4, input));
        Self {
            conv1: Conv::new(params, "conv1", [input, output], 3, kind.causal),
            conv2: Conv::new(params, "conv2", [output, output], 3, kind.causal),
            shortcut: (input != output).then(|| Shortcut::new(params, [input, output], kind)),
            scale_shift_table,
            noise_scales,
        }
    }

    /// `[B, in, T, H, W]` to `[B, out, T, H, W]`.
    pub fn forward(&self, x: Tensor<5>, conditions: &mut Conditions<'_>) -> Tensor<5> {
        let modulation = match (&self.scale_shift_table, &conditions.time) {
            (Some(table), Some(time)) => Some(Modulation::new(table, time.clone())),
            _ => None,
        };
        let modulate = |x: Tensor<5>, row: usize| match &modulation {
            Some(modulation) => modulation.apply(x, row),
            None => x,
        };
        let y = silu(modulate(pixel_norm(x.clone()), 0));
        let y = self.add_noise(self.conv1.forward(y), 0, conditions);
        let y = silu(modulate(pixel_norm(y), 2));
        let y = self.add_noise(self.conv2.forward(y), 1, conditions);
        match &self.shortcut {
            Some(shortcut) => y + shortcut.forward(x),
            None => y + x,
        }
    }

    /// Earlier frames that a frame depends on.
    pub fn reach(&self) -> usize {
        self.conv1.reach() + self.conv2.reach()
    }

    /// Adds one map of noise, the same for all frames, scaled for each channel.
    fn add_noise(&self, x: Tensor<5>, index: usize, conditions: &mut Conditions<'_>) -> Tensor<5> {
        let (Some(scales), Some(rng)) = (&self.noise_scales, conditions.rng.as_deref_mut()) else {
            return x;
        };
        let [_, _, _, h, w] = x.dims();
        let noise: Tensor<3> = rng.normal_tensor([1, h, w], &x.device());
        let noise = noise.cast(FloatDType::from(x.dtype())) * scales[index].clone(); // [C, H, W]
        let c = noise.dims()[0];
        x + noise.reshape([1, c, 1, h, w])
    }
}

/// The way around a residual block that changes the number of channels.
#[derive(Clone, Debug)]
struct Shortcut {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    conv: Conv,
}

impl Shortcut {
    fn new(params: &ParamReader<'_>, [input, output]: [usize; 2], kind: ResnetKind) -> Self {
        let norm = params.scope("norm3");
        Self {
            weight: norm.tensor("weight", [input], Init::Ones),
            bias: norm.tensor("bias", [input], Init::Zeros),
            eps: kind.eps,
            conv: Conv::new(params, "conv_shortcut", [input, output], 1, kind.causal),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [weight, bias] =
            [&self.weight, &self.bias].map(|p| p.clone().reshape([1, -1, 1, 1, 1]));
        let normed = crate::models::nn::standardize(x, 1, self.eps) * weight + bias;
        self.conv.forward(normed)
    }
}

/// A table of shifts and scales, `[rows, C]`.
pub fn table(params: &ParamReader<'_>, rows: usize, channels: usize) -> Tensor<2> {
    let init = Init::Normal(1.0 / (channels as f64).sqrt());
    params.tensor("scale_shift_table", [rows, channels], init)
}

/// Pairs of shift and scale from a timestep, `[B, rows, C]`.
pub struct Modulation(Tensor<3>);

impl Modulation {
    /// The sum of a table `[rows, C]` and an embedded timestep `[B, rows C]`.
    pub fn new(table: &Tensor<2>, time: Tensor<2>) -> Self {
        let ([rows, channels], [batch, _]) = (table.dims(), time.dims());
        Self(time.reshape([batch, rows, channels]) + table.clone().unsqueeze::<3>())
    }

    /// `x * (1 + scale) + shift` with the shift of `row` and the scale after it.
    pub fn apply(&self, x: Tensor<5>, row: usize) -> Tensor<5> {
        let [b, _, c] = self.0.dims();
        let at = |row| self.0.clone().narrow(1, row, 1).reshape([b, c, 1, 1, 1]);
        x * (at(row + 1) + 1.0) + at(row)
    }
}

/// Embeds a timestep in `dim` numbers.
#[derive(Clone, Debug)]
pub struct TimeEmbedder(TimestepEmbedding);

impl TimeEmbedder {
    /// Reads `time_embedder`.
    pub fn new(params: &ParamReader<'_>, dim: usize) -> Self {
        let scope = params.scope("time_embedder.timestep_embedder");
        Self(TimestepEmbedding::new(&scope, SINUSOIDS, dim))
    }

    /// The embedding for a batch of equal timesteps, `[B, dim]`.
    pub fn forward(
        &self,
        timestep: f32,
        batch: usize,
        dtype: FloatDType,
        device: &Device,
    ) -> Tensor<2> {
        self.0.forward(sinusoid(&vec![timestep; batch], SINUSOIDS, 0.0, device).cast(dtype))
    }
}

/// A run of residual blocks of one width, `<name>.resnets.*`.
pub fn resnets(
    params: &ParamReader<'_>,
    channels: usize,
    count: usize,
    kind: ResnetKind,
) -> Vec<Resnet> {
    (0..count)
        .map(|i| Resnet::new(&params.scope(format_args!("resnets.{i}")), [channels; 2], kind))
        .collect()
}

/// Blocks of `by` places become channels: `[B, C, T, H, W]` to `[B, C t h w, T / t, H / h, W / w]`,
/// ordered channel, frame, row, column.
pub fn fold(x: Tensor<5>, [t, h, w]: [usize; 3]) -> Tensor<5> {
    let [b, c, frames, rows, columns] = x.dims();
    let grid = [frames / t, rows / h, columns / w];
    x.reshape([b, c, grid[0], t, grid[1], h, grid[2], w])
        .permute([0, 1, 3, 5, 7, 2, 4, 6])
        .reshape([b, c * t * h * w, grid[0], grid[1], grid[2]])
}

/// The inverse of [`fold`].
pub fn unfold(x: Tensor<5>, [t, h, w]: [usize; 3]) -> Tensor<5> {
    let [b, c, frames, rows, columns] = x.dims();
    let channels = c / (t * h * w);
    x.reshape([b, channels, t, h, w, frames, rows, columns])
        .permute([0, 1, 5, 2, 6, 3, 7, 4])
        .reshape([b, channels, frames * t, rows * h, columns * w])
}

/// Pixels of patches to channels, ordered channel, frame, column, row.
pub fn patchify(x: Tensor<5>, [t, p]: [usize; 2]) -> Tensor<5> {
    let [b, c, frames, rows, columns] = x.dims();
    let grid = [frames / t, rows / p, columns / p];
    x.reshape([b, c, grid[0], t, grid[1], p, grid[2], p])
        .permute([0, 1, 3, 7, 5, 2, 4, 6])
        .reshape([b, c * t * p * p, grid[0], grid[1], grid[2]])
}

/// The inverse of [`patchify`].
pub fn unpatchify(x: Tensor<5>, [t, p]: [usize; 2]) -> Tensor<5> {
    let [b, c, frames, rows, columns] = x.dims();
    let channels = c / (t * p * p);
    x.reshape([b, channels, t, p, p, frames, rows, columns])
        .permute([0, 1, 5, 2, 6, 4, 7, 3])
        .reshape([b, channels, frames * t, rows * p, columns * p])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn counted(shape: [usize; 5]) -> Tensor<5> {
        let values = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn values(x: Tensor<5>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn folding_and_patching_are_undone_by_their_inverses() {
        let x = counted([1, 2, 4, 4, 6]);
        assert_eq!(values(unfold(fold(x.clone(), [2, 2, 3]), [2, 2, 3])), values(x.clone()));
        assert_eq!(values(unpatchify(patchify(x.clone(), [2, 2]), [2, 2])), values(x));
    }

    #[test]
    fn channels_count_rows_first_in_a_fold_and_columns_first_in_a_patch() {
        let x = counted([1, 1, 1, 2, 2]); // rows [0, 1] and [2, 3]
        assert_eq!(values(fold(x.clone(), [1, 2, 2])), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(values(patchify(x, [1, 2])), [0.0, 2.0, 1.0, 3.0]);
    }
}
