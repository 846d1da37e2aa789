//! Small copies of the layouts, and what is said of broken ones.

mod passed_over;

use std::path::Path;

use serde_json::json;

use crate::data::sets::tests::{grey, grey16, names, pairs, photo, save, write};

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
    let error = pairs(root, "rgbd", "depth", &more).unwrap_err();
    insta::assert_snapshot!(error, @"1 of the 3 pictures of `rgb.txt` have no depth of their own within 0.02 s, the first is `rgb/9.000.png`");
    let more = json!({ "holdout": 0.0, "without_depth": "skip" });
    let found = pairs(root, "rgbd", "depth", &more).unwrap();
    assert_eq!(names(&found), ["rgb-1.000", "rgb-1.100"]);
    let mut metres: Vec<_> =
        found.iter().map(|(_, pair)| pair.depth.as_ref().unwrap().get_pixel(3, 3).0[0]).collect();
    metres.sort_by(f32::total_cmp);
    assert_eq!(metres, [1.0, 2.0], "the units of TUM");
    let stated = json!({ "holdout": 0.0, "source.units": 1000, "without_depth": "skip" });
    let found = pairs(root, "rgbd", "depth", &stated).unwrap();
    let first = found.iter().find(|(name, _)| name == "rgb-1.000").unwrap();
    let metres = first.1.depth.as_ref().unwrap().get_pixel(3, 3).0[0];
    assert!((metres - 5.0).abs() < 1e-6, "the units stated: {metres}");
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
    assert_eq!(
        run(),
        "`a_depth.png`, the depth of `a_color.png`, is 0 everywhere: no distance is known"
    );
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
fn plain_depths_are_not_turned_for_the_name_of_their_folder() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "image/a.jpg", photo(20));
    let mut plain = grey16(16, 16, 0);
    plain.pixels_mut().zip(0..).skip(16).for_each(|(pixel, place)| pixel.0 = [1500 + 7 * place]);
    save(root, "depth/a.png", plain.clone());
    let error = pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap_err();
    insta::assert_snapshot!(error, @"`depth/a.png` lies in the layout of SUN, which turns the bits of its depths by three places, but then 210 of its 240 known pixels would be 8.19 m away or more, so they seem to be plain");
    let first = |bits: &str| {
        let more =
            json!({ "holdout": 0.0, "source.depth_bits": bits, "depth": { "range": [0.1, 70.0] } });
        let found = pairs(root, "rgbd", "depth", &more).unwrap();
        found[0].1.depth.as_ref().unwrap().get_pixel(3, 1).0[0]
    };
    let stored: u16 = 1500 + 7 * 19;
    for (bits, value) in [("plain", stored), ("rotated", stored.rotate_right(3))] {
        assert!((first(bits) - f32::from(value) / 1000.0).abs() < 1e-6, "{bits}: {}", first(bits));
    }
    // Of SUN, a part may be further away than 8.19 m.
    let mut turned = plain;
    turned.pixels_mut().for_each(|pixel| pixel.0 = [(pixel.0[0] * 3).rotate_left(3)]);
    let far = turned.iter().filter(|value| *value & 7 != 0).count();
    assert!((60..128).contains(&far), "{far}");
    save(root, "depth/a.png", turned);
    assert_eq!(pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap().len(), 1);
    // Elsewhere they are turned where the file says so.
    let other = tempfile::tempdir().unwrap();
    save(other.path(), "color/a.jpg", photo(20));
    save(other.path(), "depth/a.png", grey16(16, 16, 2500u16.rotate_left(3)));
    let more = json!({ "holdout": 0.0, "source.depth_bits": "rotated" });
    assert_eq!(distances(other.path(), &more), [("a".to_owned(), 2.5)]);
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
    save(root, "kv2/lost/image/a.jpg", photo(20));
    let error = pairs(root, "rgbd", "depth", &more).unwrap_err();
    insta::assert_snapshot!(error, @"`kv2/lost` has `image/`, but no `depth/`");
    let skip = json!({ "holdout": 0.0, "without_depth": "skip" });
    assert_eq!(pairs(root, "rgbd", "depth", &skip).unwrap().len(), 3);
    std::fs::remove_dir_all(root.join("kv2/lost")).unwrap();
    save(root, "kv1/b3dodata/img_0063/depth/more.png", grey16(16, 16, 9));
    let error = pairs(root, "rgbd", "depth", &more).unwrap_err();
    insta::assert_snapshot!(error, @"`kv1/b3dodata/img_0063/depth` must hold one picture, but holds 2");
    let empty = tempfile::tempdir().unwrap();
    write(empty.path(), "a/b/notes.txt", "");
    let error = pairs(empty.path(), "rgbd", "depth", &more).unwrap_err();
    assert_eq!(error, "the folder holds no pairs");
}

/// The names of both parts, a fifth being kept for tests.
fn parts(root: &Path) -> [Vec<String>; 2] {
    ["train", "test"].map(|split| {
        let more = json!({ "split": split, "holdout": 0.2 });
        let found = pairs(root, "rgbd", "depth", &more).unwrap();
        names(&found).into_iter().map(str::to_owned).collect()
    })
}

#[test]
fn neighbours_of_a_video_are_not_asked_about() {
    // One sequence: its end is kept.
    let root = tempfile::tempdir().unwrap();
    for frame in 0..10 {
        save(root.path(), &format!("color/{frame:05}.jpg"), photo(frame));
        save(root.path(), &format!("depth/{frame:05}.png"), grey16(16, 16, 900));
    }
    let [train, test] = parts(root.path());
    assert_eq!((train.len(), test), (8, vec!["00008".to_owned(), "00009".to_owned()]));
    // Several: whole ones.
    let root = tempfile::tempdir().unwrap();
    for (scene, frames) in [("bath_1", 2), ("hall_1", 5), ("hall_2", 4)] {
        for frame in 0..frames {
            save(root.path(), &format!("images/{scene}_{frame:05}.jpg"), photo(frame));
            save(root.path(), &format!("annotations/{scene}_{frame:05}.png"), grey16(16, 16, 900));
        }
    }
    let [train, test] = parts(root.path());
    assert_eq!((train.len(), test), (9, vec!["bath_1_00000".into(), "bath_1_00001".into()]));
}

#[test]
fn sequences_of_tum_and_folders_of_sun_are_kept_whole() {
    let root = tempfile::tempdir().unwrap();
    for (sequence, frames) in [("desk", 2), ("room", 7)] {
        let mut lists = [Vec::new(), Vec::new()];
        for frame in 0..frames {
            for (list, (folder, shift)) in lists.iter_mut().zip([("rgb", 0), ("depth", 4)]) {
                let file = format!("{folder}/{frame}.png");
                list.push(format!("{frame}.00{shift} {file}"));
                let path = format!("{sequence}/{file}");
                if folder == "rgb" {
                    save(root.path(), &path, photo(9));
                } else {
                    save(root.path(), &path, grey16(16, 16, 5000));
                }
            }
        }
        write(root.path(), &format!("{sequence}/rgb.txt"), &lists[0].join("\n"));
        write(root.path(), &format!("{sequence}/depth.txt"), &lists[1].join("\n"));
    }
    let [train, test] = parts(root.path());
    assert_eq!((train.len(), test), (7, vec!["desk-rgb-0".into(), "desk-rgb-1".into()]));
    let root = tempfile::tempdir().unwrap();
    for (place, shots) in [("kv2/hall", 3), ("xtion/lab", 1), ("xtion/yard", 3)] {
        for shot in 0..shots {
            let scene = format!("{place}/{shot}");
            save(root.path(), &format!("{scene}/image/a.jpg"), photo(20));
            save(root.path(), &format!("{scene}/depth/a.png"), grey16(16, 16, 8000));
        }
    }
    let [train, test] = parts(root.path());
    assert_eq!((train.len(), test), (6, vec!["xtion-lab-0".to_owned()]));
}

/// Names and the distance in metres.
fn distances(root: &Path, more: &serde_json::Value) -> Vec<(String, f32)> {
    let mut found: Vec<_> = pairs(root, "rgbd", "depth", more)
        .unwrap()
        .into_iter()
        .map(|(name, pair)| (name, pair.depth.unwrap().get_pixel(0, 0).0[0]))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn folders_of_nyu_may_be_divided() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (split, name, metres) in [("train", "a_1", 1u16), ("train", "a_2", 2), ("test", "b_1", 3)] {
        save(root, &format!("images/{split}/{name}.jpg"), photo(20));
        save(root, &format!("annotations/{split}/{name}.png"), grey16(16, 16, metres * 1000));
    }
    let train = distances(root, &json!({ "split": "train" }));
    assert_eq!(train, [("a_1".to_owned(), 1.0), ("a_2".to_owned(), 2.0)]);
    assert_eq!(distances(root, &json!({ "split": "test" })), [("b_1".to_owned(), 3.0)]);
    std::fs::remove_dir_all(root.join("images/test")).unwrap();
    let error = pairs(root, "rgbd", "depth", &json!({ "split": "test" })).unwrap_err();
    assert_eq!(error, "`images` is divided, but has no `test`");
    let empty = tempfile::tempdir().unwrap();
    write(empty.path(), "images/notes.txt", "");
    write(empty.path(), "annotations/notes.txt", "");
    let error = pairs(empty.path(), "rgbd", "depth", &json!({})).unwrap_err();
    assert_eq!(error, "`images` and `annotations` hold no pictures");
}

#[test]
fn scenes_of_nyu_and_redwood_lie_in_folders() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (scene, frame) in [("bath", "00001"), ("bath", "00002"), ("hall", "00001")] {
        save(root, &format!("{scene}/rgb_{frame}.jpg"), photo(20));
        save(root, &format!("{scene}/sync_depth_{frame}.png"), grey16(16, 16, 2000));
    }
    save(root, "loft/color/00007.jpg", photo(20));
    save(root, "loft/depth/00007.png", grey16(16, 16, 4000));
    let wanted =
        [("bath-00001", 2.0), ("bath-00002", 2.0), ("hall-00001", 2.0), ("loft-00007", 4.0)];
    let wanted = wanted.map(|(name, metres)| (name.to_owned(), metres));
    assert_eq!(distances(root, &json!({ "holdout": 0.0 })), wanted);
    let [train, test] = parts(root);
    assert_eq!((train.len(), test.len()), (3, 1), "a scene stays whole");
    save(root, "hall/rgb_00002.jpg", photo(20));
    let error = pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap_err();
    assert_eq!(error, "`hall/rgb_00002.jpg`, of 2 pictures, has no `sync_depth_00002`");
    let skip = json!({ "holdout": 0.0, "without_depth": "skip" });
    assert_eq!(distances(root, &skip), wanted);
    let one = json!({ "holdout": 0.0 });
    assert_eq!(distances(&root.join("bath"), &one).len(), 2, "the root is the scene");
}

#[test]
fn a_range_without_any_distance_of_the_picture_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "1_color.png", photo(20));
    save(root, "1_depth.png", grey16(16, 16, 2500));
    let run = |range: [f32; 2]| {
        let more = json!({ "holdout": 0.0, "depth": { "range": range } });
        pairs(root, "rgbd", "depth", &more).map(|found| found.len())
    };
    let error = run([50.0, 100.0]).unwrap_err();
    insta::assert_snapshot!(error, @"no pixel of `1` is as far as `depth.range` = [50, 100] says, but 2.50 to 2.50 m");
    assert!(run([0.5, 2.0]).is_err());
    assert_eq!((run([0.5, 2.5]), run([2.5, 9.0])), (Ok(1), Ok(1)));
}

#[test]
fn lists_of_tum_go_together_and_name_files_that_are_there() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["rgb/1.png", "rgb/2.png"] {
        save(root, name, photo(20));
    }
    save(root, "depth/1.png", grey16(16, 16, 5000));
    save(root, "depth/2.png", grey16(16, 16, 5000));
    let read = || {
        let found = pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 }));
        found.map(|found| {
            let mut names = names(&found);
            names.sort_unstable();
            names.join(" ")
        })
    };
    write(root, "depth.txt", "1.0 depth/1.png\n2.0 depth/2.png\n3.0 depth/3.png\n");
    assert_eq!(read(), Err("there is `depth.txt`, but no `rgb.txt`".into()));
    write(root, "rgb.txt", "1.0 rgb/1.png\n2.0 rgb/2.png\n");
    assert_eq!(read(), Err("`depth.txt` names `depth/3.png`, which is not there".into()));
    write(root, "depth.txt", "1.0 depth/1.png\n2.0 depth/2.png\n");
    assert_eq!(read(), Ok("rgb-1 rgb-2".into()));
}

#[test]
fn a_depth_of_tum_goes_with_one_picture_and_each_picture_is_listed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["1", "2", "3"] {
        save(root, &format!("rgb/{name}.png"), photo(20));
        save(
            root,
            &format!("depth/{name}.png"),
            grey16(16, 16, 5000 * name.parse::<u16>().unwrap()),
        );
    }
    let read = |without: &str| {
        let more = json!({ "holdout": 0.0, "without_depth": without });
        let found = pairs(root, "rgbd", "depth", &more)?;
        let mut found: Vec<_> = found
            .iter()
            .map(|(name, pair)| {
                let metres = pair.depth.as_ref().unwrap().get_pixel(0, 0).0[0];
                format!("{name} {metres}")
            })
            .collect();
        found.sort_unstable();
        Ok::<_, String>(found.join(", "))
    };
    // The first depth is the nearest to both, but the second picture is nearer to it.
    write(root, "rgb.txt", "1.000 rgb/1.png\n1.012 rgb/2.png\n2.0 rgb/3.png\n");
    write(root, "depth.txt", "1.007 depth/1.png\n0.985 depth/2.png\n2.0 depth/3.png\n");
    assert_eq!(read("error"), Ok("rgb-1 2, rgb-2 1, rgb-3 3".into()));
    write(root, "depth.txt", "1.007 depth/1.png\n0.97 depth/2.png\n2.0 depth/3.png\n");
    insta::assert_snapshot!(read("error").unwrap_err(), @"1 of the 3 pictures of `rgb.txt` have no depth of their own within 0.02 s, the first is `rgb/1.png`");
    assert_eq!(read("skip"), Ok("rgb-2 1, rgb-3 3".into()));
    write(root, "rgb.txt", "1.012 rgb/2.png\n");
    insta::assert_snapshot!(read("error").unwrap_err(), @"`rgb.txt` names 1 of the 3 pictures of `rgb`; the first that it does not is `rgb/1.png`");
    assert_eq!(read("skip"), Ok("rgb-2 1".into()));
}

#[test]
fn a_depth_without_any_distance_is_named() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "1_color.png", photo(20));
    save(root, "1_depth.png", grey16(16, 16, 0));
    let read = |task: &str| pairs(root, "rgbd", task, &json!({ "holdout": 0.0 }));
    insta::assert_snapshot!(read("depth").unwrap_err(), @"`1_depth.png`, the depth of `1_color.png`, is 0 everywhere: no distance is known");
    assert_eq!(read("images").unwrap().len(), 1);
}
