//! Embeddings of scalars such as the timestep.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Linear, silu};
use crate::models::params::ParamReader;

/// Sinusoids of `values`, `[values, dim]`: cosines, then sines, of frequencies that fall
/// geometrically from 1 towards 1/10000.
///
/// `freq_shift` is taken from the number of frequencies, as diffusers' `Timesteps` has it. The
/// arithmetic is f32 as in the reference, so that large timesteps have the same rounding.
pub fn sinusoid(values: &[f32], dim: usize, freq_shift: f32, device: &Device) -> Tensor<2> {
    let half = dim / 2;
    let fall = -(10_000f64.ln()) as f32;
    let frequencies: Vec<f32> =
        (0..half).map(|i| (fall * i as f32 / (half as f32 - freq_shift)).exp()).collect();
    let mut data = Vec::with_capacity(values.len() * dim);
    for value in values {
        data.extend(frequencies.iter().map(|frequency| (value * frequency).cos()));
        data.extend(frequencies.iter().map(|frequency| (value * frequency).sin()));
    }
    Tensor::from_data(TensorData::new(data, [values.len(), 2 * half]), device)
}

/// `torch.linspace` in f32, which counts the second half back from the end.
pub fn linspace(start: f32, end: f32, len: usize) -> Vec<f32> {
    if len == 1 {
        return vec![start];
    }
    let step = (end - start) / (len - 1) as f32;
    (0..len)
        .map(
            |i| {
                if i < len / 2 {
                    start + step * i as f32
                } else {
                    end - step * (len - 1 - i) as f32
                }
            },
        )
        .collect()
}

/// Linear, `SiLU`, linear.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// Reads `linear_1` `[dim, input]` and `linear_2` `[dim, dim]`.
    pub fn new(params: &ParamReader<'_>, input: usize, dim: usize) -> Self {
        Self {
            linear_1: params.linear("linear_1", [input, dim]),
            linear_2: params.linear("linear_2", [dim, dim]),
        }
    }

    /// `[B, input]` to `[B, dim]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(silu(self.linear_1.forward(x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f32, dim: usize) -> Vec<f32> {
        sinusoid(&[value], dim, 0.0, &Device::flex()).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn sinusoids_have_the_published_layout() {
        let close = |found: &[f32], wanted: &[f32]| {
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-4, "{found} is not {wanted}");
            }
        };
        let timestep = row(999.0, 3072);
        close(&timestep[..3], &[0.999_649_8, 0.959_838_5, 0.807_526_9]);
        close(&timestep[1536..1539], &[-0.026_460_8, 0.280_553_2, 0.589_830_7]);
        let offset = row(2.0, 512);
        close(&offset[..3], &[-0.416_146_8, -0.350_895_2, -0.286_285_4]);
        close(&offset[256..259], &[0.909_297_4, 0.936_414_8, 0.958_154_4]);
    }
}
