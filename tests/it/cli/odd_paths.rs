//! Names and links that a data folder can have: they work, or are named in an error.
#![cfg(unix)]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
};

use image::{Rgb, RgbImage};

use super::{CLIPS, Shell, command};

const PAIRS: &str = r#"name = "pairs"

[stages.pairs]
kind    = "dataset"
source  = { source = "folder", root = "data" }
task    = "pairs"
count   = 1
holdout = 0.0
size    = [32, 32]
"#;

fn picture(path: &Path, shade: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(64, 48, Rgb([shade, 0, 0])).save(path).unwrap();
}

/// A shell with the pair of images `name`.
fn with_pair(name: &str) -> Shell {
    let shell = Shell::new();
    shell.write("pairs.toml", PAIRS);
    for folder in ["input", "target"] {
        picture(&shell.path("data").join(folder).join(name), 40);
    }
    shell
}

/// Whether a run has nothing to do.
fn is_fresh(shell: &Shell) -> bool {
    shell.plan("pairs.toml").iter().all(|stage| stage["state"] == "fresh")
}

#[test]
fn a_name_with_a_newline_is_a_name() {
    let name = "two\nlines \"quoted\" \u{1b}[31m ü.png";
    let shell = with_pair(name);
    shell.succeed("run pairs.toml");
    assert!(is_fresh(&shell));
    picture(&shell.path("data").join("target").join(name), 80);
    assert!(!is_fresh(&shell));
    shell.succeed("run pairs.toml");
    assert!(is_fresh(&shell));
}

#[test]
fn a_name_that_is_no_unicode_is_told() {
    let shell = with_pair("a.png");
    let odd = shell.path("data/input").join(OsStr::from_bytes(b"b\xff.png"));
    fs::copy(shell.path("data/input/a.png"), odd).unwrap();
    insta::assert_snapshot!(shell.transcript("run pairs.toml"), @r#"
    $ pipe run pairs.toml
    ? 3
    --- stderr
    pairs: 1 stage on cpu
    failed   pairs
      × stage `pairs`: cannot read the folder of images: cannot access `data/input`: the name
      │ "b\xFF.png" in it is not Unicode
      help: rename the file, or move it elsewhere
    failed   0 stages ran, 1 failed in [TIME]
    "#);
}

#[test]
fn a_pipeline_file_may_have_any_name() {
    let shell = with_pair("a.png");
    let name = OsStr::from_bytes(b"p\xff\n.toml");
    fs::rename(shell.path("pairs.toml"), shell.dir.path().join(name)).unwrap();
    let run = || {
        let output = command(shell.dir.path()).arg("run").arg(name).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run().0, Some(0), "{}", run().1);
    assert!(run().1.contains("0 stages ran"), "{}", run().1);
}

#[test]
fn a_link_out_of_the_root_counts_by_its_content() {
    let shell = with_pair("a.png");
    let outside = shell.path("elsewhere/a.png");
    picture(&outside, 120);
    fs::remove_file(shell.path("data/target/a.png")).unwrap();
    symlink(&outside, shell.path("data/target/a.png")).unwrap();
    // The folder is a link, too.
    fs::rename(shell.path("data"), shell.path("real")).unwrap();
    symlink("real", shell.path("data")).unwrap();
    shell.succeed("run pairs.toml");
    assert!(is_fresh(&shell));
    picture(&outside, 160);
    assert!(!is_fresh(&shell));
    // The same content by another way is the same.
    picture(&outside, 120);
    fs::remove_file(shell.path("data/target/a.png")).unwrap();
    fs::copy(&outside, shell.path("real/target/a.png")).unwrap();
    assert!(is_fresh(&shell));
}

#[test]
fn links_that_lead_nowhere_are_named() {
    let shell = with_pair("a.png");
    fs::remove_file(shell.path("data/target/a.png")).unwrap();
    symlink("a.png", shell.path("data/target/a.png")).unwrap();
    insta::assert_snapshot!(shell.transcript("run pairs.toml"), @"
    $ pipe run pairs.toml
    ? 3
    --- stderr
    pairs: 1 stage on cpu
    failed   pairs
      × stage `pairs`: cannot read an image: cannot access `data/target/a.png`: Too many levels of
      │ symbolic links (os error 40)
      help: check the data set's `root`, and that the download is complete
    failed   0 stages ran, 1 failed in [TIME]
    ");
    fs::remove_file(shell.path("data/target/a.png")).unwrap();
    symlink("gone.png", shell.path("data/target/a.png")).unwrap();
    insta::assert_snapshot!(shell.transcript("run pairs.toml"), @"
    $ pipe run pairs.toml
    ? 3
    --- stderr
    pairs: 1 stage on cpu
    failed   pairs
      × stage `pairs`: cannot read an image: cannot access `data/target/a.png`: No such file or
      │ directory (os error 2)
      help: check the data set's `root`, and that the download is complete
    failed   0 stages ran, 1 failed in [TIME]
    ");
    fs::remove_dir_all(shell.path("data")).unwrap();
    symlink("data", shell.path("data")).unwrap();
    insta::assert_snapshot!(shell.transcript("run pairs.toml"), @"
    $ pipe run pairs.toml
    ? 3
    --- stderr
      × there is no data folder `data` (pairs.toml:5:39); needed by `pairs`
      help: put the data there, or set `stages.pairs.source.root` to its folder
    ");
    // Once mended, the run goes through.
    fs::remove_file(shell.path("data")).unwrap();
    for folder in ["input", "target"] {
        picture(&shell.path("data").join(folder).join("a.png"), 40);
    }
    shell.succeed("run pairs.toml");
}

#[test]
fn a_remote_may_be_a_folder_of_any_name() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let odd = shell.path("a\n\tb\u{1b}").join(OsStr::from_bytes(b"\xff"));
    fs::create_dir_all(&odd).unwrap();
    let push = |remote: &str| {
        let mut push = command(&odd);
        push.args(["cache", "push", "--all", "--cache", "../../cache", "--remote", remote]);
        let output = push.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let home = shell.dir.path().to_str().unwrap();
    let file = format!("file://{home}/x//y");
    for (remote, folder) in [
        ("rel", odd.join("rel")),
        ("ta\tb\n\u{1b}c", odd.join("ta\tb\n\u{1b}c")),
        ("new/../up", odd.join("up")),
        ("aa//b/../c", odd.join("aa/c")),
        (file.as_str(), shell.path("x/y")),
        (format!("file://{home}/z\n").as_str(), shell.path("z\n")),
    ] {
        assert_eq!(push(remote), (Some(0), String::new()), "{remote:?}");
        assert!(folder.join("format").is_file(), "{remote:?}");
        assert_eq!(push(remote).0, Some(0), "{remote:?}");
    }
    insta::assert_snapshot!(shell.transcript("cache push --all --remote file://rem"), @"
    $ pipe cache push --all --remote file://rem
    ? 2
    --- stderr
      × `file://rem` is no folder of this machine: `rem` is where the name of another machine stands
      help: write the path of the folder alone, as in `/mnt/shared`, or `file:///mnt/shared`
    ");
    let hash = shell.transcript("cache push --all --remote file:///a#b");
    assert!(hash.contains("? 2") && hash.contains("a path ends at `?` and `#`"), "{hash}");
}
