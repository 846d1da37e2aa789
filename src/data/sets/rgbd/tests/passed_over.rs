//! Pictures where none are looked for.

use std::path::Path;

use serde_json::json;

use crate::data::sets::tests::{grey16, names, pairs, photo, save, write};

/// The first error, and the names with `without_depth = "skip"`.
fn refused(root: &Path) -> (String, Vec<String>) {
    let error = pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap_err();
    let skip = json!({ "holdout": 0.0, "without_depth": "skip" });
    let found = pairs(root, "rgbd", "depth", &skip).unwrap();
    (error, names(&found).into_iter().map(str::to_owned).collect())
}

#[test]
fn no_picture_of_paired_folders_is_passed_over() {
    for (folders, divided) in
        [(["color", "depth"], false), (["rgb", "depth"], false), (["images", "annotations"], true)]
    {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let [colors, depths] =
            folders.map(|name| if divided { format!("{name}/train") } else { name.to_owned() });
        save(root, &format!("{colors}/1.jpg"), photo(20));
        save(root, &format!("{depths}/1.png"), grey16(16, 16, 2500));
        let more = if divided { json!({}) } else { json!({ "holdout": 0.0 }) };
        let read = || pairs(root, "rgbd", "depth", &more);
        assert_eq!(read().unwrap().len(), 1, "{folders:?}");
        let mut beside = vec!["x.png".to_owned()];
        beside.extend(folders.iter().filter(|_| divided).map(|name| format!("{name}/x.png")));
        for stray in beside {
            save(root, &stray, photo(20));
            assert_eq!(
                read().unwrap_err(),
                format!("`{stray}` is a picture beside the folders of pictures")
            );
            std::fs::remove_file(root.join(stray)).unwrap();
        }
        for folder in [colors, depths] {
            let stray = format!("{folder}/more/x.png");
            save(root, &stray, photo(20));
            assert_eq!(
                read().unwrap_err(),
                format!(
                    "`{stray}` lies in a folder below `{folder}`, where no pictures are looked for"
                )
            );
            std::fs::remove_dir_all(root.join(folder).join("more")).unwrap();
        }
    }
}

#[test]
fn a_folder_beside_sequences_or_rooms_is_not_passed_over() {
    for tum in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let colors = if tum { "rgb" } else { "color" };
        save(root, &format!("desk/{colors}/1.png"), photo(20));
        save(root, "desk/depth/1.png", grey16(16, 16, 5000));
        if tum {
            write(root, "desk/rgb.txt", "1.0 rgb/1.png\n");
            write(root, "desk/depth.txt", "1.0 depth/1.png\n");
        }
        // No pictures, and none to be looked for.
        write(root, "notes/a.txt", "about");
        save(root, ".trash/a.png", photo(20));
        assert_eq!(pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap().len(), 1);
        save(root, "lamp/colour/1.png", photo(20));
        let (error, kept) = refused(root);
        assert_eq!(
            error,
            "`lamp` holds pictures, such as `lamp/colour/1.png`, but none with a depth"
        );
        assert_eq!(kept.len(), 1, "{kept:?}");
    }
}

#[test]
fn what_is_no_scene_of_sun_is_not_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "kv1/a/image/a.jpg", photo(20));
    save(root, "kv1/a/depth/a.png", grey16(16, 16, 2500u16.rotate_left(3)));
    // What else real scenes hold.
    save(root, "kv1/a/fullres/a.jpg", photo(20));
    save(root, "kv1/a/depth_bfx/a.png", grey16(16, 16, 5));
    assert_eq!(pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 })).unwrap().len(), 1);
    save(root, "kv2/more/b.jpg", photo(20));
    let (error, kept) = refused(root);
    assert_eq!(error, "`kv2/more` holds pictures, such as `kv2/more/b.jpg`, but none with a depth");
    assert_eq!(kept, ["kv1-a"]);
}

#[test]
fn a_synced_depth_without_a_picture_and_pictures_below_are_errors() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "den/rgb_1.jpg", photo(20));
    save(root, "den/sync_depth_1.png", grey16(16, 16, 2500));
    let read = || pairs(root, "rgbd", "depth", &json!({ "holdout": 0.0 }));
    assert_eq!(read().unwrap().len(), 1);
    save(root, "den/sync_depth_2.png", grey16(16, 16, 2500));
    insta::assert_snapshot!(read().unwrap_err(), @"`den/sync_depth_2.png` has no picture whose name begins with `rgb_`");
    std::fs::remove_file(root.join("den/sync_depth_2.png")).unwrap();
    save(root, "den/more/rgb_2.jpg", photo(20));
    insta::assert_snapshot!(read().unwrap_err(), @"`den/more/rgb_2.jpg` lies in a folder below `den`, where no pictures are looked for");
}
