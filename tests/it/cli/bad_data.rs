//! Bad data: a message with place and remedy, the documented exit code, and a next run that goes
//! on.

use std::fs;

use image::{ImageFormat, Rgb, RgbImage};

use super::{CLIPS, Shell};

/// Clips of the images in `data`.
fn own_data(task: &str, count: usize) -> String {
    CLIPS
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"data\" }")
        .replace("\"pose\"", &format!("{task:?}"))
        .replace("count  = 2", &format!("count  = {count}\nholdout = 0.0"))
}

fn write_pairs(shell: &Shell, names: &[&str]) {
    for folder in ["input", "target"] {
        fs::create_dir_all(shell.path("data").join(folder)).unwrap();
        for name in names {
            let image = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8, y as u8, name.len() as u8]));
            image.save(shell.path("data").join(folder).join(format!("{name}.jpg"))).unwrap();
        }
    }
}

#[test]
fn more_examples_than_there_are() {
    let shell = Shell::new();
    write_pairs(&shell, &["a", "bb", "ccc"]);
    shell.write("clips.toml", &own_data("pairs", 4));
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   pairs
      × stage `pairs`: subset 0 of 4 needs 4 images, but the data has 3
      help: lower `count` or `subset`, or get more data
    skipped  clips[method=linear]  because `pairs` failed
    skipped  clips[method=quadratic]  because `pairs` failed
    failed   0 stages ran, 1 failed, 2 not reached in [TIME]
    ");
    shell.succeed("run clips.toml --set pairs.count=3");
}

#[test]
fn a_truncated_photograph() {
    let shell = Shell::new();
    write_pairs(&shell, &["a", "bb"]);
    shell.write("clips.toml", &own_data("pairs", 2));
    let path = shell.path("data/target/bb.jpg");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   pairs
      × stage `pairs`: `target/bb.jpg` is not a whole image: Format error decoding Jpeg: I/O errors
      │ Not enough bytes, expected 162 but found 131
      help: the file may be cut short; copy or download it again
    skipped  clips[method=linear]  because `pairs` failed
    skipped  clips[method=quadratic]  because `pairs` failed
    failed   0 stages ran, 1 failed, 2 not reached in [TIME]
    ");
    fs::write(&path, whole).unwrap();
    shell.succeed("run clips.toml");
}

/// A COCO folder of one photograph with these annotations.
fn write_coco(shell: &Shell, annotations: &str) {
    for folder in ["coco/annotations", "coco/train2017"] {
        fs::create_dir_all(shell.path(folder)).unwrap();
    }
    shell.write("coco/annotations/person_keypoints_train2017.json", annotations);
    RgbImage::new(64, 64)
        .save_with_format(shell.path("coco/train2017/7.jpg"), ImageFormat::Jpeg)
        .unwrap();
}

const COCO: &str = r#"name = "coco"

[stages.pairs]
kind   = "dataset"
source = { source = "coco", root = "coco" }
task   = "pose"
size   = [64, 64]
"#;

#[test]
fn malformed_annotations() {
    let shell = Shell::new();
    shell.write("coco.toml", COCO);
    let keypoints = ["30", "30", "2"].repeat(17).join(", ");
    let whole = format!(
        r#"{{"images": [{{"id": 7, "file_name": "7.jpg", "width": 64, "height": 64}}],
 "annotations": [{{"id": 3, "image_id": 7, "num_keypoints": 17, "keypoints": [{keypoints}]}}]}}"#
    );
    write_coco(&shell, &whole[..whole.len() - 20]);
    insta::assert_snapshot!(shell.transcript("run coco.toml"), @"
    $ pipe run coco.toml
    ? 1
    --- stderr
    coco: 1 stage on cpu
    failed   pairs
      × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file:
      │ element 0 of the list (from 0): EOF while parsing a value at line 2 column 246
      help: download the annotations again; they come as one zip archive
    failed   0 stages ran, 1 failed in [TIME]
    ");
    write_coco(&shell, &whole.replace("\"image_id\": 7", "\"image_id\": \"seven\""));
    insta::assert_snapshot!(shell.transcript("run coco.toml"), @r#"
    $ pipe run coco.toml
    ? 1
    --- stderr
    coco: 1 stage on cpu
    failed   pairs
      × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file:
      │ element 0 of the list (from 0): invalid type: string "seven", expected u64 at line 2 column 46
      help: download the annotations again; they come as one zip archive
    failed   0 stages ran, 1 failed in [TIME]
    "#);
    let mut told = String::new();
    for text in ["[]", "3", " \n", "null", "<html>", r#"{"images": [[]], "annotations": []}"#] {
        write_coco(&shell, text);
        let output = shell.transcript("run coco.toml");
        let message = output.lines().skip_while(|line| !line.contains('×'));
        told.extend(
            message.take_while(|line| !line.starts_with("failed")).map(|l| format!("{l}\n")),
        );
    }
    insta::assert_snapshot!(told, @"
    × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file: it
    │ must be an object with `images` and `annotations`, but is a list
    help: download the annotations again; they come as one zip archive
    × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file: it
    │ must be an object with `images` and `annotations`, but is a number
    help: download the annotations again; they come as one zip archive
    × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file: it
    │ must be an object with `images` and `annotations`, but is empty
    help: download the annotations again; they come as one zip archive
    × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file: it
    │ must be an object with `images` and `annotations`, but is `true`, `false` or `null`
    help: download the annotations again; they come as one zip archive
    × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file: it
    │ must be an object with `images` and `annotations`, but is no JSON
    help: download the annotations again; they come as one zip archive
    × stage `pairs`: `annotations/person_keypoints_train2017.json` is not a COCO annotation file:
    │ element 0 of the list (from 0): invalid length 0, expected an image with `id`, `file_name`,
    │ `width` and `height` at line 1 column 14
    help: download the annotations again; they come as one zip archive
    ");
    write_coco(&shell, &whole);
    shell.succeed("run coco.toml");
    // The folder is there, but not what belongs into it.
    fs::remove_dir_all(shell.path("coco/annotations")).unwrap();
    insta::assert_snapshot!(shell.transcript("run coco.toml"), @"
    $ pipe run coco.toml
    ? 3
    --- stderr
    coco: 1 stage on cpu
    failed   pairs
      × stage `pairs`: cannot read an annotation file of COCO 2017: cannot access
      │ `coco/annotations/person_keypoints_train2017.json`: No such file or directory (os error 2)
      help: check the data set's `root`, and that the download is complete
    failed   0 stages ran, 1 failed in [TIME]
    ");
}

const ARC: &str = r#"name = "arc"

[stages.pairs]
kind   = "dataset"
source = { source = "arc", root = "arc", set = "training", task = "t1" }
task   = "arc"
size   = [64, 64]
"#;

#[test]
fn malformed_arc_tasks() {
    let shell = Shell::new();
    shell.write("arc.toml", ARC);
    fs::create_dir_all(shell.path("arc/data/training")).unwrap();
    let task = |grid: &str| {
        let text = format!(
            r#"{{"train": [{{"input": {grid}, "output": [[1]]}}], "test": [{{"input": [[1]], "output": [[1]]}}]}}"#
        );
        shell.write("arc/data/training/t1.json", &text);
    };
    task("[[1, 2], [3]]");
    insta::assert_snapshot!(shell.transcript("run arc.toml"), @"
    $ pipe run arc.toml
    ? 1
    --- stderr
    arc: 1 stage on cpu
    failed   pairs
      × stage `pairs`: `data/training/t1.json` is not an ARC task: row 1 of the grid has 1 values, but
      │ the first row has 2 at line 1 column 34
      help: a task has `train` and `test`, lists of pairs of an `input` and an `output` grid of
            colours 0 to 9, as in the public data
    failed   0 stages ran, 1 failed in [TIME]
    ");
    task("[[1, 12]]");
    insta::assert_snapshot!(shell.transcript("run arc.toml"), @"
    $ pipe run arc.toml
    ? 1
    --- stderr
    arc: 1 stage on cpu
    failed   pairs
      × stage `pairs`: `data/training/t1.json` is not an ARC task: the value 12 in row 0 of the grid
      │ must be 0 to 9 at line 1 column 30
      help: a task has `train` and `test`, lists of pairs of an `input` and an `output` grid of
            colours 0 to 9, as in the public data
    failed   0 stages ran, 1 failed in [TIME]
    ");
    insta::assert_snapshot!(
        shell.transcript("run arc.toml --set pairs.source.task=t2"), @"
        $ pipe run arc.toml --set pairs.source.task=t2
        ? 1
        --- stderr
        arc: 1 stage on cpu
        failed   pairs
          × stage `pairs`: `data/training` has no task `t2`; it holds 1 tasks, such as `t1`
          help: name the file without `.json`, or count from 0 in the order of names
        failed   0 stages ran, 1 failed in [TIME]
        "
    );
    task("[[1, 2], [3, 4]]");
    shell.succeed("run arc.toml");
}

/// A FIFO waits for who writes to it, and `/dev/zero` never ends.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let shell = Shell::new();
    write_pairs(&shell, &["a", "bb"]);
    shell.write("clips.toml", &own_data("pairs", 2));
    shell.succeed("run clips.toml");
    let path = shell.path("data/target/bb.jpg");
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let fifo = nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU);
    fifo.unwrap();
    for line in ["run", "plan", "check", "explain"] {
        let more = if line == "explain" { " pairs" } else { "" };
        let told = shell.transcript_at_home(&format!("{line} clips.toml{more}"));
        // What `check` finds, it finds in the file: there it stands, with its place.
        let code = if line == "check" { "? 2" } else { "? 3" };
        assert!(told.contains(code), "{told}");
        assert!(told.contains("data/target/bb.jpg`: it is a FIFO, not a regular file"), "{told}");
    }
    insta::assert_snapshot!(shell.transcript_at_home("run clips.toml --cache other"), @"
    $ pipe run clips.toml --cache other
    ? 3
    --- stderr
    clips: 3 stages on cpu
    failed   pairs
      × stage `pairs`: cannot read an image: cannot access `data/target/bb.jpg`: it is a FIFO, not a regular file
      help: put a file, or a link to one, in its place
    skipped  clips[method=linear]  because `pairs` failed
    skipped  clips[method=quadratic]  because `pairs` failed
    failed   0 stages ran, 1 failed, 2 not reached in [TIME]
    ");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let told = shell.transcript("plan clips.toml");
    assert!(told.contains("? 3") && told.contains("it is a device, not a regular file"), "{told}");
    fs::remove_file(&path).unwrap();
    fs::write(&path, whole).unwrap();
    assert!(shell.succeed("plan clips.toml").contains("0 stages to run"));
}
