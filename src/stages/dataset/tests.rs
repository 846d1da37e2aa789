//! Pairs of every data set and task, and what is refused.

use image::RgbImage;
use serde_json::{Value, json};

use super::*;
use crate::{artifact::pairs::Pair, stages::support::Bench};

/// The pairs a stage makes, by name.
fn pairs(params: Value) -> Result<Vec<(String, Pair)>, StageError> {
    let stage: Dataset = serde_json::from_value(params).unwrap();
    assert!(stage.validate().is_empty());
    let bench = Bench::new();
    let inputs = bench.inputs(&[]);
    let items = bench.run(&stage, &inputs)?;
    items.iter().map(|item| Ok((item.name.clone(), Pair::read(&inputs, item)?))).collect()
}

fn names(params: Value) -> Vec<String> {
    pairs(params).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn figures_of_splits_and_subsets_differ() {
    let figures = |split: &str, subset: usize| {
        json!({ "source": "builtin:figures", "task": "pose", "split": split, "count": 3,
                "subset": subset, "size": [64, 64], "seed": 42 })
    };
    let train = pairs(figures("train", 0)).unwrap();
    assert_eq!(train.len(), 3);
    for (name, pair) in &train {
        assert!(pair.target.pixels().any(|p| p.0 == [0, 0, 255]), "{name} shows no torso");
        assert_eq!(pair.meta.source_id, *name);
    }
    let test = pairs(figures("test", 0)).unwrap();
    assert!(train.iter().zip(&test).all(|(a, b)| a.1.input != b.1.input));
    assert!(names(figures("train", 1)).iter().all(|n| train.iter().all(|(m, _)| m != n)));
    let again = pairs(figures("train", 0)).unwrap();
    assert!(train.iter().zip(&again).all(|(a, b)| a.1.input == b.1.input));
}

#[test]
fn the_mask_of_figures_is_the_segmentation_target() {
    let found = pairs(json!({
        "source": "builtin:figures", "task": "segmentation", "count": 2, "size": [64, 64],
    }))
    .unwrap();
    for (_, Pair { target, mask, .. }) in found {
        let mask = mask.unwrap();
        assert!(target.pixels().zip(mask.pixels()).all(|(t, m)| t.0 == [m.0[0]; 3]));
    }
}

#[test]
fn a_folder_of_pairs_is_read_and_its_targets_follow_their_inputs() {
    let root = tempfile::tempdir().unwrap();
    for (folder, side) in [("input", 20), ("target", 40)] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
        for name in ["a", "b", "c"] {
            let image = RgbImage::from_fn(side, side, |x, _| {
                image::Rgb(if x < side / 2 { [250; 3] } else { [10; 3] })
            });
            image.save(root.path().join(format!("{folder}/{name}.png"))).unwrap();
        }
    }
    let source = json!({ "source": "folder", "root": root.path() });
    let found = pairs(json!({ "source": source, "task": "pairs", "size": [10, 10] })).unwrap();
    assert_eq!(found.len(), 2, "one of three is kept for tests");
    assert!(found.iter().all(|(_, pair)| pair.input == pair.target));
    let plain = json!({ "source": "folder", "root": root.path().join("input") });
    assert_eq!(
        names(json!({ "source": plain, "task": "images", "size": [8, 8], "count": 2 })).len(),
        2
    );
    let error = pairs(json!({ "source": source, "task": "pairs", "size": [10, 10], "count": 4 }))
        .unwrap_err();
    assert_eq!(error.to_string(), "subset 0 of 4 needs 4 images, but the data has 2");
}

#[test]
fn another_holdout_seed_keeps_other_images_and_its_default_is_in_no_key() {
    let root = tempfile::tempdir().unwrap();
    for name in 'a'..='j' {
        RgbImage::new(8, 8).save(root.path().join(format!("{name}.png"))).unwrap();
    }
    let part = |split: &str, seed: u64| {
        let source = json!({ "source": "folder", "root": root.path() });
        let mut found = names(json!({
            "source": source, "task": "images", "size": [8, 8], "split": split, "holdout_seed": seed,
        }));
        found.sort_unstable();
        found
    };
    assert_ne!(part("test", 0), part("test", 1));
    for seed in [0, 1] {
        let (train, test) = (part("train", seed), part("test", seed));
        assert_eq!((train.len(), test.len()), (8, 2));
        assert!(test.iter().all(|name| !train.contains(name)), "{train:?} {test:?}");
    }
    let params = |seed: u64| {
        let stage: Dataset = serde_json::from_value(json!({
            "source": "builtin:figures", "task": "pose", "size": [8, 8], "holdout_seed": seed,
        }))
        .unwrap();
        serde_json::to_value(&stage).unwrap()
    };
    assert_eq!((params(0).get("holdout_seed"), &params(3)["holdout_seed"]), (None, &json!(3)));
}

#[test]
fn a_missing_root_is_the_machines_fault() {
    let source = json!({ "source": "coco", "root": "no/such/folder" });
    let error = pairs(json!({ "source": source, "task": "pose", "size": [64, 64] })).unwrap_err();
    let StageError::Environment { message, help } = error else { panic!("{error}") };
    assert!(message.contains("person_keypoints_train2017.json"), "{message}");
    assert!(help.is_some());
}

#[test]
fn clips_of_the_world_are_videos() {
    let stage: Dataset = serde_json::from_value(json!({
        "source": "builtin:figures", "task": "world", "count": 2, "size": [32, 32], "frames": 5,
    }))
    .unwrap();
    assert_eq!(stage.output(), Some(ArtifactKind::Videos));
    let bench = Bench::new();
    let inputs = bench.inputs(&[]);
    let items = bench.run(&stage, &inputs).unwrap();
    assert_eq!(items.len(), 2);
    let bytes = inputs.read(&items[1], videos::FILE).unwrap();
    assert_eq!(videos::Clip::from_bytes(&bytes).unwrap().size, [5, 32, 32]);
}

fn problems(params: Value) -> Vec<String> {
    let stage: Dataset = serde_json::from_value(params).unwrap();
    stage.validate().into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

#[test]
fn whole_parameters_have_no_problem() {
    let figures =
        json!({ "source": "builtin:figures", "task": "pose", "count": 3, "size": [64, 64] });
    assert_eq!(problems(figures), [""; 0]);
    let arc = json!({
        "source": { "source": "arc", "root": "d", "set": "training", "task": 7 },
        "task": "arc", "split": "test", "size": [480, 480],
    });
    assert_eq!(problems(arc), [""; 0]);
}

#[test]
fn each_broken_rule_is_named() {
    let wrong = json!({
        "source": { "source": "arc" }, "task": "pose", "count": 0, "size": [63, 64], "min_share": 2,
    });
    insta::assert_snapshot!(problems(wrong).join("\n"), @r"
    size: sides must be even, 8 to 4096, but are [63, 64]
    count: must be at least 1, but is 0
    min_share: must be 0 to 1, but is 2
    source: this data set needs `root`
    source: ARC data needs `set` and `task`
    size: an ARC canvas is square, but `size` is [63, 64]
    task: `arc` does not offer the task `pose`
    ");
    let world =
        json!({ "source": "builtin:figures", "task": "world", "size": [64, 64], "frames": 8 });
    insta::assert_snapshot!(problems(world).join("\n"), @r"
    count: the procedural world has no end, so `count` must be given
    frames: must be 4k + 1, but is 8
    ");
}

#[test]
fn the_defaults_are_written_out() {
    let stage: Dataset = serde_json::from_value(
        json!({ "source": "builtin:figures", "task": "pose", "size": [64, 64] }),
    )
    .unwrap();
    let params = serde_json::to_value(&stage).unwrap();
    let again: Dataset = serde_json::from_value(params.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), params);
    assert_eq!(params["source"]["source"], "builtin:figures");
}
