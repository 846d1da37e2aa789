//! Ways from a first image to a last one: those of the paper, as the task clips have them.

use image::RgbImage;

use super::rng::Rng;
use crate::data::interpolation::Interpolation;

/// How often each is drawn.
pub(super) const RAMPS: [(Interpolation, u32); 6] = [
    (Interpolation::Linear, 24),
    (Interpolation::Quadratic, 24),
    (Interpolation::Sqrt, 20),
    (Interpolation::EaseOut, 10),
    (Interpolation::Discrete, 11),
    (Interpolation::Tiles, 11),
];

/// Tiles per side.
const GRID: usize = 4;

/// The clip from `x` to `y`; tiles change in a random order.
pub(super) fn clip(
    method: Interpolation,
    x: &RgbImage,
    y: &RgbImage,
    frames: usize,
    rng: &mut Rng,
) -> Vec<RgbImage> {
    let mut order: Vec<usize> = (0..GRID * GRID).collect();
    if method == Interpolation::Tiles {
        rng.shuffle(&mut order);
    }
    method.clip(x, y, frames, GRID, &order)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::{RAMPS, clip};
    use crate::data::{figures::rng::Rng, interpolation::Interpolation};

    #[test]
    fn every_ramp_starts_with_x_and_ends_with_y() {
        let x = RgbImage::from_pixel(18, 9, Rgb([10, 20, 30]));
        let y = RgbImage::from_pixel(18, 9, Rgb([200, 100, 31]));
        for (ramp, _) in RAMPS {
            let clip = clip(ramp, &x, &y, 9, &mut Rng::new(0, 0, 0));
            assert_eq!(clip.len(), 9);
            assert_eq!((&clip[0], &clip[8]), (&x, &y), "{ramp:?}");
        }
    }

    #[test]
    fn weights_are_those_of_the_paper() {
        let x = RgbImage::from_pixel(4, 4, Rgb([0, 0, 0]));
        let y = RgbImage::from_pixel(4, 4, Rgb([160, 160, 160]));
        let at = |ramp, frame: usize| {
            clip(ramp, &x, &y, 9, &mut Rng::new(0, 0, 0))[frame].get_pixel(0, 0).0[0]
        };
        assert_eq!(
            [
                at(Interpolation::Linear, 4),
                at(Interpolation::Quadratic, 4),
                at(Interpolation::EaseOut, 4)
            ],
            [80, 40, 120]
        );
        assert_eq!(
            [
                at(Interpolation::Sqrt, 4),
                at(Interpolation::Discrete, 3),
                at(Interpolation::Discrete, 4)
            ],
            [113, 0, 160]
        );
        let clip = clip(Interpolation::Tiles, &x, &y, 9, &mut Rng::new(0, 0, 0));
        let replaced = clip[3].pixels().filter(|pixel| pixel.0[0] == 160).count();
        assert_eq!(replaced, 6, "floor(16 * 3/8) tiles of one pixel each");
    }
}
