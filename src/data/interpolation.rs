//! Transition clips between two images: docs/method.md, A.2.

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::round;

/// How frame `i` of `F`, with `u = i / (F - 1)`, is made of input `x` and target `y`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// `(1 - u) x + u y`.
    Linear,
    /// Blend with weight `u²`.
    #[default]
    Quadratic,
    /// Blend with weight `√u`; the published videos look like this.
    Sqrt,
    /// Blend with weight `1 - (1 - u)²`.
    EaseOut,
    /// `x` in the first half of the frames, then `y`; an odd frame goes to `y`.
    Discrete,
    /// Tiles of a grid change from `x` to `y` in a random order of the clip.
    Tiles,
}

impl Interpolation {
    /// The weight of the target in frame `index`, for the methods that blend.
    fn weight(self, index: usize, frames: usize) -> f32 {
        let u = progress(index, frames);
        match self {
            Self::Linear | Self::Tiles => u,
            Self::Quadratic => u * u,
            Self::Sqrt => u.sqrt(),
            Self::EaseOut => 1.0 - (1.0 - u) * (1.0 - u),
            Self::Discrete => f32::from(u8::from(index >= (frames / 2).max(1))),
        }
    }

    /// The clip from `input` to `target`, which have one size.
    ///
    /// `order` is the order in which the tiles change, row by row numbered; only
    /// [`Self::Tiles`] reads it, and its length must be `grid * grid`.
    pub fn clip(
        self,
        input: &RgbImage,
        target: &RgbImage,
        frames: usize,
        grid: usize,
        order: &[usize],
    ) -> Vec<RgbImage> {
        (0..frames)
            .map(|index| match self {
                Self::Tiles if index > 0 && index + 1 == frames => target.clone(),
                Self::Tiles => {
                    let changed = order.len() * index / (frames - 1).max(1);
                    tiles(input, target, grid, &order[..changed])
                }
                _ => blend(input, target, self.weight(index, frames)),
            })
            .collect()
    }
}

/// How far a clip of `frames` has come at frame `index`: 0 at the first, 1 at the last.
pub(super) fn progress(index: usize, frames: usize) -> f32 {
    if frames < 2 { 0.0 } else { index as f32 / (frames - 1) as f32 }
}

/// `(1 - weight) x + weight y`, in f32, rounded half to even.
pub fn blend(input: &RgbImage, target: &RgbImage, weight: f32) -> RgbImage {
    let mut out = input.clone();
    for (x, y) in out.iter_mut().zip(target.iter()) {
        let value = f32::from(*x) * (1.0 - weight) + f32::from(*y) * weight;
        *x = round(value);
    }
    out
}

/// `input` with the given tiles of a `grid` by `grid` partition taken from `target`. Tiles have
/// floored sizes; pixels beyond the last row or column of tiles stay as they are.
fn tiles(input: &RgbImage, target: &RgbImage, grid: usize, changed: &[usize]) -> RgbImage {
    let mut out = input.clone();
    let (width, height) = (input.width() / grid as u32, input.height() / grid as u32);
    for tile in changed {
        let (left, top) = ((tile % grid) as u32 * width, (tile / grid) as u32 * height);
        for y in top..top + height {
            for x in left..left + width {
                out.put_pixel(x, y, *target.get_pixel(x, y));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::{
        Interpolation::{Discrete, EaseOut, Linear, Quadratic, Sqrt, Tiles},
        *,
    };

    fn weights(method: Interpolation) -> Vec<f32> {
        (0..9).map(|index| method.weight(index, 9)).collect()
    }

    #[test]
    fn nine_frames_have_the_weights_of_the_reference() {
        assert_eq!(
            weights(Interpolation::Linear),
            [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
        );
        let close = |found: Vec<f32>, wanted: [f32; 9]| {
            for (a, b) in found.iter().zip(wanted) {
                assert!((a - b).abs() < 1e-4, "{found:?}");
            }
        };
        close(
            weights(Interpolation::Quadratic),
            [0.0, 0.0156, 0.0625, 0.1406, 0.25, 0.3906, 0.5625, 0.7656, 1.0],
        );
        close(
            weights(Interpolation::Sqrt),
            [
                0.0,
                0.3536,
                0.5,
                0.6124,
                std::f32::consts::FRAC_1_SQRT_2,
                0.7906,
                0.8660,
                0.9354,
                1.0,
            ],
        );
        close(
            weights(Interpolation::EaseOut),
            [0.0, 0.2344, 0.4375, 0.6094, 0.75, 0.8594, 0.9375, 0.9844, 1.0],
        );
        assert_eq!(weights(Interpolation::Discrete), [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn tiles_change_two_at_a_time_in_nine_frames() {
        let (x, y) = (RgbImage::new(8, 8), RgbImage::from_pixel(8, 8, Rgb([255; 3])));
        let order: Vec<usize> = (0..16).rev().collect();
        let clip = Interpolation::Tiles.clip(&x, &y, 9, 4, &order);
        let white: Vec<_> = clip
            .iter()
            .map(|frame| frame.pixels().filter(|pixel| pixel.0[0] == 255).count() / 4)
            .collect();
        assert_eq!(white, [0, 2, 4, 6, 8, 10, 12, 14, 16]);
        assert_eq!(clip[1].get_pixel(7, 7).0, [255; 3], "the last tile comes first in this order");
    }

    #[test]
    fn every_clip_begins_at_the_input_and_ends_at_the_target() {
        let (x, y) = (
            RgbImage::from_pixel(5, 7, Rgb([3, 9, 27])),
            RgbImage::from_pixel(5, 7, Rgb([200; 3])),
        );
        for method in [Linear, Quadratic, Sqrt, EaseOut, Discrete, Tiles] {
            let clip = method.clip(&x, &y, 5, 2, &[2, 0, 3, 1]);
            assert_eq!((&clip[0], &clip[4]), (&x, &y), "{method:?}");
        }
    }

    #[test]
    fn a_clip_of_one_frame_is_the_input() {
        let (x, y) = (RgbImage::new(4, 4), RgbImage::from_pixel(4, 4, Rgb([200; 3])));
        for method in [Linear, Quadratic, Sqrt, EaseOut, Discrete, Tiles] {
            assert_eq!(method.clip(&x, &y, 1, 2, &[2, 0, 3, 1]), std::slice::from_ref(&x));
        }
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let (x, y) = (
            RgbImage::from_pixel(1, 1, Rgb([0, 1, 2])),
            RgbImage::from_pixel(1, 1, Rgb([1, 2, 3])),
        );
        assert_eq!(blend(&x, &y, 0.5).get_pixel(0, 0).0, [0, 2, 2]);
    }
}
