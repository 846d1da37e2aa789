//! Distances between images that need no learned model.

use image::RgbImage;

use super::{Score, score as named};

/// The names in [`score`].
pub const NAMES: &[&str] = &["psnr", "mse"];

/// `mse` over values in [0, 1], and `psnr` in dB, 100 for equal images.
pub fn score(prediction: &RgbImage, target: &RgbImage) -> Score {
    let sum: f64 = prediction
        .iter()
        .zip(target.iter())
        .map(|(a, b)| ((f64::from(*a) - f64::from(*b)) / 255.0).powi(2))
        .sum();
    let mse = sum / target.as_raw().len().max(1) as f64;
    let psnr = if mse == 0.0 { 100.0 } else { (-10.0 * mse.log10()).min(100.0) };
    named([("mse", mse), ("psnr", psnr)])
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn a_difference_of_one_tenth_is_twenty_decibels() {
        let (a, b) = (RgbImage::new(3, 3), RgbImage::from_pixel(3, 3, Rgb([51; 3])));
        let found = score(&a, &b);
        assert!((found["mse"] - 0.04).abs() < 1e-9);
        assert!((found["psnr"] - 13.979).abs() < 1e-3);
        assert!((score(&a, &a)["psnr"] - 100.0).abs() < 1e-9);
    }
}
