//! The probes that pipeline tools are compared by (`benches/behave.py`): which of two stages run, A
//! and what follows it, B.

use std::{path::Path, process::Stdio, time::Duration};

use image::{ExtendedColorType, ImageEncoder, codecs::png};

use super::{Shell, command, walk};

/// A reads images from outside; B takes what A gave.
const IMAGES: &str = r#"name = "probe"

[stages.a]
kind   = "dataset"
source = { source = "folder", root = "data" }
task   = "pairs"
size   = [32, 32]

[stages.b]
kind   = "interpolate"
inputs = { pairs = "a" }
frames = 5
"#;

/// Both leave a letter where they ran.
fn commands(log: &Path) -> String {
    let stage = |name: &str, more: &str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\noutputs = [\"f\"]\n{more}\
             command = \"printf {name} >> {log}; sleep 0.3; echo {name} > $OUT/f\"\n",
            log = log.display()
        )
    };
    format!("name = \"probe\"\n{}{}", stage("a", ""), stage("b", "inputs = { input = \"a\" }\n"))
}

fn write_image(path: &Path, value: u8, compression: png::CompressionType) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels = [value; 32 * 32 * 3];
    let mut bytes = Vec::new();
    png::PngEncoder::new_with_quality(&mut bytes, compression, png::FilterType::NoFilter)
        .write_image(&pixels, 32, 32, ExtendedColorType::Rgb8)
        .unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A pipeline that ran once.
fn probe() -> Shell {
    let shell = Shell::new();
    shell.write("probe.toml", IMAGES);
    source(&shell, 10, png::CompressionType::Fast);
    write_image(&shell.path("data/target/1.png"), 200, png::CompressionType::Fast);
    assert_eq!(ran(&shell), "AB");
    shell
}

fn source(shell: &Shell, value: u8, compression: png::CompressionType) {
    write_image(&shell.path("data/input/1.png"), value, compression);
}

/// Runs it and tells which stages really ran.
fn ran(shell: &Shell) -> String {
    let output = shell.output("run probe.toml");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let ran = |line: &&str| line.starts_with("ran ") || line.starts_with("same");
    let names = stderr.lines().filter(ran).map(|line| line.split_whitespace().nth(1).unwrap());
    names.collect::<String>().to_uppercase()
}

#[test]
fn nothing_changed() {
    assert_eq!(ran(&probe()), "");
}

#[test]
fn a_source_that_is_touched_changes_nothing() {
    let shell = probe();
    let file = std::fs::File::options().append(true).open(shell.path("data/input/1.png")).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_mins(1)).unwrap();
    assert_eq!(ran(&shell), "");
}

#[test]
fn a_change_that_gives_equal_bytes_stops_there() {
    let shell = probe();
    source(&shell, 10, png::CompressionType::Best);
    assert_eq!(ran(&shell), "A");
}

#[test]
fn a_change_that_is_taken_back_runs_nothing_again() {
    let shell = probe();
    source(&shell, 90, png::CompressionType::Fast);
    assert_eq!(ran(&shell), "AB");
    source(&shell, 10, png::CompressionType::Fast);
    assert_eq!(ran(&shell), "");
}

#[test]
fn deleted_outputs_come_back_without_running() {
    let shell = probe();
    for _ in 0..2 {
        shell.succeed("export probe.toml a --to out/a");
        shell.succeed("export probe.toml b --to out/b");
        assert!(walk(&shell.path("out")).len() > 4);
        std::fs::remove_dir_all(shell.path("out")).unwrap();
    }
    assert_eq!(ran(&shell), "");
}

#[test]
fn an_output_overwritten_by_hand_is_repaired() {
    let shell = probe();
    let plan = shell.plan("probe.toml");
    let digest = plan[1]["digest"].as_str().unwrap();
    let shown: serde_json::Value =
        serde_json::from_str(&shell.succeed(&format!("show --json {digest}"))).unwrap();
    let file = &shown["artifact"]["items"][0]["files"]["clip.safetensors"]["digest"];
    let hex = file.as_str().unwrap();
    let path = shell.path("cache/objects").join(&hex[..2]).join(&hex[2..]);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "overwritten").unwrap();
    assert_eq!(ran(&shell), "B");
    assert_ne!(std::fs::read(&path).unwrap(), b"overwritten");
}

#[test]
fn two_runs_at_once_share_the_work() {
    for locks in ["flock", "lease"] {
        two_runs_at_once(locks);
    }
}

fn two_runs_at_once(locks: &str) {
    let shell = Shell::new();
    shell.write("pipe.toml", &format!("locks = \"{locks}\"\n"));
    shell.write("probe.toml", &commands(&shell.path("log")));
    let start = || {
        let mut run = command(shell.dir.path());
        run.args(["run", "probe.toml", "--allow-commands"]);
        run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut runs = [start(), start()];
    assert!(runs.iter_mut().all(|run| run.wait().unwrap().success()));
    assert_eq!(std::fs::read_to_string(shell.path("log")).unwrap(), "ab");
}

#[test]
fn a_killed_run_is_no_obstacle() {
    for locks in ["flock", "lease"] {
        a_killed_run(locks);
    }
}

fn a_killed_run(locks: &str) {
    let shell = Shell::new();
    shell.write("pipe.toml", &format!("locks = \"{locks}\"\n"));
    shell.write("probe.toml", &commands(&shell.path("log")));
    let mut run = command(shell.dir.path());
    run.args(["run", "probe.toml", "--allow-commands"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !shell.path("log").exists() {
        std::thread::yield_now();
    }
    run.kill().unwrap();
    run.wait().unwrap();
    std::fs::remove_file(shell.path("log")).unwrap();
    shell.succeed("run probe.toml --allow-commands");
    assert_eq!(std::fs::read_to_string(shell.path("log")).unwrap(), "ab");
}
