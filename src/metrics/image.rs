//! Distances between images that need no learned model.

use image::RgbImage;

use super::{Case, Metric, Rules, Score, means, score as named, ssim::ssim_where, sum};
use crate::data::DataError;

/// `psnr`, `ssim`, `mse` and `mae`; and, to compare tasks, `explained`: the percent of the targets'
/// variance (about each target's mean colour) that the answers explain, pooled over images. `copy`
/// is that of the inputs, handed back as answers, and `mean_target` that of the mean of the targets
/// that were learnt from, if those are on the port `examples`: what is learnt of the question is
/// what lies above.
///
/// Pixels of a depth that is not known count nowhere.
pub struct ImageMetric;

/// What is pooled over images and is no score of its own: squared errors of the answer and of the
/// input, of the mean target, and squared distances of the target from its mean colour.
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
        let (prediction, target, known) = (case.prediction(), &case.pair.target, case.pair.known());
        if !known.contains(&true) {
            return Ok(None);
        }
        let mut scores = score(prediction, target, &known);
        let pooled = [
            Some(squares(prediction, target, &known)),
            Some(squares(&case.pair.input, target, &known)),
            case.mean_target.map(|mean| mean.squares(case.pair)).transpose()?,
            Some(variance(target, &known)),
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

    fn revision(&self) -> u32 {
        // 1: pixels without a distance do not count.
        1
    }
}

/// Those pixels of an image that are known.
fn pixels<'a>(image: &'a RgbImage, known: &'a [bool]) -> impl Iterator<Item = [u8; 3]> + 'a {
    image.pixels().zip(known).filter(|(_, known)| **known).map(|(pixel, _)| pixel.0)
}

/// The sum of squared differences over values in [0, 1].
fn squares(a: &RgbImage, b: &RgbImage, known: &[bool]) -> f64 {
    let values = pixels(a, known).flatten().zip(pixels(b, known).flatten());
    values.map(|(a, b)| f64::from(a.abs_diff(b)) / 255.0).map(|d| d * d).sum()
}

/// The sum of squared distances from the mean colour.
fn variance(image: &RgbImage, known: &[bool]) -> f64 {
    let count = pixels(image, known).count() as f64;
    (0..3)
        .map(|channel| {
            let values = || pixels(image, known).map(|pixel| f64::from(pixel[channel]) / 255.0);
            let mean = values().sum::<f64>() / count;
            values().map(|value| (value - mean) * (value - mean)).sum::<f64>()
        })
        .sum()
}

/// `mse` and `mae` over values in [0, 1], `psnr` in dB (100 for equal images), and `ssim`, which an
/// image of fewer than 7 pixels a side does not have; over the pixels that are known, and for
/// `ssim` the windows of such pixels alone.
pub fn score(prediction: &RgbImage, target: &RgbImage, known: &[bool]) -> Score {
    let count = (3 * pixels(target, known).count()).max(1) as f64;
    let differences = || {
        let pairs = pixels(prediction, known).flatten().zip(pixels(target, known).flatten());
        pairs.map(|(a, b)| (f64::from(a) - f64::from(b)) / 255.0)
    };
    let mse = differences().map(|d| d * d).sum::<f64>() / count;
    let mae = differences().map(f64::abs).sum::<f64>() / count;
    let psnr = if mse == 0.0 { 100.0 } else { (-10.0 * mse.log10()).min(100.0) };
    let mut scores = named([("mse", mse), ("mae", mae), ("psnr", psnr)]);
    scores.extend(ssim_where(prediction, target, known).map(|value| ("ssim".to_owned(), value)));
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
        let found = score(&a, &b, &[true; 64]);
        assert!((found["mse"] - 0.04).abs() < 1e-9);
        assert!((found["mae"] - 0.2).abs() < 1e-9);
        assert!((found["psnr"] - 13.979).abs() < 1e-3);
        assert!((score(&a, &a, &[true; 64])["psnr"] - 100.0).abs() < 1e-9);
    }

    #[test]
    fn what_has_no_distance_counts_nowhere() {
        let rules: Rules =
            serde_json::from_value(serde_json::json!({ "metric": "image" })).unwrap();
        let seen = |hole: Option<u8>| {
            RgbImage::from_fn(24, 16, |x, y| match hole {
                Some(value) if x < 8 => Rgb([value; 3]),
                _ => Rgb([(x * 7 + y * 3) as u8 + 40; 3]),
            })
        };
        let depth = crate::data::Depth::from_fn(24, 16, |x, _| {
            image::Luma([if x < 8 { 0.0 } else { 1.5 }])
        });
        let mut pair = crate::data::Pair {
            input: seen(None),
            target: seen(Some(0)),
            depth: Some(depth),
            ..Default::default()
        };
        let mut mean = MeanTarget::default();
        mean.add(&pair).unwrap();
        let scores = |pair: &crate::data::Pair, answer: &RgbImage| {
            let attempts = std::slice::from_ref(answer);
            let case = Case { attempts, pair, mean_target: Some(&mean) };
            ImageMetric.score(&case, &rules).unwrap()
        };
        let of_all = |pair: &crate::data::Pair, answer: &RgbImage| {
            ImageMetric.summary(&[&scores(pair, answer).unwrap()])
        };
        let found = of_all(&pair, &seen(None));
        for (name, value) in
            [("psnr", 100.0), ("ssim", 1.0), ("mse", 0.0), ("explained", 100.0), ("copy", 100.0)]
        {
            assert!((found[name] - value).abs() < 1e-9, "{name}: {found:?}");
        }
        // Whatever is painted there, the scores are the same.
        assert_eq!(of_all(&pair, &seen(Some(255))), found);
        assert!((found["mean_target"] - 100.0).abs() < 1e-9, "{found:?}");
        // An answer that errs elsewhere is scored as a picture of that part alone.
        let part = |image: &RgbImage| image::imageops::crop_imm(image, 8, 0, 16, 16).to_image();
        let wrong = RgbImage::from_fn(24, 16, |x, y| Rgb([(x * 5 + y * 9) as u8; 3]));
        let alone = score(&part(&wrong), &part(&pair.target), &[true; 256]);
        let found = scores(&pair, &wrong).unwrap();
        for (name, value) in alone {
            assert!((found[&name] - value).abs() < 1e-9, "{name}: {found:?} {value}");
        }
        pair.depth = Some(crate::data::Depth::new(24, 16));
        assert!(scores(&pair, &wrong).is_none(), "nothing is known");
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
