//! Positions: rotations of query and key, and the additive table of CogVideoX 1.0.

use burn::tensor::{Device, Tensor, TensorData};

use super::config::TransformerConfig;
use crate::models::nn::{LayerNorm, fused, linspace};

const THETA: f32 = 10_000.0;

/// Rotations of the head's pairs `(2i, 2i + 1)` for a joint sequence; text is not rotated.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Tensor<4>,  // [1, S, 1, D]
    sin: Tensor<4>,  // [1, S, 1, D], negative at even places
    swap: Tensor<4>, // [1, 1, D, D], exchanges the partners of each pair
}

impl Rotary {
    /// Rotations for `text_len` text tokens and a video of `grid` tokens (time, rows, columns).
    pub fn new(
        config: &TransformerConfig,
        text_len: usize,
        grid: [usize; 3],
        device: &Device,
    ) -> Self {
        let dim = config.attention_head_dim;
        let [time, rows, columns] = positions(config, grid);
        // A quarter of the head turns with time, three eighths each with row and column.
        let axes = [
            (time, axis_frequencies(dim / 4)),
            (rows, axis_frequencies(dim / 8 * 3)),
            (columns, axis_frequencies(dim / 8 * 3)),
        ];
        let tables = axes.map(|(positions, frequencies)| {
            let angles = |position: &f32| -> Vec<f32> {
                frequencies.iter().map(|frequency| position * frequency).collect()
            };
            positions.iter().map(angles).collect::<Vec<_>>()
        });

        let tokens = text_len + grid.iter().product::<usize>();
        let mut cos = vec![1.0; text_len * dim];
        let mut sin = vec![0.0; text_len * dim];
        for t in 0..grid[0] {
            for row in 0..grid[1] {
                for column in 0..grid[2] {
                    let angles =
                        tables[0][t].iter().chain(&tables[1][row]).chain(&tables[2][column]);
                    for angle in angles {
                        let (s, c) = angle.sin_cos();
                        cos.extend([c, c]);
                        sin.extend([-s, s]);
                    }
                }
            }
        }
        let tensor = |values: Vec<f32>, shape: [usize; 4]| {
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        Self {
            cos: tensor(cos, [1, tokens, 1, dim]),
            sin: tensor(sin, [1, tokens, 1, dim]),
            swap: fused::swap_table(dim, device),
        }
    }

    /// Normalises the heads of `[B, S, heads, D]` and rotates them, as `[B, heads, S, D]`.
    pub fn norm_and_apply(&self, norm: &LayerNorm, x: Tensor<4>) -> Tensor<4> {
        norm.forward_rotated(x, [self.cos.clone(), self.sin.clone(), self.swap.clone()])
    }
}

/// `10000^(-2i/dim)`.
fn axis_frequencies(dim: usize) -> Vec<f32> {
    (0..dim).step_by(2).map(|i| 1.0 / THETA.powf(i as f32 / dim as f32)).collect()
}

/// Positions of tokens on each axis.
///
/// 1.5 counts tokens. 1.0 spreads them over the region of the trained grid that the picture covers
/// when it is fitted into it, and counts frames.
fn positions(config: &TransformerConfig, [time, rows, columns]: [usize; 3]) -> [Vec<f32>; 3] {
    let count = |len: usize| (0..len).map(|i| i as f32).collect::<Vec<_>>();
    if config.patch_size_t.is_some() {
        return [count(time), count(rows), count(columns)];
    }
    let base = [config.sample_height / config.patch_size, config.sample_width / config.patch_size];
    let [(top, bottom), (left, right)] = fitted_region([rows, columns], base);
    let spread = |start: f32, stop: f32, len: usize| {
        linspace(start, (f64::from(stop) * (len - 1) as f64 / len as f64) as f32, len)
    };
    [count(time), spread(top, bottom, rows), spread(left, right, columns)]
}

/// The rows and columns of `base` that a picture of the aspect of `size` covers when fitted and
/// centred.
fn fitted_region([h, w]: [usize; 2], [base_h, base_w]: [usize; 2]) -> [(f32, f32); 2] {
    let [h, w, base_h, base_w] = [h, w, base_h, base_w].map(|x| x as f64);
    let (resized_h, resized_w) = if h / w > base_h / base_w {
        (base_h, (base_h / h * w).round_ties_even())
    } else {
        ((base_w / w * h).round_ties_even(), base_w)
    };
    let top = ((base_h - resized_h) / 2.0).round_ties_even();
    let left = ((base_w - resized_w) / 2.0).round_ties_even();
    [(top as f32, (top + resized_h) as f32), (left as f32, (left + resized_w) as f32)]
}

/// The additive table of a video of `grid` tokens behind zeros for `text_len` text tokens,
/// `[1, S, D]`: a quarter of the token for the frame, three eighths each for column and row.
pub fn additive_positions(
    config: &TransformerConfig,
    text_len: usize,
    grid: [usize; 3],
    device: &Device,
) -> Tensor<3> {
    let dim = config.inner_dim();
    let axis = |len: usize, scale: f32, dim: usize| -> Vec<Vec<f32>> {
        let half = dim / 2;
        let omega = |i: usize| 10_000f64.powf(-(i as f64) / half as f64);
        let row = |position: usize| {
            let angle = |i: usize| f64::from(position as f32 / scale) * omega(i);
            let sines = (0..half).map(|i| angle(i).sin() as f32);
            sines.chain((0..half).map(|i| angle(i).cos() as f32)).collect()
        };
        (0..len).map(row).collect()
    };
    let spatial = 3 * dim / 4;
    let times = axis(grid[0], config.temporal_interpolation_scale, dim / 4);
    let rows = axis(grid[1], config.spatial_interpolation_scale, spatial / 2);
    let columns = axis(grid[2], config.spatial_interpolation_scale, spatial / 2);
    let tokens = text_len + grid.iter().product::<usize>();
    let mut table = vec![0.0; text_len * dim];
    for time in &times {
        for row in &rows {
            for column in &columns {
                table.extend(time.iter().chain(column).chain(row));
            }
        }
    }
    Tensor::from_data(TensorData::new(table, [1, tokens, dim]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_the_published_ones() {
        let config = TransformerConfig { patch_size_t: Some(2), ..TransformerConfig::default() };
        let rotary = Rotary::new(&config, 3, [2, 30, 45], &Device::flex());
        let token = 3 + 30 * 45 + 2 * 45 + 3; // t = 1, row = 2, column = 3
        let row = |table: &Tensor<4>| {
            table.clone().narrow(1, token, 1).into_data().try_to_vec::<f32>().unwrap()
        };
        let (cos, sin) = (row(&rotary.cos), row(&rotary.sin));
        for (place, wanted) in [
            (0, 0.540_302_3),
            (2, 0.950_415_3),
            (14, 0.999_999_94),
            (16, -0.416_146_8),
            (18, 0.599_181_7),
            (40, -0.989_992_5),
            (42, 0.177_376_1),
        ] {
            assert!((cos[place] - wanted).abs() < 1e-6, "cos {place}: {}", cos[place]);
            assert_eq!(cos[place].to_bits(), cos[place + 1].to_bits());
        }
        for (place, wanted) in [(0, 0.841_471), (16, 0.909_297_4), (40, 0.141_12)] {
            assert!((sin[place + 1] - wanted).abs() < 1e-6, "sin {place}: {}", sin[place + 1]);
            assert_eq!(sin[place].to_bits(), (-sin[place + 1]).to_bits());
        }
        assert_eq!(rotary.cos.dims()[1], 3 + 2 * 30 * 45);
    }

    #[test]
    fn the_trained_size_has_whole_positions() {
        let config = TransformerConfig::default();
        let [time, rows, columns] = positions(&config, [3, 30, 45]);
        assert_eq!(time, [0.0, 1.0, 2.0]);
        assert!(rows.iter().enumerate().all(|(i, p)| (p - i as f32).abs() < 1e-4));
        assert!(columns.iter().enumerate().all(|(i, p)| (p - i as f32).abs() < 1e-4));
    }

    #[test]
    fn other_aspects_are_centred() {
        assert_eq!(fitted_region([30, 30], [30, 45]), [(0.0, 30.0), (8.0, 38.0)]);
        assert_eq!(fitted_region([16, 48], [30, 45]), [(8.0, 23.0), (0.0, 45.0)]);
    }
}
