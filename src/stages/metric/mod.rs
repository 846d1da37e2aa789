//! `metric`: predicted images against their pairs.

use std::collections::BTreeMap;

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    IdleParam, Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind,
    idle,
};
use crate::{
    artifact::{ArtifactKind, frames, metrics::Metrics, pairs},
    metrics::{Case, Rules, Score},
};

/// Scores predictions. Its parameters are the [`Rules`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Metric(Rules);

/// The ports of attempts, in order.
const ATTEMPTS: [&str; 3] = ["predictions", "second", "third"];

impl StageKind for Metric {
    const KIND: &'static str = "metric";
    // 1: first · 2: confidence intervals, more scores.
    const VERSION: u32 = 2;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "predictions", kinds: &[ArtifactKind::Frames], required: true },
            Port { name: "second", kinds: &[ArtifactKind::Frames], required: false },
            Port { name: "third", kinds: &[ArtifactKind::Frames], required: false },
            Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true },
        ],
        output: ArtifactKind::Metrics,
    };
}

impl Stage for Metric {
    fn validate(&self) -> Vec<ParamError> {
        self.0.problems().into_iter().map(ParamError::from).collect()
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        idle::metric(&self.0)
    }

    fn metrics(&self) -> &'static [&'static str] {
        self.0.metric.names()
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let metric = self.0.metric;
        let made = self.check_attempts(inputs)?;
        let mut scores: BTreeMap<String, Score> = BTreeMap::new();
        let mut ids = Vec::new();
        // An ARC task counts as solved when all its questions are.
        let mut tasks: BTreeMap<String, bool> = BTreeMap::new();
        let mut last = None;
        let items = inputs.items("pairs");
        for (done, item) in items.iter().enumerate() {
            cx.tick(done as u64, items.len() as u64, "images")?;
            let pair = pairs::Pair::read(inputs, item)?;
            let attempts = attempts(inputs, &item.name, pair.target.dimensions())?;
            let case = Case { attempts: &attempts, pair: &pair };
            let score = metric.score(&case, &self.0).map_err(|e| e.on_item(&item.name))?;
            ids.push(pair.meta.source_id.clone());
            if let Some(score) = score {
                if let (Some(grids), Some(solved)) = (&pair.meta.arc, score.get("solved")) {
                    *tasks.entry(grids.task.clone()).or_insert(true) &= *solved > 0.0;
                }
                scores.insert(item.name.clone(), score);
            }
            last = Some(pair);
        }
        let (Some(pair), false) = (last, scores.is_empty()) else {
            return Err(StageError::failed(format!(
                "none of the {} images has anything to be scored",
                items.len()
            ))
            .with_help("the targets are empty; look at them with `pipe export`"));
        };
        let all: Vec<&Score> = scores.values().collect();
        let mut values = metric.summary(&all);
        if !tasks.is_empty() {
            let solved = tasks.values().filter(|solved| **solved).count();
            values.insert("tasks_solved".to_owned(), 100.0 * solved as f64 / tasks.len() as f64);
        }
        let mut settings = json!({
            "metric": metric, "bootstrap": self.0.bootstrap, "attempts": made, "images": ids,
            "scored": scores.len(),
        });
        for (name, value) in metric.settings(&self.0) {
            settings[name] = value;
        }
        let intervals = self.0.bootstrap.intervals(&*metric, &all);
        let details = metric.details(&all, &pair);
        Metrics { values, intervals, details, per_item: scores, settings }.write(out)
    }
}

impl Metric {
    /// The number of attempts made, if the metric can use them.
    fn check_attempts(&self, inputs: &Inputs<'_>) -> Result<usize, StageError> {
        let made = ATTEMPTS.iter().filter(|port| inputs.get(port).is_some()).count();
        if made <= self.0.metric.attempts() {
            return Ok(made);
        }
        let name = self.0.metric.name();
        Err(StageError::failed(format!("the metric `{name}` takes one attempt, but has {made}"))
            .with_help("remove `second` and `third` from the stage's inputs"))
    }
}

/// The predictions of an item: one, or more for a metric that allows further attempts.
fn attempts(
    inputs: &Inputs<'_>,
    name: &str,
    (width, height): (u32, u32),
) -> Result<Vec<RgbImage>, StageError> {
    let mut attempts = Vec::new();
    for port in ATTEMPTS {
        let Some(manifest) = inputs.get(port) else { continue };
        let item = manifest.item(name).ok_or_else(|| {
            StageError::failed(format!("`{port}` has no prediction for this pair"))
                .with_help("the predictions must come from the same pairs")
                .on_item(name)
        })?;
        let bytes = inputs.read(item, frames::PREDICTION)?;
        let image = pairs::decode(&bytes, frames::PREDICTION, item)?.into_rgb8();
        if image.dimensions() != (width, height) {
            return Err(StageError::failed(format!(
                "the prediction is {}x{}, but its target is {width}x{height}",
                image.width(),
                image.height()
            ))
            .on_item(name));
        }
        attempts.push(image);
    }
    Ok(attempts)
}

#[cfg(test)]
mod tests;
