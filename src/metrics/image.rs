//! Distances between images that need no learned model.

use image::RgbImage;

use super::{Case, Metric, Rules, Score, score as named, ssim::ssim};
use crate::data::DataError;

/// `psnr`, `ssim`, `mse` and `mae`.
pub struct ImageMetric;

impl Metric for ImageMetric {
    fn name(&self) -> &'static str {
        "image"
    }

    fn doc(&self) -> &'static str {
        "PSNR, SSIM, mean squared and mean absolute error."
    }

    fn names(&self) -> &'static [&'static str] {
        &["psnr", "ssim", "mse", "mae"]
    }

    fn score(&self, case: &Case<'_>, _: &Rules) -> Result<Option<Score>, DataError> {
        Ok(Some(score(case.prediction(), &case.pair.target)))
    }
}

/// `mse` and `mae` over values in [0, 1], `psnr` in dB (100 for equal images), and `ssim`, which an
/// image of fewer than 7 pixels a side does not have.
pub fn score(prediction: &RgbImage, target: &RgbImage) -> Score {
    let count = target.as_raw().len().max(1) as f64;
    let differences = || {
        let pairs = prediction.iter().zip(target.iter());
        pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)) / 255.0)
    };
    let mse = differences().map(|d| d * d).sum::<f64>() / count;
    let mae = differences().map(f64::abs).sum::<f64>() / count;
    let psnr = if mse == 0.0 { 100.0 } else { (-10.0 * mse.log10()).min(100.0) };
    let mut scores = named([("mse", mse), ("mae", mae), ("psnr", psnr)]);
    scores.extend(ssim(prediction, target).map(|value| ("ssim".to_owned(), value)));
    scores
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn a_difference_of_one_fifth_is_fourteen_decibels() {
        let (a, b) = (RgbImage::new(8, 8), RgbImage::from_pixel(8, 8, Rgb([51; 3])));
        let found = score(&a, &b);
        assert!((found["mse"] - 0.04).abs() < 1e-9);
        assert!((found["mae"] - 0.2).abs() < 1e-9);
        assert!((found["psnr"] - 13.979).abs() < 1e-3);
        assert!((score(&a, &a)["psnr"] - 100.0).abs() < 1e-9);
    }
}
