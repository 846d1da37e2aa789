//! Any bytes are annotations of COCO, a mask, an ARC task, or an error.
#![no_main]

use std::{fs, sync::LazyLock};

use image::GrayImage;
use libfuzzer_sys::fuzz_target;
use pipe::{
    data::{
        arc::{self, Task},
        coco::{Crowd, Index, Wanted},
        pose::Visibility,
        rle::Segmentation,
    },
    store::SourceReader,
};

/// A data set whose annotations are written anew for each input.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(folder.path().join("annotations")).expect("a folder in it");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(segmentation) = serde_json::from_slice::<Segmentation>(bytes) {
        let _ = segmentation.draw(&mut GrayImage::new(13, 7));
    }
    if let Ok(task) = serde_json::from_slice::<Task>(bytes)
        && !task.train.is_empty()
    {
        let task = task.with_grey_rule();
        let (cell, grid) = (task.cell(), &task.train[0].output);
        assert_eq!(&arc::decode(&arc::render(grid, cell), grid.size(), cell), grid);
    }
    let sources = SourceReader::new(FOLDER.path());
    for name in ["person_keypoints", "instances"] {
        let file = FOLDER.path().join(format!("annotations/{name}_train2017.json"));
        fs::write(file, bytes).expect("a file in the temporary folder");
    }
    let wanted = Wanted {
        train: true,
        size: [48, 64],
        min_share: 0.0,
        crowd: Crowd::Keep,
        visibility: Visibility::Labelled,
    };
    let _ = Index::persons(&sources, wanted);
    let _ = Index::instances(&sources, wanted, &["person"]);
});
