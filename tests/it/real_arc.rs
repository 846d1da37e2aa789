//! Tasks of ARC-AGI and `ConceptARC`: rendered, read off and scored.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use image::RgbImage;
use pipe::{
    data::{
        arc::{self, ArcGrids, Example, Grid},
        resize::resize_image,
    },
    metrics::arc as arc_metric,
};
use rayon::prelude::*;
use serde_json::json;

use crate::real_data::{data, pairs, sheet};

/// The task files of a set, by name.
fn tasks(root: &Path, set: &str) -> Vec<(String, arc::Task)> {
    let mut paths: Vec<_> = fs::read_dir(root.join("arc/data").join(set))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let task = |path: &PathBuf| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), task(path))).collect()
}

#[test]
fn every_arc_answer_survives_rendering_resizing_and_decoding() {
    let Some(root) = data("arc") else { return };
    for set in ["training", "evaluation"] {
        let tasks = tasks(&root, set);
        assert!(tasks.len() >= 100);
        tasks.into_par_iter().for_each(|(name, task)| {
            let task = task.with_grey_rule();
            let cell = task.cell();
            assert!((11..=130).contains(&cell), "{name}: {cell}");
            for Example { input, output } in task.train.iter().chain(&task.test) {
                let image = resize_image(&arc::render(output, cell), [480, 480]);
                let grids = ArcGrids {
                    task: name.clone(),
                    input: input.clone(),
                    output: output.clone(),
                    cell,
                };
                let score = arc_metric::score(&[image], &grids, arc_metric::ArcRule::default());
                assert!(score["solved"] > 0.0, "{name}: {score:?}");
                assert_eq!(&arc::decode(&arc::render(input, cell), input.size(), cell), input);
            }
        });
    }
}

#[test]
fn an_arc_task_gives_its_examples_as_pairs() {
    let Some(root) = data("arc") else { return };
    let (name, task) = tasks(&root, "evaluation").swap_remove(0);
    for (split, examples) in [("train", &task.train), ("test", &task.test)] {
        let source =
            json!({ "source": "arc", "root": root.join("arc"), "set": "evaluation", "task": 0 });
        let found =
            pairs(json!({ "source": source, "task": "arc", "split": split, "size": [480, 480] }))
                .unwrap();
        assert_eq!(found.len(), examples.len());
        for (item, pair) in &found {
            assert!(item.starts_with(&format!("{name}-{split}-")), "{item}");
            let grids = pair.meta.arc.as_ref().unwrap();
            assert!(examples.iter().any(|e| e.input == grids.input && e.output == grids.output));
            assert!(
                arc_metric::score(
                    std::slice::from_ref(&pair.target),
                    grids,
                    arc_metric::ArcRule::default()
                )["solved"]
                    > 0.0
            );
        }
        sheet(&format!("arc_{split}"), &found);
    }
}

/// A hash of numbers, as `tests/golden/arc/make.py` has it.
fn told(values: impl IntoIterator<Item = u8>) -> u64 {
    let weighed = values.into_iter().zip(0u64..).map(|(value, at)| {
        let value = u64::from(value);
        value * (at + 1) + value * (at * at % 1_000_003)
    });
    weighed.sum()
}

fn hashed(numbers: impl IntoIterator<Item = u64>) -> u64 {
    let join = |total: u128, number| (total * 31 + u128::from(number)) % ((1 << 61) - 1);
    numbers.into_iter().fold(0, join) as u64
}

/// Colours with a gain, a shift and noise, in whole numbers.
fn spoilt(image: &RgbImage, seed: u64) -> RgbImage {
    let shift = [seed % 41, seed % 29, seed % 23].map(|n| n as i64);
    let spoil = |(value, at): (&u8, u64)| {
        let state = at + seed * 1_000_003;
        let state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let shift = shift[at as usize % 3] - [20, 14, 11][at as usize % 3];
        let gained = i64::from(*value) * (56 + seed as i64 % 17) / 64;
        (gained + shift + (state >> 58) as i64 - 32).clamp(0, 255) as u8
    };
    let values = image.as_raw().iter().zip(0..).map(spoil).collect();
    RgbImage::from_raw(image.width(), image.height(), values).unwrap()
}

/// The two hashes that `tests/golden/arc/make.py` writes.
fn hashes(task: &arc::Task, seed: u64) -> [u64; 2] {
    let cell = task.cell();
    let drawn = |grid: &Grid| arc::render(grid, cell);
    let examples = task.train.iter().chain(&task.test);
    let images = examples.flat_map(|e| [&e.input, &e.output]);
    let read = task.test.iter().map(|Example { output, .. }| {
        told(arc::decode(&spoilt(&drawn(output), seed), output.size(), cell).values())
    });
    [hashed(images.map(|grid| told(drawn(grid).into_raw()))), hashed(read)]
}

#[test]
fn every_task_is_drawn_and_read_as_the_rule_says() {
    let Some(root) = data("arc") else { return };
    let expected: BTreeMap<String, (u64, u64, u64)> =
        serde_json::from_str(include_str!("../golden/arc/expected.json")).unwrap();
    let compared: Vec<&String> = expected
        .par_iter()
        .filter(|(path, _)| root.join(path).exists())
        .map(|(path, (seed, images, read))| {
            let bytes = fs::read(root.join(path)).unwrap();
            let task: arc::Task = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(hashes(&task.with_grey_rule(), *seed), [*images, *read], "{path}");
            path
        })
        .collect();
    assert!(compared.len() >= 500, "{} tasks", compared.len());
}
