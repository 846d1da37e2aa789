//! `metric`: predicted images against their pairs.

use std::collections::BTreeMap;

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind,
    predictions::{Predictions, checkpoints_to_try},
};
use crate::{
    artifact::{ArtifactKind, Item, metrics::Metrics, pairs},
    metrics::{Score, arc, image as image_metric, miou, pose},
};

/// Scores the last frame of each generated clip against the pair of the same name.
///
/// Where the predictions were made with several adapters along one training, each of these
/// checkpoints is scored. `arc` then makes its attempts with successive ones: from the first at which
/// the examples are predicted right, if those are on the ports `examples` and
/// `example_predictions`, else with the last ones. Other metrics give the scores of the last
/// checkpoint, and of all of them in `by_checkpoint`.
///
/// `arc` also takes a second attempt from another training on the port `second`.
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
    /// For `arc` with several checkpoints: how many of them are attempts; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<usize>,
    /// For `arc` with examples: how many of them a checkpoint must predict right to be the first
    /// attempt; `all` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples_right: Option<ExamplesRight>,
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

/// How many examples must be right for a checkpoint to be the first attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExamplesRight {
    /// Every one.
    #[default]
    All,
    /// At least one.
    Any,
}

impl StageKind for Metric {
    const KIND: &'static str = "metric";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "predictions", kinds: &[ArtifactKind::Frames], required: true },
            Port { name: "second", kinds: &[ArtifactKind::Frames], required: false },
            Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true },
            Port { name: "examples", kinds: &[ArtifactKind::Pairs], required: false },
            Port { name: "example_predictions", kinds: &[ArtifactKind::Frames], required: false },
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
        let positive =
            positive.into_iter().filter(|(_, value)| !(*value > 0.0 && value.is_finite())).map(
                |(field, value)| ParamError::new(field, format!("must be above 0, but is {value}")),
            );
        let arc = self.metric == MetricName::Arc;
        let only_arc = [
            ("attempts", self.attempts.is_some()),
            ("examples_right", self.examples_right.is_some()),
        ];
        let misplaced = only_arc
            .into_iter()
            .filter(|(_, is_set)| *is_set && !arc)
            .map(|(field, _)| ParamError::new(field, "is for the metric `arc` only"));
        let none = (self.attempts == Some(0))
            .then(|| ParamError::new("attempts", "must be at least 1, but is 0"));
        positive.chain(misplaced).chain(none).collect()
    }

    fn metrics(&self) -> &'static [&'static str] {
        match self.metric {
            MetricName::Pose => pose::NAMES,
            MetricName::Miou => miou::NAMES,
            MetricName::Arc => arc::NAMES,
            MetricName::Image => image_metric::NAMES,
        }
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let pairs = inputs.items("pairs");
        let predictions = Predictions::of(inputs, "predictions", pairs)?;
        self.check_ports(inputs, &predictions)?;
        let second = inputs.get("second").map(|_| Predictions::of(inputs, "second", pairs));
        let second = second.transpose()?;
        let chosen = self.choose(inputs, &predictions, cx)?;
        let mut images: Vec<_> = chosen.iter().map(|at| (&predictions, *at)).collect();
        images.extend(second.as_ref().map(|second| (second, 0)));

        let main = self.score_all(inputs, pairs, &images, cx)?;
        let mut by_checkpoint = BTreeMap::new();
        if predictions.several() {
            for (at, name) in predictions.checkpoints.iter().enumerate() {
                let alone = self.score_all(inputs, pairs, &[(&predictions, at)], cx)?;
                by_checkpoint.insert(name.unwrap_or_default().to_owned(), alone.values);
            }
        }
        let mut settings = self.settings();
        settings["attempts"] = json!(images.len());
        settings["images"] = json!(main.ids);
        settings["scored"] = json!(main.scores.len());
        if predictions.several() {
            let names: Vec<_> = chosen.iter().map(|at| predictions.checkpoints[*at]).collect();
            settings["checkpoints"] = json!(names);
        }
        Metrics { values: main.values, per_item: main.scores, settings, by_checkpoint }.write(out)
    }
}

/// What one or several attempts at all pairs gave.
struct Scored {
    values: Score,
    scores: BTreeMap<String, Score>,
    /// Where the images come from.
    ids: Vec<String>,
}

impl Metric {
    /// The open choices that the metric makes.
    fn settings(&self) -> serde_json::Value {
        match self.metric {
            MetricName::Pose => json!({ "metric": self.metric, "pose": self.pose }),
            MetricName::Miou => {
                json!({ "metric": self.metric, "mask_threshold": self.mask_threshold })
            }
            MetricName::Arc | MetricName::Image => json!({ "metric": self.metric }),
        }
    }

    fn check_ports(
        &self,
        inputs: &Inputs<'_>,
        predictions: &Predictions<'_>,
    ) -> Result<(), StageError> {
        let has = |port: &str| inputs.get(port).is_some();
        if has("second") && self.metric != MetricName::Arc {
            return Err(StageError::failed("only the metric `arc` takes a second attempt")
                .with_help("remove `second` from the stage's inputs"));
        }
        if has("second") && predictions.several() {
            return Err(StageError::failed(
                "`predictions` holds several checkpoints, so there can be no `second`",
            )
            .with_help("set `attempts` to the number of checkpoints that are attempts"));
        }
        let (examples, answers) = (has("examples"), has("example_predictions"));
        let wrong = if examples != answers {
            "`examples` and `example_predictions` go together"
        } else if examples && self.metric != MetricName::Arc {
            "only the metric `arc` takes examples"
        } else {
            return Ok(());
        };
        Err(StageError::failed(wrong)
            .with_help("connect the pairs trained on, and what the same adapters predict for them"))
    }

    /// The checkpoints that are scored, as spec E.3 chooses the attempts.
    fn choose(
        &self,
        inputs: &Inputs<'_>,
        predictions: &Predictions<'_>,
        cx: &StageContext<'_>,
    ) -> Result<Vec<usize>, StageError> {
        let len = predictions.checkpoints.len();
        if self.metric != MetricName::Arc {
            return Ok(vec![len - 1]);
        }
        let attempts = self.attempts.unwrap_or(2);
        let examples = inputs.items("examples");
        if examples.is_empty() {
            return Ok(checkpoints_to_try(&vec![false; len], attempts));
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
            let found = self.score_all(inputs, examples, &[(&answers, at)], cx)?;
            let mut exact = found.scores.values().map(|score| score["solved"] > 0.0);
            right.push(match self.examples_right.unwrap_or_default() {
                ExamplesRight::All => exact.all(|exact| exact),
                ExamplesRight::Any => exact.any(|exact| exact),
            });
        }
        Ok(checkpoints_to_try(&right, attempts))
    }

    /// Scores the attempts at every pair.
    fn score_all(
        &self,
        inputs: &Inputs<'_>,
        pairs: &[Item],
        attempts: &[(&Predictions<'_>, usize)],
        cx: &StageContext<'_>,
    ) -> Result<Scored, StageError> {
        let mut scores: BTreeMap<String, Score> = BTreeMap::new();
        let mut ids = Vec::new();
        // An ARC task counts as solved when all its questions are.
        let mut tasks: BTreeMap<String, bool> = BTreeMap::new();
        for (done, item) in pairs.iter().enumerate() {
            cx.tick(done as u64, pairs.len() as u64, "images")?;
            let pair = pairs::Pair::read(inputs, item)?;
            let size = pair.target.dimensions();
            let images = attempts.iter().map(|(of, at)| of.image(inputs, *at, item, size));
            let images = images.collect::<Result<Vec<_>, _>>()?;
            let score = self.score(&images, &pair).map_err(|e| e.on_item(&item.name))?;
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
                pairs.len()
            ))
            .with_help("the targets are empty; look at them with `pipe export`"));
        }
        let mut values = match self.metric {
            MetricName::Pose => pose::summary(&scores),
            _ => crate::metrics::means(&scores),
        };
        if !tasks.is_empty() {
            let solved = tasks.values().filter(|solved| **solved).count();
            values.insert("tasks_solved".to_owned(), 100.0 * solved as f64 / tasks.len() as f64);
        }
        Ok(Scored { values, scores, ids })
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        artifact::frames::{self, to_png},
        data::{
            Person,
            arc::{ArcGrids, Grid, render},
            pose::{PoseStyle, draw},
        },
        stages::support::Bench,
    };

    fn metric(params: Value) -> Metric {
        serde_json::from_value(params).unwrap()
    }

    fn prediction(bench: &Bench, name: &str, image: &RgbImage) -> Item {
        bench.item(name, &[(frames::PREDICTION, &to_png(image))])
    }

    fn pair(bench: &Bench, name: &str, target: &RgbImage, meta: &Value) -> Item {
        let (image, meta) = (to_png(target), serde_json::to_vec(meta).unwrap());
        bench.item(name, &[("input.png", &image), ("target.png", &image), ("meta.json", &meta)])
    }

    fn figure(x: f32) -> (RgbImage, Value) {
        let mut keypoints = [[0.0; 3]; 17];
        (keypoints[0], keypoints[1]) = ([x, 10.0, 2.0], [x + 4.0, 12.0, 2.0]);
        (keypoints[9], keypoints[16]) = ([x, 30.0, 2.0], [x, 50.0, 2.0]);
        let person = Person { keypoints };
        let meta =
            json!({ "source_id": format!("photo-{x}"), "task": "pose", "persons": [person] });
        (draw(&[person], [64, 64], PoseStyle::default()), meta)
    }

    fn run(
        bench: &Bench,
        stage: &Metric,
        ports: &[(&str, ArtifactKind, &[Item])],
    ) -> Result<Metrics, StageError> {
        let inputs = bench.inputs(ports);
        let items = bench.run(stage, &inputs)?;
        assert_eq!(items.len(), 1);
        Metrics::read(&inputs, &items[0])
    }

    #[test]
    fn predictions_meet_their_pairs_by_name() {
        let bench = Bench::new();
        let ((left, left_meta), (right, right_meta)) = (figure(10.0), figure(50.0));
        let pairs = [pair(&bench, "l", &left, &left_meta), pair(&bench, "r", &right, &right_meta)];
        let ports = |predictions: &[Item]| {
            let ports = [
                ("predictions", ArtifactKind::Frames, predictions),
                ("pairs", ArtifactKind::Pairs, &pairs[..]),
            ];
            run(&bench, &metric(json!({ "metric": "pose" })), &ports)
        };
        let (l, r) = (prediction(&bench, "l", &left), prediction(&bench, "r", &right));
        let metrics = ports(&[r.clone(), l.clone()]).unwrap();
        assert!((metrics.values["f1"] - 100.0).abs() < 1e-9);
        assert_eq!(metrics.settings["images"], json!(["photo-10", "photo-50"]));
        assert_eq!(metrics.settings["pose"]["head_factor"], 1.5);
        assert_eq!(metrics.per_item.len(), 2);
        assert_names("pose", &metrics.values);

        let swapped = [Item { name: "l".into(), ..r }, Item { name: "r".into(), ..l.clone() }];
        assert!(ports(&swapped).unwrap().values["f1"] < 1e-9);

        let error = ports(&[l]).unwrap_err();
        let StageError::Failed { message, item, .. } = error else { panic!("{error}") };
        assert_eq!(message, "`predictions` has no prediction for this pair");
        assert_eq!(item.as_deref(), Some("r"));
    }

    #[test]
    fn a_prediction_of_another_size_is_an_error() {
        let bench = Bench::new();
        let (image, meta) = figure(10.0);
        let pairs = [pair(&bench, "a", &image, &meta)];
        let small = [prediction(&bench, "a", &RgbImage::new(32, 64))];
        let ports = [
            ("predictions", ArtifactKind::Frames, &small[..]),
            ("pairs", ArtifactKind::Pairs, &pairs[..]),
        ];
        let error = run(&bench, &metric(json!({ "metric": "image" })), &ports).unwrap_err();
        insta::assert_snapshot!(error, @"the prediction is 32x64, but its target is 64x64");
        let error = run(
            &bench,
            &metric(json!({ "metric": "miou" })),
            &[
                ("predictions", ArtifactKind::Frames, &[prediction(&bench, "a", &image)]),
                ("pairs", ArtifactKind::Pairs, &pairs),
            ],
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "the pair has no mask");
    }

    #[test]
    fn nothing_to_score_is_an_error() {
        let bench = Bench::new();
        let black = RgbImage::new(64, 64);
        let meta = json!({ "source_id": "x", "task": "pose" });
        let error = run(
            &bench,
            &metric(json!({ "metric": "pose" })),
            &[
                ("predictions", ArtifactKind::Frames, &[prediction(&bench, "a", &black)]),
                ("pairs", ArtifactKind::Pairs, &[pair(&bench, "a", &black, &meta)]),
            ],
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "none of the 1 images has anything to be scored");
    }

    #[test]
    fn an_arc_task_is_solved_when_every_question_is_by_some_attempt() {
        let bench = Bench::new();
        let grid = |value: u8| Grid::try_from(vec![vec![value, 1], vec![2, 3]]).unwrap();
        let question = |name: &str, task: &str| {
            let grids = ArcGrids { task: task.into(), input: grid(0), output: grid(4), cell: 190 };
            let meta = json!({ "source_id": name, "task": "arc", "arc": grids });
            pair(&bench, name, &render(&grid(4), 190), &meta)
        };
        let pairs = [question("a0", "a"), question("a1", "a"), question("b0", "b")];
        let answer = |name, value| prediction(&bench, name, &render(&grid(value), 190));
        let first = [answer("a0", 4), answer("a1", 5), answer("b0", 5)];
        let second = [answer("a0", 5), answer("a1", 4), answer("b0", 6)];
        let metrics = run(
            &bench,
            &metric(json!({ "metric": "arc" })),
            &[
                ("predictions", ArtifactKind::Frames, &first),
                ("second", ArtifactKind::Frames, &second),
                ("pairs", ArtifactKind::Pairs, &pairs),
            ],
        )
        .unwrap();
        assert!((metrics.values["solved"] - 200.0 / 3.0).abs() < 1e-9);
        assert!((metrics.values["tasks_solved"] - 50.0).abs() < 1e-9);
        assert!((metrics.values["cells"] - (100.0 + 100.0 + 75.0) / 3.0).abs() < 1e-9);
        assert_eq!(metrics.settings["attempts"], 2);
        assert_names("arc", &metrics.values);
    }

    #[test]
    fn arc_tries_the_checkpoints_from_the_first_that_knows_the_examples() {
        let bench = Bench::new();
        let grid = |value: u8| Grid::try_from(vec![vec![value, 1], vec![2, 3]]).unwrap();
        let question = |name: &str| {
            let grids = ArcGrids { task: "a".into(), input: grid(0), output: grid(4), cell: 190 };
            let meta = json!({ "source_id": name, "task": "arc", "arc": grids });
            pair(&bench, name, &render(&grid(4), 190), &meta)
        };
        let (examples, questions) = ([question("e0"), question("e1")], [question("q")]);
        // A column per item, a row per checkpoint: 4 is right.
        let answers = |names: &[&str], rows: &[&[u8]]| {
            let mut items = Vec::new();
            for (row, values) in rows.iter().enumerate() {
                for (name, value) in names.iter().zip(*values) {
                    let name = format!("step_{}/{name}", 100 * (row + 1));
                    items.push(prediction(&bench, &name, &render(&grid(*value), 190)));
                }
            }
            items
        };
        let of_examples = answers(&["e0", "e1"], &[&[4, 5], &[4, 4], &[5, 5], &[4, 4]]);
        let of_questions = answers(&["q"], &[&[4], &[5], &[4], &[5]]);
        let with = |params: Value, with_examples: bool| {
            let mut ports: Vec<(&str, ArtifactKind, &[Item])> = vec![
                ("predictions", ArtifactKind::Frames, &of_questions),
                ("pairs", ArtifactKind::Pairs, &questions),
            ];
            if with_examples {
                ports.push(("examples", ArtifactKind::Pairs, &examples));
                ports.push(("example_predictions", ArtifactKind::Frames, &of_examples));
            }
            let metrics = run(&bench, &metric(params), &ports).unwrap();
            (metrics.values["solved"] > 0.0, metrics.settings["checkpoints"].to_string())
        };
        let arc = |more: Value| {
            let mut params = json!({ "metric": "arc" });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            params
        };
        let names = |names: &[&str]| json!(names).to_string();
        assert_eq!(with(arc(json!({})), true), (true, names(&["step_200", "step_300"])));
        let any = json!({ "examples_right": "any", "attempts": 1 });
        assert_eq!(with(arc(any), true), (true, names(&["step_100"])));
        let one = json!({ "attempts": 1 });
        assert_eq!(with(arc(one), true), (false, names(&["step_200"])));
        assert_eq!(with(arc(json!({})), false), (true, names(&["step_300", "step_400"])));
        // Other metrics show the last checkpoint, and each beside it.
        let ports = [
            ("predictions", ArtifactKind::Frames, &of_questions[..]),
            ("pairs", ArtifactKind::Pairs, &questions[..]),
        ];
        let image = run(&bench, &metric(json!({ "metric": "image" })), &ports).unwrap();
        assert_eq!(image.settings["checkpoints"], json!(["step_400"]));
        assert_eq!(image.values, image.by_checkpoint["step_400"]);
        assert_ne!(image.values, image.by_checkpoint["step_300"]);
        assert_eq!(image.by_checkpoint.len(), 4);
    }

    /// The names a table may show are those that are given.
    fn assert_names(name: &str, values: &Score) {
        let mut names = metric(json!({ "metric": name })).metrics().to_vec();
        names.sort_unstable();
        assert_eq!(values.keys().map(String::as_str).collect::<Vec<_>>(), names);
    }

    #[test]
    fn the_names_of_scores_are_known() {
        let image = RgbImage::new(8, 8);
        assert_names("image", &image_metric::score(&image, &image));
        assert_names("miou", &miou::score(&image, &image::GrayImage::new(8, 8), 128));
    }

    #[test]
    fn a_rule_without_scale_is_refused() {
        let wrong = metric(json!({ "metric": "pose", "pose": { "head_factor": 0.0 } }));
        assert_eq!(wrong.validate()[0].field, "pose.head_factor");
        let wrong = metric(json!({ "metric": "image", "attempts": 2 }));
        assert_eq!(wrong.validate()[0].field, "attempts");
    }
}
