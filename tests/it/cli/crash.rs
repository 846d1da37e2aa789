//! `kill -9` at random moments: the cache is good after each, and the results come out as
//! undisturbed.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{Experiment, SCORE, Shell, command};

/// Mirrored figures, and commands.
const MORE: &str = r#"
[stages.pairs]
kind      = "transform"
inputs    = { pairs = "figures" }
operation = "hflip"

[stages.note]
kind    = "command"
command = "seq 1 500 > $OUT/numbers; sleep 0.05"
outputs = ["numbers"]

[stages.sum]
kind    = "command"
inputs  = { input = "note" }
command = "cat $IN/input/*/numbers | tr '\n' + > $OUT/sum"
outputs = ["sum"]
"#;

/// A bit of everything that writes to a cache: a data set, items, a command, a training with
/// checkpoints, samples and scores.
fn everything() -> String {
    let experiment = Experiment {
        name: "everything",
        count: 2,
        lora: "rank       = 2\nsteps      = 3\nsave_every = 1\n",
        ..Experiment::default()
    };
    let figures = experiment.toml().replace("[stages.pairs]", "[stages.figures]");
    format!("{figures}{MORE}{SCORE}\n[tables.main]\nvalue = \"score.psnr\"\n")
}

const RUN: [&str; 4] = ["run", "everything.toml", "--allow-commands", "--lock"];

fn start(shell: &Shell) -> Child {
    command(shell.dir.path())
        .args(RUN)
        // What a killed command leaves is in a folder of the system, not of the cache.
        .env("TMPDIR", shell.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Numbers from 0 to 1, the same in every run of the test; the moments they lead to are not.
fn random(index: u64) -> f64 {
    let hash = blake3::hash(&index.to_le_bytes());
    let bytes = hash.as_bytes().first_chunk::<4>().unwrap();
    f64::from(u32::from_le_bytes(*bytes)) / f64::from(u32::MAX)
}

/// A folder with the pipeline, and nothing computed.
fn fresh() -> Shell {
    let shell = Shell::new();
    shell.write("everything.toml", &everything());
    shell
}

/// Kills a run `kills` times, a fresh cache whenever one has ended, and compares each end.
fn survives(kills: u64) {
    let undisturbed = fresh();
    let begin = Instant::now();
    assert!(start(&undisturbed).wait().unwrap().success());
    let length = begin.elapsed();
    let lock = std::fs::read(undisturbed.path("everything.lock")).unwrap();

    let (mut shell, mut ends) = (fresh(), 0);
    let mut killed = 0;
    while killed < kills {
        let moment = length.mul_f64(random(killed + 1000 * ends));
        let mut run = start(&shell);
        std::thread::sleep(moment.min(Duration::from_mins(1)));
        let ended = run.try_wait().unwrap();
        if let Some(status) = ended {
            assert!(status.success(), "after {killed} kills: {status}");
        } else {
            // On Unix this is SIGKILL.
            run.kill().unwrap();
            run.wait().unwrap();
            killed += 1;
        }
        // Killed before it had made a cache, it has left nothing to verify.
        if shell.path("cache/format").exists() {
            let verified = shell.transcript("cache verify");
            assert!(verified.contains("? 0\n"), "after {killed} kills\n{verified}");
        }
        if ended.is_some() {
            ends += 1;
            same_results(&shell, &lock);
            shell = fresh();
        }
    }
    assert!(start(&shell).wait().unwrap().success());
    same_results(&shell, &lock);
    eprintln!(
        "{kills} kills, {} runs brought to their end, {length:.1?} each undisturbed",
        ends + 1
    );
}

/// The lock holds every key and the digest of every output.
fn same_results(shell: &Shell, lock: &[u8]) {
    let found = std::fs::read(shell.path("everything.lock")).unwrap();
    assert!(found == lock, "other results than undisturbed");
    let verified = shell.transcript("cache verify");
    assert!(verified.contains("? 0\n"), "{verified}");
    // What the dead left behind is nobody's, and goes without harm.
    shell.succeed("cache gc");
    assert!(shell.plan("everything.toml").iter().all(|stage| stage["state"] == "fresh"));
    assert_eq!(std::fs::read_dir(shell.path("cache/tmp")).unwrap().count(), 0);
}

#[test]
fn a_dozen_kills_do_no_harm() {
    survives(12);
}

/// `cargo test --release --test it -- --ignored five_hundred --nocapture`; its figures are in
/// `benches/results/`.
#[test]
#[ignore = "takes minutes"]
fn five_hundred_kills_do_no_harm() {
    survives(500);
}
