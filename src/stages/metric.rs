//! `metric`: predicted images against their pairs.

use std::collections::BTreeMap;

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind};
use crate::{
    artifact::{ArtifactKind, frames, metrics::Metrics, pairs},
    metrics::{Score, arc, image as image_metric, miou, pose},
};

/// Scores the last frame of each generated clip against the pair of the same name.
///
/// `arc` takes a second attempt, the predictions of another checkpoint, on the port `second`;
/// the other metrics use the first port only.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The score: `pose` (match rate, precision, F1), `miou`, `arc` (exact match) or `image` (PSNR,
    /// mean squared error).
    pub metric: MetricName,
    /// The open choices of the pose rule.
    #[serde(default)]
    pub pose: pose::PoseRule,
    /// For `miou`: a pixel is foreground when its luma reaches this.
    #[serde(default = "middle")]
    pub mask_threshold: u8,
}

fn middle() -> u8 {
    128
}

/// The scores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// Match rate, precision, recall and F1 of pose drawings.
    Pose,
    /// Foreground intersection over union.
    Miou,
    /// Exact match of ARC grids, in up to two attempts.
    Arc,
    /// PSNR and mean squared error.
    Image,
}

impl StageKind for Metric {
    const KIND: &'static str = "metric";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "predictions", kinds: &[ArtifactKind::Frames], required: true },
            Port { name: "second", kinds: &[ArtifactKind::Frames], required: false },
            Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true },
        ],
        output: ArtifactKind::Metrics,
    };
}

impl Stage for Metric {
    fn validate(&self) -> Vec<ParamError> {
        let rule = self.pose;
        let positive = [
            ("pose.min_area", rule.min_area),
            ("pose.head_factor", rule.head_factor),
            ("pose.default_head", rule.default_head),
        ];
        positive
            .into_iter()
            .filter(|(_, value)| !(*value > 0.0 && value.is_finite()))
            .map(|(field, value)| {
                ParamError::new(field, format!("must be above 0, but is {value}"))
            })
            .collect()
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let mut scores: BTreeMap<String, Score> = BTreeMap::new();
        let mut ids = Vec::new();
        // An ARC task counts as solved when all its questions are.
        let mut tasks: BTreeMap<String, bool> = BTreeMap::new();
        let items = inputs.items("pairs");
        let attempts_made = 1 + usize::from(inputs.get("second").is_some());
        for (done, item) in items.iter().enumerate() {
            cx.tick(done as u64, items.len() as u64, "images")?;
            let pair = pairs::Pair::read(inputs, item)?;
            let attempts = self.attempts(inputs, &item.name)?;
            for attempt in &attempts {
                if attempt.dimensions() != pair.target.dimensions() {
                    return Err(StageError::failed(format!(
                        "the prediction is {:?}, but its target is {:?} (width, height)",
                        attempt.dimensions(),
                        pair.target.dimensions()
                    ))
                    .on_item(&item.name));
                }
            }
            let score = self.score(&attempts, &pair).map_err(|e| e.on_item(&item.name))?;
            ids.push(pair.meta.source_id.clone());
            if let Some(score) = score {
                if let (Some(grids), Some(solved)) = (&pair.meta.arc, score.get("solved")) {
                    *tasks.entry(grids.task.clone()).or_insert(true) &= *solved > 0.0;
                }
                scores.insert(item.name.clone(), score);
            }
        }
        if scores.is_empty() {
            return Err(StageError::failed(format!(
                "none of the {} images has anything to be scored",
                items.len()
            ))
            .with_help("the targets are empty; look at them with `pipe export`"));
        }
        let mut settings = json!({
            "metric": self.metric, "attempts": attempts_made, "images": ids, "scored": scores.len(),
        });
        match self.metric {
            MetricName::Pose => settings["pose"] = json!(self.pose),
            MetricName::Miou => settings["mask_threshold"] = json!(self.mask_threshold),
            MetricName::Arc | MetricName::Image => {}
        }
        let mut values = match self.metric {
            MetricName::Pose => pose::summary(&scores),
            _ => crate::metrics::means(&scores),
        };
        if !tasks.is_empty() {
            let solved = tasks.values().filter(|solved| **solved).count();
            values.insert("tasks_solved".to_owned(), 100.0 * solved as f64 / tasks.len() as f64);
        }
        Metrics { values, per_item: scores, settings }.write(out)
    }
}

impl Metric {
    /// The predictions of an item: one, or two for a metric that allows a second attempt.
    fn attempts(&self, inputs: &Inputs<'_>, name: &str) -> Result<Vec<RgbImage>, StageError> {
        let mut attempts = Vec::new();
        for port in ["predictions", "second"] {
            let Some(manifest) = inputs.get(port) else { continue };
            let item = manifest.item(name).ok_or_else(|| {
                StageError::failed(format!("`{port}` has no prediction for this pair"))
                    .with_help("the predictions must come from the same pairs")
                    .on_item(name)
            })?;
            let bytes = inputs.read(item, frames::PREDICTION)?;
            attempts.push(pairs::decode(&bytes, frames::PREDICTION, item)?.into_rgb8());
        }
        Ok(attempts)
    }

    /// The scores of one image; `None` if the rule excludes it.
    fn score(
        &self,
        attempts: &[RgbImage],
        pair: &pairs::Pair,
    ) -> Result<Option<Score>, StageError> {
        let first = &attempts[0];
        Ok(match self.metric {
            MetricName::Pose => pose::score(first, &pair.target, &pair.meta.persons, self.pose),
            MetricName::Miou => {
                let target = pair.mask.as_ref().ok_or_else(|| {
                    StageError::failed("the pair has no mask")
                        .with_help("use a data set with `task = \"segmentation\"`")
                })?;
                Some(miou::score(first, target, self.mask_threshold))
            }
            MetricName::Arc => {
                let grids = pair.meta.arc.as_ref().ok_or_else(|| {
                    StageError::failed("the pair has no ARC grid")
                        .with_help("use a data set with `source = \"arc\"`")
                })?;
                Some(arc::score(attempts, grids))
            }
            MetricName::Image => Some(image_metric::score(first, &pair.target)),
        })
    }
}
