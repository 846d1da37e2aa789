//! What `pipe` says of itself.

use super::{Shell, command};

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
      run          Bring the results of pipelines up to date
      plan         Say what a run would do and why; nothing is run
      check        Check pipeline files and say all errors at once; nothing is run
      explain      Say what decides a stage's output, and what of it changed
      table        Print the result tables from the cache; nothing is run
      show         Show a resolved pipeline file, what a stage of it gave, or an artifact of the cache
      diff         Compare two pipeline files, runs, or revisions of one: parameters and results
      export       Write an artifact as ordinary files: PNG, GIF, safetensors, JSON, CSV
      verify       Execute stages again and compare what they give with the cache
      attest       Sign what the results were made from, or check such a statement
      cache        Look after the cache
      schema       Print the JSON schema of pipeline files, for editors, or of what `pipe` writes
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

          --remote <URL>
              Cache that several machines share: s3://, gs://, az:// or file://, or a folder

          --device <DEVICE>
              Where to compute: auto, cpu, cuda:N; with a process for each: cuda:0,1, all, cpu:N

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
    full, weights missing), 4 `verify` or `attest` found a difference, `cache verify` damage, or
    `--locked` a deviation, 101 a bug of ours, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).

    Start with `pipe init`, or with `pipe run pipelines/pose_ablation.toml`.
    ");
}

#[test]
fn help_of_run_lists_its_options() {
    insta::assert_snapshot!(Shell::new().transcript("run --help"), @"
    $ pipe run --help
    ? 0
    --- stdout
    Bring the results of pipelines up to date

    Computes what is not in the cache, prints a line per finished stage and then the tables.

    Of several files, all are read first: with an error in one of them none runs, unless with
    `--keep-going`. One without the profile runs with its own values, and says so.

    A training leaves a checkpoint where it is interrupted, and each time it has made `save_every` steps
    (100 unless set, of `pretrain` 200), from which it goes on: `kill -9` loses the steps since the
    last.

    Usage: pipe run [OPTIONS] <FILE>...

    Arguments:
      <FILE>...
              The pipeline files

    Options:
      -p, --profile <NAME>
              Apply a profile of the file

      -s, --set <KEY=VALUE>
              Set a value, as in `lora.steps=100`, `params.size=[64,96]` or `seed=7`

          --only <STAGE>
              Only this stage, or cell, and what it needs; may be given several times

          --force <STAGE>
              Run this stage, or cell, even if it is cached; may be given several times

          --keep-going
              After a failure, go on with what does not depend on it, and with other files, also where
              one of them has errors

          --events <FILE>
              Write events to a file, one JSON object per line

          --allow-commands
              Let `command` stages run shell commands

          --lock
              Afterwards write what everything was made from, and what it gave, to `<pipeline>.lock`

          --locked
              Refuse to deviate from `<pipeline>.lock`

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --cache <DIR>
              Folder of the cache

          --remote <URL>
              Cache that several machines share: s3://, gs://, az:// or file://, or a folder

          --device <DEVICE>
              Where to compute: auto, cpu, cuda:N; with a process for each: cuda:0,1, all, cpu:N

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
fn the_examples_of_set_fit_the_main_pipeline() {
    let shell = Shell::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/pose_ablation.toml");
    let help = shell.succeed("run --help");
    for set in ["lora.steps=100", "params.size=[64,96]", "seed=7"] {
        assert!(help.contains(&format!("`{set}`")), "{set}");
        shell.succeed(&format!("check {file} --set {set}"));
    }
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
    ./plan.schema.json
    ./lock.schema.json
    ./event.schema.json
    ./verify.schema.json
    ./cache_verify.schema.json
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
