//! Every data set from a small copy of its layout, and what is said of broken ones.

use std::path::Path;

use image::{DynamicImage, ImageBuffer, Luma, RgbImage};
use serde_json::{Value, json};

use super::*;
use crate::data::Pair;

fn save(root: &Path, path: &str, image: impl Into<DynamicImage>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn photo(shade: u8) -> RgbImage {
    RgbImage::from_pixel(16, 16, image::Rgb([shade, 90, 30]))
}

fn grey(width: u32, height: u32, value: u8) -> image::GrayImage {
    image::GrayImage::from_pixel(width, height, Luma([value]))
}

fn grey16(width: u32, height: u32, value: u16) -> ImageBuffer<Luma<u16>, Vec<u16>> {
    ImageBuffer::from_pixel(width, height, Luma([value]))
}

/// The pairs of a set on disk; `more` holds further parameters.
fn pairs(
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
    let problems: Vec<_> = request.problems().into_iter().map(|p| p.message).collect();
    assert_eq!(problems, [""; 0]);
    let sources = SourceReader::new(root);
    let run = || -> Result<Vec<_>, DataError> {
        let images = request.source.source.open(&request, &sources)?;
        let chosen = request.choose(request.task.count(&*images))?;
        chosen.into_iter().map(|place| request.task.pair(&*images, place, &request)).collect()
    };
    run().map_err(|e| e.to_string())
}

fn names(found: &[(String, Pair)]) -> Vec<&str> {
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
    let many = json!({ "classes": ["pizza", "n1"], "side": 2, "per_class": 9 });
    insta::assert_snapshot!(fail(many), @"class `n3` has 3 images, but 9 are wanted");
    write(root.path(), "val/val_annotations.txt", "val_n1.png n1\n");
    let more = json!({ "split": "test", "count": 1, "symbols": { "side": 2 } });
    let error = pairs(root.path(), "tiny_imagenet", "symbols", &more).unwrap_err();
    insta::assert_snapshot!(error, @"line 1 of `val/val_annotations.txt` must be a file and a class, divided by tabs");
}

#[test]
fn the_benchmark_of_ade20k_gives_masks_and_scenes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let head = "Idx\tRatio\tTrain\tVal\tName\n";
    write(
        root,
        "objectInfo150.txt",
        &format!("{head}1\t0\t1\t1\twall\n2\t0\t1\t1\tbuilding, edifice\n"),
    );
    for (name, class) in [("a", 1), ("b", 2)] {
        save(root, &format!("images/training/{name}.jpg"), photo(40));
        save(root, &format!("annotations/training/{name}.png"), grey(16, 16, class));
    }
    let found = pairs(root, "ade20k", "segmentation", &json!({ "class": "edifice" })).unwrap();
    assert_eq!(names(&found), ["b"]);
    assert!(found[0].1.mask.as_ref().unwrap().iter().all(|value| *value == 255));
    let scenes = pairs(root, "ade20k", "scene", &json!({})).unwrap();
    assert_eq!(scenes.len(), 2);
    assert_eq!(scenes[0].1.meta.scene[1].name, "building, edifice");
    let error = pairs(root, "ade20k", "segmentation", &json!({ "class": "cow" })).unwrap_err();
    assert_eq!(error, "the data has no class `cow`");
    save(root, "annotations/training/b.png", grey(16, 16, 7));
    let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
    assert_eq!(error, "`annotations/training/b.png`: there is no class 7, but 2 classes");
    save(root, "annotations/training/b.png", grey(8, 16, 1));
    let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
    assert_eq!(error, "`images/training/b.jpg` and `annotations/training/b.png` differ in size");
}

#[test]
fn a_class_of_ade20k_has_one_colour_in_both_splits() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    // The training pictures know a class that sorts before the one that both show.
    for (split, name, classes) in
        [("training", "a", &["awning", "sky"][..]), ("validation", "b", &["sky"])]
    {
        let stem = format!("images/ADE/{split}/outdoor/{name}");
        save(root, &format!("{stem}.jpg"), photo(40));
        let number = classes.len() as u8;
        let coded = RgbImage::from_pixel(16, 16, image::Rgb([0, number, 0]));
        save(root, &format!("{stem}_seg.png"), coded);
        let objects: Vec<_> = classes
            .iter()
            .zip(1..)
            .map(|(name, number)| json!({ "name": name, "name_ndx": number }))
            .collect();
        let annotation = json!({ "annotation": { "object": objects } });
        write(root, &format!("{stem}.json"), &annotation.to_string());
    }
    for palette in ["voc", "hues"] {
        let [train, test] = ["train", "test"].map(|split| {
            let more = json!({ "split": split, "scene": { "palette": palette } });
            let found = pairs(root, "ade20k", "scene", &more).unwrap();
            assert_eq!(found.len(), 1);
            (found[0].1.meta.scene.clone(), *found[0].1.target.get_pixel(8, 8))
        });
        assert_eq!(train, test);
        assert_ne!(train.1.0, [0; 3], "the sky is painted");
    }
}

#[test]
fn a_class_of_ade20k_is_where_a_pixel_shows_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    // The JSON file names parts, too, which `_seg.png` does not hold. A lamp stands at the left edge of a
    // wide picture, of which a square keeps the middle.
    for (name, lamp) in [("a", 0u32), ("b", 24)] {
        let stem = format!("images/ADE/training/street/{name}");
        save(root, &format!("{stem}.jpg"), RgbImage::new(48, 16));
        let coded = RgbImage::from_fn(48, 16, |x, _| {
            image::Rgb([0, if (lamp..lamp + 4).contains(&x) { 2 } else { 1 }, 0])
        });
        save(root, &format!("{stem}_seg.png"), coded);
        let objects = json!([
            { "name": "car", "name_ndx": 1 }, { "name": "lamp", "name_ndx": 2 },
            { "name": "wheel", "name_ndx": 3 },
        ]);
        write(
            root,
            &format!("{stem}.json"),
            &json!({ "annotation": { "object": objects } }).to_string(),
        );
    }
    let class = |class: &str| pairs(root, "ade20k", "segmentation", &json!({ "class": class }));
    assert_eq!(names(&class("car").unwrap()), ["a", "b"]);
    assert_eq!(names(&class("lamp").unwrap()), ["b"]);
    insta::assert_snapshot!(class("wheel").unwrap_err(), @"no pixel of a `_seg.png` shows `wheel`, though 2 of the JSON files name it");
}

#[test]
fn files_outside_the_root_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    let (data, outside) = (root.path().join("data"), root.path().join("secret.png"));
    save(root.path(), "secret.png", photo(20));
    save(&data, "depth/1.png", grey16(16, 16, 5000));
    for path in ["../secret.png", outside.to_str().unwrap()] {
        write(&data, "rgb.txt", &format!("1.0 {path}\n"));
        write(&data, "depth.txt", "1.0 depth/1.png\n");
        let error = pairs(&data, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap_err();
        assert!(error.contains("does not lie below the folder of the data"), "{error}");
    }
}

#[test]
fn depths_are_found_by_name_or_by_time() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (name, metres) in [("1.0", 1u16), ("1.1", 2), ("9.0", 3)] {
        save(root, &format!("rgb/{name}00.png"), photo(20));
        save(root, &format!("depth/{name}05.png"), grey16(16, 16, metres * 5000));
    }
    write(
        root,
        "rgb.txt",
        "# time file\n1.000 rgb/1.000.png\n1.100 rgb/1.100.png\n5.000 rgb/9.000.png\n",
    );
    write(
        root,
        "depth.txt",
        "1.005 depth/1.005.png\n1.105 depth/1.105.png\n9.005 depth/9.005.png\n",
    );
    let more = json!({ "holdout": 0.0 });
    let found = pairs(root, "rgbd", "depth", &more).unwrap();
    assert_eq!(names(&found), ["rgb-1.000", "rgb-1.100"]);
    let mut metres: Vec<_> =
        found.iter().map(|(_, pair)| pair.depth.as_ref().unwrap().get_pixel(3, 3).0[0]).collect();
    metres.sort_by(f32::total_cmp);
    assert_eq!(metres, [1.0, 2.0], "the units of TUM");
    let stated = json!({ "holdout": 0.0, "source.units": 1000 });
    let found = pairs(root, "rgbd", "depth", &stated).unwrap();
    let first = found.iter().find(|(name, _)| name == "rgb-1.000").unwrap();
    assert_eq!(first.1.depth.as_ref().unwrap().get_pixel(3, 3).0, [5.0], "the units stated");
    write(root, "rgb.txt", "soon rgb/1.000.png\n");
    let error = pairs(root, "rgbd", "depth", &more).unwrap_err();
    insta::assert_snapshot!(error, @"line 1 of `rgb.txt` must be a time and a file, but is `soon rgb/1.000.png`");
}

#[test]
fn depths_of_another_kind_or_size_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let more = json!({ "holdout": 0.0 });
    save(root, "a_color.png", photo(20));
    save(root, "a_depth.png", grey(16, 16, 9));
    let run = || pairs(root, "rgbd", "depth", &more).unwrap_err();
    assert_eq!(run(), "`a_depth.png` must be a 16-bit grey picture");
    save(root, "a_depth.png", grey16(8, 16, 900));
    assert_eq!(run(), "`a_depth.png` is 8x16, but `a_color.png` is 16x16");
    save(root, "a_depth.png", grey16(16, 16, 0));
    assert_eq!(run(), "no pixel of the depth image has a distance");
    std::fs::remove_file(root.join("a_depth.png")).unwrap();
    assert_eq!(run(), "`a_color.png` has no partner");
}

#[test]
fn sun_turns_the_bits_of_its_depths() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), "image/a.jpg", photo(20));
    save(root.path(), "depth/a.png", grey16(16, 16, 2500u16.rotate_left(3)));
    let found = pairs(root.path(), "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap();
    let metres = found[0].1.depth.as_ref().unwrap().get_pixel(0, 0).0[0];
    assert!((metres - 2.5).abs() < 1e-6, "{metres}");
}

#[test]
fn scenes_of_sun_are_found_at_any_depth() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    // The names of picture and depth differ in some of its parts.
    for (scene, image, depth, metres) in [
        ("kv1/b3dodata/img_0063", "img_0063.jpg", "img_0063_abs.png", 1),
        ("kv2/kinect2data/000002_2014", "0000002.jpg", "0000002.png", 2),
        ("xtion/sun3ddata/brown/brown_1/0000001", "0000001-7.jpg", "0000001-9.png", 3),
    ] {
        save(root, &format!("{scene}/image/{image}"), photo(20));
        let stored = grey16(16, 16, (1000u16 * metres).rotate_left(3));
        save(root, &format!("{scene}/depth/{depth}"), stored);
        write(root, &format!("{scene}/scene.txt"), "office");
    }
    // What else lies beside them.
    write(root, "README.txt", "kv1, kv2, xtion");
    let more = json!({ "holdout": 0.0 });
    let found = pairs(root, "rgbd", "depth", &more).unwrap();
    let metres: std::collections::BTreeMap<_, _> = found
        .iter()
        .map(|(name, pair)| (name.as_str(), pair.depth.as_ref().unwrap().get_pixel(0, 0).0[0]))
        .collect();
    let wanted = [
        ("kv1-b3dodata-img_0063", 1.0),
        ("kv2-kinect2data-000002_2014", 2.0),
        ("xtion-sun3ddata-brown-brown_1-0000001", 3.0),
    ];
    assert_eq!(metres, wanted.into());
    save(root, "kv1/b3dodata/img_0063/depth/more.png", grey16(16, 16, 9));
    let error = pairs(root, "rgbd", "depth", &more).unwrap_err();
    insta::assert_snapshot!(error, @"`kv1/b3dodata/img_0063/depth` must hold one picture, but holds 2");
    let empty = tempfile::tempdir().unwrap();
    write(empty.path(), "a/b/notes.txt", "");
    let error = pairs(empty.path(), "rgbd", "depth", &more).unwrap_err();
    assert_eq!(error, "the folder holds no pairs");
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
    save(root, "images/train/8.png", photo(20));
    let error = pairs(root, "bsds500", "boundaries", &json!({})).unwrap_err();
    assert_eq!(error, "`images/train/8.png` has no boundaries");
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
    let error = fail("input,target,split\nin/none.png,out/a.png,train\n");
    assert!(error.contains("in/none.png"), "{error}");
}
