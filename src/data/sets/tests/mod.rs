//! Every data set from a small copy of its layout, and what is said of broken ones.

mod passed_over;

use std::path::Path;

use image::{DynamicImage, ImageBuffer, Luma, RgbImage};
use serde_json::{Value, json};

use super::*;
use crate::data::Pair;

pub(super) fn save(root: &Path, path: &str, image: impl Into<DynamicImage>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

pub(super) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

pub(super) fn photo(shade: u8) -> RgbImage {
    RgbImage::from_pixel(16, 16, image::Rgb([shade, 90, 30]))
}

pub(super) fn grey(width: u32, height: u32, value: u8) -> image::GrayImage {
    image::GrayImage::from_pixel(width, height, Luma([value]))
}

pub(super) fn grey16(width: u32, height: u32, value: u16) -> ImageBuffer<Luma<u16>, Vec<u16>> {
    ImageBuffer::from_pixel(width, height, Luma([value]))
}

/// The pairs of a set on disk; `more` holds further parameters.
pub(super) fn pairs(
    root: &Path,
    source: &str,
    task: &str,
    more: &Value,
) -> Result<Vec<(String, Pair)>, String> {
    let mut request = json!({
        "source": { "source": source, "root": root }, "task": task, "size": [16, 16],
    });
    for (key, value) in more.as_object().unwrap() {
        if let Some(inner) = key.strip_prefix("source.") {
            request["source"][inner] = value.clone();
        } else {
            request[key] = value.clone();
        }
    }
    let request: Request = serde_json::from_value(request).unwrap();
    let problems: Vec<_> = request.validate().into_iter().map(|p| p.message).collect();
    assert_eq!(problems, [""; 0]);
    let sources = SourceReader::new(root);
    let run = || -> Result<Vec<_>, DataError> {
        let images = request.source.source.open(&request, &sources)?;
        let chosen = request.choose(request.task.count(&*images))?;
        chosen.into_iter().map(|place| request.task.pair(&*images, place, &request)).collect()
    };
    run().map_err(|e| e.to_string())
}

pub(super) fn names(found: &[(String, Pair)]) -> Vec<&str> {
    let mut names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_set_has_a_name_of_its_own_and_some_task() {
    let mut seen = std::collections::BTreeSet::new();
    for set in SETS {
        assert!(seen.insert(set.name()));
        assert!(!crate::data::tasks::names_for(set.offers()).is_empty(), "{}", set.name());
    }
}

#[test]
fn what_is_not_divided_is_divided_without_a_leak() {
    let root = tempfile::tempdir().unwrap();
    for subject in ["cat", "dog"] {
        for shot in 0..5 {
            save(root.path(), &format!("dataset/{subject}/{shot:02}.jpg"), photo(shot * 20));
        }
    }
    let part = |split: &str, holdout: f64| {
        let more = json!({ "split": split, "holdout": holdout });
        pairs(root.path(), "dreambooth", "images", &more)
    };
    let (train, test) = (part("train", 0.3).unwrap(), part("test", 0.3).unwrap());
    assert_eq!((train.len(), test.len()), (7, 3));
    assert!(names(&test).iter().all(|name| !names(&train).contains(name)));
    assert_eq!(part("train", 0.0).unwrap().len(), 10);
    assert!(part("test", 0.0).is_err());
    let one = pairs(root.path(), "dreambooth", "images", &json!({ "source.set": "dog" })).unwrap();
    assert!(names(&one).iter().all(|name| name.starts_with("dog-")));
    let error = pairs(root.path(), "dreambooth", "images", &json!({ "source.set": "cow" }));
    assert_eq!(error.unwrap_err(), "`dataset` has no subject `cow`");
}

#[test]
fn subjects_of_dreambooth_are_kept_whole_if_asked_for() {
    let root = tempfile::tempdir().unwrap();
    for (subject, shots) in [("cat", 2), ("cup", 4), ("dog", 3), ("toy", 9)] {
        for shot in 0..shots {
            save(root.path(), &format!("dataset/{subject}/{shot:02}.jpg"), photo(shot * 20));
        }
    }
    let subjects = |split: &str, holdout: f64| {
        let more = json!({ "split": split, "holdout": holdout, "holdout_by": "subject" });
        let found = pairs(root.path(), "dreambooth", "images", &more).unwrap();
        let subject = |name: &str| name.split('-').next().unwrap().to_owned();
        let subjects: Vec<_> = names(&found).into_iter().map(subject).collect();
        (subjects.len(), subjects.into_iter().collect::<std::collections::BTreeSet<_>>())
    };
    for holdout in [0.01, 0.2, 0.5, 0.9] {
        let ((learnt, train), (asked, test)) =
            (subjects("train", holdout), subjects("test", holdout));
        assert!(train.is_disjoint(&test), "{train:?} {test:?}");
        assert_eq!(learnt + asked, 18);
        assert!(asked <= ((18.0 * holdout).round() as usize).max(2), "{holdout}: {asked}");
    }
    let one = json!({ "source.set": "dog", "holdout_by": "subject" });
    let error = pairs(root.path(), "dreambooth", "images", &one).unwrap_err();
    insta::assert_snapshot!(error, @r#"`holdout_by = "subject"` needs two subjects, but there is one"#);
}

#[test]
fn pictures_that_would_have_one_name_are_an_error_that_names_both() {
    let fail = |source: &str, task: &str, files: &[&str]| {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            if let Some(stem) = file.strip_suffix(".json") {
                let object = json!([{ "name": "sky", "name_ndx": 1 }]);
                write(
                    root.path(),
                    file,
                    &json!({ "annotation": { "object": object } }).to_string(),
                );
                save(root.path(), &format!("{stem}.jpg"), photo(9));
                let coded = RgbImage::from_pixel(16, 16, image::Rgb([0, 1, 0]));
                save(root.path(), &format!("{stem}_seg.png"), coded);
            } else if file.contains("/depth/") {
                save(root.path(), file, grey16(16, 16, 8000));
            } else {
                save(root.path(), file, photo(9));
            }
        }
        pairs(root.path(), source, task, &json!({ "holdout": 0.0 })).unwrap_err()
    };
    let error = fail("dreambooth", "images", &["dataset/dog/00.jpg", "dataset/dog/00.png"]);
    insta::assert_snapshot!(error, @"`dataset/dog/00.jpg` and `dataset/dog/00.png` would both be called `dog-00`");
    let error = fail("dreambooth", "images", &["dataset/a-b/c.jpg", "dataset/a/b-c.jpg"]);
    insta::assert_snapshot!(error, @"`dataset/a-b/c.jpg` and `dataset/a/b-c.jpg` would both be called `a-b-c`");
    let files = ["images/ADE/training/a/p1.json", "images/ADE/training/b/p1.json"];
    let error = fail("ade20k", "scene", &files);
    insta::assert_snapshot!(error, @"`images/ADE/training/a/p1.jpg` and `images/ADE/training/b/p1.jpg` would both be called `p1`");
    let files =
        ["a-b/c/image/1.jpg", "a-b/c/depth/1.png", "a/b-c/image/1.jpg", "a/b-c/depth/1.png"];
    let error = fail("rgbd", "depth", &files);
    insta::assert_snapshot!(error, @"`a-b/c/image/1.jpg` and `a/b-c/image/1.jpg` would both be called `a-b-c`");
}

fn tiny_imagenet(root: &Path) {
    write(root, "wnids.txt", "n1\nn2\nn3\n");
    write(root, "words.txt", "n1\tgoldfish, Carassius\nn2\tlion\nn3\tpizza, pizza pie\n");
    for (class, shade) in [("n1", 10), ("n2", 90), ("n3", 170)] {
        for shot in 0..3 {
            save(root, &format!("train/{class}/images/{class}_{shot}.png"), photo(shade));
        }
        save(root, &format!("val/images/val_{class}.png"), photo(shade));
    }
    write(
        root,
        "val/val_annotations.txt",
        "val_n1.png\tn1\t0\t0\nval_n3.png\tn3\t0\t0\nval_n2.png\tn2\n",
    );
}

#[test]
fn tiny_imagenet_gives_grids_of_its_classes() {
    let root = tempfile::tempdir().unwrap();
    tiny_imagenet(root.path());
    let symbols = json!({ "classes": ["pizza", "n1"], "side": 2, "per_class": 1 });
    for split in ["train", "test"] {
        let more = json!({ "split": split, "count": 4, "symbols": symbols });
        let found = pairs(root.path(), "tiny_imagenet", "symbols", &more).unwrap();
        assert_eq!(found.len(), 4);
        let mut shown = std::collections::BTreeSet::new();
        for (_, pair) in found {
            let grid = pair.meta.symbols.unwrap();
            assert_eq!(grid.classes, ["pizza", "goldfish"]);
            for (cell, class) in grid.cells.iter().enumerate() {
                let pixel = pair.input.get_pixel(cell as u32 % 2 * 8 + 4, cell as u32 / 2 * 8 + 4);
                assert_eq!(pixel.0[0], [170, 10][*class]);
                shown.insert(*class);
            }
        }
        assert_eq!(shown.len(), 2);
    }
    let fail = |symbols: Value| {
        let more = json!({ "count": 1, "symbols": symbols });
        pairs(root.path(), "tiny_imagenet", "symbols", &more).unwrap_err()
    };
    let classes = json!({ "classes": ["pizza", "cow"], "side": 2 });
    insta::assert_snapshot!(fail(classes), @"the data has no class `cow`");
    let twice = json!({ "classes": ["n1", "goldfish"], "side": 2 });
    insta::assert_snapshot!(fail(twice), @"`symbols.classes` names `n1` twice, again at place 1");
    write(root.path(), "wnids.txt", "n1\n\nn2\nn3\n \n");
    let blank = json!({ "count": 1, "symbols": { "side": 2 } });
    assert!(pairs(root.path(), "tiny_imagenet", "symbols", &blank).is_ok());
    write(root.path(), "words.txt", "n1\tcrane, bird\nn2\tcrane\nn3\tpizza, pizza pie\n");
    let crane = json!({ "classes": ["crane", "pizza"], "side": 2 });
    insta::assert_snapshot!(fail(crane), @"both `n1` and `n2` are called `crane`");
    let many = json!({ "classes": ["pizza", "n1"], "side": 2, "per_class": 9 });
    insta::assert_snapshot!(fail(many), @"class `n3` has 3 images, but 9 are wanted");
    write(root.path(), "val/val_annotations.txt", "val_n1.png n1\n");
    let more = json!({ "split": "test", "count": 1, "symbols": { "side": 2 } });
    let error = pairs(root.path(), "tiny_imagenet", "symbols", &more).unwrap_err();
    insta::assert_snapshot!(error, @"line 1 of `val/val_annotations.txt` must be a file and a class, divided by tabs");
    write(root.path(), "val/val_annotations.txt", "val_1.png\tn1\t0\nval_2.png\tn9\t0\n");
    let error = pairs(root.path(), "tiny_imagenet", "symbols", &more).unwrap_err();
    insta::assert_snapshot!(error, @"line 2 of `val/val_annotations.txt` names the class `n9`, which is not in `wnids.txt`");
}

#[test]
fn a_grid_says_which_image_is_in_each_cell() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "wnids.txt", "n1\nn2\n");
    write(root, "val/val_annotations.txt", "");
    // Each image has a shade of its own, which its name tells.
    for shade in 0..10u8 {
        let class = if shade < 5 { "n1" } else { "n2" };
        save(root, &format!("train/{class}/images/{class}_{}.png", shade * 20), photo(shade * 20));
    }
    let more = json!({ "count": 3, "symbols": { "side": 2 } });
    let found = pairs(root, "tiny_imagenet", "symbols", &more).unwrap();
    for (name, pair) in &found {
        let ids = pair.meta.image_ids();
        assert_eq!(ids.len(), 4, "{name}");
        for (cell, id) in (0u32..).zip(ids) {
            let shade = pair.input.get_pixel(cell % 2 * 8 + 4, cell / 2 * 8 + 4).0[0];
            assert_eq!(id.rsplit('_').next().unwrap(), shade.to_string(), "{name}: {id}");
        }
    }
    assert_eq!(found[0].1.meta.source_id, "grid-000000");
    let again = pairs(root, "tiny_imagenet", "symbols", &more).unwrap();
    assert_eq!(again[2].1.meta.symbols, found[2].1.meta.symbols);
}

#[test]
fn pairs_of_two_shapes_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "input/a.png", RgbImage::new(64, 48));
    let more = json!({ "holdout": 0.0 });
    save(root, "target/a.png", RgbImage::new(32, 24));
    assert_eq!(pairs(root, "folder", "pairs", &more).unwrap().len(), 1);
    save(root, "target/a.png", RgbImage::new(10, 200));
    let error = pairs(root, "folder", "pairs", &more).unwrap_err();
    insta::assert_snapshot!(error, @"`input/a.png` is 64x48, but `target/a.png` is 10x200: they differ in shape");
}

#[test]
fn what_leaves_a_split_without_examples_is_told() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["input", "target"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let run = |split: &str, holdout: f64| {
        let more = json!({ "split": split, "holdout": holdout });
        let found = pairs(root, "folder", "pairs", &more);
        found.map(|found| names(&found).join(" "))
    };
    assert_eq!(run("train", 0.2), Err("there are no pictures in `input` and `target`".into()));
    for name in ["input/a.png", "target/a.png"] {
        save(root, name, photo(20));
    }
    let error = run("test", 0.2).unwrap_err();
    insta::assert_snapshot!(error, @"the data holds 1 example, but `train` and `test` need 2");
    assert_eq!((run("train", 0.2), run("test", 1.0)), (Ok("a".into()), Ok("a".into())));
    for name in ["input/b.png", "target/b.png"] {
        save(root, name, photo(20));
    }
    let error = run("test", 0.0).unwrap_err();
    insta::assert_snapshot!(error, @r#"with `holdout` = 0, none of the 2 examples of the data is left for `split` = "test""#);
    let root = tempfile::tempdir().unwrap();
    let error = pairs(root.path(), "folder", "images", &json!({})).unwrap_err();
    assert_eq!(error, "there are no pictures in the folder");
}

#[test]
fn boundaries_count_by_the_people_who_drew_them() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "images/train/7.png", photo(20));
    let line =
        |at: u32| image::GrayImage::from_fn(16, 16, |x, _| Luma([if x == at { 255 } else { 0 }]));
    save(root, "boundaries_png/train/7_1.png", line(3));
    save(root, "boundaries_png/train/7_2.png", line(3));
    save(root, "boundaries_png/train/7_3.png", line(9));
    let white = |least: usize| {
        let more = json!({ "boundaries": { "min_annotators": least } });
        let found = pairs(root, "bsds500", "boundaries", &more).unwrap();
        found[0].1.target.pixels().filter(|pixel| pixel.0 == [255; 3]).count()
    };
    assert_eq!((white(1), white(2), white(3)), (32, 16, 0));
    let more = json!({ "boundaries": { "min_annotators": 4 } });
    let error = pairs(root, "bsds500", "boundaries", &more).unwrap_err();
    insta::assert_snapshot!(error, @"3 people drew the boundaries of `images/train/7.png`, but `boundaries.min_annotators` is 4, so nothing could be one");
    save(root, "boundaries_png/train/9_1.png", line(3));
    let error = pairs(root, "bsds500", "boundaries", &json!({})).unwrap_err();
    assert_eq!(error, "`boundaries_png/train/9_1.png` has no photograph");
    save(root, "images/train/8.png", photo(20));
    let error = pairs(root, "bsds500", "boundaries", &json!({})).unwrap_err();
    assert_eq!(error, "`images/train/8.png` has no boundaries");
}

#[test]
fn black_answers_of_concept_arc_are_grey_and_those_of_arc_are_not() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let black = |rows: usize| vec![[0]; rows];
    let example = |rows: usize| json!({ "input": [[3, 3]], "output": black(rows) });
    let task = json!({ "train": [example(1), example(4)], "test": [example(2)] });
    write(root, "corpus/Count/Count9.json", &task.to_string());
    write(root, "data/training/0a1b2c3d.json", &task.to_string());
    for (set, rule, value) in [
        ("corpus/Count", "auto", 5),
        ("corpus/Count", "off", 0),
        ("training", "auto", 0),
        ("training", "on", 5),
    ] {
        let more = json!({
            "source.set": set, "source.task": 0, "grey_rule": rule, "split": "test",
        });
        let found = pairs(root, "arc", "arc", &more).unwrap();
        let output = &found[0].1.meta.arc.as_ref().unwrap().output;
        assert!(output.values().all(|found| found == value), "{set} {rule}");
    }
}

#[test]
fn a_table_names_its_images() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["in/a", "in/b", "out/a", "out/b"] {
        save(root, &format!("{name}.png"), photo(20));
    }
    let run = |text: &str, split: &str| {
        write(root, "pairs.csv", text);
        let more = json!({ "source.set": "pairs.csv", "split": split });
        pairs(root, "table", "pairs", &more)
    };
    let whole = "input,target,split\nin/a.png,out/a.png,train\nin/b.png,out/b.png,test\n";
    assert_eq!(names(&run(whole, "train").unwrap()), ["in-a"]);
    assert_eq!(names(&run(whole, "test").unwrap()), ["in-b"]);
    let fail = |text: &str| run(text, "train").unwrap_err();
    insta::assert_snapshot!(fail("input,target\n"), @"`pairs.csv` has no rows");
    insta::assert_snapshot!(fail("picture\nin/a.png\n"), @"`pairs.csv`: CSV deserialize error: record 1 (line: 2, byte: 8): missing field `input`");
    insta::assert_snapshot!(fail("input,target\nin/a.png,\n"), @"line 2 of `pairs.csv`: there is no `target`");
    insta::assert_snapshot!(fail("input,target\n../a.png,out/a.png\n"), @"line 2 of `pairs.csv`: `../a.png` is not below `root`");
    insta::assert_snapshot!(
        fail("input,target,split\nin/a.png,out/a.png,train\nin/a.png,out/b.png,test\n"),
        @"line 3 of `pairs.csv`: `in/a.png` is in the other split on line 2"
    );
    insta::assert_snapshot!(
        fail("input,target,split\nin/a.png,out/a.png,val\n"),
        @"line 2 of `pairs.csv`: `split` must be train or test, but is `val`"
    );
    insta::assert_snapshot!(
        fail("input,target,split\nin/a.png,out/a.png,train\nin/b.png,out/b.png,\n"),
        @"line 3 of `pairs.csv`: there is no `split`, but line 2 has one"
    );
    insta::assert_snapshot!(
        fail("input,target,split\nin/a.png,out/a.png,train\n./in//a.png,out/b.png,test\n"),
        @"line 3 of `pairs.csv`: `in/a.png` is in the other split on line 2"
    );
    // Without a split, the rows of a picture stay together.
    let mut rows = String::from("name,input,target\n");
    rows.extend((0..6).map(|place| format!("a{place},in/a.png,out/a.png\n")));
    insta::assert_snapshot!(fail(&rows), @"all 6 rows of `pairs.csv` show one picture, so it cannot be divided");
    rows += "b,in/b.png,out/b.png\n";
    assert_eq!(names(&run(&rows, "train").unwrap()), ["a0", "a1", "a2", "a3", "a4", "a5"]);
    assert_eq!(names(&run(&rows, "test").unwrap()), ["b"]);
    let error = fail("input,target,split\nin/none.png,out/a.png,train\n");
    assert!(error.contains("in/none.png"), "{error}");
}
