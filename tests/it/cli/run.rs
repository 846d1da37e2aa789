//! Runs from their first line to their exit code.

use super::{CLIPS, SCORE, Shell, command, walk};

#[test]
fn a_failing_stage_names_its_item_and_skips_what_follows() {
    let shell = Shell::new();
    let own = CLIPS
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"data\" }")
        .replace("\"pose\"", "\"pairs\"\nholdout = 0.0");
    shell.write("clips.toml", &own);
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
      × there is no data folder `data` (clips.toml:9:38); needed by `pairs`
      help: put the data there, or set `stages.pairs.source.root` to its folder
    ");
    for folder in ["data/input", "data/target"] {
        std::fs::create_dir_all(shell.path(folder)).unwrap();
        for image in ["a.png", "b.png"] {
            std::fs::write(shell.path(folder).join(image), "no image").unwrap();
        }
    }
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   pairs
      × stage `pairs`: `input/a.png` is not a whole image: its first bytes are those of no known
      │ format
      help: the file may be cut short; copy or download it again
    skipped  clips[method=linear]  because `pairs` failed
    skipped  clips[method=quadratic]  because `pairs` failed
    failed   0 stages ran, 1 failed, 2 not reached in [TIME]
    ");
}

#[test]
fn a_run_tells_its_story_and_a_second_one_reuses() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run clips.toml --jobs 1 --events events.ndjson"), @"
    $ pipe run clips.toml --jobs 1 --events events.ndjson
    ? 0
    --- stderr
    clips: 3 stages on cpu
    ran      pairs  new  [TIME]
    ran      clips[method=linear]  new  [TIME]
    ran      clips[method=quadratic]  new  [TIME]
    done     3 stages ran in [TIME]
    ");
    insta::assert_snapshot!(shell.transcript("run clips.toml --jobs 1 -v"), @"
    $ pipe run clips.toml --jobs 1 -v
    ? 0
    --- stderr
    clips: 3 stages on cpu
    reused   pairs
    reused   clips[method=linear]
    reused   clips[method=quadratic]
    done     0 stages ran, 3 reused in [TIME]
    ");
    let edited = CLIPS.replace("[\"linear\", \"quadratic\"]", "[\"linear\", \"discrete\"]");
    shell.write("clips.toml", &edited);
    insta::assert_snapshot!(shell.transcript("run clips.toml --jobs 1"), @"
    $ pipe run clips.toml --jobs 1
    ? 0
    --- stderr
    clips: 3 stages on cpu
    ran      clips[method=discrete]  method quadratic -> discrete (clips.toml:5:39)  [TIME]
    done     1 stage ran, 2 reused in [TIME]
    ");

    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let first: serde_json::Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!((&first["schema_version"], &first["event"]), (&1.into(), &"run_started".into()));
}

#[test]
fn a_missing_cuda_device_is_an_environment_error() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let output = shell.output("run clips.toml --device cuda:97");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no CUDA device `cuda:97`"));
    assert_eq!(shell.output("run clips.toml --device gpu").status.code(), Some(2));
}

/// A pipeline that runs two shell commands after a stage of its own.
const COMMANDS: &str = r#"name = "commands"

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
count  = 1
size   = [32, 32]

[stages.count]
kind    = "command"
inputs  = { input = "pairs" }
command = "ls $IN/input | wc -l > $OUT/n"
outputs = ["n"]

[stages.sum]
kind    = "command"
inputs  = { input = "count" }
command = """
cksum < $IN/input/files/n > $OUT/sum
"""
outputs = ["sum"]
"#;

#[test]
fn commands_are_refused_before_anything_runs() {
    let shell = Shell::new();
    shell.write("commands.toml", COMMANDS);
    insta::assert_snapshot!(shell.transcript("run commands.toml"), @"
    $ pipe run commands.toml
    ? 2
    --- stderr
      × stage `count` runs a shell command at commands.toml:13:11, which was not allowed: ls $IN/input
      │ | wc -l > $OUT/n
      help: read the command, then run again with --allow-commands
      × stage `sum` runs a shell command at commands.toml:19:11, which was not allowed: cksum <
      │ $IN/input/files/n > $OUT/sum
      help: read the command, then run again with --allow-commands
    ");
    assert!(!shell.path("cache/objects").exists() || walk(&shell.path("cache/objects")).is_empty());
    // What does not need them runs without asking.
    shell.succeed("run commands.toml --only pairs");
    insta::assert_snapshot!(shell.transcript("plan commands.toml"), @"
    $ pipe plan commands.toml
    ? 0
    --- stdout
    run    count  new
    maybe  sum  after count
    1 stage to run, 1 waiting for others, 1 cached; how long is not known, as no run of this file and profile timed the like yet
    shell commands, which a run must allow: count, sum
    ");

    shell.succeed("run commands.toml --allow-commands");
    // What is in the cache executes nothing, so nothing has to be allowed.
    shell.succeed("run commands.toml");
    let changed = "commands.toml --set count.revision=2";
    assert_eq!(shell.output(&format!("run {changed}")).status.code(), Some(2));
}

#[test]
fn only_and_force_take_some_axes_of_a_cell() {
    let shell = Shell::new();
    let text = CLIPS
        .replace("{ method = \"linear\" }", "{ method = \"linear\", frames = 5 }")
        .replace("\"quadratic\"] }", "\"quadratic\"], frames = [5, 9] }")
        .replace("frames = 5\n", "frames = \"${frames}\"\n");
    shell.write("clips.toml", &text);
    shell.succeed("run clips.toml --only clips[frames=9]");
    let states = |line: &str| {
        let stages = shell.plan(line);
        stages.iter().map(|stage| stage["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let fresh = |line: &str| states(line).iter().filter(|state| *state == "fresh").count();
    assert_eq!(states("clips.toml").len(), 4);
    assert_eq!(fresh("clips.toml"), 2, "the pairs and one of three cells");
    shell.succeed("run clips.toml --force clips[frames=9]");
    assert_eq!(fresh("clips.toml"), 4);
    let said = shell.transcript("run clips.toml --only clips[frames=7]");
    assert!(said.contains("? 2"), "{said}");
    assert!(said.contains("no cell of `clips` has `frames=7`"), "{said}");
    let said = shell.transcript("run clips.toml --force clips[frames");
    assert!(said.contains("? 2") && said.contains("does not name a stage"), "{said}");
}

#[test]
fn a_cell_that_is_not_there_is_told_by_its_axis() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let mut all = String::new();
    for only in
        ["clips[methd=linear]", "clips[method=cubic]", "pairs[n=1]", "method=linear", "clisp"]
    {
        all += &shell.transcript(&format!("plan clips.toml --only {only}"));
    }
    insta::assert_snapshot!(all, @"
    $ pipe plan clips.toml --only clips[methd=linear]
    ? 2
    --- stderr
      × `clips` has no axis `methd`
      help: did you mean `method`?
    $ pipe plan clips.toml --only clips[method=cubic]
    ? 2
    --- stderr
      × no cell of `clips` has `method=cubic`
      help: `method` can be `linear`, `quadratic`
    $ pipe plan clips.toml --only pairs[n=1]
    ? 2
    --- stderr
      × `pairs` has no axis `n`
      help: it has none: write `pairs`
    $ pipe plan clips.toml --only method=linear
    ? 2
    --- stderr
      × the pipeline has no stage `method=linear`
      help: an axis stands in brackets behind a stage: `STAGE[method=linear]`
    $ pipe plan clips.toml --only clisp
    ? 2
    --- stderr
      × the pipeline has no stage `clisp`
      help: did you mean `clips`?
    ");
}

#[test]
fn only_and_force_may_be_given_several_times() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run clips.toml -j 1 --only pairs --only clips[method=linear]"), @"
    $ pipe run clips.toml -j 1 --only pairs --only clips[method=linear]
    ? 0
    --- stderr
    clips: 2 stages on cpu
    ran      pairs  new  [TIME]
    ran      clips[method=linear]  new  [TIME]
    done     2 stages ran in [TIME]
    ");
    insta::assert_snapshot!(shell.transcript("plan clips.toml --force pairs --force clips[method=linear]"), @"
    $ pipe plan clips.toml --force pairs --force clips[method=linear]
    ? 0
    --- stdout
    run    pairs  forced  about [TIME]
    maybe  clips[method=linear]  after pairs  about [TIME]
    maybe  clips[method=quadratic]  after pairs  about [TIME]
    1 stage to run, 2 waiting for others, 0 cached; at most about [TIME] of stage time
    disk: at most about [SIZE]; [SIZE] are free
    ");
}

/// Scores of a folder's targets as if they were predictions.
const SCORED: &str = r#"name = "scored"

[params]
data = { source = "folder", root = "pics" }

[stages.pairs]
kind   = "dataset"
source = "${data}"
task   = "pairs"
size   = [32, 32]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
frames = 5

[stages.latents]
kind   = "vae_encode"
inputs = { videos = "clips" }
model  = "builtin:tiny"

[stages.prompt]
kind  = "text_encode"
model = "builtin:tiny"

[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model  = "builtin:tiny"
frames = 5
steps  = 1
"#;

/// The whole pipeline.
pub(super) fn scored() -> String {
    format!("{SCORED}{SCORE}\n[tables.result]\nvalue = \"score.mse\"\n")
}

#[test]
fn data_that_was_moved_is_missed_by_its_own_name() {
    let shell = Shell::new();
    shell.write("scored.toml", &scored());
    let image = image::RgbImage::from_pixel(32, 32, image::Rgb([9, 90, 200]));
    std::fs::create_dir(shell.path("pics")).unwrap();
    for name in ["a_in.png", "a_out.png"] {
        image.save(shell.path("pics").join(name)).unwrap();
    }
    shell.succeed("run scored.toml");
    let table = shell.succeed("table scored.toml");
    insta::assert_snapshot!(shell.transcript("diff scored.toml scored.toml"), @"
    $ pipe diff scored.toml scored.toml
    ? 0
    --- stdout
    no difference
    ");
    std::fs::rename(shell.path("pics"), shell.path("moved")).unwrap();
    insta::assert_snapshot!(shell.transcript("table scored.toml"), @"
    $ pipe table scored.toml
    ? 3
    --- stdout
    result
    score.mse (lower is better)
    ───────

    ───────
     – (a)
    ───────
    (a) not run
    --- stderr
      × there is no data folder `pics` (scored.toml:4:36); needed by `pairs`
      help: put the data there, or set `params.data.root` to its folder
    ");
    assert_eq!(shell.succeed("table scored.toml --set params.data.root=moved"), table);
}

#[test]
fn an_export_is_whole_though_nobody_reads_its_list() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let line = "export clips.toml clips --to out";
    let mut child = super::command(shell.dir.path())
        .args(line.split(' '))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    for cell in ["method=linear", "method=quadratic"] {
        assert!(shell.path("out").join(cell).join("sheet.png").exists(), "{cell}");
    }
}

#[test]
fn several_files_run_one_after_the_other() {
    let shell = Shell::new();
    let quick = "\n[profiles.quick.stages.pairs]\ncount = 1\n";
    shell
        .write("a.toml", &CLIPS.replace("\"clips\"\n\n[sweep]", &format!("\"a\"{quick}\n[sweep]")));
    shell.write("b.toml", &CLIPS.replace("name = \"clips\"", "name = \"b\""));
    insta::assert_snapshot!(shell.transcript("run a.toml b.toml --profile quick --jobs 1"), @"
    $ pipe run a.toml b.toml --profile quick --jobs 1
    ? 0
    --- stderr
    b.toml: there is no profile `quick`, so it runs with the values of the file itself
    a: 3 stages on cpu
    ran      pairs  new  [TIME]
    ran      clips[method=linear]  new  [TIME]
    ran      clips[method=quadratic]  new  [TIME]
    done     3 stages ran in [TIME]
    b: 3 stages on cpu
    ran      pairs  new  [TIME]
    ran      clips[method=linear]  new  1 of 2 items  [TIME]
    ran      clips[method=quadratic]  new  1 of 2 items  [TIME]
    done     3 stages ran in [TIME]
    2 pipelines up to date in [TIME]
    ");
    insta::assert_snapshot!(shell.transcript("run a.toml b.toml --only pairs"), @"
    $ pipe run a.toml b.toml --only pairs
    ? 2
    --- stderr
      × `--only` and `--force` name stages of one file
      help: run that file alone
    ");
    // A profile that no file has is a mistake.
    let said = shell.transcript("run a.toml b.toml --profile qiuck");
    assert!(said.contains("? 2") && said.contains("did you mean `quick`?"), "{said}");
    assert!(!said.contains("stages on cpu"), "{said}");
    // What is wrong with one file keeps all from running.
    shell.write("c.toml", &CLIPS.replace("count", "cuont"));
    let said = shell.transcript("run b.toml c.toml");
    assert!(said.contains("? 2") && said.contains("did you mean `count`?"), "{said}");
    assert!(!said.contains("stages on cpu"), "{said}");
    // With --keep-going only that one.
    insta::assert_snapshot!(shell.transcript("run c.toml b.toml --keep-going"), @r#"
    $ pipe run c.toml b.toml --keep-going
    ? 2
    --- stderr
      × unknown key `cuont`
        ╭─[c.toml:11:1]
     10 │ task   = "pose"
     11 │ cuont  = 2
        · ──┬──
        ·   ╰── nothing reads this
     12 │ size   = [32, 32]
        ╰────
      help: did you mean `count`?
      × `c.toml` cannot run: 1 error
    b: 3 stages on cpu
    done     0 stages ran, 3 reused in [TIME]
    failed: `c.toml` (1 of 2 pipelines, in [TIME])
    "#);
    let said = shell.transcript("run c.toml --keep-going");
    assert!(said.contains("? 2"), "{said}");
    // A failure ends it, or with --keep-going only its own file.
    let folder = "{ source = \"folder\", root = \".\" }";
    shell.write(
        "d.toml",
        &CLIPS.replace("{ source = \"builtin:figures\" }", folder).replace("pose", "pairs"),
    );
    insta::assert_snapshot!(shell.transcript("run d.toml b.toml"), @"
    $ pipe run d.toml b.toml
    ? 1
    --- stderr
    clips: 3 stages on cpu
    failed   pairs
      × stage `pairs`: the folder holds no pairs
      help: put the images into `input/` and `target/` with equal names, or side by side as
            `name_in.png` and `name_out.png`; below `train/` and `test/` if they differ
    skipped  clips[method=linear]  because `pairs` failed
    skipped  clips[method=quadratic]  because `pairs` failed
    failed   0 stages ran, 1 failed, 2 not reached in [TIME]
    failed: `d.toml` (1 of 2 pipelines, in [TIME]); 1 not reached
    ");
    let said = shell.transcript("run d.toml b.toml --keep-going");
    assert!(said.contains("? 1") && said.contains("b: 3 stages on cpu"), "{said}");
    assert!(said.ends_with("failed: `d.toml` (1 of 2 pipelines, in [TIME])\n"), "{said}");
}

#[test]
fn a_value_that_one_of_several_files_lacks_names_the_file() {
    let shell = Shell::new();
    let with_param = "[params]\nframes = 5\n\n[sweep]";
    shell.write(
        "a.toml",
        &CLIPS.replace("frames = 5\n", "frames = \"${frames}\"\n").replace("[sweep]", with_param),
    );
    shell.write("b.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run a.toml b.toml --set params.frames=9"), @"
    $ pipe run a.toml b.toml --set params.frames=9
    ? 2
    --- stderr
      × `--set` names the param `frames`, which is not in `b.toml`
       ╭─[--set:1:1]
     1 │ params.frames=9
       · ──────┬──────
       ·       ╰── unknown
       ╰────
      × `b.toml` cannot run: 1 error
      help: `--set` is laid on every file: run this one apart, without it
    nothing was run; `--keep-going` runs the files without errors
    ");
}

/// As `pipe run ... | true`: the tables find no reader, but the work is done and the code is true.
#[test]
fn tables_that_nobody_reads_keep_nothing_from_being_done() {
    let shell = Shell::new();
    let text = scored()
        .replace("{ source = \"folder\", root = \"pics\" }", "\"builtin:figures\"")
        .replace("task   = \"pairs\"", "task   = \"pose\"\ncount  = 1");
    shell.write("a.toml", &text);
    shell.write("b.toml", CLIPS);
    let unread = |line: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command(shell.dir.path()).args(line.split(' ')).stdout(writer).output().unwrap()
    };
    let output = unread("run a.toml --lock");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shell.path("a.lock").exists());
    assert_eq!(unread("run a.toml b.toml").status.code(), Some(0));
    assert!(shell.plan("b.toml").iter().all(|stage| stage["state"] == "fresh"));
    // What failed has its own code, not that of a closed pipe.
    let lacking = CLIPS
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"none\" }")
        .replace("\"pose\"", "\"pairs\"");
    shell.write("c.toml", &lacking);
    assert_eq!(unread("run a.toml c.toml").status.code(), Some(3));
}

#[test]
fn more_jobs_than_stages_are_no_more_threads() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --jobs 4000000000");
}
