//! Ways from a first image to a last one: those of the paper, as the task clips have them.

use image::RgbImage;

use super::canvas::round;
use super::rng::Rng;

/// How the second image takes the place of the first; `u` runs from 0 to 1 over the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ramp {
    Linear,
    /// u^2: late.
    Quadratic,
    /// sqrt(u): early.
    SquareRoot,
    /// 1-(1-u)^2: early.
    EaseOut,
    /// A switch in the middle.
    Discrete,
    /// Tiles of a 4 x 4 grid one after the other.
    Tiles,
}

/// How often each ramp is drawn.
pub(super) const RAMPS: [(Ramp, u32); 6] = [
    (Ramp::Linear, 24),
    (Ramp::Quadratic, 24),
    (Ramp::SquareRoot, 20),
    (Ramp::EaseOut, 10),
    (Ramp::Discrete, 11),
    (Ramp::Tiles, 11),
];

impl Ramp {
    /// The clip from `x` (frame 0, exactly) to `y` (the last frame, exactly).
    pub(super) fn clip(
        self,
        x: &RgbImage,
        y: &RgbImage,
        frames: usize,
        rng: &mut Rng,
    ) -> Vec<RgbImage> {
        let mut order: Vec<usize> = (0..16).collect();
        if self == Self::Tiles {
            rng.shuffle(&mut order);
        }
        (0..frames)
            .map(|frame| {
                let u = progress(frame, frames);
                match self {
                    Self::Linear => mix(x, y, u),
                    Self::Quadratic => mix(x, y, u * u),
                    Self::SquareRoot => mix(x, y, u.sqrt()),
                    Self::EaseOut => mix(x, y, 1.0 - (1.0 - u) * (1.0 - u)),
                    Self::Discrete => if frame < (frames / 2).max(1) { x } else { y }.clone(),
                    Self::Tiles => tiles(x, y, &order[..(16.0 * u) as usize]),
                }
            })
            .collect()
    }
}

/// How far a clip of `frames` has come at `frame`: 0 at the first, 1 at the last.
pub(super) fn progress(frame: usize, frames: usize) -> f32 {
    if frames < 2 { 0.0 } else { frame as f32 / (frames - 1) as f32 }
}

/// (1-weight) x + weight y, rounded half to even.
fn mix(x: &RgbImage, y: &RgbImage, weight: f32) -> RgbImage {
    let mut image = x.clone();
    for (value, to) in image.iter_mut().zip(y.iter()) {
        let blended = f32::from(*value) * (1.0 - weight) + f32::from(*to) * weight;
        *value = round(blended);
    }
    image
}

/// `x` with the chosen of 16 tiles taken from `y`; all of them give `y`.
fn tiles(x: &RgbImage, y: &RgbImage, chosen: &[usize]) -> RgbImage {
    if chosen.len() == 16 {
        return y.clone();
    }
    let (width, height) = (x.width() / 4, x.height() / 4);
    let mut image = x.clone();
    for tile in chosen {
        let (left, top) = ((tile % 4) as u32 * width, (tile / 4) as u32 * height);
        for row in top..top + height {
            for column in left..left + width {
                image.put_pixel(column, row, *y.get_pixel(column, row));
            }
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::{RAMPS, Ramp};
    use crate::data::figures::rng::Rng;

    #[test]
    fn every_ramp_starts_with_x_and_ends_with_y() {
        let x = RgbImage::from_pixel(18, 9, Rgb([10, 20, 30]));
        let y = RgbImage::from_pixel(18, 9, Rgb([200, 100, 31]));
        for (ramp, _) in RAMPS {
            let clip = ramp.clip(&x, &y, 9, &mut Rng::new(0, 0, 0));
            assert_eq!(clip.len(), 9);
            assert_eq!((&clip[0], &clip[8]), (&x, &y), "{ramp:?}");
        }
    }

    #[test]
    fn weights_are_those_of_the_paper() {
        let x = RgbImage::from_pixel(4, 4, Rgb([0, 0, 0]));
        let y = RgbImage::from_pixel(4, 4, Rgb([160, 160, 160]));
        let at = |ramp: Ramp, frame: usize| {
            ramp.clip(&x, &y, 9, &mut Rng::new(0, 0, 0))[frame].get_pixel(0, 0).0[0]
        };
        assert_eq!(
            [at(Ramp::Linear, 4), at(Ramp::Quadratic, 4), at(Ramp::EaseOut, 4)],
            [80, 40, 120]
        );
        assert_eq!(
            [at(Ramp::SquareRoot, 4), at(Ramp::Discrete, 3), at(Ramp::Discrete, 4)],
            [113, 0, 160]
        );
        let clip = Ramp::Tiles.clip(&x, &y, 9, &mut Rng::new(0, 0, 0));
        let replaced = clip[3].pixels().filter(|pixel| pixel.0[0] == 160).count();
        assert_eq!(replaced, 6, "floor(16 * 3/8) tiles of one pixel each");
    }
}
