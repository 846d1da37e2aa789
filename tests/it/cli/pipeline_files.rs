//! Pipeline files: checked, started, shown, compared.

use super::{CLIPS, Shell};

#[test]
fn all_errors_of_a_file_are_shown_at_once() {
    let shell = Shell::new();
    shell.write(
        "wrong.toml",
        r#"name = "wrong"

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
conut  = 3
size   = "large"

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pears" }
method = "quadratic"
"#,
    );
    insta::assert_snapshot!(shell.transcript("check wrong.toml"), @r#"
    $ pipe check wrong.toml
    ? 2
    --- stderr
      × unknown key `conut`
       ╭─[wrong.toml:7:1]
     6 │ task   = "pose"
     7 │ conut  = 3
       · ──┬──
       ·   ╰── nothing reads this
     8 │ size   = "large"
       ╰────
      help: did you mean `count`?

      × `size` must be a list of 2 values, but is the string "large"
       ╭─[wrong.toml:8:10]
     7 │ conut  = 3
     8 │ size   = "large"
       ·          ───┬───
       ·             ╰── must be a list of 2 values
     9 │ 
       ╰────

      × stage `clips` has no `frames`
        ╭─[wrong.toml:10:9]
      9 │ 
     10 │ [stages.clips]
        ·         ──┬──
        ·           ╰── `frames` is not set here
     11 │ kind   = "interpolate"
        ╰────
      help: add `frames = ...`

      × there is no stage `pears`
        ╭─[wrong.toml:12:20]
     11 │ kind   = "interpolate"
     12 │ inputs = { pairs = "pears" }
        ·                    ───┬───
        ·                       ╰── unknown stage
     13 │ method = "quadratic"
        ╰────
      help: did you mean `pairs`?
    wrong.toml: 4 errors
    "#);
}

#[test]
fn tables_are_checked_before_any_work() {
    let shell = Shell::new();
    shell.succeed("init first");
    let first = std::fs::read_to_string(shell.path("first.toml")).unwrap();
    let table = "values    = [\"score.f1\", \"score.precison\"]\n\
                 reference = { source = \"Table 1\", values = \"published.csv\" }";
    assert!(first.contains("value   = \"score.f1\""));
    let text = first.replace("value   = \"score.f1\"", table);
    shell.write("wrong.toml", &text);
    let said = shell.transcript("check wrong.toml");
    assert!(said.contains("? 2"), "{said}");
    assert!(said.contains("stage `score` gives no `precison`"), "{said}");
    assert!(said.contains("did you mean `precision`?"), "{said}");
    assert!(said.contains("cannot read the reference numbers in `published.csv`"), "{said}");
    shell.write("right.toml", &text.replace("precison", "precision"));
    shell.write("published.csv", "n,score\n10,0.5\n");
    let said = shell.transcript("check right.toml");
    assert!(said.contains("`published.csv` have no column `value`"), "{said}");
    shell.write("published.csv", "n,value\n10\n");
    let said = shell.transcript("check right.toml");
    assert!(said.contains("`published.csv` are no CSV"), "{said}");
    shell.write("published.csv", "n, value\n10,0.5\n");
    shell.succeed("check right.toml");
}

#[test]
fn a_missing_file_is_a_usage_error() {
    insta::assert_snapshot!(Shell::new().transcript("plan nowhere.toml"), @"
    $ pipe plan nowhere.toml
    ? 2
    --- stderr
      × cannot read `nowhere.toml`: No such file or directory (os error 2)
      help: check the path; `pipe init` writes a file to start from
    ");
}

#[test]
fn the_starter_is_correct_and_never_overwritten() {
    let shell = Shell::new();
    insta::assert_snapshot!(shell.transcript("init first"), @"
    $ pipe init first
    ? 0
    --- stdout
    first.toml
    --- stderr
    next: `pipe plan first.toml`, then `pipe run first.toml`
    ");
    insta::assert_snapshot!(shell.transcript("check first.toml"), @"
    $ pipe check first.toml
    ? 0
    --- stdout
    first.toml: fine, 24 stages
    ");
    insta::assert_snapshot!(shell.transcript("init first"), @"
    $ pipe init first
    ? 2
    --- stderr
      × `first.toml` is already there
      help: choose another name: `pipe init NAME`
    ");
}

#[test]
fn a_name_like_an_option_is_shown_as_a_command_takes_it() {
    let shell = Shell::new();
    insta::assert_snapshot!(shell.transcript("init -- -x"), @"
    $ pipe init -- -x
    ? 0
    --- stdout
    -x.toml
    --- stderr
    next: `pipe plan ./-x.toml`, then `pipe run ./-x.toml`
    ");
    shell.succeed("check ./-x.toml");
}

#[test]
fn show_says_where_each_value_was_written() {
    let shell = Shell::new();
    shell.write("base.toml", "seed = 1\n[params]\nsteps = 10\n");
    shell.write("top.toml", "extends = \"base.toml\"\nname = \"top\"\n[params]\nsize = [64, 64]\n");
    insta::assert_snapshot!(shell.transcript("show top.toml --set params.steps=20"), @r#"
    $ pipe show top.toml --set params.steps=20
    ? 0
    --- stdout
    seed = 1                # base.toml:1:8, by extends
    params.steps = 20       # --set params.steps=20
    params.size = [64, 64]  # top.toml:4:8
    name = "top"            # top.toml:2:8
    "#);
}

#[test]
fn diff_compares_files_and_revisions() {
    let shell = Shell::new();
    shell.write("a.toml", "name = \"a\"\nseed = 1\n");
    shell.write("b.toml", "name = \"b\"\nseed = 1\ntitle = \"new\"\n");
    insta::assert_snapshot!(shell.transcript("diff a.toml b.toml"), @r#"
    $ pipe diff a.toml b.toml
    ? 0
    --- stdout
    name  "a" -> "b"  (b.toml:1:8)
    title  unset -> "new"  (b.toml:3:9)
    "#);

    shell.commit("a.toml");
    shell.write("a.toml", "name = \"a\"\nseed = 2\n");
    insta::assert_snapshot!(shell.transcript("diff HEAD:a.toml a.toml"), @"
    $ pipe diff HEAD:a.toml a.toml
    ? 0
    --- stdout
    seed  1 -> 2  (a.toml:2:8)
    ");
}

#[test]
fn revisions_that_are_not_there_are_named_with_a_remedy() {
    let shell = Shell::new();
    shell.write("a.toml", "name = \"a\"\n");
    let outside = shell.transcript("diff HEAD:a.toml a.toml");
    shell.commit("a.toml");
    let revision = shell.transcript("diff a.toml nope:a.toml");
    let file = shell.transcript("diff HEAD:b.toml a.toml");
    insta::assert_snapshot!(outside + &revision + &file, @"
    $ pipe diff HEAD:a.toml a.toml
    ? 2
    --- stderr
      × `.` is in no git repository
      help: `HEAD:` names a revision in git; name a file instead
    $ pipe diff a.toml nope:a.toml
    ? 2
    --- stderr
      × git has no revision `nope` in `.`
      help: `git log --oneline -- a.toml` lists those of the file
    $ pipe diff HEAD:b.toml a.toml
    ? 2
    --- stderr
      × `b.toml` is not in the revision `HEAD`
      help: `git ls-tree --name-only HEAD` lists what is there
    ");
}

#[test]
fn show_gives_what_a_stage_gave() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let mut all = String::new();
    for line in ["show clips.toml clisp", "show clips.toml clips", "show 123", "show 12345678"] {
        all += &shell.transcript(line);
    }
    insta::assert_snapshot!(all, @"
    $ pipe show clips.toml clisp
    ? 2
    --- stderr
      × the pipeline has no stage `clisp`
      help: did you mean `clips`?
    $ pipe show clips.toml clips
    ? 1
    --- stderr
      × not in the cache: `clips[method=linear]` and 1 more
      help: `pipe run clips.toml --only 'clips[method=linear]'` computes it
    $ pipe show 123
    ? 2
    --- stderr
      × there is no file `123`, and it is too short for a digest
      help: give at least 6 characters of a digest; `pipe explain FILE STAGE` names those of a stage,
            and `pipe show FILE STAGE` shows what it gave
    $ pipe show 12345678
    ? 2
    --- stderr
      × nothing in the cache begins with `12345678`
      help: `pipe show FILE STAGE` shows what a stage gave, with its digest
    ");
    shell.succeed("run clips.toml");
    insta::assert_snapshot!(shell.transcript("show clips.toml clips[method=linear]"), @"
    $ pipe show clips.toml clips[method=linear]
    ? 0
    --- stdout
    clips[method=linear]  [HASH]
    videos, 2 items, [SIZE]
    figure-000000
      clip.safetensors  [HASH]  [SIZE]
    figure-000001
      clip.safetensors  [HASH]  [SIZE]
    ");
    let json = shell.succeed("show clips.toml clips --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let stages = json["artifacts"].as_array().unwrap().iter().map(|one| &one["stage"]);
    assert!(stages.eq(["clips[method=linear]", "clips[method=quadratic]"]), "{json:#}");
    // Both forms name one artifact.
    let digest = json["artifacts"][0]["digest"].as_str().unwrap();
    let alone = shell.succeed(&format!("show {digest} --json"));
    let alone: serde_json::Value = serde_json::from_str(&alone).unwrap();
    assert_eq!(alone["artifact"], json["artifacts"][0]["artifact"]);
}

#[test]
fn files_and_folders_that_are_not_there_say_what_to_do() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.write("file", "");
    std::fs::create_dir_all(shell.path("empty/input")).unwrap();
    std::fs::create_dir_all(shell.path("empty/target")).unwrap();
    let mut all = String::new();
    for line in [
        "attest clips.toml --key missing.pem",
        "attest clips.toml --key empty",
        "attest --verify missing.json --key missing.pem",
        "init own --data missing",
        "init own --data empty",
        "init missing/own",
        "export clips.toml pairs --to file",
        "run clips.toml --events empty",
        "run clips.toml --remote ./file",
    ] {
        all += &shell.transcript_at_home(line);
    }
    insta::assert_snapshot!(all, @"
    $ pipe attest clips.toml --key missing.pem
    ? 3
    --- stderr
      × there is no file `missing.pem`
      help: check the path; `openssl genpkey -algorithm ed25519 -out key.pem` makes a private key
    $ pipe attest clips.toml --key empty
    ? 3
    --- stderr
      × cannot read `empty`: Is a directory (os error 21)
      help: it is a folder: name a file
    $ pipe attest --verify missing.json --key missing.pem
    ? 3
    --- stderr
      × there is no file `missing.pem`
      help: check the path; `openssl pkey -in key.pem -pubout -out public.pem` writes the public key
            of a private one
    $ pipe init own --data missing
    ? 2
    --- stderr
      × there is no folder `missing`
      help: check the path of `--data`; in the folder, put the images into `input/` and `target/` with
            equal names, or side by side as `name_in.png` and `name_out.png`; below `train/` and
            `test/` if they differ
    $ pipe init own --data empty
    ? 2
    --- stderr
      × `empty` cannot be used: there are no pictures in `input` and `target`
      help: put the images into `input/` and `target/` with equal names, or side by side as
            `name_in.png` and `name_out.png`; below `train/` and `test/` if they differ
    $ pipe init missing/own
    ? 3
    --- stderr
      × cannot write `missing/own.toml`: No such file or directory (os error 2)
      help: there is no folder `missing`: make it first
    $ pipe export clips.toml pairs --to file
    ? 2
    --- stderr
      × `file` is a file, but the export is a folder
      help: name another folder with `--to DIR`
    $ pipe run clips.toml --events empty
    ? 3
    --- stderr
      × cannot create `empty`: Is a directory (os error 21)
      help: it is a folder: name a file
    $ pipe run clips.toml --remote ./file
    ? 3
    --- stderr
      × the folder `[HOME]/file/` of the remote cache cannot be made: Not a directory (os error 20)
      help: name a folder that is there, or may be made there
    ");
    shell.succeed("run clips.toml --only pairs");
    let below = shell.transcript("export clips.toml pairs --to file/below");
    insta::assert_snapshot!(below, @"
    $ pipe export clips.toml pairs --to file/below
    ? 3
    --- stderr
      × cannot make the folder `file/below`: Not a directory (os error 20)
      help: name a folder that can be made, or is there, with `--to DIR`
    ");
}

#[test]
fn a_starter_for_own_pairs_says_what_is_learnt_and_what_is_answered() {
    let shell = Shell::new();
    insta::assert_snapshot!(shell.transcript("init own --data pics"), @"
    $ pipe init own --data pics
    ? 2
    --- stderr
      × there is no folder `pics`
      help: check the path of `--data`; in the folder, put the images into `input/` and `target/` with
            equal names, or side by side as `name_in.png` and `name_out.png`; below `train/` and
            `test/` if they differ
    ");
    std::fs::create_dir(shell.path("pics")).unwrap();
    shell.picture("pics/a_in.png");
    shell.picture("pics/a_out.png");
    insta::assert_snapshot!(shell.transcript("init own --data pics"), @"
    $ pipe init own --data pics
    ? 2
    --- stderr
      × `pics` has 1 pair, but at least 2 are needed
      help: one to learn from and another one to answer: add pairs
    ");
    for name in ["b_in.png", "b_out.png", "c_in.png", "c_out.png", "d_in.png", "d_out.png"] {
        shell.picture(&format!("pics/{name}"));
    }
    insta::assert_snapshot!(shell.transcript("init own --data pics"), @"
    $ pipe init own --data pics
    ? 0
    --- stdout
    own.toml
    --- stderr
    `pics` has few pairs: 1 to answer, so scores will be rough; add pairs and init anew
    next: `pipe plan own.toml`, then `pipe run own.toml`
    ");
    // The data is meant from here, but paths in a file from where the file lies.
    std::fs::create_dir(shell.path("there")).unwrap();
    shell.succeed("init there/own --data pics");
    shell.succeed("check there/own.toml");
    assert!(!shell.transcript("plan there/own.toml").contains("missing"));
    let own = std::fs::read_to_string(shell.path("own.toml")).unwrap();
    let test = own.find("# The images to answer").unwrap();
    insta::assert_snapshot!(&own[test..own.find("# Each pair becomes").unwrap()], @r#"
    # The images to answer. None of them is among the examples.
    [stages.test]
    kind   = "dataset"
    source = "${data}"
    task   = "pairs"
    split  = "test"
    count  = 1
    size   = "${size}"
    "#);
    assert!(own.contains("n = [1, 3]"), "{own}");
}

#[test]
fn a_score_over_what_was_learnt_is_warned_of() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("pics")).unwrap();
    for name in 'a'..='h' {
        for side in ["in", "out"] {
            let color = |x, y| image::Rgb([x as u8 * 6, y as u8 * 7, name as u8]);
            let picture = image::RgbImage::from_fn(40, 32, color);
            picture.save(shell.path(&format!("pics/{name}_{side}.png"))).unwrap();
        }
    }
    shell.succeed("init own --data pics");
    insta::assert_snapshot!(shell.transcript("check own.toml"), @"
    $ pipe check own.toml
    ? 0
    --- stdout
    own.toml: fine, 24 stages
    ");
    let own = std::fs::read_to_string(shell.path("own.toml")).unwrap();
    shell.write("own.toml", &own.replace("split  = \"test\"", "split  = \"train\""));
    insta::assert_snapshot!(shell.transcript("check own.toml"), @"
    $ pipe check own.toml
    ? 0
    --- stdout
    own.toml: fine, 24 stages
    --- stderr
    warning: `test` and `examples[n=1]` take some of the same images, so `score` scores answers that were learnt
    ");
    let same = own.replace("pairs = \"test\"", "pairs = \"examples\"");
    shell.write("own.toml", &same);
    let said = shell.transcript("check own.toml");
    let wanted =
        "`examples[n=1]` is learnt from and answered, so `score` scores answers that were learnt";
    assert!(said.contains(wanted), "{said}");

    // A map of colours that was fitted to the answers that are scored is learnt from them, too.
    let corrected = "
[stages.test_answers]
kind   = \"decode\"
inputs = { samples = \"test_samples\" }
model  = \"builtin:tiny\"

[stages.corrected]
kind   = \"color_correct\"
inputs = { predictions = \"test_answers\", example_predictions = \"test_answers\", examples = \"test\" }

[stages.corrected_score]
kind   = \"metric\"
inputs = { predictions = \"corrected\", pairs = \"test\" }
metric = \"image\"

[stages.test_samples]
kind   = \"sample\"
inputs = { pairs = \"test\", text = \"any_prompt\" }
model  = \"builtin:tiny\"

[stages.any_prompt]
kind  = \"text_encode\"
model = \"builtin:tiny\"
";
    shell.write("own.toml", &format!("{own}{corrected}"));
    let said = shell.transcript("check own.toml");
    let wanted = "`test` is learnt from and answered, so `corrected_score` scores answers";
    assert!(said.contains(wanted), "{said}");
}
