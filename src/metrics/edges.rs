//! Precision, recall and F of drawn lines at a tolerance.
//!
//! In the manner of BSDS500: a drawn pixel is right if a pixel of the target is within the
//! tolerance, and the other way round. Pixels are counted over all images, as `collect_eval_bdry`
//! of the benchmark does: at one threshold for `ods_f`, the best for all, and at the best threshold
//! of each image (the first of equals) for `ois_f`.
//!
//! Unlike there, pixels are not assigned one to one, drawn lines are not thinned first, there is
//! one target and not one of each annotator, and no threshold between two of those given is tried.
//!
//! So a thick line is as right as a thin one, and `drawn` beside `wanted` shows it: the percent of
//! all pixels that are drawn, at the threshold of `ods_f`, and that are line in the targets.

use image::{GrayImage, Luma, RgbImage};
use imageproc::distance_transform::euclidean_squared_distance_transform;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, percent, sum};
use crate::data::{DataError, ParamError};

/// The open choices of the rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeRule {
    /// How far a pixel may be off, as a share of the image's diagonal; 0.0075 in BSDS500. It is at
    /// least one pixel.
    pub tolerance: f64,
    /// The lumas, rounded, from which a pixel counts as drawn; the best for all images is taken.
    pub thresholds: Vec<u8>,
}

impl Default for EdgeRule {
    fn default() -> Self {
        Self { tolerance: 0.0075, thresholds: vec![32, 64, 96, 128, 160, 192, 224] }
    }
}

impl EdgeRule {
    pub(super) fn validate(&self) -> Option<ParamError> {
        let is_wrong = self.thresholds.is_empty() || self.thresholds.contains(&0);
        let message = format!("must be lumas from 1 to 255, but are {:?}", self.thresholds);
        is_wrong.then(|| ParamError::new("edges.thresholds", message).help("for example [128]"))
    }
}

/// Numbers of pixels at one threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    /// Drawn, and drawn within reach of the target.
    drawn: f64,
    right: f64,
    /// In the target, and in the target within reach of a drawn one.
    wanted: f64,
    found: f64,
}

impl Counts {
    fn precision(self) -> f64 {
        share(self.right, self.drawn)
    }

    fn recall(self) -> f64 {
        share(self.found, self.wanted)
    }

    fn f(self) -> f64 {
        let (p, r) = (self.precision(), self.recall());
        share(2.0 * p * r, p + r)
    }

    /// Those of some images at a threshold, as `score` names them.
    fn of(scores: &[&Score], threshold: &str) -> Self {
        let total = |name: &str| sum(scores, &format!("{name}_{threshold}"));
        Self {
            drawn: total("drawn"),
            right: total("right"),
            wanted: total("wanted"),
            found: total("found"),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            drawn: self.drawn + other.drawn,
            right: self.right + other.right,
            wanted: self.wanted + other.wanted,
            found: self.found + other.found,
        }
    }
}

/// The threshold of the largest F, the first of equals, with its counts.
fn best<'a>(scores: &[&Score], thresholds: &[&'a str]) -> (Counts, &'a str) {
    let mut best = (Counts::default(), "0");
    for (place, threshold) in thresholds.iter().enumerate() {
        let counts = Counts::of(scores, threshold);
        if place == 0 || counts.f() > best.0.f() {
            best = (counts, threshold);
        }
    }
    best
}

fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// How the counts of drawn pixels are called, before the threshold, and that of all pixels.
const DRAWN: &str = "drawn_";
const PIXELS: &str = "pixels";

/// `ods_f` with its precision, recall and threshold, `ois_f`, and how much is `drawn` and `wanted`.
pub struct EdgesMetric;

impl Metric for EdgesMetric {
    fn name(&self) -> &'static str {
        "edges"
    }

    fn doc(&self) -> &'static str {
        "F of drawn lines at a tolerance, at the best threshold for all images and for each."
    }

    fn params(&self) -> &'static [&'static str] {
        &["edges"]
    }

    fn names(&self) -> &'static [&'static str] {
        &["ods_f", "ods_precision", "ods_recall", "ods_threshold", "ois_f", "drawn", "wanted"]
    }

    fn settings(&self, rules: &Rules) -> Vec<(&'static str, Value)> {
        vec![("edges", json!(rules.edges))]
    }

    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError> {
        let target = threshold(&case.pair.target, 128);
        let is_empty = target.iter().all(|value| *value == 0);
        let mut scores = super::score([(PIXELS, target.len() as f64)]);
        let mut best = 0.0f64;
        for luma in &rules.edges.thresholds {
            let drawn = threshold(case.prediction(), *luma);
            let counts = count(&drawn, &target, rules.edges.tolerance);
            best = best.max(counts.f());
            let Counts { drawn, right, wanted, found } = counts;
            for (name, value) in
                [("drawn", drawn), ("right", right), ("wanted", wanted), ("found", found)]
            {
                scores.insert(format!("{name}_{luma:03}"), value);
            }
        }
        if is_empty {
            // Lines where there are none count against all images, and against no threshold of
            // this.
            let drawn = scores.iter().any(|(name, count)| name.starts_with(DRAWN) && *count > 0.0);
            return Ok(drawn.then_some(scores));
        }
        scores.insert("ois_f".to_owned(), 100.0 * best);
        Ok(Some(scores))
    }

    fn summary(&self, scores: &[&Score]) -> Score {
        let names = scores.first().into_iter().flat_map(|score| score.keys());
        let thresholds: Vec<&str> = names.filter_map(|name| name.strip_prefix(DRAWN)).collect();
        let (counts, at) = best(scores, &thresholds);
        let of_each = scores.iter().map(|score| best(&[*score], &thresholds).0);
        let of_each = of_each.fold(Counts::default(), Counts::and);
        super::score([
            ("ods_f", 100.0 * counts.f()),
            ("ods_precision", 100.0 * counts.precision()),
            ("ods_recall", 100.0 * counts.recall()),
            ("ods_threshold", at.parse().unwrap_or(0.0)),
            ("ois_f", 100.0 * of_each.f()),
            ("drawn", percent(counts.drawn, sum(scores, PIXELS))),
            ("wanted", percent(counts.wanted, sum(scores, PIXELS))),
        ])
    }

    fn revision(&self) -> u32 {
        // 1: how much is drawn and wanted.
        1
    }
}

/// 255 where the luma, rounded, reaches `least`.
fn threshold(image: &RgbImage, least: u8) -> GrayImage {
    GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue] = image.get_pixel(x, y).0.map(f32::from);
        let is_drawn = 0.299 * red + 0.587 * green + 0.114 * blue >= f32::from(least) - 0.5;
        Luma([if is_drawn { 255 } else { 0 }])
    })
}

fn count(drawn: &GrayImage, target: &GrayImage, tolerance: f64) -> Counts {
    let diagonal = f64::from(target.width()).hypot(f64::from(target.height()));
    let reach = (tolerance * diagonal).max(1.0);
    let near = |from: &GrayImage, to: &GrayImage| {
        let set = || from.iter().filter(|value| **value > 0).count() as f64;
        // With nothing to reach, distances are not defined.
        if !to.iter().any(|value| *value > 0) {
            return (set(), 0.0);
        }
        let distances = euclidean_squared_distance_transform(to);
        let reached = from.iter().zip(distances.iter());
        let reached = reached.filter(|(value, far)| **value > 0 && **far <= reach * reach);
        (set(), reached.count() as f64)
    };
    let ((drawn_pixels, right), (wanted, found)) = (near(drawn, target), near(target, drawn));
    Counts { drawn: drawn_pixels, right, wanted, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(x: u32) -> GrayImage {
        GrayImage::from_fn(64, 64, |at, _| Luma([if at == x { 255 } else { 0 }]))
    }

    #[test]
    fn a_line_within_the_tolerance_is_right() {
        // 0.0221 of the diagonal of 64x64 is 2.0 pixels.
        for (x, f) in [(30, 1.0), (32, 1.0), (33, 0.0)] {
            assert!((count(&line(x), &line(30), 0.0221).f() - f).abs() < 1e-9, "{x}");
        }
        assert!(count(&GrayImage::new(64, 64), &line(3), 0.01).f() < 1e-9);
    }

    #[test]
    fn the_best_threshold_for_all_images_is_found() {
        let gray = |value| {
            RgbImage::from_fn(64, 64, |x, _| {
                image::Rgb([if x == 9 { value } else { 20 * (x % 4) as u8 }; 3])
            })
        };
        let rules: Rules = serde_json::from_value(json!({ "metric": "edges" })).unwrap();
        let target =
            RgbImage::from_fn(64, 64, |x, _| image::Rgb([if x == 9 { 255 } else { 0 }; 3]));
        let pair = crate::data::Pair { target, ..Default::default() };
        let scores: Vec<Score> = [100, 250]
            .map(|value| {
                let attempts = [gray(value)];
                EdgesMetric
                    .score(&Case { attempts: &attempts, pair: &pair, mean_target: None }, &rules)
                    .unwrap()
                    .unwrap()
            })
            .to_vec();
        let found = EdgesMetric.summary(&scores.iter().collect::<Vec<_>>());
        assert!((found["ods_f"] - 100.0).abs() < 1e-9, "{found:?}");
        assert!((found["ods_threshold"] - 64.0).abs() < 1e-9, "{found:?}");
        // One column of 64.
        for name in ["drawn", "wanted"] {
            assert!((found[name] - 100.0 / 64.0).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn a_thick_line_is_right_but_much_is_drawn() {
        let bar = |x: u32, half: u32| {
            RgbImage::from_fn(64, 64, |at, _| {
                image::Rgb([if at.abs_diff(x) <= half { 255 } else { 0 }; 3])
            })
        };
        let rules: Rules = serde_json::from_value(json!({ "metric": "edges" })).unwrap();
        let pair = crate::data::Pair { target: bar(30, 0), ..Default::default() };
        let attempts = [bar(30, 1)];
        let case = Case { attempts: &attempts, pair: &pair, mean_target: None };
        let score = EdgesMetric.score(&case, &rules).unwrap().unwrap();
        let found = EdgesMetric.summary(&[&score]);
        assert!((found["ods_f"] - 100.0).abs() < 1e-9, "{found:?}");
        assert!((found["drawn"] / found["wanted"] - 3.0).abs() < 1e-9, "{found:?}");
    }
}
