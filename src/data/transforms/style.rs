//! Styles that need no model.

use image::{Rgb, RgbImage};

use super::{Change, Operation};
use crate::data::DataError;

/// Colours per channel of pixel art.
const LEVELS: f64 = 4.0;

/// Pixel art: blocks of one colour, from a small palette.
pub struct PixelArt;

impl Operation for PixelArt {
    fn name(&self) -> &'static str {
        "pixel_art"
    }

    fn doc(&self) -> &'static str {
        "Pixel art: blocks of one colour each, four levels per channel."
    }

    fn params(&self) -> &'static [&'static str] {
        &["share"]
    }

    fn apply(&self, image: &RgbImage, change: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(pixel_art(image, change.share.unwrap_or(1.0 / 16.0)))
    }
}

/// Blocks, `share` of the shorter side wide, of their mean colour at four levels per channel.
pub fn pixel_art(image: &RgbImage, share: f64) -> RgbImage {
    let (width, height) = image.dimensions();
    let side = ((f64::from(width.min(height)) * share).round() as u32).max(1);
    let mut drawn = RgbImage::new(width, height);
    for top in (0..height).step_by(side as usize) {
        for left in (0..width).step_by(side as usize) {
            let (right, bottom) = ((left + side).min(width), (top + side).min(height));
            let block = || (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y)));
            let count = f64::from((right - left) * (bottom - top));
            let color = [0, 1, 2].map(|channel| {
                let sum: f64 =
                    block().map(|(x, y)| f64::from(image.get_pixel(x, y).0[channel])).sum();
                let level = (sum / count / 255.0 * (LEVELS - 1.0)).round();
                (level * 255.0 / (LEVELS - 1.0)).round() as u8
            });
            block().for_each(|(x, y)| drawn.put_pixel(x, y, Rgb(color)));
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_one_colour_of_the_palette() {
        let image =
            RgbImage::from_fn(30, 16, |x, y| Rgb([(x * 8) as u8, (y * 15) as u8, (x + y) as u8]));
        let drawn = pixel_art(&image, 0.25);
        for (x, y, pixel) in drawn.enumerate_pixels() {
            assert_eq!(pixel, drawn.get_pixel(x / 4 * 4, y / 4 * 4));
            assert!(pixel.0.iter().all(|value| [0, 85, 170, 255].contains(value)), "{pixel:?}");
        }
    }
}
