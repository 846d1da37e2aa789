//! Transcripts of the binary: what a user types, and all that comes back.

use std::{
    fmt::Write,
    path::Path,
    process::{Command, Output},
};

/// A folder to run `pipe` in, with nothing of this machine's settings.
struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn output(&self, line: &str) -> Output {
        command(self.dir.path()).args(line.split_whitespace()).output().unwrap()
    }

    /// Command, exit code, stdout and stderr as one text, with times redacted.
    fn transcript(&self, line: &str) -> String {
        let output = self.output(line);
        let mut text = format!("$ pipe {line}\n? {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                let _ = write!(text, "--- {name}\n{}", String::from_utf8(bytes).unwrap());
            }
        }
        redact(&text)
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("PATH", std::env::var("PATH").unwrap());
    command
}

fn redact(text: &str) -> String {
    let durations = regex::Regex::new(r"\b\d+(\.\d+)? (s|min \d\d s)\b").unwrap();
    let bytes = regex::Regex::new(r"\b\d+(\.\d+)? (B|[KM]iB)\b").unwrap();
    let digests = regex::Regex::new(r"\b[0-9a-f]{12,64}\b").unwrap();
    let times = regex::Regex::new(r"\d{4}-\d\d-\d\dT[\d:.]+Z").unwrap();
    let text = durations.replace_all(text, "[TIME]");
    let text = times.replace_all(&text, "[WHEN]");
    let text = bytes.replace_all(&text, "[SIZE]");
    digests.replace_all(&text, "[HASH]").into_owned()
}

/// Built-in figures and clips of them: a run without a model.
const CLIPS: &str = r#"name = "clips"

[sweep]
baseline      = { method = "linear" }
one_at_a_time = { method = ["linear", "quadratic"] }

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
count  = 2
size   = [32, 32]

[stages.clips]
kind   = "interpolate"
inputs = { pairs = "pairs" }
method = "${method}"
frames = 5
"#;

#[test]
fn help_lists_the_commands() {
    insta::assert_snapshot!(Shell::new().transcript("--help"), @"
    $ pipe --help
    ? 0
    --- stdout
    Declarative, incremental pipelines for few-shot experiments on video diffusion models

    A pipeline file states a whole experiment; `pipe run` computes what is not in the cache yet.

    Usage: pipe [OPTIONS] <COMMAND>

    Commands:
      run          Bring the results of a pipeline up to date
      plan         Say what a run would do and why; nothing is run
      check        Check pipeline files and say all errors at once; nothing is run
      explain      Say what decides a stage's output, and what of it changed
      table        Print the result tables from the cache; nothing is run
      show         Show a resolved pipeline file, or an artifact of the cache
      diff         Compare two pipeline files, or revisions of one: parameters and results
      export       Write an artifact as ordinary files: PNG, GIF, safetensors, JSON, CSV
      cache        Look after the cache
      schema       Print the JSON schema of pipeline files, for editors
      init         Write a commented pipeline file to start from
      completions  Print a completion script for a shell
      version      Print the version
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --cache <DIR>
              Folder of the cache

          --device <DEVICE>
              Where to compute: auto, cpu or cuda:N

      -j, --jobs <N>
              Stages to run at once

      -v, --verbose...
              Say more: list reused stages; twice or thrice to log what happens inside

          --log <FILTER>
              What to log to stderr, as in `info` or `pipe::exec=debug`

          --color <WHEN>
              When to use colours

              Possible values:
              - auto:   On a terminal, unless `NO_COLOR` is set
              - always: Always
              - never:  Never
              
              [default: auto]

    Exit codes: 0 done, 1 a stage failed, 2 usage or pipeline file wrong, 3 environment (no device, disk
    full, weights missing), 101 a bug of ours, 130 interrupted.

    Start with `pipe init`, or with `pipe run pipelines/pose_ablation.toml`.
    ");
}

#[test]
fn help_of_run_lists_its_options() {
    insta::assert_snapshot!(Shell::new().transcript("run --help"), @"
    $ pipe run --help
    ? 0
    --- stdout
    Bring the results of a pipeline up to date

    Computes what is not in the cache, prints a line per finished stage and then the tables.

    Usage: pipe run [OPTIONS] <FILE>

    Arguments:
      <FILE>
              The pipeline file

    Options:
      -p, --profile <NAME>
              Apply a profile of the file

      -s, --set <KEY=VALUE>
              Set a value, as in `lora.rank=32`, `params.size=[64,96]` or `seed=7`

          --only <STAGE>
              Only this stage, or cell, and what it needs

          --force <STAGE>
              Run this stage, or cell, even if it is cached

          --keep-going
              After a failure, go on with what does not depend on it

          --events <FILE>
              Write events to a file, one JSON object per line

          --allow-commands
              Let `command` stages run shell commands

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --cache <DIR>
              Folder of the cache

          --device <DEVICE>
              Where to compute: auto, cpu or cuda:N

      -j, --jobs <N>
              Stages to run at once

      -v, --verbose...
              Say more: list reused stages; twice or thrice to log what happens inside

          --log <FILTER>
              What to log to stderr, as in `info` or `pipe::exec=debug`

          --color <WHEN>
              When to use colours

              Possible values:
              - auto:   On a terminal, unless `NO_COLOR` is set
              - always: Always
              - never:  Never
              
              [default: auto]
    ");
}

#[test]
fn a_misspelt_command_is_a_usage_error() {
    insta::assert_snapshot!(Shell::new().transcript("rnu pose.toml"), @"
    $ pipe rnu pose.toml
    ? 2
    --- stderr
    error: unrecognized subcommand 'rnu'

    Usage: pipe [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

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
fn a_missing_file_is_a_usage_error() {
    insta::assert_snapshot!(Shell::new().transcript("plan nowhere.toml"), @"
    $ pipe plan nowhere.toml
    ? 2
    --- stderr
      × cannot read `nowhere.toml`: No such file or directory (os error 2)
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
fn plan_says_what_would_run_and_why() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("plan clips.toml"), @"
    $ pipe plan clips.toml
    ? 0
    --- stdout
    run    pairs  new
    maybe  clips[method=linear]  after pairs
    maybe  clips[method=quadratic]  after pairs
    1 stage to run, 2 more if their inputs change, 0 cached
    ");
    assert!(shell.output("run clips.toml").status.success());
    insta::assert_snapshot!(shell.transcript("plan clips.toml"), @"
    $ pipe plan clips.toml
    ? 0
    --- stdout
    0 stages to run, 0 more if their inputs change, 3 cached
    ");
    let set = "clips.toml --set pairs.count=3";
    insta::assert_snapshot!(shell.transcript(&format!("plan {set}")), @"
    $ pipe plan clips.toml --set pairs.count=3
    ? 0
    --- stdout
    run    pairs  count 2 -> 3 (--set:1:13)  about [TIME]
    maybe  clips[method=linear]  after pairs  about [TIME]
    maybe  clips[method=quadratic]  after pairs  about [TIME]
    1 stage to run, 2 more if their inputs change, 0 cached; at most about [TIME] of stage time
    ");
    let json = shell.output(&format!("plan --json {set}")).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["schema_version"], 1);
    let states = json["stages"].as_array().unwrap().iter().map(|stage| stage["state"].clone());
    assert_eq!(states.collect::<Vec<_>>(), ["stale", "pending", "pending"]);
    insta::assert_snapshot!(shell.transcript("plan clips.toml --only clisp"), @"
    $ pipe plan clips.toml --only clisp
    ? 2
    --- stderr
      × the pipeline has no stage `clisp`
      help: did you mean `clips`?
    ");
}

#[test]
fn explain_names_every_ingredient() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    assert!(shell.output("run clips.toml").status.success());
    let set = "clips[method=linear] --set clips.frames=9";
    insta::assert_snapshot!(shell.transcript(&format!("explain clips.toml {set}")), @"
    $ pipe explain clips.toml clips[method=linear] --set clips.frames=9
    ? 0
    --- stdout
    clips[method=linear]  (interpolate, version 1)
      will run:
        frames 5 -> 9 (--set:1:14)
      parameters:
        frames = 9  --set:1:14
        grid   = 4  default
        method = linear  clips.toml:5:29
        seed   = 0  default
      input pairs: [HASH]  from pairs
      last run: [WHEN] in [TIME] on cpu by pipe 0.1.0 -> [HASH]
    ");
    insta::assert_snapshot!(shell.transcript("explain clips.toml clips[method=linear]"), @"
    $ pipe explain clips.toml clips[method=linear]
    ? 0
    --- stdout
    clips[method=linear]  (interpolate, version 1)
      fresh: [HASH] in the cache
      parameters:
        frames = 5  clips.toml:18:10
        grid   = 4  default
        method = linear  clips.toml:5:29
        seed   = 0  default
      input pairs: [HASH]  from pairs
      key: [HASH]
      last run: [WHEN] in [TIME] on cpu by pipe 0.1.0 -> [HASH]
    ");
    insta::assert_snapshot!(shell.transcript("explain clips.toml pears"), @"
    $ pipe explain clips.toml pears
    ? 2
    --- stderr
      × the pipeline has no stage `pears`
      help: did you mean `pairs`?
    ");
    insta::assert_snapshot!(shell.transcript("explain clips.toml clips[method=cubic]"), @"
    $ pipe explain clips.toml clips[method=cubic]
    ? 2
    --- stderr
      × no cell of `clips` fits `clips[method=cubic]`
      help: its cells are `clips[method=linear]`, `clips[method=quadratic]`
    ");
}

#[test]
fn a_failing_stage_names_its_item_and_skips_what_follows() {
    let shell = Shell::new();
    let own = CLIPS
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"data\" }")
        .replace("\"pose\"", "\"pairs\"");
    shell.write("clips.toml", &own);
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
      × stage `pairs` reads its data from `data`, which is not a folder
      help: put the data there, or set `source.root` to its folder
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
      × stage `pairs`: `input/a.png` is not a whole image: The image format could not be determined
      help: the file may be cut short; copy or download it again
    skipped  clips[method=linear]  because `pairs` failed
    skipped  clips[method=quadratic]  because `pairs` failed
    failed   0 stages ran, 1 failed, 2 not reached in [TIME]
    ");
}

#[test]
fn ctrl_c_ends_a_run_with_130_and_a_word_how_to_go_on() {
    use std::io::{BufRead, BufReader, Read};

    let shell = Shell::new();
    shell.write("clips.toml", &CLIPS.replace("count  = 2", "count  = 1000000"));
    let mut child = command(shell.dir.path())
        .args(["run", "clips.toml"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "clips: 3 stages on cpu\n");
    let kill = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.contains("the same command goes on from here"), "{rest}");
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
    params.steps = 20       # --set:1:14
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

    let git = |args: &[&str]| {
        let status = Command::new("git")
            .current_dir(shell.dir.path())
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(args)
            .output()
            .unwrap()
            .status;
        assert!(status.success(), "git {args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "a.toml"]);
    git(&["commit", "-q", "-m", "first"]);
    shell.write("a.toml", "name = \"a\"\nseed = 2\n");
    insta::assert_snapshot!(shell.transcript("diff HEAD:a.toml a.toml"), @"
    $ pipe diff HEAD:a.toml a.toml
    ? 0
    --- stdout
    seed  1 -> 2  (a.toml:2:8)
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
    ran      clips[method=discrete]  method linear -> discrete (clips.toml:5:39)  [TIME]
    done     1 stage ran, 2 reused in [TIME]
    ");

    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let first: serde_json::Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!((&first["schema_version"], &first["event"]), (&1.into(), &"run_started".into()));
}

#[test]
fn export_writes_ordinary_files() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("export clips.toml clips --to out"), @"
    $ pipe export clips.toml clips --to out
    ? 1
    --- stderr
      × not in the cache: `clips[method=linear]` and 1 more
      help: `pipe run clips.toml --only 'clips[method=linear]'` computes it
    ");
    assert!(shell.output("run clips.toml").status.success());
    insta::assert_snapshot!(shell.transcript("export clips.toml clips --to out"), @"
    $ pipe export clips.toml clips --to out
    ? 0
    --- stdout
    out/method=linear
    out/method=quadratic
    ");
    let names = |folder: &str| {
        let files = walk(&shell.path(folder));
        let endings = files.iter().map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            name.split_once('.').unwrap().1.to_owned()
        });
        endings.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("out/method=linear"), "gif strip.png gif strip.png png");
    assert!(shell.output("export clips.toml pairs --to pairs").status.success());
    assert_eq!(names("pairs"), "input.png target.png input.png target.png png");
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

#[test]
fn the_cache_is_counted_collected_and_verified() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    assert!(shell.output("run clips.toml").status.success());
    assert_eq!(shell.output("cache stats").status.code(), Some(0));
    insta::assert_snapshot!(shell.transcript("cache gc --dry-run"), @"
    $ pipe cache gc --dry-run
    ? 0
    --- stdout
    nothing to remove
    kept 13 objects, [SIZE]
    ");
    assert_eq!(shell.output("cache verify").status.code(), Some(0));

    let objects: Vec<_> = walk(&shell.path("cache/objects"));
    let mut permissions = std::fs::metadata(&objects[0]).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of this test only")]
    permissions.set_readonly(false);
    std::fs::set_permissions(&objects[0], permissions).unwrap();
    std::fs::write(&objects[0], "damaged").unwrap();
    insta::assert_snapshot!(shell.transcript("cache verify"), @"
    $ pipe cache verify
    ? 4
    --- stdout
    checked 13 objects, [SIZE]
    damaged and removed: [HASH]
    --- stderr
    the next `pipe run` makes it again
    ");
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn completions_and_schema_are_results() {
    let shell = Shell::new();
    let script = String::from_utf8(shell.output("completions bash").stdout).unwrap();
    assert!(script.starts_with("_pipe() {"), "{}", &script[..80]);
    let schema = shell.output("schema").stdout;
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    assert!(schema["definitions"]["stage_lora_train"].is_object());
    insta::assert_snapshot!(shell.transcript("schema --write ."), @"
    $ pipe schema --write .
    ? 0
    --- stdout
    ./pipeline.schema.json
    ");
    assert!(shell.path("pipeline.schema.json").exists());
}

#[test]
fn a_closed_stdout_is_a_quiet_end() {
    let shell = Shell::new();
    let mut child = command(shell.dir.path())
        .arg("schema")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
