//! The other data sets, real files in their published layouts; skipped like `real_data`.

use std::path::Path;

use pipe::{artifact::pairs::Pair, data::tasks::depth::is_known};
use serde_json::{Value, json};

use crate::real_data::{data, pairs, sheet};

/// The pairs of a set below the folder of real data.
fn read(root: &Path, folder: &str, source: &Value, more: &Value) -> Vec<(String, Pair)> {
    let mut source = source.clone();
    source["root"] = json!(root.join(folder));
    let mut request = json!({ "source": source, "size": [96, 128] });
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    pairs(request).unwrap()
}

#[test]
fn photographs_of_dreambooth_are_divided_without_a_leak() {
    let Some(root) = data("dreambooth") else { return };
    let part = |split: &str| {
        let more = json!({ "task": "images", "split": split, "seed": 1 });
        read(&root, "dreambooth", &json!({ "source": "dreambooth" }), &more)
    };
    let (train, test) = (part("train"), part("test"));
    assert_eq!((train.len(), test.len()), (32, 8));
    assert!(test.iter().all(|(name, _)| train.iter().all(|(other, _)| name != other)));
    sheet("dreambooth", &train);
}

#[test]
fn grids_of_tiny_imagenet_show_their_classes() {
    let Some(root) = data("tiny-imagenet-200") else { return };
    for (split, per_class) in [("train", 80), ("test", 20)] {
        let more = json!({
            "task": "symbols", "split": split, "count": 4, "size": [256, 256],
            "symbols": { "per_class": per_class, "classes": ["goldfish", "koala", "n02123394", "lion", "basketball", "go-kart", "pizza"] },
        });
        let found = read(&root, "tiny-imagenet-200", &json!({ "source": "tiny_imagenet" }), &more);
        let grid = found[0].1.meta.symbols.as_ref().unwrap();
        assert_eq!((grid.classes[2].as_str(), grid.cells.len()), ("Persian cat", 16));
        sheet(&format!("symbols_{split}"), &found);
    }
}

#[test]
fn the_benchmark_of_ade20k_gives_scenes() {
    let folder = "ade20k/sceneparsing";
    let Some(root) = data(folder) else { return };
    let more = json!({ "task": "scene", "holdout": 0.0, "size": [256, 256] });
    let small = read(&root, folder, &json!({ "source": "ade20k" }), &more);
    assert_eq!((small.len(), small[0].1.meta.scene.len()), (2, 150));
    sheet("ade20k_benchmark", &small);
}

#[test]
fn the_whole_ade20k_gives_scenes_and_masks() {
    let folder = "ade20k/ADE20K_2021_17_01";
    let Some(root) = data(folder) else { return };
    let more = json!({ "task": "scene", "size": [256, 256] });
    let full = read(&root, folder, &json!({ "source": "ade20k" }), &more);
    assert_eq!(full.len(), 1);
    sheet("ade20k_full", &full);
    let class = |class: &str| {
        let source = json!({ "source": "ade20k", "root": root.join(folder) });
        pairs(
            json!({ "source": source, "task": "segmentation", "class": class, "size": [256, 256] }),
        )
    };
    let sky = class("sky").unwrap();
    assert!(sky[0].1.mask.as_ref().unwrap().iter().any(|value| *value > 0));
    // Its wheels are parts of cars.
    let error = class("wheel").unwrap_err().to_string();
    assert!(error.contains("no pixel of a `_seg.png` shows `wheel`"), "{error}");
}

#[test]
fn depths_of_three_cameras_are_read_in_metres() {
    for (folder, units, count, range) in [
        ("depth/nyu_small", 1000, 1, [0.5, 10.5]),
        ("depth/tum", 5000, 1, [0.4, 10.0]),
        ("depth/icl_rendered", 1000, 5, [0.3, 9.0]),
    ] {
        let Some(root) = data(folder) else { continue };
        let source = json!({ "source": "rgbd", "units": units });
        let more = json!({
            "task": "depth", "holdout": 0.0, "size": [240, 320],
            "depth": { "colors": "hue", "range": [0.5, 8.0] },
        });
        let found = read(&root, folder, &source, &more);
        assert_eq!(found.len(), count, "{folder}");
        for (name, pair) in &found {
            let known = pair.depth.as_ref().unwrap().iter().filter(|metres| is_known(**metres));
            let known: Vec<f32> = known.copied().collect();
            assert!(known.len() > 240 * 320 / 3, "{name}: {}", known.len());
            assert!(known.iter().all(|metres| (range[0]..range[1]).contains(metres)), "{name}");
        }
        sheet(&format!("depth_{}", folder.replace('/', "_")), &found);
    }
}

#[test]
fn boundaries_of_bsds500_are_lines() {
    let Some(root) = data("edges") else { return };
    for (split, count) in [("train", 12), ("test", 4)] {
        let more = json!({ "task": "boundaries", "split": split, "size": [320, 320] });
        let found = read(&root, "edges", &json!({ "source": "bsds500" }), &more);
        assert_eq!(found.len(), count);
        for (name, pair) in &found {
            let white = pair.target.pixels().filter(|pixel| pixel.0 == [255; 3]).count();
            let share = white as f64 / (320.0 * 320.0);
            assert!((0.005..0.25).contains(&share), "{name}: {share}");
        }
        sheet(&format!("bsds500_{split}"), &found);
    }
}

#[test]
fn the_files_of_bsds500_say_what_their_pictures_do() {
    let Some(root) = data("edges") else { return };
    let copy = tempfile::tempdir().unwrap();
    for folder in ["images/val", "boundaries_png/val"] {
        std::fs::create_dir_all(copy.path().join(folder)).unwrap();
        for file in std::fs::read_dir(root.join("edges").join(folder)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(folder).join(file.file_name())).unwrap();
        }
    }
    let source = json!({ "source": "bsds500" });
    for least in [1, 3] {
        let more = json!({
            "task": "boundaries", "split": "test", "size": [320, 320],
            "boundaries": { "min_annotators": least },
        });
        let official = read(&root, "edges", &source, &more);
        let pictures = read(copy.path(), "", &source, &more);
        assert_eq!(official.len(), 4);
        for ((name, a), (other, b)) in official.iter().zip(&pictures) {
            assert_eq!((name, &a.target), (other, &b.target));
        }
    }
}

#[test]
fn scenes_of_coco_hold_all_its_classes() {
    let Some(root) = data("coco") else { return };
    let more = json!({ "task": "scene", "size": [240, 320], "count": 12, "seed": 2 });
    let found = read(&root, "coco", &json!({ "source": "coco" }), &more);
    assert_eq!((found.len(), found[0].1.meta.scene.len()), (12, 80));
    sheet("coco_scene", &found);
}

#[test]
fn tasks_of_concept_arc_are_found_by_concept_and_place() {
    let Some(root) = data("conceptarc") else { return };
    for (place, name) in [(0, "Count1"), (1, "Count10"), (2, "Count2")] {
        let source = json!({ "source": "arc", "set": "corpus/Count", "task": place });
        let more = json!({ "task": "arc", "split": "test", "size": [480, 480] });
        let found = read(&root, "conceptarc", &source, &more);
        assert_eq!(found.len(), 3);
        assert!(found[0].0.starts_with(&format!("{name}-")), "{}", found[0].0);
    }
}

/// Pictures of every built-in task, to look at.
#[test]
fn every_builtin_task_can_be_drawn() {
    for task in ["pose", "segmentation", "scene", "depth", "symbols", "images"] {
        for (suffix, depth) in [("", "grey"), ("_hue", "hue")] {
            if task != "depth" && depth == "hue" {
                continue;
            }
            let found = pairs(json!({
                "source": "builtin:figures", "task": task, "size": [64, 64], "count": 12, "seed": 4,
                "symbols": { "side": 2 }, "depth": { "colors": depth, "range": [1.0, 8.0] },
            }))
            .unwrap();
            assert_eq!(found.len(), 12);
            sheet(&format!("builtin_{task}{suffix}"), &found);
        }
    }
}
