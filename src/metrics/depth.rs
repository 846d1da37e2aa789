//! Errors of predicted distances.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, Metric, Rules, Score, score as named};
use crate::data::{
    DataError,
    tasks::depth::{DepthCode, is_known},
};

/// What is done about a prediction of another scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// Nothing.
    #[default]
    None,
    /// Predictions are multiplied so that both medians agree, image by image.
    Median,
}

/// What is done about true distances beyond the range that the colours can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// They do not count, as beyond the cap of the published benchmarks.
    #[default]
    Exclude,
    /// They count as the end of the range.
    Clamp,
}

/// `abs_rel`, `rmse` and the shares of pixels within 1.25, 1.25² and 1.25³ of the truth; and
/// `abs_rel` and the first share of the mean of the distances that were learnt from, if those are
/// on the port `examples`: of their logarithms, pixel by pixel, aligned as the answer is.
pub struct DepthMetric;

impl Metric for DepthMetric {
    fn name(&self) -> &'static str {
        "depth"
    }

    fn doc(&self) -> &'static str {
        "Relative error, RMSE and the shares of pixels within 1.25, 1.25² and 1.25³ of the truth."
    }

    fn params(&self) -> &'static [&'static str] {
        &["depth_align", "depth_beyond"]
    }

    fn tasks(&self) -> Option<&'static [&'static str]> {
        Some(&["depth"])
    }

    fn names(&self) -> &'static [&'static str] {
        &[
            "abs_rel",
            "rmse",
            "delta_1",
            "delta_2",
            "delta_3",
            "mean_target_abs_rel",
            "mean_target_delta_1",
        ]
    }

    fn settings(&self, rules: &Rules) -> Vec<(&'static str, Value)> {
        vec![("depth_align", json!(rules.depth_align)), ("depth_beyond", json!(rules.depth_beyond))]
    }

    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError> {
        let (Some(truth), Some(code)) = (&case.pair.depth, &case.pair.meta.depth) else {
            return Err(DataError::failed("the pair has no distances")
                .with_help("use a data set with `task = \"depth\"`"));
        };
        let scored = |found: &mut dyn Iterator<Item = f32>| {
            let pairs = truth.iter().zip(found).filter_map(|(metres, found)| {
                let metres = counted(code, *metres, rules.depth_beyond)?;
                Some([f64::from(found), metres])
            });
            score(pairs.collect(), rules.depth_align)
        };
        let colors = case.prediction().pixels();
        let Some(mut scores) = scored(&mut colors.map(|color| code.decode(color.0))) else {
            return Ok(None);
        };
        if let Some(mean) = case.mean_target {
            mean.check_size(&case.pair.target)?;
            let [near, far] = code.range;
            let mean = mean.depth();
            let mean = mean.and_then(|mean| scored(&mut mean.iter().map(|m| m.clamp(near, far))));
            for name in ["abs_rel", "delta_1"] {
                let value = mean.as_ref().map(|scores| scores[name]);
                scores.extend(value.map(|value| (format!("mean_target_{name}"), value)));
            }
        }
        Ok(Some(scores))
    }

    fn uses_mean_target(&self) -> bool {
        true
    }
}

/// The true distance of a pixel that counts.
fn counted(code: &DepthCode, metres: f32, beyond: Beyond) -> Option<f64> {
    let [near, far] = code.range;
    let is_counted = match beyond {
        Beyond::Exclude => (near..=far).contains(&metres),
        Beyond::Clamp => is_known(metres),
    };
    is_counted.then(|| f64::from(metres.clamp(near, far)))
}

/// The scores of pairs of a found and a true distance; `None` without any.
pub fn score(mut pairs: Vec<[f64; 2]>, align: Align) -> Option<Score> {
    if pairs.is_empty() {
        return None;
    }
    if align == Align::Median {
        let factor = median(&pairs, 1) / median(&pairs, 0).max(1e-6);
        for pair in &mut pairs {
            pair[0] *= factor;
        }
    }
    let mean = |value: &dyn Fn(f64, f64) -> f64| {
        pairs.iter().map(|[found, truth]| value(*found, *truth)).sum::<f64>() / pairs.len() as f64
    };
    let within = |power: i32| {
        let limit = 1.25f64.powi(power);
        100.0 * mean(&|a, b| if (a / b).max(b / a) < limit { 1.0 } else { 0.0 })
    };
    Some(named([
        ("abs_rel", mean(&|found, truth| (found - truth).abs() / truth)),
        ("rmse", mean(&|found, truth| (found - truth) * (found - truth)).sqrt()),
        ("delta_1", within(1)),
        ("delta_2", within(2)),
        ("delta_3", within(3)),
    ]))
}

fn median(pairs: &[[f64; 2]], side: usize) -> f64 {
    let mut values: Vec<f64> = pairs.iter().map(|pair| pair[side]).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_factor_is_an_error_unless_medians_are_aligned() {
        let pairs: Vec<_> = (1..10).map(|n| [f64::from(n) * 1.3, f64::from(n)]).collect();
        let found = score(pairs.clone(), Align::None).unwrap();
        assert!((found["abs_rel"] - 0.3).abs() < 1e-9, "{found:?}");
        assert!(found["delta_1"] < 1e-9 && (found["delta_2"] - 100.0).abs() < 1e-9, "{found:?}");
        let aligned = score(pairs, Align::Median).unwrap();
        assert!(aligned["abs_rel"] < 1e-9 && aligned["rmse"] < 1e-9, "{aligned:?}");
        assert!(score(Vec::new(), Align::None).is_none());
    }

    #[test]
    fn distances_beyond_the_range_count_only_if_asked() {
        let code = DepthCode { range: [1.0, 8.0], ..DepthCode::default() };
        for (metres, excluded, clamped) in [
            (4.0, Some(4.0), Some(4.0)),
            (8.0, Some(8.0), Some(8.0)),
            (9.0, None, Some(8.0)),
            (0.5, None, Some(1.0)),
            (0.0, None, None),
            (f32::NAN, None, None),
            (f32::INFINITY, None, None),
        ] {
            assert_eq!(counted(&code, metres, Beyond::Exclude), excluded, "{metres}");
            assert_eq!(counted(&code, metres, Beyond::Clamp), clamped, "{metres}");
        }
    }
}
