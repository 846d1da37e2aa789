//! Maps of colours, learnt from images that ought to be others.
//!
//! A generated image has the right shapes in shifted colours, and the shift is alike on all images.
//! So a map from found to wanted colours, fitted to the images that were trained on, mends the
//! others, too.

use image::RgbImage;
use nalgebra::{SMatrix, SVector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::round;

/// The form of a map of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Colours stay.
    Off,
    /// A gain and an offset for each channel.
    PerChannel,
    /// A matrix of gains, so that channels mix, and an offset.
    #[default]
    Affine,
}

/// `wanted = matrix * found + offset`, for values in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColorMap {
    /// A row for each channel of the result.
    pub matrix: [[f64; 3]; 3],
    /// Added to each channel.
    pub offset: [f64; 3],
}

impl ColorMap {
    /// The map that changes nothing.
    pub const IDENTITY: Self =
        Self { matrix: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], offset: [0.0; 3] };

    /// The image in mapped colours.
    pub fn apply(&self, image: &RgbImage) -> RgbImage {
        let mut mapped = image.clone();
        for pixel in mapped.pixels_mut() {
            let found = pixel.0.map(|value| f64::from(value) / 255.0);
            pixel.0 = [0, 1, 2].map(|channel| {
                let gains = self.matrix[channel].iter().zip(found);
                let value = self.offset[channel] + gains.map(|(gain, v)| gain * v).sum::<f64>();
                round((255.0 * value).clamp(0.0, 255.0) as f32)
            });
        }
        mapped
    }
}

/// What images say of a map: sums over their pixels, so that no image is kept.
#[derive(Clone, Debug, Default)]
pub struct ColorSums {
    count: f64,
    /// Of `found * found'`, where found is the colour and 1.
    found: SMatrix<f64, 4, 4>,
    /// Of `found * wanted'`.
    both: SMatrix<f64, 4, 3>,
}

/// How much the identity weighs against the pixels, as a variance of colours in [0, 1]. Along a
/// line of colours that the images hardly show, by less than a hundredth of the range, colours
/// stay.
const RIDGE: f64 = 1e-4;

impl ColorSums {
    /// Adds the pixels of two images of one size, of which those count that `known` says.
    pub fn add(&mut self, found: &RgbImage, wanted: &RgbImage, known: &[bool]) {
        let pixels = found.pixels().zip(wanted.pixels()).zip(known);
        for ((found, wanted), _) in pixels.filter(|(_, known)| **known) {
            let [r, g, b] = found.0.map(|value| f64::from(value) / 255.0);
            let found = SVector::<f64, 4>::new(r, g, b, 1.0);
            let wanted = SVector::<f64, 3>::from(wanted.0.map(|value| f64::from(value) / 255.0));
            self.found += found * found.transpose();
            self.both += found * wanted.transpose();
            self.count += 1.0;
        }
    }

    /// The map of least squares with a ridge that draws it to the identity, which decides where the
    /// images say nothing.
    pub fn fit(&self, form: Correction) -> ColorMap {
        let mut map = ColorMap::IDENTITY;
        if self.count == 0.0 {
            return map;
        }
        for channel in 0..3 {
            match form {
                Correction::Off => {}
                Correction::PerChannel => {
                    let solved = self.solve([channel, 3], channel);
                    map.matrix[channel][channel] = solved[0];
                    map.offset[channel] = solved[1];
                }
                Correction::Affine => {
                    let solved = self.solve([0, 1, 2, 3], channel);
                    map.matrix[channel].copy_from_slice(&solved[..3]);
                    map.offset[channel] = solved[3];
                }
            }
        }
        map
    }

    /// The gains of these parts of the found colour in one channel of the wanted one.
    fn solve<const N: usize>(&self, parts: [usize; N], channel: usize) -> [f64; N] {
        let ridge = RIDGE * self.count;
        let identity = |part: usize| if part == channel { 1.0 } else { 0.0 };
        let matrix = SMatrix::<f64, N, N>::from_fn(|row, column| {
            let weight = if row == column { ridge } else { 0.0 };
            self.found[(parts[row], parts[column])] + weight
        });
        let right = SVector::<f64, N>::from_fn(|row, _| {
            self.both[(parts[row], channel)] + ridge * identity(parts[row])
        });
        let solved = matrix.cholesky().map(|matrix| matrix.solve(&right));
        // The ridge makes the matrix positive definite.
        solved.map_or_else(|| parts.map(identity), Into::into)
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use proptest::prelude::*;

    use super::*;

    /// Many colours.
    fn picture() -> RgbImage {
        RgbImage::from_fn(32, 32, |x, y| {
            Rgb([60 + x as u8 * 4, 40 + y as u8 * 5, 50 + ((x * 7 + y * 3) % 32) as u8 * 4])
        })
    }

    fn fitted(found: &RgbImage, wanted: &RgbImage, form: Correction) -> ColorMap {
        let mut sums = ColorSums::default();
        sums.add(found, wanted, &vec![true; found.pixels().len()]);
        sums.fit(form)
    }

    fn far(a: &RgbImage, b: &RgbImage) -> u8 {
        a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_known_map_is_found_and_undone(
            gains in proptest::array::uniform3(0.6f64..1.2),
            mix in proptest::array::uniform3(-0.2f64..0.2),
            offset in proptest::array::uniform3(-0.1f64..0.1),
        ) {
            let mut bend = ColorMap::IDENTITY;
            for channel in 0..3 {
                bend.matrix[channel][channel] = gains[channel];
                bend.matrix[channel][(channel + 1) % 3] = mix[channel];
                bend.offset[channel] = offset[channel];
            }
            let found = bend.apply(&picture());
            prop_assume!(found.iter().all(|value| (1..255).contains(value)));
            let map = fitted(&found, &picture(), Correction::Affine);
            prop_assert!(far(&map.apply(&found), &picture()) <= 2);
            // And on colours that were not fitted.
            let other = RgbImage::from_pixel(1, 1, Rgb([120, 110, 130]));
            prop_assert!(far(&map.apply(&bend.apply(&other)), &other) <= 2);
        }
    }

    #[test]
    fn channels_are_mended_one_by_one() {
        let bend = ColorMap {
            matrix: [[1.2, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 1.0]],
            offset: [-0.05, 0.1, 0.0],
        };
        let found = bend.apply(&picture());
        let map = fitted(&found, &picture(), Correction::PerChannel);
        assert!(far(&map.apply(&found), &picture()) <= 1);
        assert!((map.matrix[0][0] - 1.0 / 1.2).abs() < 0.01, "{map:?}");
        assert_eq!(map.matrix[0][1..], [0.0, 0.0]);
        // What mixes channels is beyond it.
        let mixed =
            ColorMap { matrix: [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], ..bend };
        let found = mixed.apply(&picture());
        let [one, all] = [Correction::PerChannel, Correction::Affine]
            .map(|form| far(&fitted(&found, &picture(), form).apply(&found), &picture()));
        assert!(one > 10 && all <= 2, "{one} {all}");
    }

    #[test]
    fn what_the_images_do_not_show_stays() {
        assert_eq!(ColorSums::default().fit(Correction::Affine), ColorMap::IDENTITY);
        assert_eq!(fitted(&picture(), &RgbImage::new(32, 32), Correction::Off), ColorMap::IDENTITY);
        // Grey examples that are too bright say nothing of colours.
        let grey = |factor: f32| {
            RgbImage::from_fn(32, 32, |x, y| Rgb([((x + y) as f32 * 3.0 * factor) as u8; 3]))
        };
        let map = fitted(&grey(1.2), &grey(1.0), Correction::Affine);
        assert!(far(&map.apply(&grey(1.2)), &grey(1.0)) <= 2);
        let [r, g, b] =
            map.apply(&RgbImage::from_pixel(1, 1, Rgb([160, 100, 100]))).get_pixel(0, 0).0;
        // Darker by a sixth, but as far from grey as it was.
        assert!((i32::from(r) - i32::from(g) - 60).abs() <= 2 && g == b, "{r} {g} {b}");
    }
}
