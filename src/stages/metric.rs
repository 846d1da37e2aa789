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

    fn idle_params(&self) -> Vec<IdleParam> {
        idle::metric(self)
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
        let mut scores: BTreeMap<String, Score> = BTreeMap::new();
        let mut ids = Vec::new();
        // An ARC task counts as solved when all its questions are.
        let mut tasks: BTreeMap<String, bool> = BTreeMap::new();
        let items = inputs.items("pairs");
        let attempts_made = 1 + usize::from(inputs.get("second").is_some());
        if attempts_made > 1 && self.metric != MetricName::Arc {
            return Err(StageError::failed("only the metric `arc` takes a second attempt")
                .with_help("remove `second` from the stage's inputs"));
        }
        for (done, item) in items.iter().enumerate() {
            cx.tick(done as u64, items.len() as u64, "images")?;
            let pair = pairs::Pair::read(inputs, item)?;
            let attempts = attempts(inputs, &item.name, pair.target.dimensions())?;
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
        let mut settings = self.settings();
        settings["attempts"] = json!(attempts_made);
        settings["images"] = json!(ids);
        settings["scored"] = json!(scores.len());
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

/// The predictions of an item: one, or two for a metric that allows a second attempt.
fn attempts(
    inputs: &Inputs<'_>,
    name: &str,
    (width, height): (u32, u32),
) -> Result<Vec<RgbImage>, StageError> {
    let mut attempts = Vec::new();
    for port in ["predictions", "second"] {
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
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        artifact::{Item, frames::to_png},
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
    }
}
