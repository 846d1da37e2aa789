//! Runs compared by their lock files, and results kept by revisions of a pipeline file.

use super::{CLIPS, Shell};

/// What counts the clips.
const COUNT: &str = r#"
[stages.count]
kind    = "command"
inputs  = { input = "clips" }
command = "find $IN/input/ -name '*.png' | wc -l > $OUT/count"
outputs = ["count"]
"#;

/// Clips of so many frames, counted.
fn counted(frames: u32) -> String {
    CLIPS.replace("frames = 5", &format!("frames = {frames}")) + COUNT
}

#[test]
fn a_revision_keeps_its_results() {
    let shell = Shell::new();
    shell.write("base.toml", "[params]\nlength = 5\n");
    let text = CLIPS.replace("frames = 5", "frames = \"${length}\"");
    shell.write("a.toml", &format!("extends = \"base.toml\"\n{text}"));
    shell.succeed("run a.toml");
    shell.commit("base.toml");
    shell.commit("a.toml");
    shell.write("base.toml", "[params]\nlength = 9\n");
    shell.succeed("run a.toml");
    shell.commit("base.toml");

    let fresh = |set: &str| {
        let stages = shell.plan(&format!("a.toml --set params.length={set}"));
        stages.iter().filter(|stage| stage["state"] == "fresh").count()
    };
    shell.succeed("cache gc HEAD:a.toml HEAD~1:a.toml");
    assert_eq!((fresh("5"), fresh("9")), (3, 3));
    insta::assert_snapshot!(shell.transcript("cache gc HEAD~1:a.toml --dry-run"), @"
    $ pipe cache gc HEAD~1:a.toml --dry-run
    ? 0
    --- stdout
    would remove clips: clips[method=linear], [SIZE]
    would remove clips: clips[method=quadratic], [SIZE]
    would remove 2 files of actions, [SIZE]
    would remove 4 files of items, [SIZE]
    would remove 6 files of objects, [SIZE]
    kept 13 objects, [SIZE]
    ");
    shell.succeed("cache gc HEAD~1:a.toml");
    assert_eq!((fresh("5"), fresh("9")), (3, 1), "the pairs are those of both");

    shell.write("empty.toml", "name = \"empty\"\n");
    shell.commit("empty.toml");
    insta::assert_snapshot!(
        shell.transcript("cache gc nope:a.toml") + &shell.transcript("cache gc HEAD:empty.toml"), @"
    $ pipe cache gc nope:a.toml
    ? 2
    --- stderr
      × git has no revision `nope` in `.`
      help: `git log --oneline -- a.toml` lists those of the file
    $ pipe cache gc HEAD:empty.toml
    ? 2
    --- stderr
      × `empty.toml` has no stages in that revision
      help: name a revision in which it has; nothing was removed
    "
    );
    assert_eq!(fresh("5"), 3, "a mistake removes nothing");
}

#[test]
fn locked_runs_are_compared() {
    let shell = Shell::new();
    shell.write("a.toml", &counted(5));
    shell.succeed("run a.toml --allow-commands --lock");
    shell.commit("a.lock");
    insta::assert_snapshot!(shell.transcript("diff a.lock HEAD:a.lock"), @"
    $ pipe diff a.lock HEAD:a.lock
    ? 0
    --- stdout
    no difference
    ");

    let edited = counted(9).replace("[\"linear\", \"quadratic\"]", "[\"linear\", \"discrete\"]");
    shell.write("a.toml", &edited);
    // With the file as it would run now, before and after it did.
    insta::assert_snapshot!(shell.transcript("diff a.lock a.toml"), @"
    $ pipe diff a.lock a.toml
    ? 0
    --- stdout
    clips[method=linear].frames  5 -> 9  (a.toml:18:10)

    stages
    clips[method=discrete]  only in `a.toml`
    clips[method=linear]  other parameters, not up to date in `a.toml`
    clips[method=quadratic]  only in `a.lock`
    count[method=discrete]  only in `a.toml`
    count[method=linear]  not up to date in `a.toml`
    count[method=quadratic]  only in `a.lock`
    ");
    shell.succeed("run a.toml --allow-commands --lock");
    insta::assert_snapshot!(shell.transcript("diff a.lock a.toml"), @"
    $ pipe diff a.lock a.toml
    ? 0
    --- stdout
    no difference
    ");
    insta::assert_snapshot!(shell.transcript("diff HEAD:a.lock a.lock"), @"
    $ pipe diff HEAD:a.lock a.lock
    ? 0
    --- stdout
    clips[method=linear].frames  5 -> 9

    stages
    clips[method=discrete]  only in `a.lock`
    clips[method=linear]  other parameters, other output
    clips[method=quadratic]  only in `HEAD:a.lock`
    count[method=discrete]  only in `a.lock`
    count[method=linear]  other inputs, same output
    count[method=quadratic]  only in `HEAD:a.lock`
    ");
    let json = shell.succeed("diff HEAD:a.lock a.lock --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["parameters"][0]["path"], "clips.frames");
    assert_eq!(json["parameters"][0]["stages"], serde_json::json!(["clips[method=linear]"]));
    let stage = &json["stages"][1];
    assert_eq!(stage["name"], "clips[method=linear]");
    assert_eq!(stage["made_from"], serde_json::json!(["other parameters"]));
    assert_ne!(stage["old"]["digest"], stage["new"]["digest"]);

    shell.write("cut.lock", "{\"lock_version\": 1");
    let mut mistakes = String::new();
    for line in ["a.lock cut.lock", "a.lock gone.lock", "a.lock HEAD:a.lock --set seed=1"] {
        mistakes += &shell.transcript(&format!("diff {line}"));
    }
    insta::assert_snapshot!(mistakes, @"
    $ pipe diff a.lock cut.lock
    ? 3
    --- stderr
      × `cut.lock` is no lock file of `pipe`: EOF while parsing an object at line 1 column 18
      help: restore it from version control, or write it anew with --lock
    $ pipe diff a.lock gone.lock
    ? 3
    --- stderr
      × cannot access the lock file `gone.lock`: No such file or directory (os error 2)
      help: `pipe run --lock` writes it beside the pipeline file
    $ pipe diff a.lock HEAD:a.lock --set seed=1
    ? 2
    --- stderr
      × `--profile` and `--set` are laid on pipeline files
      help: a lock file tells of a run as it was; each profile has its own
    ");
}

#[test]
fn what_all_cells_have_in_common_is_told_once() {
    let shell = Shell::new();
    let text = CLIPS.replace("\"quadratic\"]", "\"quadratic\", \"discrete\", \"tiles\"]");
    shell.write("a.toml", &text);
    shell.succeed("run a.toml --lock");
    std::fs::rename(shell.path("a.lock"), shell.path("one.lock")).unwrap();
    shell.succeed("run a.toml --set clips.frames=9 --lock");
    insta::assert_snapshot!(shell.transcript("diff one.lock a.lock"), @"
    $ pipe diff one.lock a.lock
    ? 0
    --- stdout
    clips.frames  5 -> 9  in 4 cells

    stages
    clips[method=discrete], clips[method=linear], clips[method=quadratic] and 1 more  other parameters, other output
    ");
    // The other way round, with a file: what is laid on it counts.
    insta::assert_snapshot!(shell.transcript("diff a.toml one.lock --set clips.frames=9"), @"
    $ pipe diff a.toml one.lock --set clips.frames=9
    ? 0
    --- stdout
    clips.frames  9 -> 5  in 4 cells

    stages
    clips[method=discrete], clips[method=linear], clips[method=quadratic] and 1 more  other parameters, other output
    ");
}

#[test]
fn scores_of_locked_runs_stand_side_by_side_while_the_cache_has_them() {
    let shell = Shell::new();
    let image = image::RgbImage::from_pixel(32, 32, image::Rgb([9, 90, 200]));
    std::fs::create_dir(shell.path("pics")).unwrap();
    for name in ["a_in.png", "a_out.png"] {
        image.save(shell.path("pics").join(name)).unwrap();
    }
    shell.write("a.toml", &super::run::scored());
    let mse = |set: &str| -> f64 {
        let table = shell.succeed(&format!("table a.toml --format csv {set}"));
        table.lines().nth(1).unwrap().split(',').nth(5).unwrap().parse().unwrap()
    };
    shell.succeed("run a.toml --lock");
    let before = mse("");
    std::fs::rename(shell.path("a.lock"), shell.path("one.lock")).unwrap();
    shell.succeed("run a.toml --set predict.seed=2 --lock");
    // Scores of a model differ in their last digits from machine to machine.
    let scores = regex::Regex::new(r"[+-]?(\d+|\[HASH\])\.\d{4,}").unwrap();
    let said = || scores.replace_all(&shell.transcript("diff one.lock a.lock"), "#").into_owned();
    insta::assert_snapshot!(said(), @"
    $ pipe diff one.lock a.lock
    ? 0
    --- stdout
    predict.seed  0 -> 2

    stages
    answers  other inputs, other output
    predict  other parameters, other output
    score  other inputs, other output

    results
    score.explained  # -> #  (#)
    score.mae  # -> #  (#)
    score.mse  # -> #  (#)
    score.psnr  # -> #  (#)
    score.ssim  # -> #  (#)
    ");
    let json = shell.succeed("diff one.lock a.lock --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let results = json["results"].as_array().unwrap();
    let result = results.iter().find(|result| result["name"] == "score.mse").unwrap();
    assert_eq!(
        (&result["old"], &result["new"]),
        (&before.into(), &mse("--set predict.seed=2").into())
    );
    // What a file states is kept, so the first of these results goes with the file.
    std::fs::remove_file(shell.path("a.toml")).unwrap();
    shell.succeed("cache gc");
    insta::assert_snapshot!(said(), @"
    $ pipe diff one.lock a.lock
    ? 0
    --- stdout
    predict.seed  0 -> 2

    stages
    answers  other inputs, other output
    predict  other parameters, other output
    score  other inputs, other output

    results
    score.copy  – -> #
    score.explained  – -> #
    score.mae  – -> #
    score.mse  – -> #
    score.psnr  – -> #
    score.ssim  – -> #
    --- stderr
    the cache no longer has the scores of 1 stage of `one.lock`
    ");
}
