//! Rotations of query and key by position, over the whole width of a token.

use burn::tensor::{Device, Tensor, TensorData};

use crate::models::{
    Compression, TimeAxis,
    nn::{fused, linspace},
};

const THETA: f64 = 10_000.0;
/// Width of the part of a token that one table of partners serves: that of a head.
const PART: usize = 64;
/// The seconds, rows and columns that one period of the slowest rotation covers.
const BASE: [f32; 3] = [20.0, 2048.0, 2048.0];

/// Rotations of the pairs `(2i, 2i + 1)` of a token of size `D`.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Tensor<3>,  // [1, S, D]
    sin: Tensor<3>,  // [1, S, D], negative at even places
    swap: Tensor<4>, // exchanges the partners of each pair in a part of a token
}

impl Rotary {
    /// Rotations for tokens of size `dim` on a grid of frames, rows and columns.
    ///
    /// Each axis turns a third of the pairs, in turn, with frequencies that rise geometrically from
    /// `pi / 2`; pairs in front that are left over stay. All arithmetic is f32 as in the reference:
    /// at the highest frequency its rounding decides the fourth digit.
    ///
    /// Time that is causal is that of a latent frame's first video frame, where the first latent
    /// frame holds one alone.
    pub fn new(dim: usize, grid: [usize; 3], time: TimeAxis, device: &Device) -> Self {
        let still = dim % 6 / 2;
        let frequencies: Vec<f32> = linspace(0.0, 1.0, dim / 6)
            .into_iter()
            .map(|exponent| THETA.powf(f64::from(exponent)) as f32)
            .map(|frequency| frequency * std::f32::consts::PI / 2.0)
            .collect();
        // A training builds the model at every step, and few of the angles differ.
        let axes = [0, 1, 2].map(|axis| {
            let angles = axis_angles(axis, grid[axis], time, &frequencies).into_iter();
            let turned = |angle: f32| (angle.cos(), angle.sin());
            let place = |angles: Vec<f32>| angles.into_iter().map(turned).collect::<Vec<_>>();
            angles.map(place).collect::<Vec<_>>()
        });
        let values = grid.iter().product::<usize>() * dim;
        let (mut cos, mut sin) = (Vec::with_capacity(values), Vec::with_capacity(values));
        for frame in &axes[0] {
            for row in &axes[1] {
                for column in &axes[2] {
                    cos.extend(std::iter::repeat_n(1.0, 2 * still));
                    sin.extend(std::iter::repeat_n(0.0, 2 * still));
                    for i in 0..frequencies.len() {
                        for (along, across) in [frame[i], row[i], column[i]] {
                            cos.extend([along; 2]);
                            sin.extend([-across, across]);
                        }
                    }
                }
            }
        }
        let shape = [1, grid.iter().product(), dim];
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), device);
        let part = if dim.is_multiple_of(PART) { PART } else { 2 };
        Self { cos: tensor(cos), sin: tensor(sin), swap: fused::swap_table(part, device) }
    }

    /// Rotates `[B, S, D]`, in f32 whatever the model's type.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let tables = [self.cos.clone(), self.sin.clone()];
        if !fused::applies(&x) {
            return fused::rotate(x, tables, self.swap.clone());
        }
        // On the CPU partners change places faster than a product would have them do.
        let [b, s, dim] = x.dims();
        let pairs: Tensor<4> = x.clone().reshape([b, s, dim / 2, 2]);
        let partners = Tensor::cat(vec![pairs.clone().narrow(3, 1, 1), pairs.narrow(3, 0, 1)], 3);
        let [cos, sin] = tables;
        x * cos + partners.reshape([b, s, dim]) * sin
    }
}

/// The angles of each position on an axis, by frequency.
fn axis_angles(axis: usize, len: usize, time: TimeAxis, frequencies: &[f32]) -> Vec<Vec<f32>> {
    let Compression { time: frames, space } = time.compression;
    let place = |index: usize| match (axis, time.causal) {
        (0, true) => {
            let frame = (index as f32 * frames as f32 + 1.0 - frames as f32).max(0.0);
            frame * (1.0 / time.frame_rate) as f32
        }
        (0, false) => index as f32 * (frames as f64 / time.frame_rate) as f32,
        _ => index as f32 * space as f32,
    };
    let angles = |index: usize| {
        let share = place(index) / BASE[axis];
        frequencies.iter().map(|frequency| frequency * (share * 2.0 - 1.0)).collect()
    };
    (0..len).map(angles).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_the_published_ones() {
        let rotary = Rotary::new(2048, [2, 15, 22], TimeAxis::default(), &Device::flex());
        let token = 15 * 22 + 3 * 22 + 5; // frame 1, row 3, column 5
        let row = |table: &Tensor<3>| {
            table.clone().narrow(1, token, 1).into_data().try_to_vec::<f32>().unwrap()
        };
        let (cos, sin) = (row(&rotary.cos), row(&rotary.sin));
        for (place, wanted) in [
            (0, 1.0),
            (2, 0.050_244),
            (3, 0.050_244),
            (6, 0.24298),
            (8, 0.008_512),
            (2046, -0.707_615),
        ] {
            assert!((cos[place] - wanted).abs() < 2e-6, "cos {place}: {}", cos[place]);
        }
        for (place, wanted) in [(2, -0.998_737), (8, -0.999_964), (2046, -0.706_598)] {
            let sin = sin[place + 1];
            assert!((sin - wanted).abs() < 2e-6, "sin {place}: {sin}");
        }
    }

    #[test]
    fn causal_time_moves_later_frames_to_their_first_video_frame() {
        let frequencies = [std::f32::consts::FRAC_PI_2];
        let places = |causal, frame_rate: f32| -> Vec<f32> {
            let time = TimeAxis::new(causal, Some(f64::from(frame_rate)));
            let angles = axis_angles(0, 3, time, &frequencies);
            // Back to video frames.
            let frame =
                |angle: f32| f32::midpoint(angle / frequencies[0], 1.0) * BASE[0] * frame_rate;
            angles.iter().map(|angles| frame(angles[0]).round()).collect()
        };
        for frame_rate in [25.0, 8.0] {
            assert_eq!(places(false, frame_rate), [0.0, 8.0, 16.0]);
            assert_eq!(places(true, frame_rate), [0.0, 1.0, 9.0]);
        }
    }

    #[test]
    fn a_rotation_keeps_the_length_of_each_pair() {
        let rotary = Rotary::new(8, [1, 2, 2], TimeAxis::default(), &Device::flex());
        let x = Tensor::<3>::from_data(
            TensorData::new((0..32).map(|i| i as f32).collect(), [1, 4, 8]),
            &Device::flex(),
        );
        let squares = |x: Tensor<3>| (x.clone() * x).reshape([16, 2]).sum_dim(1);
        let difference: Tensor<2> = squares(rotary.apply(x.clone())) - squares(x);
        assert!(difference.abs().max().into_scalar::<f32>() < 1e-3);
    }
}
