//! `metric`: predicted images against their pairs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Cause, CheckError, IdleParam, Inputs, Output, ParamError, Port, Ports, Stage, StageContext,
    StageError, StageKind, Surroundings,
    check::refuse,
    predictions::{Predictions, checkpoints_to_try},
};
use crate::{
    artifact::{ArtifactKind, Item, metrics::Metrics, pairs},
    metrics::{
        Case, METRICS, Rules, Score,
        arc::{EXACT, ExamplesRight, of_tasks},
        mean_target::MeanTarget,
    },
};

/// Scores predictions. Its parameters are the [`Rules`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Metric(Rules);

/// The ports of attempts from other trainings, in order.
const OTHERS: [&str; 2] = ["second", "third"];

impl StageKind for Metric {
    const KIND: &'static str = "metric";
    // 1: first · 2: confidence intervals, more scores, checkpoints · 3: the share of variance
    // explained, distances beyond the range, an interval for tasks · 4: OIS of edges from the
    // pixels of all images.
    const VERSION: u32 = 4;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "predictions", kinds: &[ArtifactKind::Frames], required: true },
            Port { name: "second", kinds: &[ArtifactKind::Frames], required: false },
            Port { name: "third", kinds: &[ArtifactKind::Frames], required: false },
            Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true },
            Port { name: "examples", kinds: &[ArtifactKind::Pairs], required: false },
            Port { name: "example_predictions", kinds: &[ArtifactKind::Frames], required: false },
        ],
        output: ArtifactKind::Metrics,
    };
}

impl Stage for Metric {
    fn validate(&self) -> Vec<ParamError> {
        self.0.validate()
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        IdleParam::of_choice("metric", self.0.metric)
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        let mut ports: Vec<_> = self.check_connected(|port| around.has(port)).into_iter().collect();
        if self.0.examples_right.is_some() && !around.has("examples") {
            ports.push(CheckError::new(
                Cause::Param("examples_right"),
                "`examples_right` does nothing without the inputs `examples` and `example_predictions`",
                "connect the pairs trained on, and what the same adapters predict for them",
            ));
        }
        let there = around.checkpoints.iter().find(|(port, _)| *port == "predictions");
        let others = OTHERS.into_iter().filter(|port| around.has(port)).count();
        ports.extend(there.and_then(|(_, there)| self.too_few(there + others)));
        let wrong = around.task("pairs").and_then(|task| self.wrong_task(task));
        ports.extend(wrong.or_else(|| around.without_target(&["pairs", "examples"])));
        ports
    }

    fn revision(&self) -> u32 {
        self.0.metric.revision()
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
        let pairs = inputs.items("pairs");
        let predictions = Predictions::of(inputs, "predictions", pairs)?;
        let others = OTHERS.into_iter().filter(|port| inputs.get(port).is_some());
        let others: Vec<_> =
            others.map(|port| Predictions::of(inputs, port, pairs)).collect::<Result<_, _>>()?;
        self.check_ports(inputs, &predictions, &others)?;
        let chosen = self.choose(inputs, &predictions, cx)?;
        let mut attempts: Vec<_> = chosen.iter().map(|at| (&predictions, *at)).collect();
        attempts.extend(others.iter().map(|other| (other, 0)));

        let mean = self.mean_target(inputs)?;
        let mean = mean.as_ref();
        let main = self.score_all(inputs, pairs, &attempts, mean, cx)?;
        let mut by_checkpoint = BTreeMap::new();
        if predictions.several() {
            for (at, name) in predictions.checkpoints.iter().enumerate() {
                let alone = self.score_all(inputs, pairs, &[(&predictions, at)], mean, cx)?;
                by_checkpoint.insert(name.unwrap_or_default().to_owned(), alone.values);
            }
        }
        let names: Vec<_> = chosen.iter().map(|at| predictions.checkpoints[*at]).collect();
        let settings = self.settings(&main, attempts.len(), predictions.several().then_some(names));
        let all: Vec<&Score> = main.scores.values().collect();
        let mut intervals = self.0.bootstrap.intervals(&*self.0.metric, &all);
        for (name, tasks) in &main.tasks {
            let interval = self.0.bootstrap.of_mean(tasks);
            intervals.extend(interval.map(|interval| ((*name).to_owned(), interval)));
        }
        let details = self.0.metric.details(&all, &main.last);
        let Scored { values, scores: per_item, .. } = main;
        Metrics { values, intervals, details, per_item, settings, by_checkpoint }.write(out)
    }
}

/// What one or several attempts at all pairs gave.
struct Scored {
    values: Score,
    scores: BTreeMap<String, Score>,
    /// Where the images come from.
    ids: Vec<String>,
    /// The scores of ARC tasks: by name a value for each.
    tasks: BTreeMap<&'static str, Vec<f64>>,
    last: pairs::Pair,
}

impl Metric {
    /// Every choice of the metric that decides a score.
    fn settings(
        &self,
        scored: &Scored,
        attempts: usize,
        checkpoints: Option<Vec<Option<&str>>>,
    ) -> Value {
        let mut settings = json!({
            "metric": self.0.metric, "bootstrap": self.0.bootstrap, "attempts": attempts,
            "images": scored.ids, "scored": scored.scores.len(),
        });
        if let Some(names) = checkpoints {
            settings["checkpoints"] = json!(names);
        }
        for (name, value) in self.0.metric.settings(&self.0) {
            settings[name] = value;
        }
        settings
    }

    /// The task of the pairs, if the metric cannot score it.
    fn wrong_task(&self, (task, stage): (&'static str, &str)) -> Option<CheckError> {
        let metric = self.0.metric;
        if metric.tasks().is_none_or(|tasks| tasks.contains(&task)) {
            return None;
        }
        let fits = METRICS.iter().filter(|m| m.tasks().is_none_or(|tasks| tasks.contains(&task)));
        let fits: Vec<_> = fits.map(|metric| format!("`{}`", metric.name())).collect();
        let message =
            format!("the metric `{}` cannot score `{task}`, which `{stage}` gives", metric.name());
        let help = format!("`{task}` can be scored by {}", fits.join(", "));
        Some(CheckError::new(Cause::Param("metric"), message, help))
    }

    /// Fewer attempts to be made than are asked for.
    fn too_few(&self, there: usize) -> Option<CheckError> {
        let attempts = self.0.attempts.filter(|attempts| *attempts > there)?;
        Some(CheckError::new(
            Cause::Param("attempts"),
            format!("`attempts` is {attempts}, but there are {there} to be made"),
            "lower it, or add steps to `save_at` of the training",
        ))
    }

    /// What the metric cannot use of what is connected.
    fn check_connected(&self, has: impl Fn(&str) -> bool) -> Option<CheckError> {
        let (name, attempts) = (self.0.metric.name(), self.0.metric.attempts());
        let made = 1 + OTHERS.into_iter().filter(|port| has(port)).count();
        let inputs = Cause::Param("inputs");
        if made > attempts {
            let message = format!("the metric `{name}` takes one attempt, but has {made}");
            let help = "remove `second` and `third` from the stage's inputs";
            return Some(CheckError::new(inputs, message, help));
        }
        let [examples, answers] = ["examples", "example_predictions"].map(has);
        let wrong = if self.0.metric.uses_mean_target() {
            if !answers {
                return None;
            }
            format!(
                "the metric `{name}` makes one attempt, so `example_predictions` choose nothing"
            )
        } else if examples != answers {
            "`examples` and `example_predictions` go together".to_owned()
        } else if examples && attempts == 1 {
            format!("the metric `{name}` makes one attempt, so examples have nothing to choose")
        } else {
            return None;
        };
        let help = "connect the pairs trained on, and what the same adapters predict for them";
        Some(CheckError::new(inputs, wrong, help))
    }

    /// Checks that the metric can use what is connected.
    fn check_ports(
        &self,
        inputs: &Inputs<'_>,
        predictions: &Predictions<'_>,
        others: &[Predictions<'_>],
    ) -> Result<(), StageError> {
        refuse(self.check_connected(|port| inputs.get(port).is_some()))?;
        if !others.is_empty() && predictions.several() {
            return Err(StageError::failed(
                "`predictions` holds several checkpoints, so there can be no `second`",
            )
            .with_help("set `attempts` to the number of checkpoints that are attempts"));
        }
        if let Some((port, _)) = OTHERS.iter().zip(others).find(|(_, other)| other.several()) {
            return Err(StageError::failed(format!(
                "`{port}` holds several checkpoints, so it is not one attempt"
            ))
            .with_help("take `save_at` out of its training, or leave the port out"));
        }
        refuse(self.too_few(predictions.checkpoints.len() + others.len()))
    }

    /// The checkpoints that are scored, chosen for the attempts by docs/method.md, E.3.
    fn choose(
        &self,
        inputs: &Inputs<'_>,
        predictions: &Predictions<'_>,
        cx: &StageContext<'_>,
    ) -> Result<Vec<usize>, StageError> {
        let len = predictions.checkpoints.len();
        if self.0.metric.attempts() == 1 {
            return Ok(vec![len - 1]);
        }
        let attempts = self.0.attempts.unwrap_or(2);
        let examples = inputs.items("examples");
        if examples.is_empty() {
            return Ok(checkpoints_to_try(&vec![false; len], attempts, self.0.arc));
        }
        let answers = Predictions::of(inputs, "example_predictions", examples)?;
        if answers.checkpoints != predictions.checkpoints {
            return Err(StageError::failed(
                "`example_predictions` and `predictions` come from different checkpoints",
            )
            .with_help("sample both with the same `lora`"));
        }
        let mut right = Vec::with_capacity(len);
        for at in 0..len {
            let found = self.score_all(inputs, examples, &[(&answers, at)], None, cx)?;
            let mut exact = found.scores.values().map(|score| score["solved"] > 0.0);
            right.push(match self.0.examples_right.unwrap_or_default() {
                ExamplesRight::All => exact.all(|exact| exact),
                ExamplesRight::Any => exact.any(|exact| exact),
            });
        }
        Ok(checkpoints_to_try(&right, attempts, self.0.arc))
    }

    /// The mean of the targets of the examples, if the metric compares with it.
    fn mean_target(&self, inputs: &Inputs<'_>) -> Result<Option<MeanTarget>, StageError> {
        let examples = inputs.items("examples");
        if examples.is_empty() || !self.0.metric.uses_mean_target() {
            return Ok(None);
        }
        let mut mean = MeanTarget::default();
        for item in examples {
            let pair = pairs::Pair::read(inputs, item)?;
            mean.add(&pair).map_err(|e| e.on_item(&item.name))?;
        }
        Ok(Some(mean))
    }

    /// Scores the attempts at every pair.
    fn score_all(
        &self,
        inputs: &Inputs<'_>,
        items: &[Item],
        attempts: &[(&Predictions<'_>, usize)],
        mean_target: Option<&MeanTarget>,
        cx: &StageContext<'_>,
    ) -> Result<Scored, StageError> {
        let metric = self.0.metric;
        let mut scores: BTreeMap<String, Score> = BTreeMap::new();
        let mut ids = Vec::new();
        // The questions of each ARC task.
        let mut questions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut last = None;
        for (done, item) in items.iter().enumerate() {
            cx.tick(done as u64, items.len() as u64, "images")?;
            let pair = pairs::Pair::read(inputs, item)?;
            let size = pair.target.dimensions();
            let images = attempts.iter().map(|(of, at)| of.image(inputs, *at, item, size));
            let images = images.collect::<Result<Vec<_>, _>>()?;
            let case = Case { attempts: &images, pair: &pair, mean_target };
            let score = metric.score(&case, &self.0).map_err(|e| e.on_item(&item.name))?;
            ids.extend_from_slice(pair.meta.image_ids());
            if let Some(score) = score {
                if let Some(grids) = pair.meta.arc.as_ref().filter(|_| score.contains_key(EXACT)) {
                    questions.entry(grids.task.clone()).or_default().push(item.name.clone());
                }
                scores.insert(item.name.clone(), score);
            }
            last = Some(pair);
        }
        let (Some(last), false) = (last, scores.is_empty()) else {
            return Err(StageError::failed(format!(
                "none of the {} images has anything to be scored",
                items.len()
            ))
            .with_help("the targets are empty; look at them with `pipe export`"));
        };
        let mut values = metric.summary(&scores.values().collect::<Vec<_>>());
        let of_task = |names: &Vec<String>| names.iter().map(|name| &scores[name]).collect();
        let questions: Vec<Vec<&Score>> = questions.values().map(of_task).collect();
        let mut tasks = of_tasks(&questions, self.0.arc.task);
        tasks.retain(|_, tasks| !tasks.is_empty());
        for (name, tasks) in &tasks {
            values.insert((*name).to_owned(), tasks.iter().sum::<f64>() / tasks.len() as f64);
        }
        Ok(Scored { values, scores, ids, tasks, last })
    }
}

#[cfg(test)]
mod tests;
