//! Foreground intersection over union: docs/method.md, E.1.

use image::{GrayImage, RgbImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, means, percent, score as named, sum};
use crate::data::DataError;

/// What makes a pixel of a prediction foreground.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskRule {
    /// Its luma, rounded, reaches `mask_threshold`.
    #[default]
    Luma,
    /// It is nearer to white than to black.
    Nearest,
}

impl MaskRule {
    fn is_foreground(self, pixel: [u8; 3], threshold: u8) -> bool {
        let [r, g, b] = pixel.map(f32::from);
        match self {
            Self::Luma => 0.299 * r + 0.587 * g + 0.114 * b >= f32::from(threshold) - 0.5,
            Self::Nearest => r + g + b > 1.5 * 255.0,
        }
    }
}

/// `miou`: the mean over images, and `pooled_iou` over all pixels.
pub struct Miou;

impl Metric for Miou {
    fn name(&self) -> &'static str {
        "miou"
    }

    fn doc(&self) -> &'static str {
        "Foreground intersection over union, as the mean over images and pooled."
    }

    fn params(&self) -> &'static [&'static str] {
        &["mask_threshold", "mask_rule"]
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["segmentation"])
    }

    fn names(&self) -> &'static [&'static str] {
        &["miou", "pooled_iou"]
    }

    fn settings(&self, rules: &Rules) -> Vec<(&'static str, Value)> {
        vec![("mask_threshold", json!(rules.mask_threshold)), ("mask_rule", json!(rules.mask_rule))]
    }

    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError> {
        let target = case.pair.mask.as_ref().ok_or_else(|| {
            DataError::failed("the pair has no mask")
                .with_help("use a data set with `task = \"segmentation\"`")
        })?;
        Ok(Some(score(case.prediction(), target, rules.mask_rule, rules.mask_threshold)))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let mut values = means(scores);
        let (both, either) = (sum(scores, "both"), sum(scores, "either"));
        let pooled = if either == 0.0 { 100.0 } else { percent(both, either) };
        values.retain(|name, _| name == "miou");
        values.insert("pooled_iou".to_owned(), pooled);
        values
    }
}

/// `miou` in percent, with the numbers of pixels in both masks and in either; two empty masks
/// agree.
pub fn score(prediction: &RgbImage, target: &GrayImage, rule: MaskRule, threshold: u8) -> Score {
    let (mut both, mut either) = (0u32, 0u32);
    for (pixel, wanted) in prediction.pixels().zip(target.pixels()) {
        let found = rule.is_foreground(pixel.0, threshold);
        let wanted = wanted.0[0] >= 128;
        both += u32::from(found && wanted);
        either += u32::from(found || wanted);
    }
    let iou = if either == 0 { 1.0 } else { f64::from(both) / f64::from(either) };
    named([("miou", 100.0 * iou), ("both", both.into()), ("either", either.into())])
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
        assert!(
            (score(&prediction, &target, MaskRule::Luma, 128)["miou"] - 100.0 / 3.0).abs() < 1e-9
        );
    }

    #[test]
    fn two_empty_masks_agree_and_one_does_not() {
        let (black, empty) = half(|_| false);
        let (_, full) = half(|_| true);
        assert!((score(&black, &empty, MaskRule::Luma, 128)["miou"] - 100.0).abs() < 1e-9);
        assert!(score(&black, &full, MaskRule::Luma, 128)["miou"].abs() < 1e-9);
    }

    #[test]
    fn pooling_weighs_images_by_their_pixels() {
        let ((small, _), (_, target)) = (half(|x| x < 1), half(|x| x < 2));
        let (full, whole) = half(|_| true);
        let scores = [
            score(&small, &target, MaskRule::Luma, 128),
            score(&full, &whole, MaskRule::Luma, 128),
        ];
        let found = Miou.summary(&scores.iter().collect::<Vec<_>>());
        assert!((found["miou"] - 75.0).abs() < 1e-9, "{found:?}");
        assert!((found["pooled_iou"] - 100.0 * 20.0 / 24.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn luma_and_nearness_differ_on_pure_colours() {
        let is = |rule: MaskRule, pixel| rule.is_foreground(pixel, 128);
        assert!(is(MaskRule::Luma, [0, 255, 0]) && !is(MaskRule::Nearest, [0, 255, 0]));
        assert!(!is(MaskRule::Luma, [255, 0, 255]) && is(MaskRule::Nearest, [255, 0, 255]));
        for rule in [MaskRule::Luma, MaskRule::Nearest] {
            assert!(is(rule, [128; 3]) && !is(rule, [127; 3]), "{rule:?}");
        }
    }
}
