//! Runs that are interrupted or killed, and the ones that go on from there.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{CLIPS, Experiment, Shell, binary, command, walk};

/// A training of the built-in model, long enough to be caught in the middle.
pub(super) fn training() -> String {
    let training = Experiment {
        name: "training",
        count: 2,
        clips: "method = \"linear\"\n",
        frames: 9,
        lora: "rank       = 4\nsteps      = 40\nbatch_size = 1\nsave_every = 2\n",
        ..Experiment::default()
    };
    training.up_to_lora()
}

/// The digest of the adapter that a folder's cache holds.
fn adapter(shell: &Shell) -> String {
    let plan = shell.plan("training.toml");
    let lora = plan.iter().find(|stage| stage["name"] == "lora").unwrap();
    lora["digest"].as_str().unwrap_or_else(|| panic!("not trained: {lora}")).to_owned()
}

/// Starts the training and waits for its first checkpoint.
fn caught_in_training(shell: &Shell) -> Child {
    shell.write("training.toml", &training());
    let child = command(shell.dir.path())
        .args(["run", "training.toml"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let folder = shell.path("cache/checkpoints");
    while !folder.exists() || !walk(&folder).iter().any(|file| is_checkpoint(file)) {
        assert!(started.elapsed() < Duration::from_mins(5), "no checkpoint in five minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

pub(super) fn is_checkpoint(file: &std::path::Path) -> bool {
    file.extension().is_some_and(|ending| ending == "safetensors")
}

/// Runs the training to its end and returns the first step that was done.
fn first_step_of_the_rest(shell: &Shell) -> u64 {
    shell.succeed("run training.toml --events events.ndjson");
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let mut events =
        events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let first = events.find(|event| {
        event["event"] == "stage_progress"
            && event["message"].as_str().is_some_and(|text| text.starts_with("step"))
    });
    first.unwrap()["done"].as_u64().unwrap()
}

#[test]
fn a_training_that_is_killed_or_stopped_goes_on_to_the_same_bits() {
    let whole = Shell::new();
    whole.write("training.toml", &training());
    assert_eq!(first_step_of_the_rest(&whole), 1);
    let wanted = adapter(&whole);

    let killed = Shell::new();
    let mut child = caught_in_training(&killed);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "the training ended before it was killed");
    let kept = killed.succeed("cache gc");
    let plan = killed.succeed("plan training.toml");
    assert!(plan.contains("goes on at step ") && plan.contains(" of 40"), "{plan}");
    assert!(kept.contains("kept the checkpoints of 1 unfinished training\n"), "{kept}");
    assert!(first_step_of_the_rest(&killed) > 2, "the training began anew");
    assert_eq!(adapter(&killed), wanted);

    let stopped = Shell::new();
    let mut child = caught_in_training(&stopped);
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(first_step_of_the_rest(&stopped) > 2, "the training began anew");
    assert_eq!(adapter(&stopped), wanted);
}

/// How many of the clips are encoded.
fn encoded(shell: &Shell) -> u64 {
    let plan = shell.plan("encoding.toml");
    let latents = plan.iter().find(|stage| stage["name"] == "latents").unwrap();
    assert_eq!(latents["items_total"], 40, "the encoding ended before it was killed");
    latents["items_cached"].as_u64().unwrap()
}

#[test]
fn the_finished_items_of_a_stage_that_was_killed_outlive_gc() {
    let shell = Shell::new();
    let all = training().replace("count  = 2", "count  = 40");
    let (encoding, _) = all.split_once("[stages.lora]").unwrap();
    shell.write("encoding.toml", encoding);
    shell.succeed("run encoding.toml --only clips");
    let before = walk(&shell.path("cache/items")).len();
    let mut child = command(shell.dir.path())
        .args(["run", "encoding.toml"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while walk(&shell.path("cache/items")).len() < before + 4 {
        assert!(started.elapsed() < Duration::from_mins(5), "no items in five minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let finished = encoded(&shell);
    assert!((4..40).contains(&finished), "{finished}");
    let kept = format!("kept {finished} items of unfinished stages, ");
    for line in ["cache gc --dry-run", "cache gc"] {
        let told = shell.succeed(line);
        assert!(told.contains(&kept) && told.contains("--drop-unfinished"), "{told}");
    }
    assert_eq!(encoded(&shell), finished);
    let told = shell.succeed("cache gc --drop-unfinished");
    assert!(told.contains(&format!("removed {finished} files of items, ")), "{told}");
    assert_eq!(encoded(&shell), 0);
}

pub(super) fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
}

#[test]
fn signals_end_a_run_with_their_code_and_a_word_how_to_go_on() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let mut run = binary();
        run.args(["run", "clips.toml"]);
        let (found, said) = stopped(run, signal);
        assert_eq!(found, Some(code), "{signal}: {said}");
        assert!(said.contains("the same command goes on from here"), "{signal}: {said}");
    }
}

/// A shell without job control starts what goes to the background with Ctrl-C ignored.
#[test]
fn a_run_in_the_background_is_not_for_ctrl_c() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT; exec \"$0\" run clips.toml", env!("CARGO_BIN_EXE_pipe")]);
    let (code, said) = stopped(shell, "-INT -TERM");
    assert_eq!(code, Some(143), "{said}");
    assert!(!said.contains("signal"), "{said}");
}

/// Starts a long run, sends it signals, and returns its exit code and what it said after its first
/// line.
fn stopped(mut command: Command, signals: &str) -> (Option<i32>, String) {
    let shell = Shell::new();
    shell.write("clips.toml", &CLIPS.replace("count  = 2", "count  = 1000000"));
    let mut child = command
        .current_dir(shell.dir.path())
        .env("HOME", shell.dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "clips: 3 stages on cpu\n");
    for signal in signals.split(' ') {
        send(signal, &child);
    }
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest)
}

const SLOW: &str = r#"[stages.slow]
kind    = "command"
command = "sleep 98765 & echo $! > $STARTED; wait"
outputs = ["x"]
env     = { STARTED = "PLACE" }
"#;

#[cfg(target_os = "linux")]
#[test]
fn nothing_of_a_command_outlives_a_run_that_is_killed() {
    let shell = Shell::new();
    let started = shell.path("started");
    shell.write("slow.toml", &SLOW.replace("PLACE", &started.display().to_string()));
    let mut run = command(shell.dir.path())
        .args(["run", "slow.toml", "--allow-commands"])
        .env("TMPDIR", shell.path("."))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = |done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_mins(3), "too late");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let sleeps = || {
        let process = std::fs::read_to_string(&started).ok()?;
        let line = std::fs::read(format!("/proc/{}/cmdline", process.trim())).ok()?;
        line.starts_with(b"sleep\0").then_some(())
    };
    until(&|| sleeps().is_some());
    run.kill().unwrap();
    run.wait().unwrap();
    until(&|| sleeps().is_none());
    // Its folder lies in the cache, where the next run finds it.
    let left = || walk(&shell.path("cache/tmp")).len();
    assert!(left() > 0);
    assert!(
        !std::fs::read_dir(shell.dir.path())
            .unwrap()
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().starts_with("pipe-command") })
    );
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --only pairs");
    assert_eq!(left(), 0);
    assert_eq!(std::fs::read_dir(shell.path("cache/tmp")).unwrap().count(), 0);
}
