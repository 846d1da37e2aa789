//! Predictions meet their pairs, and every metric gives what it promises.

use image::RgbImage;
use serde_json::{Value, json};

use super::*;
use crate::{
    artifact::{
        Item,
        frames::{self, to_png},
    },
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
    let meta = json!({ "source_id": format!("photo-{x}"), "task": "pose", "persons": [person] });
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
    // These need what was learnt from.
    names.retain(|name| !name.starts_with("mean_target") || values.contains_key(*name));
    names.sort_unstable();
    assert_eq!(values.keys().map(String::as_str).collect::<Vec<_>>(), names);
}

#[test]
fn a_rule_without_scale_is_refused() {
    let wrong = metric(json!({ "metric": "pose", "pose": { "head_factor": 0.0 } }));
    assert_eq!(wrong.validate()[0].field, "pose.head_factor");
}

#[test]
fn every_metric_keeps_each_image_and_gives_intervals() {
    use crate::{artifact::pairs::Pair, data::Request};

    for (task, name) in [
        ("segmentation", "miou"),
        ("images", "image"),
        ("scene", "scene"),
        ("segmentation", "edges"),
        ("depth", "depth"),
        ("symbols", "symbols"),
    ] {
        let request: Request = serde_json::from_value(json!({
            "source": "builtin:figures", "task": task, "count": 3, "size": [64, 64],
        }))
        .unwrap();
        let nowhere = crate::store::SourceReader::new(std::path::Path::new(""));
        let images = request.source.source.open(&request, &nowhere).unwrap();
        let bench = Bench::new();
        let mut on_item = |_: &Item| Ok(());
        let mut out = Output::new(&bench.store, &mut on_item);
        let mut predictions = Vec::new();
        for place in 0..3 {
            let (name, pair): (String, Pair) =
                request.task.pair(&*images, place, &request).unwrap();
            predictions.push(prediction(&bench, &name, &pair.target));
            pair.write(&mut out, &name).unwrap();
        }
        let pairs = out.into_items();
        let ports = [
            ("predictions", ArtifactKind::Frames, &predictions[..]),
            ("pairs", ArtifactKind::Pairs, &pairs[..]),
        ];
        let metrics = run(&bench, &metric(json!({ "metric": name })), &ports).unwrap();
        assert_eq!(metrics.per_item.len(), 3, "{name}");
        assert_names(name, &metrics.values);
        assert_eq!(
            metrics.intervals.keys().collect::<Vec<_>>(),
            metrics.values.keys().collect::<Vec<_>>()
        );
        let main = ["miou", "psnr", "scene_miou", "ods_f", "delta_1", "accuracy"];
        let best = main.iter().find_map(|score| metrics.values.get(*score)).unwrap();
        assert!((best - 100.0).abs() < 0.5, "{name}: {:?}", metrics.values);
    }
}

#[test]
fn an_answer_is_compared_with_the_mean_of_the_targets_learnt_from() {
    let bench = Bench::new();
    let half = |left: u8, right: u8| {
        RgbImage::from_fn(64, 64, |x, _| image::Rgb([if x < 32 { left } else { right }; 3]))
    };
    let meta = json!({ "source_id": "x", "task": "images" });
    let pairs = [pair(&bench, "q", &half(0, 200), &meta)];
    let predictions = [prediction(&bench, "q", &half(0, 200))];
    let score = |examples: &[RgbImage]| {
        let items = examples.iter().zip('a'..);
        let items: Vec<_> =
            items.map(|(target, name)| pair(&bench, &name.to_string(), target, &meta)).collect();
        let mut ports = vec![
            ("predictions", ArtifactKind::Frames, &predictions[..]),
            ("pairs", ArtifactKind::Pairs, &pairs[..]),
        ];
        if !items.is_empty() {
            ports.push(("examples", ArtifactKind::Pairs, &items));
        }
        run(&bench, &metric(json!({ "metric": "image" })), &ports)
    };
    let with = score(&[half(0, 100), half(100, 200)]).unwrap();
    assert_names("image", &with.values);
    assert!((with.values["mean_target"] - 75.0).abs() < 1e-6, "{:?}", with.values);
    assert!((with.values["explained"] - 100.0).abs() < 1e-6);
    assert!(!score(&[]).unwrap().values.contains_key("mean_target"));
    let error = score(&[RgbImage::new(32, 64)]).unwrap_err();
    insta::assert_snapshot!(error, @"the target is 64x64, but the examples' targets are 32x64");
    let ports = [
        ("predictions", ArtifactKind::Frames, &predictions[..]),
        ("pairs", ArtifactKind::Pairs, &pairs[..]),
        ("example_predictions", ArtifactKind::Frames, &predictions[..]),
    ];
    let error = run(&bench, &metric(json!({ "metric": "image" })), &ports).unwrap_err();
    insta::assert_snapshot!(error, @"the metric `image` makes one attempt, so `example_predictions` choose nothing");
}

#[test]
fn an_attempt_too_many_is_an_error() {
    let bench = Bench::new();
    let (image, meta) = figure(10.0);
    let (pairs, made) = ([pair(&bench, "a", &image, &meta)], [prediction(&bench, "a", &image)]);
    let ports = [
        ("predictions", ArtifactKind::Frames, &made[..]),
        ("second", ArtifactKind::Frames, &made[..]),
        ("pairs", ArtifactKind::Pairs, &pairs[..]),
    ];
    let error = run(&bench, &metric(json!({ "metric": "pose" })), &ports).unwrap_err();
    insta::assert_snapshot!(error, @"the metric `pose` takes one attempt, but has 2");
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
    let refused = |params: Value, ports: &[(&str, ArtifactKind, &[Item])]| {
        run(&bench, &metric(params), ports).unwrap_err().to_string()
    };
    let pairs = ("pairs", ArtifactKind::Pairs, &questions[..]);
    let several = ("predictions", ArtifactKind::Frames, &of_questions[..]);
    let many = refused(json!({ "metric": "arc", "attempts": 5 }), &[several, pairs]);
    insta::assert_snapshot!(many, @"`attempts` is 5, but there are 4 to be made");
    let one = [prediction(&bench, "q", &render(&grid(4), 190))];
    let ports = [
        ("predictions", ArtifactKind::Frames, &one[..]),
        ("second", ArtifactKind::Frames, &of_questions[..]),
        pairs,
    ];
    let second = refused(json!({ "metric": "arc" }), &ports);
    insta::assert_snapshot!(second, @"`second` holds several checkpoints, so it is not one attempt");
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
