//! Lines where the brightness jumps.

use image::{DynamicImage, RgbImage};
use imageproc::edges;

use super::{Change, Operation, removal::grey};
use crate::data::DataError;

/// Canny edges, white on black.
pub struct Edges;

impl Operation for Edges {
    fn name(&self) -> &'static str {
        "edges"
    }

    fn doc(&self) -> &'static str {
        "Canny edges, white on black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["thresholds"]
    }

    fn apply(&self, image: &RgbImage, change: &Change, _: u64) -> Result<RgbImage, DataError> {
        Ok(canny(image, change.thresholds))
    }
}

/// Canny edges, white on black.
pub fn canny(image: &RgbImage, [low, high]: [f32; 2]) -> RgbImage {
    let luma = DynamicImage::ImageRgb8(grey(image)).into_luma8();
    DynamicImage::ImageLuma8(edges::canny(&luma, low, high)).into_rgb8()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn edges_are_found_where_the_brightness_jumps() {
        let half = RgbImage::from_fn(32, 32, |x, _| Rgb([if x < 16 { 0 } else { 255 }; 3]));
        let found = canny(&half, [50.0, 100.0]);
        assert!(found.enumerate_pixels().all(|(x, _, p)| p.0 == [0; 3] || (13..19).contains(&x)));
        assert!(found.pixels().any(|p| p.0 == [255; 3]));
    }
}
