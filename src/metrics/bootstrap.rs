//! Confidence intervals by the bootstrap over images.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Metric, Score};
use crate::{data::ParamError, rng::TorchRng};

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// How often the images are drawn anew, with replacement; 0 makes no intervals.
    #[schemars(range(max = 100_000))]
    pub samples: usize,
    /// The share of the samples within an interval.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub level: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { samples: 1000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    pub(super) fn validate(self) -> Option<ParamError> {
        let message = format!("must lie between 0 and 1, but is {}", self.level);
        let wrong = !(self.level > 0.0 && self.level < 1.0);
        wrong.then(|| ParamError::new("bootstrap.level", message).help("for example level = 0.95"))
    }

    /// The interval `[low, high]` of each summary score: percentiles over samples of the images.
    /// None of a single image, which says nothing of others.
    pub fn intervals(self, metric: &dyn Metric, scores: &[&Score]) -> BTreeMap<String, [f64; 2]> {
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut rng = TorchRng::new(self.seed);
        let samples = if scores.len() < 2 { 0 } else { self.samples };
        for _ in 0..samples {
            let drawn = rng.randint(scores.len() as u64, scores.len());
            let drawn: Vec<&Score> = drawn.into_iter().map(|i| scores[i as usize]).collect();
            for (name, value) in metric.summary(&drawn) {
                found.entry(name).or_default().push(value);
            }
        }
        found.into_iter().map(|(name, values)| (name, self.interval(values))).collect()
    }

    /// The interval of the mean of some values, such as of one for each task.
    pub fn of_mean(self, values: &[f64]) -> Option<[f64; 2]> {
        if values.len() < 2 || self.samples == 0 {
            return None;
        }
        let mut rng = TorchRng::new(self.seed);
        let mean = |_| {
            let drawn = rng.randint(values.len() as u64, values.len());
            drawn.into_iter().map(|i| values[i as usize]).sum::<f64>() / values.len() as f64
        };
        Some(self.interval((0..self.samples).map(mean).collect()))
    }

    fn interval(self, mut values: Vec<f64>) -> [f64; 2] {
        let tail = (1.0 - self.level) / 2.0;
        values.sort_by(f64::total_cmp);
        [percentile(&values, tail), percentile(&values, 1.0 - tail)]
    }
}

/// Linear between the sorted values, as `numpy.percentile`.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, rest) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{image::ImageMetric, score};

    #[test]
    fn intervals_hold_the_mean_and_shrink_with_the_number_of_images() {
        let wide = |count: usize| {
            let scores: Vec<Score> =
                (0..count).map(|n| score([("psnr", (n % 10) as f64)])).collect();
            let scores: Vec<&Score> = scores.iter().collect();
            let [low, high] = Bootstrap::default().intervals(&ImageMetric, &scores)["psnr"];
            assert!(low < 4.5 && 4.5 < high, "{low} {high}");
            high - low
        };
        let (few, many) = (wide(10), wide(1000));
        assert!((few / many - 10.0).abs() < 1.5, "{few} {many}");
    }

    #[test]
    fn intervals_are_the_same_each_time_and_can_be_left_out() {
        let scores: Vec<Score> = (0..7).map(|n| score([("psnr", f64::from(n * n))])).collect();
        let scores: Vec<&Score> = scores.iter().collect();
        let rule = Bootstrap::default();
        assert_eq!(rule.intervals(&ImageMetric, &scores), rule.intervals(&ImageMetric, &scores));
        let none = Bootstrap { samples: 0, ..rule };
        assert!(none.intervals(&ImageMetric, &scores).is_empty());
        assert!(rule.intervals(&ImageMetric, &scores[..1]).is_empty());
    }

    #[test]
    fn the_mean_of_values_has_the_interval_of_a_score() {
        let values: Vec<f64> = (0..40).map(|n| f64::from(n % 4) * 25.0).collect();
        let scores: Vec<Score> = values.iter().map(|value| score([("psnr", *value)])).collect();
        let scores: Vec<&Score> = scores.iter().collect();
        let rule = Bootstrap::default();
        let [low, high] = rule.of_mean(&values).unwrap();
        let [a, b] = rule.intervals(&ImageMetric, &scores)["psnr"];
        assert!((low - a).abs() < 1e-9 && (high - b).abs() < 1e-9, "{low} {a} {high} {b}");
        assert_eq!(rule.of_mean(&values[..1]), None);
        assert_eq!(Bootstrap { samples: 0, ..rule }.of_mean(&values), None);
    }
}
