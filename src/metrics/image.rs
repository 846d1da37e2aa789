//! Distances between images that need no learned model.

use image::RgbImage;

use super::{Case, Metric, Rules, Score, means, score as named, ssim::ssim, sum};
use crate::data::DataError;

/// `psnr`, `ssim`, `mse` and `mae`; and, to compare tasks, `explained`: the percent of the targets'
/// variance (about each target's mean colour) that the answers explain, pooled over images. `copy` is
/// that of the inputs, handed back as answers, and `mean_target` that of the mean of the targets that were
/// learnt from, if those are on the port `examples`: what is learnt of the question is what lies above.
pub struct ImageMetric;

/// What is pooled over images and is no score of its own: squared errors of the answer and of the input,
/// of the mean target, and squared distances of the target from its mean colour.
const POOLED: [&str; 4] = ["answer_error", "input_error", "mean_target_error", "variance"];

impl Metric for ImageMetric {
    fn name(&self) -> &'static str {
        "image"
    }

    fn doc(&self) -> &'static str {
        "PSNR, SSIM, mean squared and mean absolute error, and the share of variance explained."
    }

    fn names(&self) -> &'static [&'static str] {
        &["psnr", "ssim", "mse", "mae", "explained", "copy", "mean_target"]
    }

    fn score(&self, case: &Case<'_>, _: &Rules) -> Result<Option<Score>, DataError> {
        let (prediction, target) = (case.prediction(), &case.pair.target);
        let mut scores = score(prediction, target);
        let pooled = [
            Some(squares(prediction, target)),
            Some(squares(&case.pair.input, target)),
            case.mean_target.map(|mean| mean.squares(target)).transpose()?,
            Some(variance(target)),
        ];
        let pooled = POOLED.into_iter().zip(pooled);
        scores.extend(pooled.filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Ok(Some(scores))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut values = means(scores);
        let pooled = POOLED.map(|name| values.remove(name).map(|_| sum(scores, name)));
        let [answer, input, mean, variance] = pooled;
        // Targets of one colour each have nothing to explain.
        if let Some(variance) = variance.filter(|variance| *variance > 0.0) {
            let errors = [("explained", answer), ("copy", input), ("mean_target", mean)];
            values.extend(errors.into_iter().filter_map(|(name, error)| {
                Some((name.to_owned(), 100.0 * (1.0 - error? / variance)))
            }));
        }
        values
    }

    fn uses_mean_target(&self) -> bool {
        true
    }
}

/// The sum of squared differences over values in [0, 1].
fn squares(a: &RgbImage, b: &RgbImage) -> f64 {
    let differences = a.iter().zip(b.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)) / 255.0);
    differences.map(|d| d * d).sum()
}

/// The sum of squared distances from the mean colour.
fn variance(image: &RgbImage) -> f64 {
    let count = f64::from(image.width()) * f64::from(image.height());
    (0..3)
        .map(|channel| {
            let values = || image.pixels().map(|pixel| f64::from(pixel.0[channel]) / 255.0);
            let mean = values().sum::<f64>() / count;
            values().map(|value| (value - mean) * (value - mean)).sum::<f64>()
        })
        .sum()
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
    use crate::metrics::mean_target::MeanTarget;

    #[test]
    fn a_difference_of_one_fifth_is_fourteen_decibels() {
        let (a, b) = (RgbImage::new(8, 8), RgbImage::from_pixel(8, 8, Rgb([51; 3])));
        let found = score(&a, &b);
        assert!((found["mse"] - 0.04).abs() < 1e-9);
        assert!((found["mae"] - 0.2).abs() < 1e-9);
        assert!((found["psnr"] - 13.979).abs() < 1e-3);
        assert!((score(&a, &a)["psnr"] - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_picture_of_the_mean_colour_explains_nothing_and_the_target_everything() {
        let target = RgbImage::from_fn(8, 8, |x, _| Rgb([if x < 4 { 0 } else { 200 }, 60, 7]));
        let input = RgbImage::from_pixel(8, 8, Rgb([100, 60, 7]));
        let pair = crate::data::Pair {
            input: input.clone(),
            target: target.clone(),
            ..Default::default()
        };
        let rules: Rules =
            serde_json::from_value(serde_json::json!({ "metric": "image" })).unwrap();
        let mut mean = MeanTarget::default();
        mean.add(&pair).unwrap();
        mean.add(&crate::data::Pair { target: input.clone(), ..Default::default() }).unwrap();
        let found = |answer: &RgbImage| {
            let attempts = std::slice::from_ref(answer);
            let case = Case { attempts, pair: &pair, mean_target: Some(&mean) };
            let score = ImageMetric.score(&case, &rules).unwrap().unwrap();
            ImageMetric.summary(&[&score])
        };
        assert!((found(&target)["explained"] - 100.0).abs() < 1e-9);
        assert!(found(&target)["copy"].abs() < 1e-9, "the input is the mean colour");
        assert!(found(&input)["explained"].abs() < 1e-9);
        // Half of the distance is three quarters of the variance.
        let half = RgbImage::from_fn(8, 8, |x, _| Rgb([if x < 4 { 50 } else { 150 }, 60, 7]));
        assert!((found(&half)["explained"] - 75.0).abs() < 1e-9);
        // So is the mean of the target and of its mean colour.
        assert!((found(&half)["mean_target"] - 75.0).abs() < 1e-9);
        let wrong = RgbImage::from_fn(8, 8, |x, _| Rgb([if x < 4 { 200 } else { 0 }, 60, 7]));
        assert!((found(&wrong)["explained"] + 300.0).abs() < 1e-9);
        assert_eq!(found(&half).len(), ImageMetric.names().len());
    }
}
