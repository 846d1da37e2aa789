//! Runs on several devices: a process for each, here on the CPU.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Shell, command,
    interrupt::{is_checkpoint, send, training},
    walk,
};
use crate::incremental::corrupt;

/// Two trainings of one set of latents.
const SWEEP: &str = "\n[sweep]\ngrid = { rank = [1, 2] }\n";

fn sweep() -> String {
    let text = training().replace("rank       = 4", "rank       = \"${rank}\"");
    text.replace("steps      = 40", "steps      = 4") + SWEEP
}

fn events(shell: &Shell, file: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(shell.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn trainings_in_two_processes_run_at_once_and_come_out_the_same() {
    let one = Shell::new();
    one.write("training.toml", &sweep());
    one.succeed("run training.toml --device cpu --lock");

    let two = Shell::new();
    two.write("training.toml", &sweep());
    two.succeed("run training.toml --device cpu:2 --lock --events events.ndjson");
    let locks = [&one, &two].map(|shell| std::fs::read(shell.path("training.lock")).unwrap());
    assert!(locks[0] == locks[1], "other results in processes of their own");

    let events = events(&two, "events.ndjson");
    assert_eq!(events[0]["device"], "cpu:2");
    let place = |event: &str, stage: &str| {
        let is_it = |found: &&serde_json::Value| {
            found["event"] == event && found["stage"].as_str().is_some_and(|s| s == stage)
        };
        let found = events.iter().position(|found| is_it(&found));
        found.unwrap_or_else(|| panic!("no {event} of {stage}"))
    };
    let stages = ["lora[rank=1]", "lora[rank=2]"];
    let [starts, ends] =
        ["stage_started", "stage_finished"].map(|event| stages.map(|stage| place(event, stage)));
    assert!(starts.iter().max() < ends.iter().min(), "one after the other");
    let index = events[starts[0]]["index"].clone();
    let steps = events.iter().filter(|event| {
        event["event"] == "stage_progress"
            && event["index"] == index
            && event["message"].as_str().is_some_and(|text| text.starts_with("step, loss"))
    });
    assert!(steps.count() >= 4, "its steps are not told");
    // Time and memory are those of the process that computed.
    let table = two.succeed("table training.toml --compute --format json");
    assert!(table.contains("\"cpu\""), "{table}");
    // With all there, nothing is started.
    let again = two.transcript("run training.toml --device cpu:2");
    assert!(again.contains("0 stages ran"), "{again}");
}

/// The workers of a run.
fn workers(run: &Child) -> Vec<u32> {
    let is_worker = |process: &u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"worker")
    };
    children(run.id()).into_iter().filter(is_worker).collect()
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_parent = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    numbers.filter(of_parent).collect()
}

fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().map(str::to_owned);
    state.is_some_and(|state| state != "Z")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_mins(5), "{what}: not in five minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts the training in a worker and waits for its first checkpoint.
fn caught_in_training(shell: &Shell, text: &str, args: &[&str]) -> Child {
    shell.write("training.toml", text);
    let run = command(shell.dir.path())
        .args(["run", "training.toml", "--device", "cpu:1"])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = shell.path("cache/checkpoints");
    until("a checkpoint", || {
        folder.exists() && walk(&folder).iter().any(|file| is_checkpoint(file))
    });
    run
}

fn kill(process: u32) {
    signal("-KILL", process);
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// What a run says until it ends, and its exit code.
fn end(mut run: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (run.wait().unwrap().code(), said)
}

fn adapter(shell: &Shell, name: &str) -> String {
    let plan = shell.plan("training.toml");
    let lora = plan.iter().find(|stage| stage["name"] == name).unwrap();
    lora["digest"].as_str().unwrap_or_else(|| panic!("not trained: {lora}")).to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn a_stage_whose_worker_is_killed_is_computed_once_more_and_no_more() {
    let whole = Shell::new();
    whole.write("training.toml", &training());
    whole.succeed("run training.toml --device cpu");

    let once = Shell::new();
    let run = caught_in_training(&once, &training(), &[]);
    let [worker] = workers(&run)[..] else { panic!("no worker, or several") };
    kill(worker);
    let (code, said) = end(run);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("retried").count(), 1, "{said}");
    assert!(said.contains("lora  once more on cpu, because its worker (process "), "{said}");
    assert!(said.contains("was killed by signal 9 (SIGKILL)"), "{said}");
    assert_eq!(adapter(&once, "lora"), adapter(&whole, "lora"));

    // The other one goes on, in a third process.
    let twice = Shell::new();
    let training = training();
    let (_, lora) = training.split_once("[stages.lora]").unwrap();
    let other =
        format!("{training}\n[stages.other]{}", lora.replace("steps      = 40", "steps      = 1"));
    let run = caught_in_training(
        &twice,
        &other.replace("rank       = 4\nsteps      = 1\n", "rank       = 2\nsteps      = 1\n"),
        &["--keep-going"],
    );
    let [first] = workers(&run)[..] else { panic!("no worker, or several") };
    kill(first);
    let mut second = first;
    until("a second worker", || {
        second = workers(&run).first().copied().unwrap_or(first);
        second != first
    });
    kill(second);
    let (code, said) = end(run);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches("retried").count(), 1, "{said}");
    assert!(said.contains("its worker on cpu was lost twice"), "{said}");
    adapter(&twice, "other");
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_is_stopped_or_killed_leaves_no_worker_and_goes_on() {
    let stopped = Shell::new();
    let run = caught_in_training(&stopped, &training(), &[]);
    let left = workers(&run);
    send("-INT", &run);
    let (code, said) = end(run);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("the same command goes on from here"), "{said}");
    assert!(!said.contains("retried"), "{said}");
    assert!(!left.iter().any(|worker| is_alive(*worker)));
    let plan = stopped.succeed("plan training.toml");
    assert!(plan.contains("goes on at step "), "{plan}");

    let killed = Shell::new();
    let mut run = caught_in_training(&killed, &training(), &[]);
    let left = workers(&run);
    assert!(!left.is_empty());
    run.kill().unwrap();
    run.wait().unwrap();
    until("the end of the worker", || !left.iter().any(|worker| is_alive(*worker)));
    let before = walk(&killed.path("cache")).len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(walk(&killed.path("cache")).len(), before, "somebody goes on writing");
    killed.succeed("cache gc");
    killed.succeed("run training.toml --device cpu:1");
    assert!(killed.transcript("cache verify").contains("? 0\n"));
}

/// Who is stopped hears of no end, so it must be ended.
#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_somebody_stopped_ends_with_its_run() {
    let ends: [fn(&mut Child); 2] = [
        |run| run.kill().unwrap(),
        |run| {
            send("-INT", run);
            let mut said = String::new();
            let lines = &mut BufReader::new(run.stderr.take().unwrap());
            while !said.contains("in the worker of cpu (process ") {
                assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
            }
            assert!(said.contains("somebody has stopped: `kill -CONT "), "{said}");
            send("-INT", run);
        },
    ];
    for end in ends {
        let shell = Shell::new();
        let mut run = caught_in_training(&shell, &training(), &[]);
        let [worker] = workers(&run)[..] else { panic!("no worker, or several") };
        signal("-STOP", worker);
        end(&mut run);
        run.wait().unwrap();
        until("the end of the worker", || !is_alive(worker));
    }
}

/// The part of the training that encodes clips.
fn encoding() -> String {
    training().split_once("[stages.lora]").unwrap().0.to_owned()
}

#[test]
fn damage_that_a_worker_meets_is_made_good() {
    let shell = Shell::new();
    shell.write("encoding.toml", &encoding());
    shell.succeed("run encoding.toml --only clips");
    for file in walk(&shell.path("cache/objects")) {
        corrupt(&file, true);
    }
    shell.succeed("run encoding.toml --device cpu:1");
    assert!(shell.transcript("cache verify").contains("? 0\n"));
}

/// As a build does that replaces it.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_is_removed_while_it_runs_starts_workers_all_the_same() {
    let shell = Shell::new();
    let copy = shell.path("pipe-copy");
    // Not copied here: a program that another test starts meanwhile would hold it open to be
    // written, and busy.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_pipe")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let gone = format!(
        "[stages.gone]\nkind = \"command\"\ncommand = \"rm $COPY; touch $OUT/x\"\noutputs = [\"x\"]\n\
         env = {{ COPY = \"{}\" }}\n[stages.prompt]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n",
        copy.display()
    );
    shell.write("gone.toml", &gone);
    let output = Command::new(&copy)
        .current_dir(shell.dir.path())
        .env_clear()
        .env("HOME", shell.dir.path())
        .env("PATH", std::env::var("PATH").unwrap())
        .args(["run", "gone.toml", "--device", "cpu:1", "--jobs", "1", "--allow-commands"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!copy.exists());
}

#[test]
fn a_worker_without_a_run_ends() {
    let shell = Shell::new();
    let mut worker = command(shell.dir.path());
    let output = worker.args(["--device", "cpu", "worker"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("{\"ready\":{\"version\":"));
    let output = shell.output("--device cuda:7 worker");
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"unfit\""));
}

#[test]
fn devices_that_are_wrong_are_told_before_anything_runs() {
    let shell = Shell::new();
    shell.write("training.toml", &training());
    let cuda = if cfg!(feature = "cuda") { "nvidia-smi" } else { "built without CUDA" };
    for (device, code, wanted) in [
        ("cuda:0,0", 2, "names `cuda:0` twice"),
        ("cuda:0,cpu", 2, "cannot stand among the devices"),
        ("cuda:0,", 2, "a comma without a device"),
        ("cpu:0", 2, "how many processes"),
        ("cuda:0,1", 3, cuda),
        ("all", 3, cuda),
    ] {
        let told = shell.transcript(&format!("run training.toml --device {device}"));
        assert!(told.contains(&format!("? {code}\n")) && told.contains(wanted), "{told}");
    }
    assert!(!shell.path("cache/objects").exists() || walk(&shell.path("cache/objects")).is_empty());
}

/// Who needs a device that is not here is told so in the same words; a plan is made all the same.
#[cfg(not(feature = "cuda"))]
#[test]
fn devices_that_are_not_here_are_told_alike_by_all_commands() {
    let shell = Shell::new();
    shell.write("training.toml", &training());
    for (device, name) in
        [("all", ""), ("cuda", " `cuda:0`"), ("cuda:0,1", " `cuda:0`"), ("cuda:7", " `cuda:7`")]
    {
        let wanted = format!(
            "there is no CUDA device{name} here\n  help: this `pipe` was built without CUDA: "
        );
        for verb in ["run", "verify"] {
            let told = shell.transcript(&format!("{verb} training.toml --device {device}"));
            assert!(told.contains("? 3\n") && told.contains(&format!("× {wanted}")), "{told}");
        }
        let plan = shell.succeed(&format!("plan training.toml --device {device}"));
        assert!(plan.contains(&format!("missing: {wanted}")), "{plan}");
        let json = shell.succeed(&format!("plan training.toml --json --device {device}"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["no_device"], format!("there is no CUDA device{name} here"));
    }
    let plan = shell.succeed("plan training.toml --device cpu:2");
    assert!(!plan.contains("missing"), "{plan}");
    shell.succeed("check training.toml --device cuda:0,1");
}

#[test]
fn a_device_that_cannot_be_is_told_with_who_asked_for_it() {
    let shell = Shell::new();
    shell.write("training.toml", &training());
    shell.write("pipe.toml", "jobs = 1\ndevice = \"gpu\"\n");
    for verb in ["run", "plan", "verify"] {
        let told = shell.transcript(&format!("{verb} training.toml"));
        let wanted = "there is no device `gpu` (set by `pipe.toml:2:10`)\n";
        assert!(told.contains("? 2\n") && told.contains(wanted), "{told}");
        let output = command(shell.dir.path())
            .args([verb, "training.toml"])
            .env("PIPE_DEVICE", "cuda:0,")
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        let wanted = "`cuda:0,` has a comma without a device beside it (set by `PIPE_DEVICE`)\n";
        assert!(told.contains(wanted), "{told}");
        let told = shell.transcript(&format!("{verb} training.toml --device x"));
        assert!(told.contains("there is no device `x`\n"), "{told}");
    }
}
