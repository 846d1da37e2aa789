//! A run that waits for another one, which is killed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{Shell, command};

/// Ends once `PLACE/hold` is gone.
const HELD: &str = r#"name = "held"

[stages.slow]
kind    = "command"
command = "touch PLACE/begun; for i in $(seq 6000); do [ -e PLACE/hold ] || break; sleep 0.05; done; echo made > $OUT/made"
outputs = ["made"]
"#;

fn start(shell: &Shell) -> Child {
    command(shell.dir.path())
        .args(["run", "held.toml", "--allow-commands"])
        .env("PIPE_LOCKS", "flock")
        .env("TMPDIR", shell.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn who_waits_for_a_run_that_is_killed_goes_on_and_ends() {
    let shell = Shell::new();
    let place = shell.path("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("hold"), "").unwrap();
    shell.write("held.toml", &HELD.replace("PLACE", place.to_str().unwrap()));

    let mut first = start(&shell);
    let begin = Instant::now();
    while !place.join("begun").exists() {
        assert!(begin.elapsed() < Duration::from_mins(3), "the first one did not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(place.join("begun")).unwrap();

    let mut second = start(&shell);
    let mut told = BufReader::new(second.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = told.find(|line| line.starts_with("waiting"));
    let waits = waits.expect("the second one says that it waits");
    assert!(waits.contains(&format!("process {}", first.id())), "{waits}");
    assert!(!place.join("begun").exists() && second.try_wait().unwrap().is_none());

    // On Unix this is SIGKILL.
    first.kill().unwrap();
    first.wait().unwrap();
    let begin = Instant::now();
    while !place.join("begun").exists() {
        assert!(begin.elapsed() < Duration::from_mins(3), "the second one did not go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(place.join("hold")).unwrap();
    let rest: Vec<_> = told.collect();
    assert!(second.wait().unwrap().success(), "{rest:?}");
    let taken = format!("left     slow  by process {} on ", first.id());
    assert!(
        rest.iter().any(|line| line.starts_with(&taken) && line.ends_with("taken over")),
        "{rest:?}"
    );
    assert_eq!(shell.plan("held.toml")[0]["state"], "fresh");
}
