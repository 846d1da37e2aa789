//! Scores of predicted images: one file each, and one line in [`METRICS`].

pub mod arc;
pub mod bootstrap;
pub mod depth;
pub mod edges;
pub mod image;
pub mod mean_target;
pub mod miou;
pub mod pose;
pub mod scene;
pub mod ssim;
pub mod symbols;

use std::collections::BTreeMap;

use ::image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::mean_target::MeanTarget;
use crate::data::{
    DataError, Pair, ParamError,
    choice::{Choice, listed},
};

/// Every metric that a pipeline file can name.
pub static METRICS: &[&dyn Metric] = &[
    &pose::PoseMetric,
    &miou::Miou,
    &scene::SceneMetric,
    &image::ImageMetric,
    &edges::EdgesMetric,
    &depth::DepthMetric,
    &symbols::SymbolsMetric,
    &arc::ArcMetric,
];

/// The scores of one image, by name.
pub type Score = BTreeMap<String, f64>;

/// Scores the last frame of each generated clip against the pair of the same name.
///
/// Where the predictions were made with several adapters along one training, each of these
/// checkpoints is scored. `arc` then makes its attempts with successive ones: from the first at
/// which the examples are predicted right, if those are on the ports `examples` and
/// `example_predictions`, else with the last ones. Other metrics give the scores of the last
/// checkpoint, and of all of them in `by_checkpoint`.
///
/// `image` and `depth` say what the mean of the targets on the port `examples` would have scored,
/// which is what an adapter can learn without looking at an image: `mean_target` and the like.
///
/// `arc` also takes further attempts from other trainings on the ports `second` and `third`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The score.
    pub metric: Choice<dyn Metric>,
    /// The open choices of the pose rule.
    #[serde(default)]
    pub pose: pose::PoseRule,
    /// For `miou` by luma: a pixel is foreground when its luma, rounded, reaches this.
    #[serde(default = "middle")]
    #[schemars(range(min = 1))]
    pub mask_threshold: u8,
    /// For `miou`: what makes a pixel foreground.
    #[serde(default)]
    pub mask_rule: miou::MaskRule,
    /// The open choices of `scene`.
    #[serde(default)]
    pub scene: scene::SceneRule,
    /// The open choices of `edges`.
    #[serde(default)]
    pub edges: edges::EdgeRule,
    /// For `depth`: what is done about a prediction of another scale.
    #[serde(default)]
    pub depth_align: depth::Align,
    /// For `depth`: what is done about true distances beyond the range of the colours.
    #[serde(default)]
    pub depth_beyond: depth::Beyond,
    /// The open choices of `arc`.
    #[serde(default)]
    pub arc: arc::ArcRule,
    /// For `arc` with several checkpoints: how many of them are attempts; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempts: Option<usize>,
    /// For `arc` with examples: how many of them a checkpoint must predict right to be the first
    /// attempt; `all` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples_right: Option<arc::ExamplesRight>,
    /// The confidence intervals of all scores.
    #[serde(default)]
    pub bootstrap: bootstrap::Bootstrap,
}

fn middle() -> u8 {
    128
}

impl Rules {
    /// The rules that the parameters break.
    pub fn validate(&self) -> Vec<ParamError> {
        let positive = [
            ("pose.min_area", self.pose.min_area),
            ("pose.head_factor", self.pose.head_factor),
            ("pose.default_head", self.pose.default_head),
            ("edges.tolerance", self.edges.tolerance),
        ];
        let mut problems: Vec<_> = positive
            .into_iter()
            .filter(|(_, value)| !(*value > 0.0 && value.is_finite()))
            .map(|(field, value)| {
                ParamError::new(field, format!("must be above 0, but is {value}"))
            })
            .collect();
        if let Some(attempts) = self.attempts
            && !(1..=self.metric.attempts()).contains(&attempts)
        {
            let most = self.metric.attempts();
            let message = format!("must be 1 to {most}, but is {attempts}");
            problems.push(ParamError::new("attempts", message));
        }
        if self.mask_threshold == 0 {
            let help = "every pixel would be foreground; 128 is the middle";
            problems
                .push(ParamError::new("mask_threshold", "must be at least 1, but is 0").help(help));
        }
        problems.extend(self.edges.validate());
        problems.extend(self.bootstrap.validate());
        problems
    }
}

/// The predictions of one image and its pair.
pub struct Case<'a> {
    /// One, or several where the metric allows more attempts; all of the target's size.
    pub attempts: &'a [RgbImage],
    /// What was asked.
    pub pair: &'a Pair,
    /// The mean of the targets that were learnt from, if those are known.
    pub mean_target: Option<&'a MeanTarget>,
}

impl Case<'_> {
    /// The first attempt.
    pub fn prediction(&self) -> &RgbImage {
        &self.attempts[0]
    }
}

/// A score that a pipeline file can name.
pub trait Metric: Sync {
    /// What it is called in a pipeline file.
    fn name(&self) -> &'static str;

    /// One sentence for editors.
    fn doc(&self) -> &'static str;

    /// The parameters of [`Rules`] that it reads and others do not.
    fn params(&self) -> &'static [&'static str] {
        &[]
    }

    /// The names in [`Metric::summary`].
    fn names(&self) -> &'static [&'static str];

    /// The tasks that it can score; any, if it looks at nothing but the images.
    fn tasks(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Attempts it can make use of.
    fn attempts(&self) -> usize {
        1
    }

    /// Whether it compares answers with the mean of the targets that were learnt from, where those
    /// are on the port `examples`.
    fn uses_mean_target(&self) -> bool {
        false
    }

    /// The open choices it makes.
    fn settings(&self, _: &Rules) -> Vec<(&'static str, Value)> {
        Vec::new()
    }

    /// The scores of one image; `None` if the rule excludes it.
    fn score(&self, case: &Case<'_>, rules: &Rules) -> Result<Option<Score>, DataError>;

    /// The scores over all images.
    fn summary(&self, scores: &[&Score]) -> Score {
        means(scores)
    }

    /// How often what it gives changed for equal predictions: results of earlier revisions are made
    /// anew, those of other metrics stay.
    fn revision(&self) -> u32 {
        0
    }

    /// More than numbers by name, such as a confusion matrix.
    fn details(&self, _: &[&Score], _: &Pair) -> Value {
        Value::Null
    }
}

listed!(Metric, "MetricName", METRICS);

/// A score from pairs of name and value.
pub fn score<const N: usize>(values: [(&str, f64); N]) -> Score {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The mean of each score over images.
pub fn means(scores: &[&Score]) -> Score {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (name, value) in scores.iter().copied().flatten() {
        let (sum, count) = sums.entry(name).or_default();
        *sum += value;
        *count += 1.0;
    }
    sums.into_iter().map(|(name, (sum, count))| (name.to_owned(), sum / count)).collect()
}

/// The sum of one score over images.
fn sum(scores: &[&Score], name: &str) -> f64 {
    // `sum` of nothing is -0.0.
    scores.iter().filter_map(|score| score.get(name)).fold(0.0, |sum, value| sum + value)
}

/// A share in percent; nothing of nothing is 0.
fn percent(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { 100.0 * part / whole }
}

#[cfg(test)]
mod tests;
