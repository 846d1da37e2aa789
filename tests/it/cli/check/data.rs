//! What `check` says of data: of what is not there, and of too little of it.

use std::fs;

use crate::cli::{CLIPS, Shell};

/// Clips of five pairs in `data`.
fn own(shell: &Shell) {
    let text = CLIPS
        .replace("{ method = \"linear\" }", "{ n = 2 }")
        .replace("{ method = [\"linear\", \"quadratic\"] }", "{ n = [2, 7] }")
        .replace("\"${method}\"", "\"linear\"")
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"data\" }")
        .replace("\"pose\"", "\"pairs\"\nholdout = 0.0")
        .replace("count  = 2", "count  = \"${n}\"");
    shell.write("clips.toml", &text);
}

#[test]
fn a_damaged_image_is_found_where_a_stage_takes_few() {
    let shell = Shell::new();
    own(&shell);
    for folder in ["data/input", "data/target"] {
        fs::create_dir_all(shell.path(folder)).unwrap();
        for name in 0..40 {
            shell.picture(&format!("{folder}/{name:02}.jpg"));
        }
    }
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @"
    $ pipe check clips.toml
    ? 0
    --- stdout
    clips.toml: fine, 4 stages
    ");
    for name in 0..40 {
        let path = shell.path("data/target").join(format!("{name:02}.jpg"));
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @r#"
    $ pipe check clips.toml
    ? 2
    --- stderr
      × stage `pairs`: `target/04.jpg` is not a whole image: Format error decoding Jpeg: I/O errors
      │ Not enough bytes, expected 16 but found 15
      │ `target/16.jpg` is not a whole image: Format error decoding Jpeg: I/O errors Not enough bytes,
      │ expected 16 but found 15
        ╭─[clips.toml:9:10]
      8 │ kind   = "dataset"
      9 │ source = { source = "folder", root = "data" }
        ·          ──────────────────┬─────────────────
        ·                            ╰── `source`
     10 │ task   = "pairs"
        ╰────
      help: the file may be cut short; copy or download it again

      × stage `pairs`: `target/21.jpg` is not a whole image: Format error decoding Jpeg: I/O errors
      │ Not enough bytes, expected 16 but found 15
      │ `target/05.jpg` is not a whole image: Format error decoding Jpeg: I/O errors Not enough bytes,
      │ expected 16 but found 15
      │ `target/11.jpg` is not a whole image: Format error decoding Jpeg: I/O errors Not enough bytes,
      │ expected 16 but found 15
      │ `target/14.jpg` is not a whole image: Format error decoding Jpeg: I/O errors Not enough bytes,
      │ expected 16 but found 15
      │ `target/39.jpg` is not a whole image: Format error decoding Jpeg: I/O errors Not enough bytes,
      │ expected 16 but found 15
        ╭─[clips.toml:9:10]
      8 │ kind   = "dataset"
      9 │ source = { source = "folder", root = "data" }
        ·          ──────────────────┬─────────────────
        ·                            ╰── `source`
     10 │ task   = "pairs"
        ╰────
      help: the file may be cut short; copy or download it again
    clips.toml: 2 errors
    "#);
    // Those of a larger stage are not looked at, which is said.
    let large = "check clips.toml --set sweep.baseline.n=31 --set sweep.one_at_a_time.n=[31]";
    insta::assert_snapshot!(shell.transcript(large), @"
    $ pipe check clips.toml --set sweep.baseline.n=31 --set sweep.one_at_a_time.n=[31]
    ? 0
    --- stdout
    clips.toml: fine, 2 stages; not looked into: images where a stage takes more than 30
    ");
    let json: serde_json::Value =
        serde_json::from_str(&shell.succeed(&large.replace("check", "check --json"))).unwrap();
    let unseen = &json["files"][0]["not_looked_into"];
    assert_eq!(*unseen, serde_json::json!(["images where a stage takes more than 30"]));
    // What decides is how many there are, not whether their number is written.
    for name in 12..40 {
        for folder in ["data/input", "data/target"] {
            fs::remove_file(shell.path(folder).join(format!("{name:02}.jpg"))).unwrap();
        }
    }
    let all = fs::read_to_string(shell.path("clips.toml")).unwrap();
    let all = all.replace("count  = \"${n}\"\n", "");
    let sweep = all.find("[sweep]").unwrap()..all.find("[stages.pairs]").unwrap();
    shell.write("all.toml", &all.replace(&all[sweep], ""));
    assert!(shell.transcript("check all.toml").contains("is not a whole image"));
}

#[test]
fn data_and_weights_that_are_not_here_are_told_but_no_error() {
    let shell = Shell::new();
    own(&shell);
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @"
    $ pipe check clips.toml
    ? 0
    --- stdout
    clips.toml: fine, 4 stages
    --- stderr
    warning: there is no data folder `data` (clips.toml:9:38); needed by `pairs[n=2]` and 1 more
      help: put the data there, or set `stages.pairs.source.root` to its folder
    ");
    let json = shell.succeed("check --json clips.toml");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["files"][0]["lacks"][0]["place"]["line"], 9);
    shell.write("elsewhere.toml", "[stages.prompt]\nkind = \"text_encode\"\nmodel = \"weights\"\n");
    insta::assert_snapshot!(shell.transcript("check elsewhere.toml"), @"
    $ pipe check elsewhere.toml
    ? 0
    --- stdout
    elsewhere.toml: fine, 1 stage; not looked into: weights (`weights`)
    --- stderr
    warning: the model `weights` cannot be read: there is no model folder `weights` (elsewhere.toml:3:9); needed by `prompt`
      help: name a folder in diffusers' layout, `hf:org/repo@revision`, or `builtin:tiny`
    ");
}

#[test]
fn more_images_than_there_are_is_an_error_where_the_number_stands() {
    let shell = Shell::new();
    own(&shell);
    for folder in ["data/input", "data/target"] {
        fs::create_dir_all(shell.path(folder)).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            shell.picture(&format!("{folder}/{name}.png"));
        }
    }
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @r#"
    $ pipe check clips.toml
    ? 2
    --- stderr
      × stage `pairs`: subset 0 of 7 needs 7 images, but the data has 5
       ╭─[clips.toml:5:27]
     4 │ baseline      = { n = 2 }
     5 │ one_at_a_time = { n = [2, 7] }
       ·                           ┬
       ·                           ╰── `count`
     6 │ 
       ╰────
        ╭─[clips.toml:12:10]
     11 │ holdout = 0.0
     12 │ count  = "${n}"
        ·          ───┬──
        ·             ╰── used here
     13 │ size   = [32, 32]
        ╰────
      help: lower `count` or `subset`, or get more data
    clips.toml: 1 error
    "#);
    shell.succeed("check clips.toml --set sweep.one_at_a_time.n=[2,5]");
    // A plan says what would run; it does not look into the data.
    shell.succeed("plan clips.toml");
    fs::remove_dir_all(shell.path("data/target")).unwrap();
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @r#"
    $ pipe check clips.toml
    ? 2
    --- stderr
      × stage `pairs`: cannot read the folder of images: cannot access `data/target`: No such file or
      │ directory (os error 2)
        ╭─[clips.toml:9:10]
      8 │ kind   = "dataset"
      9 │ source = { source = "folder", root = "data" }
        ·          ──────────────────┬─────────────────
        ·                            ╰── `source`
     10 │ task   = "pairs"
        ╰────
      help: put the images into `input/` and `target/` with equal names, or side by side as
            `name_in.png` and `name_out.png`; below `train/` and `test/` if they differ
    clips.toml: 1 error
    "#);
}

#[test]
fn built_in_images_have_no_end_so_their_number_must_be_given() {
    let shell = Shell::new();
    shell.write("clips.toml", &CLIPS.replace("count  = 2\n", ""));
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @r#"
    $ pipe check clips.toml
    ? 2
    --- stderr
      × stage `pairs`: the procedural world has no end, so `count` must be given
       ╭─[clips.toml:7:9]
     6 │ 
     7 │ [stages.pairs]
       ·         ──┬──
       ·           ╰── `count`
     8 │ kind   = "dataset"
       ╰────
      help: for example count = 10
    clips.toml: 1 error
    "#);
}

#[test]
fn a_metric_that_cannot_score_the_task_is_found_before_any_work() {
    let shell = Shell::new();
    shell.succeed("init first");
    let text = fs::read_to_string(shell.path("first.toml")).unwrap();
    shell.write("first.toml", &text.replace("task   = \"pose\"", "task   = \"segmentation\""));
    insta::assert_snapshot!(shell.transcript("check first.toml"), @r#"
    $ pipe check first.toml
    ? 2
    --- stderr
      × stage `score`: the metric `pose` cannot score `segmentation`, which `test` gives
        ╭─[first.toml:87:10]
     86 │ inputs = { predictions = "answers", pairs = "test" }
     87 │ metric = "pose"
        ·          ───┬──
        ·             ╰── `metric`
     88 │ 
        ╰────
      help: `segmentation` can be scored by `miou`, `image`, `edges`
    first.toml: 1 error
    "#);
    shell.write(
        "first.toml",
        &text.replace("metric = \"pose\"", "metric = \"image\"").replace(".f1", ".psnr"),
    );
    shell.succeed("check first.toml");
}

#[test]
fn a_root_from_the_command_line_is_what_is_shown() {
    let shell = Shell::new();
    own(&shell);
    shell.pair("few", "a", 1);
    let line = "check clips.toml --set pairs.source.root=few";
    insta::assert_snapshot!(shell.transcript(line), @"
    $ pipe check clips.toml --set pairs.source.root=few
    ? 2
    --- stderr
      × stage `pairs`: subset 0 of 2 needs 2 images, but the data has 1
       ╭─[--set:1:19]
     1 │ pairs.source.root=few
       ·                   ─┬─
       ·                    ╰── the data
       ╰────
      help: lower `count` or `subset`, or get more data
            `count`: clips.toml:5:24
            used here: clips.toml:12:10

      × stage `pairs`: subset 0 of 7 needs 7 images, but the data has 1
       ╭─[--set:1:19]
     1 │ pairs.source.root=few
       ·                   ─┬─
       ·                    ╰── the data
       ╰────
      help: lower `count` or `subset`, or get more data
            `count`: clips.toml:5:27
            used here: clips.toml:12:10
    clips.toml: 2 errors
    ");
}

#[test]
fn all_damaged_images_are_named() {
    let shell = Shell::new();
    own(&shell);
    for (name, shade) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6), ("g", 7)] {
        shell.pair("data", name, shade);
    }
    for name in ["a", "c", "e"] {
        shell.write(&format!("data/input/{name}.png"), "no picture");
    }
    insta::assert_snapshot!(shell.transcript("check clips.toml"), @r#"
    $ pipe check clips.toml
    ? 2
    --- stderr
      × stage `pairs`: `input/e.png` is not a whole image: its first bytes are those of no known
      │ format
      │ `input/a.png` is not a whole image: its first bytes are those of no known format
        ╭─[clips.toml:9:10]
      8 │ kind   = "dataset"
      9 │ source = { source = "folder", root = "data" }
        ·          ──────────────────┬─────────────────
        ·                            ╰── `source`
     10 │ task   = "pairs"
        ╰────
      help: the file may be cut short; copy or download it again

      × stage `pairs`: `input/c.png` is not a whole image: its first bytes are those of no known
      │ format
        ╭─[clips.toml:9:10]
      8 │ kind   = "dataset"
      9 │ source = { source = "folder", root = "data" }
        ·          ──────────────────┬─────────────────
        ·                            ╰── `source`
     10 │ task   = "pairs"
        ╰────
      help: the file may be cut short; copy or download it again
    clips.toml: 2 errors
    "#);
    for name in ["b", "d", "f", "g"] {
        shell.write(&format!("data/input/{name}.png"), "no picture");
    }
    // Two in the smaller cell, and those that only the larger takes.
    let told = shell.transcript("check clips.toml");
    assert_eq!(told.matches("is not a whole image").count(), 7, "{told}");
    let one = shell.transcript("check clips.toml --set pairs.count=7");
    assert!(one.contains("and 2 more"), "{one}");
}

/// With `task = "images"`, input and target are one picture.
#[test]
fn answers_to_pictures_without_a_target_are_not_scored() {
    let shell = Shell::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    fs::copy(folder.join("custom_pairs.toml"), shell.path("mine.toml")).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        shell.pair("custom_pairs", name, name.as_bytes()[0]);
    }
    shell.pair("unknown", "fresh", 77);
    fs::rename(shell.path("unknown/input"), shell.path("new")).unwrap();
    let settings = "--set test.source={source=\"folder\",root=\"new\"} --set test.task=images --set test.holdout=1";
    for line in ["check", "run"] {
        let said = shell.transcript(&format!("{line} mine.toml {settings}"));
        assert!(said.contains("? 2"), "{said}");
        let said = said.replace("\n  │ ", " ");
        assert!(
            said.contains(
                "stage `score`: the pairs of `test` have no targets to compare with: with `task = \
                 \"images\"`, the target is the picture itself"
            ),
            "{said}"
        );
        assert!(
            said.contains("[stages.score]") && said.contains("help: give them a task"),
            "{said}"
        );
    }
    let said = shell.transcript(&format!("run mine.toml --only score {settings}"));
    assert!(said.contains("? 2") && said.contains("have no targets"), "{said}");
    // What only shows is not refused.
    shell.succeed(&format!("plan mine.toml {settings}"));
    // The example pairs of an answer that is scored must have targets as well.
    let examples = ["score.inputs.examples=pairs", "pairs.task=images"];
    let set = examples.map(|set| format!(" --set {set}")).concat();
    let said = shell.transcript(&format!("check mine.toml{set}"));
    assert!(said.contains("the pairs of `pairs` have no targets"), "{said}");
}
