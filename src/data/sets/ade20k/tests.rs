//! Both layouts, and what is said of broken ones.

use image::RgbImage;
use serde_json::json;

use crate::data::{
    Pair,
    sets::tests::{grey, names, pairs, photo, save, write},
};

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
    let both = json!({ "class": ["wall", "edifice"] });
    let found = pairs(root, "ade20k", "segmentation", &both).unwrap();
    assert_eq!(names(&found).len(), 2);
    let is_white =
        |(_, pair): &(String, Pair)| pair.mask.as_ref().unwrap().iter().all(|v| *v == 255);
    assert!(found.iter().all(is_white));
    let scenes = pairs(root, "ade20k", "scene", &json!({})).unwrap();
    assert_eq!(scenes.len(), 2);
    assert_eq!(scenes[0].1.meta.scene[1].name, "building, edifice");
    let some = |class: &str| {
        let scenes = pairs(root, "ade20k", "scene", &json!({ "scene": { "classes": [class] } }));
        let painted = |(_, pair): &(String, Pair)| pair.meta.scene[0].name.clone();
        scenes.map(|scenes| scenes.iter().map(painted).collect::<Vec<_>>())
    };
    assert_eq!(some("building"), some("building, edifice"));
    assert_eq!(some("edifice"), Ok(vec!["building, edifice".into(); 2]));
    assert_eq!(some("cow"), Err("the data has no class `cow`".into()));
    let error = pairs(root, "ade20k", "segmentation", &json!({ "class": "cow" })).unwrap_err();
    assert_eq!(error, "the data has no class `cow`");
    save(root, "annotations/training/b.png", grey(16, 16, 7));
    let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
    assert_eq!(error, "`annotations/training/b.png`: there is no class 7, but 2 classes");
    save(root, "annotations/training/b.png", grey(8, 16, 1));
    let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
    assert_eq!(error, "`images/training/b.jpg` and `annotations/training/b.png` differ in size");
    write(
        root,
        "objectInfo150.txt",
        &format!("{head}1\t0\t1\t1\twall\n2 0 1 1 sky\n3\t0\t1\t1\tbed\n"),
    );
    let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
    insta::assert_snapshot!(error, @"line 3 of `objectInfo150.txt` must have five columns divided by tabs, but is `2 0 1 1 sky`");
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
    // The JSON file names parts, too, which `_seg.png` does not hold. A lamp stands at the left
    // edge of a wide picture, of which a square keeps the middle.
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
fn no_picture_of_the_full_ade20k_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (name, ending) in [("a_1", "jpg"), ("b", "JPG"), ("c", "jpeg")] {
        let stem = format!("images/ADE/training/street/{name}");
        save(root, &format!("{stem}.{ending}"), photo(40));
        let coded = RgbImage::from_pixel(16, 16, image::Rgb([0, 1, 0]));
        for made in ["seg", "parts_1", "parts_12"] {
            save(root, &format!("{stem}_{made}.png"), coded.clone());
        }
        // The outlines of single objects, of newer releases.
        save(root, &format!("{stem}/instance_000_{name}.png"), grey(16, 16, 255));
        let object = json!([{ "name": "sky", "name_ndx": 1 }]);
        write(
            root,
            &format!("{stem}.json"),
            &json!({ "annotation": { "object": object } }).to_string(),
        );
    }
    let found = pairs(root, "ade20k", "scene", &json!({})).unwrap();
    assert_eq!(names(&found), ["a_1", "b", "c"]);
    for lost in ["d.png", "d_seg.png", "b_parts_x.png", "d.tif"] {
        let path = format!("images/ADE/training/street/{lost}");
        write(root, &path, "");
        let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
        assert_eq!(error, format!("`{path}` is neither a photograph (.jpg) nor made of one"));
        std::fs::remove_file(root.join(path)).unwrap();
    }
}

#[test]
fn a_class_is_not_taken_for_another_that_is_also_called_so() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let stem = "images/ADE/training/outdoor/a";
    save(root, &format!("{stem}.jpg"), photo(40));
    let coded = RgbImage::from_fn(16, 16, |x, _| image::Rgb([0, if x < 4 { 1 } else { 2 }, 0]));
    save(root, &format!("{stem}_seg.png"), coded);
    let objects = [("home plate, plate", 1), ("plate", 2)]
        .map(|(name, number)| json!({ "name": name, "name_ndx": number }));
    let annotation = json!({ "annotation": { "object": objects } });
    write(root, &format!("{stem}.json"), &annotation.to_string());
    for (class, count) in [("plate", 12 * 16), ("home plate", 4 * 16)] {
        let found = pairs(root, "ade20k", "segmentation", &json!({ "class": class })).unwrap();
        let mask = found[0].1.mask.as_ref().unwrap();
        assert_eq!(mask.iter().filter(|value| **value > 0).count(), count, "{class}");
    }
}

#[test]
fn no_picture_of_the_benchmark_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tName\n1\t0\t1\t1\twall\n");
    let read = |split: &str| pairs(root, "ade20k", "scene", &json!({ "split": split }));
    save(root, "images/training/a.jpg", photo(40));
    save(root, "annotations/training/a.png", grey(16, 16, 1));
    assert_eq!(read("train").unwrap().len(), 1);
    insta::assert_snapshot!(read("test").unwrap_err(), @"`images` is divided, but has no `validation`");
    for (stray, told) in [
        ("images/b.jpg", "`images/b.jpg` is a picture beside the folders of pictures"),
        ("annotations/b.png", "`annotations/b.png` is a picture beside the folders of pictures"),
        (
            "images/training/sub/z.jpg",
            "`images/training/sub/z.jpg` lies in a folder below `images/training`, where no pictures are looked for",
        ),
    ] {
        save(root, stray, photo(40));
        assert_eq!(read("train").unwrap_err(), told);
        std::fs::remove_file(root.join(stray)).unwrap();
    }
    std::fs::rename(root.join("images/training"), root.join("images/validation")).unwrap();
    insta::assert_snapshot!(read("train").unwrap_err(), @"`images` is divided, but has no `training`");
}

#[test]
fn a_picture_beside_the_splits_of_the_full_ade20k_is_not_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    std::fs::create_dir_all(root.join("images/ADE/training")).unwrap();
    for stray in ["images/ADE/b.jpg", "images/b.jpg"] {
        save(root, stray, photo(40));
        let error = pairs(root, "ade20k", "scene", &json!({})).unwrap_err();
        assert_eq!(error, format!("`{stray}` is a picture beside the folders of pictures"));
        std::fs::remove_file(root.join(stray)).unwrap();
    }
}
