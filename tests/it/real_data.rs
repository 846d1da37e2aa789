//! Real photographs through the data stages.
//!
//! `PIPE_TEST_DATA` names a folder of excerpts of public data sets, which CONTRIBUTING.md lists. A
//! test whose part of it is not there says that it was skipped. `PIPE_TEST_PICTURES` names a folder
//! for contact sheets to look at.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use image::{RgbImage, imageops};
use pipe::{
    artifact::{Item, pairs::Pair},
    data::rle::Segmentation,
    metrics::pose,
    models::ModelCache,
    stages::{CancelFlag, CommandGuard, Dataset, Inputs, Output, Stage, StageContext, StageError},
    store::{SourceReader, Store},
};
use serde_json::{Value, json};

/// The folder of real data if this part of it is there; if not, says that the test is skipped.
pub fn data(part: &str) -> Option<PathBuf> {
    let Some(data) = std::env::var_os("PIPE_TEST_DATA").map(PathBuf::from) else {
        crate::support::skipped("PIPE_TEST_DATA is not set");
        return None;
    };
    if !data.join(part).exists() {
        crate::support::skipped(&format!("PIPE_TEST_DATA holds no `{part}`"));
        return None;
    }
    Some(data)
}

/// Runs a dataset stage and reads back its pairs by name.
pub fn pairs(params: Value) -> Result<Vec<(String, Pair)>, StageError> {
    let stage: Dataset = serde_json::from_value(params).unwrap();
    let problems: Vec<_> = stage.validate().into_iter().map(|e| e.message).collect();
    assert_eq!(problems, [""; 0]);
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let inputs = Inputs::new(&store, BTreeMap::new());
    let mut on_item = |_: &Item| Ok(());
    let mut out = Output::new(&store, &mut on_item);
    let sources = stage.source_root().map(SourceReader::new);
    let (device, models, cancel) =
        (burn::tensor::Device::flex(), ModelCache::default(), CancelFlag::default());
    let cx = StageContext {
        device: &device,
        models: &models,
        sources: sources.as_ref(),
        checkpoints: None,
        allow_commands: false,
        commands: &CommandGuard::default(),
        weights_hold: &|| Ok(()),
        progress: &|_| {},
        steps_made: &std::sync::atomic::AtomicU64::new(0),
        cancel: &cancel,
    };
    stage.run(&inputs, &mut out, &cx)?;
    out.into_items()
        .iter()
        .map(|item| Ok((item.name.clone(), Pair::read(&inputs, item)?)))
        .collect()
}

fn coco(root: &Path, task: &str, split: &str, size: [usize; 2]) -> Vec<(String, Pair)> {
    let source = json!({ "source": "coco", "root": root.join("coco") });
    pairs(json!({ "source": source, "task": task, "split": split, "size": size, "seed": 42 }))
        .unwrap()
}

/// Input and target of up to 12 pairs side by side.
pub fn sheet(name: &str, pairs: &[(String, Pair)]) {
    let Some(folder) = std::env::var_os("PIPE_TEST_PICTURES").map(PathBuf::from) else { return };
    let (width, height) = pairs[0].1.input.dimensions();
    let shown = &pairs[..pairs.len().min(12)];
    let columns = 2u32;
    let rows = (shown.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::new(columns * 2 * width, rows * height);
    for (index, (_, pair)) in shown.iter().enumerate() {
        let (x, y) = (index as u32 % columns * 2 * width, index as u32 / columns * height);
        imageops::replace(&mut sheet, &pair.input, i64::from(x), i64::from(y));
        imageops::replace(&mut sheet, &pair.target, i64::from(x + width), i64::from(y));
    }
    let scale = (1200 / sheet.width()).max(1);
    let large = imageops::resize(
        &sheet,
        sheet.width() * scale,
        sheet.height() * scale,
        imageops::FilterType::Nearest,
    );
    large.save(folder.join(format!("{name}.png"))).unwrap();
}

/// `tests/golden/coco/pairs.json`: what other tools make of the same annotations.
fn of_other_tools() -> Value {
    serde_json::from_str(include_str!("../golden/coco/pairs.json")).unwrap()
}

#[test]
fn every_pose_of_coco_is_drawn_where_other_tools_draw_it() {
    let Some(root) = data("coco") else { return };
    let expected = of_other_tools();
    let (mut seen, mut coloured) = (0, 0);
    for split in ["train", "test"] {
        let pairs = coco(&root, "pose", split, [480, 720]);
        assert!(pairs.len() >= 10, "{split}: {}", pairs.len());
        for (name, pair) in &pairs {
            assert_eq!(pair.input.dimensions(), (720, 480), "{name}");
            let points = &expected["pose"][image_id(name).to_string()];
            let Some(points) = points.as_array() else { continue };
            for point in points {
                let [x, y, wanted @ ..] =
                    serde_json::from_value::<[u32; 5]>(point.clone()).unwrap();
                let found = pair.target.get_pixel(x, y).0.map(u32::from);
                assert_eq!(found, wanted, "{name} at {x}, {y}");
                coloured += u32::from(wanted != [0; 3]);
            }
            seen += 1;
        }
        sheet(&format!("pose_{split}_480x720"), &pairs);
    }
    assert_eq!(seen, expected["pose"].as_object().unwrap().len());
    assert!(coloured > 500, "{coloured}");
}

#[test]
fn every_pose_target_of_coco_has_something_to_find() {
    let Some(root) = data("coco") else { return };
    for size in [[480, 720], [64, 96]] {
        for (name, pair) in &coco(&root, "pose", "test", size) {
            let rule = pose::PoseRule::default();
            let of = |answer| pose::compare(answer, &pair.target, &pair.meta.persons, rule);
            let counts = of(&pair.target);
            assert!(counts.wanted > 0, "{name} has nothing to find");
            assert_eq!((counts.matched, counts.predicted), (counts.wanted, counts.wanted));
            assert_eq!(of(&RgbImage::new(size[1] as u32, size[0] as u32)).matched, 0, "{name}");
        }
    }
}

fn image_id(name: &str) -> u64 {
    name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[test]
fn segmentation_targets_are_the_masks_that_other_tools_make() {
    let Some(root) = data("coco") else { return };
    let expected = of_other_tools();
    let mut seen = 0;
    for split in ["train", "test"] {
        let pairs = coco(&root, "segmentation", split, [480, 720]);
        for (name, pair) in &pairs {
            let wanted = &expected["segmentation"][image_id(name).to_string()];
            let white = image::GrayImage::from_fn(720, 480, |x, y| {
                image::Luma([if pair.target.get_pixel(x, y).0 == [255; 3] { 255 } else { 0 }])
            });
            assert_eq!(json!(digest(&white)), *wanted, "{name}");
            assert_eq!(pair.mask.as_ref(), Some(&white), "{name}");
            assert!(pair.target.pixels().all(|p| [[0; 3], [255; 3]].contains(&p.0)), "{name}");
        }
        seen += pairs.len();
        sheet(&format!("segmentation_{split}"), &pairs);
    }
    assert_eq!(seen, expected["segmentation"].as_object().unwrap().len());
}

/// Needs no data: the fixture has them.
#[test]
fn masks_as_pycocotools_compresses_them_are_read() {
    let expected = of_other_tools();
    let runs = expected["runs"].as_array().unwrap();
    assert!(runs.len() > 20, "{}", runs.len());
    for run in runs {
        let [height, width] = serde_json::from_value(run["size"].clone()).unwrap();
        let mut mask = image::GrayImage::new(width, height);
        let segmentation: Segmentation =
            serde_json::from_value(json!({ "size": run["size"], "counts": run["counts"] }))
                .unwrap();
        segmentation.draw(&mut mask).unwrap();
        assert_eq!(json!(digest(&mask)), run["told"], "{}", run["counts"]);
    }
}

/// The lights of some photographs lie in the rows that the crop takes away.
#[test]
fn a_class_that_the_crop_takes_away_is_not_asked_for() {
    let Some(root) = data("coco") else { return };
    let source = json!({ "source": "coco", "root": root.join("coco") });
    let lights = |size: [usize; 2]| {
        let found = pairs(json!({
            "source": source, "task": "segmentation", "class": "traffic light", "split": "test",
            "size": size,
        }))
        .unwrap();
        for (name, pair) in &found {
            assert!(pair.mask.as_ref().unwrap().iter().any(|value| *value > 0), "{name}");
        }
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let cut = "000000460229".to_owned();
    assert!(!lights([480, 720]).contains(&cut) && lights([640, 384]).contains(&cut));
}

#[test]
fn polygons_cover_their_annotated_area() {
    let Some(root) = data("coco") else { return };
    let mut ratios = Vec::new();
    for split in ["train", "val"] {
        let path = root.join(format!("coco/annotations/instances_{split}2017.json"));
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for annotation in file["annotations"].as_array().unwrap() {
            let image = file["images"]
                .as_array()
                .unwrap()
                .iter()
                .find(|image| image["id"] == annotation["image_id"])
                .unwrap();
            let side = |name: &str| image[name].as_u64().unwrap() as u32;
            let mut mask = image::GrayImage::new(side("width"), side("height"));
            let segmentation: Segmentation =
                serde_json::from_value(annotation["segmentation"].clone()).unwrap();
            segmentation.draw(&mut mask).unwrap();
            let area = annotation["area"].as_f64().unwrap();
            if annotation["iscrowd"] == 0 && area > 400.0 {
                let set = mask.pixels().filter(|pixel| pixel.0[0] > 0).count();
                ratios.push(set as f64 / area);
            }
        }
    }
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[(share * ratios.len() as f64) as usize];
    assert!((at(0.5) - 1.0).abs() < 0.002, "median {}", at(0.5));
    assert!(at(0.05) > 0.98 && at(0.95) < 1.02, "5 % {}, 95 % {}", at(0.05), at(0.95));
}

/// What `tests/golden/coco/make.py` tells of a mask.
fn digest(mask: &image::GrayImage) -> [u64; 3] {
    let set = mask.iter().zip(0u64..).filter(|(value, _)| **value > 0).map(|(_, place)| place);
    set.fold([0; 3], |[count, sum, squares], at| {
        [count + 1, sum + at, squares + at * at % 1_000_003]
    })
}

#[test]
fn every_mask_of_coco_is_that_of_its_own_tools() {
    let Some(root) = data("coco") else { return };
    let expected: BTreeMap<String, [u64; 3]> =
        serde_json::from_str(include_str!("../golden/coco/expected.json")).unwrap();
    let mut compared = 0;
    for split in ["train", "val"] {
        let path = root.join(format!("coco/annotations/instances_{split}2017.json"));
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let sizes: BTreeMap<u64, [u32; 2]> = file["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|image| {
                let side = |name: &str| image[name].as_u64().unwrap() as u32;
                (image["id"].as_u64().unwrap(), [side("width"), side("height")])
            })
            .collect();
        for annotation in file["annotations"].as_array().unwrap() {
            let [width, height] = sizes[&annotation["image_id"].as_u64().unwrap()];
            let mut mask = image::GrayImage::new(width, height);
            let segmentation: Segmentation =
                serde_json::from_value(annotation["segmentation"].clone()).unwrap();
            segmentation.draw(&mut mask).unwrap();
            let id = annotation["id"].to_string();
            let wanted = expected.get(&id);
            assert_eq!(Some(&digest(&mask)), wanted, "annotation {id}");
            compared += 1;
        }
    }
    assert_eq!(compared, expected.len());
    assert!(compared > 1000, "{compared}");
}

#[test]
fn more_images_than_there_are_is_an_error_with_their_number() {
    let Some(root) = data("coco") else { return };
    let source = json!({ "source": "coco", "root": root.join("coco") });
    let there = coco(&root, "pose", "train", [64, 96]).len();
    let error = pairs(json!({
        "source": source, "task": "pose", "size": [64, 96], "count": 10, "subset": 9,
    }))
    .unwrap_err();
    let wanted = format!("subset 9 of 10 needs 100 images, but the data has {there}");
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn a_truncated_photograph_is_named() {
    let Some(root) = data("coco") else { return };
    let copy = tempfile::tempdir().unwrap();
    let source = json!({ "source": "coco", "root": copy.path() });
    fs::create_dir(copy.path().join("annotations")).unwrap();
    fs::create_dir(copy.path().join("train2017")).unwrap();
    let annotations = "annotations/person_keypoints_train2017.json";
    fs::copy(root.join("coco").join(annotations), copy.path().join(annotations)).unwrap();
    for file in fs::read_dir(root.join("coco/train2017")).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let cut = copy.path().join("train2017").join(path.file_name().unwrap());
        fs::write(cut, &bytes[..bytes.len() * 2 / 3]).unwrap();
    }
    let error = pairs(json!({ "source": source, "task": "pose", "size": [64, 96], "count": 1 }))
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("train2017/") && text.contains("is not a whole image"), "{text}");
}
