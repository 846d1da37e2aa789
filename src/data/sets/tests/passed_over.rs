//! Pictures where none are looked for.

use serde_json::json;

use super::{grey, pairs, photo, save, write};

#[test]
fn no_photograph_of_dreambooth_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for shot in 0..3 {
        save(root, &format!("dataset/cat/{shot:02}.jpg"), photo(shot * 20));
    }
    write(root, "dataset/prompts_and_classes.txt", "cat");
    save(root, "dataset/.thumbnails/00.jpg", photo(20));
    let more = json!({ "holdout": 0.0 });
    let read = || pairs(root, "dreambooth", "images", &more);
    assert_eq!(read().unwrap().len(), 3);
    save(root, "dataset/cat/more/03.jpg", photo(20));
    insta::assert_snapshot!(read().unwrap_err(), @"`dataset/cat/more/03.jpg` lies in a folder below `dataset/cat`, where no pictures are looked for");
    std::fs::remove_dir_all(root.join("dataset/cat/more")).unwrap();
    std::fs::create_dir(root.join("dataset/dog")).unwrap();
    assert_eq!(read().unwrap_err(), "`dataset/dog` holds no photographs");
    std::fs::remove_dir(root.join("dataset/dog")).unwrap();
    save(root, "dataset/loose.jpg", photo(20));
    insta::assert_snapshot!(read().unwrap_err(), @"`dataset/loose.jpg` is a picture beside the folders of subjects");
}

#[test]
fn no_photograph_of_bsds500_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, "images/train/7.png", photo(20));
    save(root, "boundaries_png/train/7_1.png", grey(16, 16, 255));
    write(root, "images/train/Thumbs.db", "");
    let read = |task: &str| pairs(root, "bsds500", task, &json!({}));
    assert_eq!((read("images").unwrap().len(), read("boundaries").unwrap().len()), (1, 1));
    for (stray, told) in [
        ("images/stray.jpg", "`images/stray.jpg` is a picture beside the folders of pictures"),
        (
            "images/train/sub/extra.jpg",
            "`images/train/sub/extra.jpg` lies in a folder below `images/train`, where no pictures are looked for",
        ),
    ] {
        save(root, stray, photo(40));
        for task in ["images", "boundaries"] {
            assert_eq!(read(task).unwrap_err(), told);
        }
        std::fs::remove_file(root.join(stray)).unwrap();
    }
}
