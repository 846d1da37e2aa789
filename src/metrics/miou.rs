//! Foreground intersection over union: spec E.1.

use image::{GrayImage, RgbImage};

use super::{Score, score as named};

/// The names in [`score`].
pub const NAMES: &[&str] = &["miou"];

/// `miou` in percent, of the pixels whose luma reaches `threshold`; two empty masks agree.
pub fn score(prediction: &RgbImage, target: &GrayImage, threshold: u8) -> Score {
    let (mut both, mut either) = (0u32, 0u32);
    for (pixel, wanted) in prediction.pixels().zip(target.pixels()) {
        let [r, g, b] = pixel.0.map(f32::from);
        let found = 0.299 * r + 0.587 * g + 0.114 * b >= f32::from(threshold) - 0.5;
        let wanted = wanted.0[0] >= 128;
        both += u32::from(found && wanted);
        either += u32::from(found || wanted);
    }
    let iou = if either == 0 { 1.0 } else { f64::from(both) / f64::from(either) };
    named([("miou", 100.0 * iou)])
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    fn half(lit: impl Fn(u32) -> bool) -> (RgbImage, GrayImage) {
        (
            RgbImage::from_fn(4, 4, |x, _| Rgb([if lit(x) { 255 } else { 0 }; 3])),
            GrayImage::from_fn(4, 4, |x, _| Luma([if lit(x) { 255 } else { 0 }])),
        )
    }

    #[test]
    fn overlap_over_union() {
        let (prediction, _) = half(|x| x < 2);
        let (_, target) = half(|x| (1..3).contains(&x));
        assert!((score(&prediction, &target, 128)["miou"] - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn two_empty_masks_agree_and_one_does_not() {
        let (black, empty) = half(|_| false);
        let (_, full) = half(|_| true);
        assert!((score(&black, &empty, 128)["miou"] - 100.0).abs() < 1e-9);
        assert!(score(&black, &full, 128)["miou"].abs() < 1e-9);
    }
}
