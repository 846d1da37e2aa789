//! Annotation files, right and wrong.

use std::path::Path;

use super::*;
use crate::data::pose::{PoseStyle, draw as draw_pose};

impl Index {
    fn ids(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }
}

/// A data set of one black 8x6 image with the given annotations.
fn write(folder: &Path, name: &str, annotations: &str) -> SourceReader {
    for sub in ["annotations", "train2017"] {
        std::fs::create_dir_all(folder.join(sub)).unwrap();
    }
    let json = format!(
        r#"{{"images": [{{"id": 7, "file_name": "7.png", "width": 8, "height": 6}}],
            "categories": [{{"id": 18, "name": "dog"}}, {{"id": 17, "name": "cat"}}],
            "annotations": [{annotations}]}}"#
    );
    let file = folder.join(format!("annotations/{name}_train2017.json"));
    std::fs::write(file, json).unwrap();
    image::RgbImage::new(8, 6).save(folder.join("train2017/7.png")).unwrap();
    SourceReader::new(folder)
}

/// Images for training at `size`.
fn at(size: [usize; 2], min_share: f64) -> Wanted {
    Wanted { size, min_share, ..ALL }
}

/// Images for training at their own size.
const ALL: Wanted = Wanted {
    train: true,
    size: [6, 8],
    min_share: 0.0,
    crowd: Crowd::Keep,
    visibility: Visibility::Labelled,
};

fn failure(annotations: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let sources = write(folder.path(), "instances", annotations);
    Index::instances(&sources, ALL, &["dog"]).unwrap_err().to_string()
}

#[test]
fn the_union_of_a_class_is_its_mask() {
    let folder = tempfile::tempdir().unwrap();
    let sources = write(
        folder.path(),
        "instances",
        r#"{"id": 1, "image_id": 7, "category_id": 18, "iscrowd": 0, "area": 4,
            "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
           {"id": 2, "image_id": 7, "category_id": 18, "iscrowd": 1, "area": 2,
            "segmentation": {"size": [6, 8], "counts": [42, 2, 4]}},
           {"id": 3, "image_id": 7, "category_id": 17, "iscrowd": 0, "area": 48,
            "segmentation": [[0, 0, 8, 0, 8, 6, 0, 6]]}"#,
    );
    let index = Index::instances(&sources, ALL, &["dog"]).unwrap();
    let sample = index.sample(&sources, index.ids()[0]).unwrap();
    assert_eq!(sample.id, "7");
    let mask = sample.mask.unwrap();
    let set: Vec<_> =
        mask.enumerate_pixels().filter(|p| p.2.0[0] > 0).map(|p| (p.0, p.1)).collect();
    assert_eq!(set, [(0, 0), (1, 0), (7, 0), (0, 1), (1, 1), (7, 1)]);
    let single = Wanted { crowd: Crowd::Skip, ..ALL };
    let index = Index::instances(&sources, single, &["dog"]).unwrap();
    let mask = index.sample(&sources, 7).unwrap().mask.unwrap();
    assert_eq!(mask.iter().filter(|value| **value > 0).count(), 4, "without the crowd");
    let labels = |wanted| {
        let scene = Index::scenes(&sources, wanted).unwrap().sample(&sources, 7).unwrap().scene;
        scene.unwrap().labels.iter().filter(|label| **label == 1).count()
    };
    assert_eq!((labels(ALL), labels(single)), (6, 4));
    assert_eq!(Index::instances(&sources, at([6, 8], 0.2), &["dog"]).unwrap().ids(), [0u64; 0]);
    assert_eq!(Index::images(&sources, true).unwrap().ids(), [7]);
    let both = Index::instances(&sources, ALL, &["dog", "cat"]).unwrap();
    let mask = both.sample(&sources, 7).unwrap().mask.unwrap();
    assert!(mask.iter().all(|value| *value > 0), "several classes have one mask");
    let error = Index::instances(&sources, ALL, &["dog", "cow"]).unwrap_err();
    assert!(error.to_string().ends_with("has no category `cow`"), "{error}");
}

#[test]
fn images_that_share_a_name_or_an_id_are_errors() {
    let failure = |images: [(u64, &str); 2]| {
        let image =
            |(id, name): (u64, &str)| Image { id, file_name: name.to_owned(), width: 8, height: 6 };
        Index::new(true, images.map(image).into(), "a.json").unwrap_err().to_string()
    };
    assert_eq!(
        failure([(1, "a.jpg"), (2, "a.png")]),
        "`a.json`: `a.jpg` and `a.png` have one name"
    );
    assert_eq!(failure([(1, "a.jpg"), (1, "b.jpg")]), "`a.json`: two images have the id 1");
}

#[test]
fn a_person_counts_only_if_a_keypoint_is_left_after_the_crop() {
    let folder = tempfile::tempdir().unwrap();
    let person = |x: u32| {
        let rest = ", 0".repeat(45);
        format!(
            r#"{{"id": 1, "image_id": 7, "num_keypoints": 2,
                "keypoints": [{x}, 1, 2, {x}, 3, 1{rest}]}}"#
        )
    };
    let sources = write(folder.path(), "person_keypoints", &person(4));
    assert_eq!(Index::persons(&sources, at([6, 6], 0.0)).unwrap().ids(), [7]);
    let sources = write(folder.path(), "person_keypoints", &person(0));
    assert_eq!(Index::persons(&sources, at([6, 6], 0.0)).unwrap().ids(), [0u64; 0]);
    assert_eq!(Index::persons(&sources, at([6, 8], 0.0)).unwrap().ids(), [7]);
}

#[test]
fn hidden_keypoints_and_crowds_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let rest = ", 0".repeat(48);
    let person = |visibility: u32, crowd: &str| {
        let text = format!(
            r#"{{"id": 1, "image_id": 7, "iscrowd": {crowd}, "keypoints": [4, 1, {visibility}{rest}]}}"#
        );
        write(folder.path(), "person_keypoints", &text)
    };
    let seen = Wanted { visibility: Visibility::Visible, ..ALL };
    let single = Wanted { crowd: Crowd::Skip, ..ALL };
    let count =
        |sources: &SourceReader, wanted| Index::persons(sources, wanted).map(|i| i.ids().len());
    let sources = person(1, "0");
    assert_eq!((count(&sources, ALL).unwrap(), count(&sources, seen).unwrap()), (1, 0));
    let sources = person(2, "true");
    assert_eq!((count(&sources, seen).unwrap(), count(&sources, single).unwrap()), (1, 0));
    let error = count(&person(3, "0"), ALL).unwrap_err();
    insta::assert_snapshot!(error, @"`annotations/person_keypoints_train2017.json`: annotation 1 must have visibilities 0, 1 or 2, but has 3 at keypoint 0");
}

#[test]
fn an_instance_counts_only_if_a_pixel_is_left_after_the_crop() {
    let folder = tempfile::tempdir().unwrap();
    // At the left edge, and a ring without a pixel.
    let sources = write(
        folder.path(),
        "instances",
        r#"{"id": 1, "image_id": 7, "category_id": 18, "area": 6, "segmentation": [[0, 0, 1, 0, 1, 6, 0, 6]]},
           {"id": 2, "image_id": 7, "category_id": 17, "area": 1, "segmentation": [[3, 3, 3.1, 3, 3.1, 3.1]]}"#,
    );
    let ids = |size, class| Index::instances(&sources, at(size, 0.0), &[class]).unwrap().ids();
    assert_eq!(ids([6, 8], "dog"), [7]);
    assert_eq!(ids([6, 6], "dog"), [0u64; 0]);
    assert_eq!(ids([6, 8], "cat"), [0u64; 0]);
    assert_eq!(Index::scenes(&sources, ALL).unwrap().ids(), [7]);
    assert_eq!(Index::scenes(&sources, at([6, 6], 0.0)).unwrap().ids(), [0u64; 0]);
}

#[test]
fn an_image_of_absurd_size_is_refused_before_it_is_drawn_on() {
    let image = Image { id: 3, file_name: "a.png".into(), width: 4_000_000_000, height: 9 };
    let error = Index::new(true, vec![image], "a.json").unwrap_err();
    insta::assert_snapshot!(error, @"`a.json`: image 3 is 4000000000x9, but at most 16384 pixels a side and 160000000 in all are read");
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    insta::assert_snapshot!(
        failure(r#"{"id": 1, "image_id": 9, "category_id": 18, "segmentation": []}"#),
        @"`annotations/instances_train2017.json`: annotation 1 names image 9, which the file does not list"
    );
    insta::assert_snapshot!(
        failure(r#"{"id": 1, "image_id": 7, "category_id": 18, "segmentation": []},
                   {"id": 2, "image_id": 7, "category_id": 18, "segmentation": "x"}"#),
        @"`annotations/instances_train2017.json` is not a COCO annotation file: element 1 of the list (from 0): polygons, or run lengths with `size` and `counts` at line 4 column 83"
    );
    insta::assert_snapshot!(
        failure(r#"{"id": 4, "image_id": 7, "category_id": 18, "segmentation": []}"#),
        @"`annotations/instances_train2017.json`: annotation 4 has an empty `segmentation`"
    );
    insta::assert_snapshot!(
        failure(r#"{"id": 4, "image_id": 7, "category_id": 99, "segmentation": [[1, 1, 3, 1, 3, 3]]}"#),
        @"`annotations/instances_train2017.json`: annotation 4 is of category 99, which the file does not list"
    );
    assert!(failure("{").contains("element 0 of the list"));
    let folder = tempfile::tempdir().unwrap();
    let sources = write(folder.path(), "instances", "");
    let error = Index::instances(&sources, ALL, &["dragon"]).unwrap_err();
    assert!(error.to_string().contains("has no category `dragon`"), "{error}");
    let error = Index::instances(&sources, Wanted { train: false, ..ALL }, &["dog"]).unwrap_err();
    assert!(error.to_string().contains("instances_val2017.json"), "{error}");
    let sources = write(
        folder.path(),
        "person_keypoints",
        r#"{"id": 5, "image_id": 7, "keypoints": [1, 2, 2]}"#,
    );
    let error = Index::persons(&sources, at([6, 8], 0.0)).unwrap_err();
    insta::assert_snapshot!(error, @"`annotations/person_keypoints_train2017.json`: annotation 5 must have 51 keypoint numbers, but has 3");
}

#[test]
fn a_damaged_mask_names_its_annotation() {
    let folder = tempfile::tempdir().unwrap();
    let sources = write(
        folder.path(),
        "instances",
        r#"{"id": 12, "image_id": 7, "category_id": 18,
            "segmentation": {"size": [6, 8], "counts": [42, 2]}}"#,
    );
    let error = Index::instances(&sources, ALL, &["dog"]).unwrap_err();
    insta::assert_snapshot!(error, @"`annotations/instances_train2017.json`: annotation 12 of `train2017/7.png`: the run lengths cover 44 pixels, but the mask has 48");
}

#[test]
fn what_is_wrong_in_a_file_has_a_remedy() {
    let help = |name: &str, annotation: &str| {
        let folder = tempfile::tempdir().unwrap();
        let sources = write(folder.path(), name, annotation);
        let index = if name == "instances" {
            Index::instances(&sources, ALL, &["dog"])
        } else {
            Index::persons(&sources, ALL)
        };
        let DataError::Failed { help, .. } = index.unwrap_err() else { panic!("{annotation}") };
        help.unwrap()
    };
    let instance = |image: u64, category: u64, segmentation: &str| {
        format!(
            r#"{{"id": 1, "image_id": {image}, "category_id": {category}, "segmentation": {segmentation}}}"#
        )
    };
    for annotation in [
        instance(9, 18, "[]"),
        instance(7, 99, "[[1, 1, 3, 1, 3, 3]]"),
        instance(7, 18, r#"{"size": [6, 8], "counts": [42, 2]}"#),
    ] {
        assert_eq!(help("instances", &annotation), REPAIR);
    }
    let person = r#"{"id": 5, "image_id": 7, "keypoints": [1, 2, 2]}"#;
    assert_eq!(help("person_keypoints", person), REPAIR);
    for (file_name, width) in [("a/b.jpg", 9), ("a.jpg", 0), ("a.jpg", 4_000_000_000)] {
        let image = Image { id: 3, file_name: file_name.into(), width, height: 9 };
        let error = Index::new(true, vec![image], "a.json").unwrap_err();
        assert!(matches!(error, DataError::Failed { help: Some(help), .. } if help == REPAIR));
    }
}

#[test]
fn an_area_that_is_not_stated_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    // A cat before a dog that fills most of the image.
    let sources = write(
        folder.path(),
        "instances",
        r#"{"id": 1, "image_id": 7, "category_id": 17, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
           {"id": 2, "image_id": 7, "category_id": 18, "segmentation": [[0, 0, 6, 0, 6, 6, 0, 6]]}"#,
    );
    let dogs = |share| Index::instances(&sources, at([6, 8], share), &["dog"]).unwrap().ids().len();
    assert_eq!((dogs(0.75), dogs(0.76)), (1, 0));
    let scene = Index::scenes(&sources, ALL).unwrap().sample(&sources, 7).unwrap().scene.unwrap();
    let count = |label: u16| scene.labels.iter().filter(|other| **other == label).count();
    assert_eq!((count(1), count(2)), (32, 4), "the cat stays visible");
}

#[test]
fn an_area_below_nothing_is_an_error_and_its_image_is_not_left_out() {
    let dog = r#"{"id": 3, "image_id": 7, "category_id": 18, "area": -1,
        "segmentation": [[0, 0, 6, 0, 6, 6, 0, 6]]}"#;
    insta::assert_snapshot!(failure(dog), @"`annotations/instances_train2017.json`: annotation 3 has an `area` of -1");
    let folder = tempfile::tempdir().unwrap();
    let sources = write(folder.path(), "instances", dog);
    let error = Index::scenes(&sources, ALL).unwrap_err();
    assert_eq!(error.to_string(), failure(dog));
    assert!(
        matches!(error, DataError::Failed { help: Some(help), .. } if help.contains("counted"))
    );
    let sources = write(folder.path(), "instances", &dog.replace("-1", "0"));
    assert_eq!(Index::instances(&sources, ALL, &["dog"]).unwrap().ids(), [7], "0 is no error");
}

#[test]
fn a_keypoint_outside_the_image_is_named_but_for_a_pixel() {
    let folder = tempfile::tempdir().unwrap();
    let rest = ", 0".repeat(42);
    let persons = |keypoints: &str| {
        let text = format!(r#"{{"id": 5, "image_id": 7, "keypoints": [{keypoints}{rest}]}}"#);
        let sources = write(folder.path(), "person_keypoints", &text);
        Index::persons(&sources, at([6, 8], 0.0)).map(|index| index.sample(&sources, 7).unwrap())
    };
    let error = persons("3, 2, 2, 1e9, -1e9, 2, -5, 2, 1").unwrap_err();
    insta::assert_snapshot!(error, @"`annotations/person_keypoints_train2017.json`: annotation 5 has keypoint 1 (left eye) at (1000000000, -1000000000), outside of image 7, which is 8x6");
    let error = persons("30, 20, 2, 40, 20, 1, 31, 20, 2").unwrap_err();
    assert!(error.to_string().contains("has keypoint 0 (nose) at (30, 20)"), "{error}");
    // A pixel beyond is kept, and what is not labelled is nowhere.
    let sample = persons("3, 2, 2, 9, -1, 2, 9000, 9000, 0").unwrap();
    assert_eq!(
        sample.persons[0].keypoints[1].map(f32::to_bits),
        [9.0f32, -1.0, 2.0].map(f32::to_bits)
    );
    let drawn = draw_pose(&sample.persons, [6, 8], PoseStyle::default());
    assert_eq!(drawn.dimensions(), (8, 6));
    assert_eq!(drawn.get_pixel(3, 2).0, [255; 3], "the nose is inside");
}

#[test]
fn an_image_stated_too_small_is_an_error_and_not_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("train2017/7.png");
    let larger = |name: &str, annotation: &str| {
        let sources = write(folder.path(), name, annotation);
        image::RgbImage::new(64, 42).save(&image).unwrap();
        sources
    };
    let polygon = r#"{"id": 1, "image_id": 7, "category_id": 18, "area": 400,
                      "segmentation": [[20, 20, 40, 20, 40, 40, 20, 40]]}"#;
    let runs = r#"{"id": 1, "image_id": 7, "category_id": 17, "area": 4,
                   "segmentation": {"size": [42, 64], "counts": [2000, 4, 684]}}"#;
    let wanted = "`train2017/7.png` is 64x42, but its annotations are for 8x6";
    for annotation in [polygon, runs] {
        let sources = larger("instances", annotation);
        let error = Index::instances(&sources, at([6, 8], 0.9), &["dog"]).unwrap_err();
        assert_eq!(error.to_string(), wanted);
        assert_eq!(Index::scenes(&sources, ALL).unwrap_err().to_string(), wanted);
    }
    let rest = ", 0".repeat(48);
    let person = format!(r#"{{"id": 1, "image_id": 7, "keypoints": [30, 20, 2{rest}]}}"#);
    let sources = larger("person_keypoints", &person);
    assert_eq!(Index::persons(&sources, ALL).unwrap_err().to_string(), wanted);
}

#[test]
fn an_outline_that_leaves_an_image_of_the_right_size_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let outline = r#"{"id": 1, "image_id": 7, "category_id": 18, "area": 24,
                      "segmentation": [[4, 0, 12, 0, 12, 6, 4, 6]]}"#;
    let sources = write(folder.path(), "instances", outline);
    let mask = Index::instances(&sources, ALL, &["dog"]).unwrap().sample(&sources, 7).unwrap().mask;
    assert_eq!(mask.unwrap().iter().filter(|value| **value > 0).count(), 24);
}

#[test]
fn a_file_without_categories_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let sources = write(folder.path(), "instances", "");
    let path = folder.path().join("annotations/instances_train2017.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("categories", "kinds")).unwrap();
    let wanted = "`annotations/instances_train2017.json` lists no categories";
    assert_eq!(Index::instances(&sources, ALL, &["dog"]).unwrap_err().to_string(), wanted);
    assert_eq!(Index::scenes(&sources, ALL).unwrap_err().to_string(), wanted);
}

#[test]
fn an_image_that_is_listed_but_absent_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sources = write(folder.path(), "instances", "");
    std::fs::remove_file(folder.path().join("train2017/7.png")).unwrap();
    let error = Index::images(&sources, true).unwrap().sample(&sources, 7).unwrap_err();
    assert!(matches!(error, DataError::Environment { .. }), "{error}");
    assert!(error.to_string().contains("train2017/7.png"), "{error}");
}

#[test]
fn an_image_of_another_size_than_its_annotations_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sources = write(folder.path(), "instances", "");
    image::RgbImage::new(6, 8).save(folder.path().join("train2017/7.png")).unwrap();
    let error = Index::images(&sources, true).unwrap().sample(&sources, 7).unwrap_err();
    insta::assert_snapshot!(error, @"`train2017/7.png` is 6x8, but its annotations are for 8x6");
}
