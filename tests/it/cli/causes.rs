//! Where a change begins is said of every stage that it reaches, however far below.

use super::{CLIPS, Shell};

/// Three more stages, one below the other, that say what is in the clips.
const BELOW: &str = r#"
[stages.sums]
kind    = "command"
inputs  = { input = "clips" }
command = "cat $(find $IN/input/ -type f | sort) | cksum > $OUT/sum"
outputs = ["sum"]

[stages.copy]
kind    = "command"
inputs  = { input = "sums" }
command = "cp $IN/input/files/sum $OUT/sum"
outputs = ["sum"]

[stages.again]
kind    = "command"
inputs  = { input = "copy" }
command = "tac $IN/input/files/sum > $OUT/sum"
outputs = ["sum"]
"#;

fn chain() -> (Shell, String) {
    let shell = Shell::new();
    let text = format!("{CLIPS}{BELOW}");
    shell.write("a.toml", &text);
    shell.succeed("run a.toml --allow-commands");
    (shell, text)
}

#[test]
fn the_cause_is_told_through_all_stages() {
    let (shell, text) = chain();
    shell.write("a.toml", &text.replace("frames = 5", "frames = 9"));
    insta::assert_snapshot!(shell.transcript("plan a.toml"), @"
    $ pipe plan a.toml
    ? 0
    --- stdout
    run    clips[method=linear]  frames 5 -> 9 (a.toml:18:10)  2 of 2 items, about [TIME]
    run    clips[method=quadratic]  frames 5 -> 9 (a.toml:18:10)  2 of 2 items, about [TIME]
    maybe  sums[method=linear]  after clips  about [TIME]
    maybe  sums[method=quadratic]  after clips  about [TIME]
    maybe  copy[method=linear]  after sums, because clips: frames 5 -> 9  about [TIME]
    maybe  copy[method=quadratic]  after sums, because clips: frames 5 -> 9  about [TIME]
    maybe  again[method=linear]  after copy, because clips: frames 5 -> 9  about [TIME]
    maybe  again[method=quadratic]  after copy, because clips: frames 5 -> 9  about [TIME]
    2 stages to run, 6 waiting for others, 1 cached; at most about [TIME] of stage time
    shell commands, which a run must allow: sums, copy, again
    disk: at most about [SIZE]; [SIZE] are free
    ");
    let explained = shell.succeed("explain a.toml again[method=linear]");
    insta::assert_snapshot!(explained.lines().take(3).collect::<Vec<_>>().join("\n"), @"
    again[method=linear]  (command, version 1)
      will run if what it takes changes, known after: copy[method=linear]
        because clips[method=linear]: frames 5 -> 9 (a.toml:18:10)
    ");
    let stages = shell.plan("a.toml");
    let again = stages.iter().find(|stage| stage["name"] == "again[method=linear]").unwrap();
    insta::assert_snapshot!(again["cause"], @r#"{"more":0,"reasons":[{"new":"9","old":"5","path":"frames","place":{"column":10,"file":"a.toml","line":18},"reason":"param_changed"}],"stage":"clips[method=linear]"}"#);
    assert!(
        stages.iter().filter(|stage| stage["state"] != "pending").all(|s| s["cause"].is_null())
    );
    let run = "run a.toml --allow-commands --jobs 1 --events events.ndjson";
    insta::assert_snapshot!(shell.transcript(run), @"
    $ pipe run a.toml --allow-commands --jobs 1 --events events.ndjson
    ? 0
    --- stderr
    clips: 9 stages on cpu
    ran      clips[method=linear]  frames 5 -> 9 (a.toml:18:10)  [TIME]
    ran      clips[method=quadratic]  frames 5 -> 9 (a.toml:18:10)  [TIME]
    ran      sums[method=linear]  input `input` changed, because clips: frames 5 -> 9  [TIME]
    ran      sums[method=quadratic]  input `input` changed, because clips: frames 5 -> 9  [TIME]
    ran      copy[method=linear]  input `input` changed, because clips: frames 5 -> 9  [TIME]
    ran      copy[method=quadratic]  input `input` changed, because clips: frames 5 -> 9  [TIME]
    ran      again[method=linear]  input `input` changed, because clips: frames 5 -> 9  [TIME]
    ran      again[method=quadratic]  input `input` changed, because clips: frames 5 -> 9  [TIME]
    done     8 stages ran, 1 reused in [TIME]
    ");
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let again = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut again =
        again.filter(|e| e["event"] == "stage_started" && e["stage"] == "again[method=linear]");
    let event = again.next().unwrap();
    assert_eq!(event["cause"]["stage"], "clips[method=linear]");
    assert_eq!(event["cause"]["reasons"][0]["place"]["line"], 18);
}

#[test]
fn of_several_causes_the_first_is_named_and_the_others_counted() {
    let (shell, text) = chain();
    let more = text.replace(r#"{ input = "sums" }"#, r#"{ input = "sums", second = "more" }"#);
    let pairs = more.split("\n\n").find(|part| part.contains("[stages.pairs]")).unwrap();
    let text = format!("{more}\n{}", pairs.replace("pairs", "more").replace("= 2", "= 4"));
    shell.write("a.toml", &text);
    shell.succeed("run a.toml --allow-commands");
    let text = text.replace("frames = 5", "frames = 9").replace("= 4", "= 3");
    shell.write("a.toml", &text);
    let plan = shell.succeed("plan a.toml");
    insta::assert_snapshot!(super::redact(&plan), @"
    run    clips[method=linear]  frames 5 -> 9 (a.toml:18:10)  2 of 2 items, about [TIME]
    run    clips[method=quadratic]  frames 5 -> 9 (a.toml:18:10)  2 of 2 items, about [TIME]
    maybe  sums[method=linear]  after clips  about [TIME]
    maybe  sums[method=quadratic]  after clips  about [TIME]
    run    more  count 4 -> 3 (a.toml:42:10)  about [TIME]
    maybe  copy[method=linear]  after sums and 1 more, because clips: frames 5 -> 9, and 1 other stage  about [TIME]
    maybe  copy[method=quadratic]  after sums and 1 more, because clips: frames 5 -> 9, and 1 other stage  about [TIME]
    maybe  again[method=linear]  after copy, because clips: frames 5 -> 9, and 1 other stage  about [TIME]
    maybe  again[method=quadratic]  after copy, because clips: frames 5 -> 9, and 1 other stage  about [TIME]
    3 stages to run, 6 waiting for others, 1 cached; at most about [TIME] of stage time
    shell commands, which a run must allow: sums, copy, again
    disk: at most about [SIZE]; [SIZE] are free
    ");
}

#[test]
fn a_change_that_an_earlier_run_began_with_is_told_too() {
    let (shell, text) = chain();
    shell.write("a.toml", &text.replace("frames = 5", "frames = 9"));
    shell.succeed("run a.toml --allow-commands --only sums");
    insta::assert_snapshot!(shell.transcript("plan a.toml"), @"
    $ pipe plan a.toml
    ? 0
    --- stdout
    run    copy[method=linear]  input `input` changed, because clips: frames 5 -> 9 (a.toml:18:10)  about [TIME]
    run    copy[method=quadratic]  input `input` changed, because clips: frames 5 -> 9 (a.toml:18:10)  about [TIME]
    maybe  again[method=linear]  after copy, because clips: frames 5 -> 9 (a.toml:18:10)  about [TIME]
    maybe  again[method=quadratic]  after copy, because clips: frames 5 -> 9 (a.toml:18:10)  about [TIME]
    2 stages to run, 2 waiting for others, 5 cached; at most about [TIME] of stage time
    shell commands, which a run must allow: copy, again
    disk: at most about [SIZE]; [SIZE] are free
    ");
    let explained = shell.transcript("explain a.toml copy[method=linear]");
    insta::assert_snapshot!(explained.lines().skip(3).take(4).collect::<Vec<_>>().join("\n"), @"
    copy[method=linear]  (command, version 1)
      will run:
        input `input` changed ([HASH] -> [HASH])
        because clips[method=linear]: frames 5 -> 9 (a.toml:18:10)
    ");
    let run = "run a.toml --allow-commands --jobs 1";
    insta::assert_snapshot!(shell.transcript(run), @"
    $ pipe run a.toml --allow-commands --jobs 1
    ? 0
    --- stderr
    clips: 9 stages on cpu
    ran      copy[method=linear]  input `input` changed, because clips: frames 5 -> 9 (a.toml:18:10)  [TIME]
    ran      copy[method=quadratic]  input `input` changed, because clips: frames 5 -> 9 (a.toml:18:10)  [TIME]
    ran      again[method=linear]  input `input` changed, because clips: frames 5 -> 9 (a.toml:18:10)  [TIME]
    ran      again[method=quadratic]  input `input` changed, because clips: frames 5 -> 9 (a.toml:18:10)  [TIME]
    done     4 stages ran, 5 reused in [TIME]
    ");
}

#[test]
fn a_stage_that_missed_several_changes_is_told_all_of_it() {
    let (shell, text) = chain();
    for frames in [9, 13, 17] {
        shell.write("a.toml", &text.replace("frames = 5", &format!("frames = {frames}")));
        shell.succeed("run a.toml --allow-commands --only clips");
    }
    let plan = shell.succeed("plan a.toml --only again[method=linear]");
    insta::assert_snapshot!(super::redact(&plan), @"
    run    sums[method=linear]  input `input` changed, because clips: frames 5 -> 17 (a.toml:18:10)  about [TIME]
    maybe  copy[method=linear]  after sums, because clips: frames 5 -> 17 (a.toml:18:10)  about [TIME]
    maybe  again[method=linear]  after copy, because clips: frames 5 -> 17 (a.toml:18:10)  about [TIME]
    1 stage to run, 2 waiting for others, 2 cached; at most about [TIME] of stage time
    shell commands, which a run must allow: sums, copy, again
    disk: at most about [SIZE]; [SIZE] are free
    ");
}

#[test]
fn explain_tells_after_a_run_what_it_was_for() {
    let (shell, text) = chain();
    let explained = |stage: &str| {
        let text = shell.transcript(&format!("explain a.toml {stage}"));
        text.split("last run").nth(1).unwrap().lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(explained("again[method=linear]"), "", "it was never anything else");
    shell.write("a.toml", &text.replace("frames = 5", "frames = 9"));
    shell.succeed("run a.toml --allow-commands");
    insta::assert_snapshot!(explained("clips[method=linear]"), @"
    since the one before:
      frames 5 -> 9 (a.toml:18:10)
    ");
    insta::assert_snapshot!(explained("again[method=linear]"), @"
    since the one before:
      input `input` changed ([HASH] -> [HASH])
      because clips[method=linear]: frames 5 -> 9 (a.toml:18:10)
    ");
}

#[test]
fn explain_tells_of_a_change_that_was_taken_back_what_is_and_not_what_was_in_between() {
    let (shell, text) = chain();
    let clips = |frames: &str| {
        shell.write("a.toml", &text.replace("frames = 5", &format!("frames = {frames}")));
    };
    let explained = || {
        let told = shell.transcript("explain a.toml clips[method=linear]");
        let part = |line: &&str| {
            ["fresh", "last run", "since", "frames 9"].iter().any(|w| line.contains(w))
        };
        told.lines().filter(part).collect::<Vec<_>>().join("\n")
    };
    let output = |told: &str| {
        let line = told.lines().find(|line| line.contains("last run")).unwrap().to_owned();
        line.split("-> ").nth(1).unwrap().to_owned()
    };
    let raw = |shell: &super::Shell| shell.succeed("explain a.toml clips[method=linear]");
    let first = output(&raw(&shell));
    clips("9");
    shell.succeed("run a.toml --allow-commands --only clips");
    assert_ne!(output(&raw(&shell)), first);
    clips("5");
    let not_run = explained();
    insta::assert_snapshot!(not_run, @"
    fresh: [HASH] in the cache
    last run of this key: [WHEN] in [TIME] on cpu by pipe 0.1.0 -> [HASH]
    since the file was last run with another one:
      frames 9 -> 5 (a.toml:18:10)
    ");
    assert_eq!(output(&raw(&shell)), first);
    // A run that only takes it from the cache changes nothing of that.
    shell.succeed("run a.toml --allow-commands --only clips");
    assert_eq!(explained(), not_run);
}

#[test]
fn a_forced_stage_that_gives_something_else_is_not_said_to_give_the_same() {
    let shell = Shell::new();
    let count = shell.path("count");
    let count = count.display();
    let command = format!("echo . >> {count}; cp {count} $OUT/f");
    let text = format!("kind = \"command\"\ncommand = \"{command}\"\noutputs = [\"f\"]\n");
    shell.write("a.toml", &format!("[stages.a]\n{text}"));
    shell.succeed("run a.toml --allow-commands");
    let said = shell.transcript("run a.toml --allow-commands --force a");
    assert!(said.contains("forced") && !said.contains("same output as before"), "{said}");
}

#[test]
fn of_many_commands_some_are_named() {
    let shell = Shell::new();
    let stage = |n: usize| {
        format!(
            "[stages.s{n}]\nkind = \"command\"\ncommand = \"echo > $OUT/f\"\noutputs = [\"f\"]\n"
        )
    };
    shell.write("a.toml", &(0..20).map(stage).collect::<String>());
    let plan = shell.succeed("plan a.toml");
    let line = plan.lines().find(|line| line.starts_with("shell commands")).unwrap();
    insta::assert_snapshot!(line, @"shell commands, which a run must allow: s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 and 8 more");
}

const TOLD: &str = r#"[params]
v    = 1
what = "v${v}"

[stages.told]
kind    = "command"
command = "echo ${what}, ${v} > $OUT/x"
outputs = ["x"]
"#;

#[test]
fn of_a_text_that_changed_the_param_in_it_is_named() {
    let shell = Shell::new();
    shell.write("told.toml", TOLD);
    shell.succeed("run told.toml --allow-commands");
    insta::assert_snapshot!(shell.transcript("plan told.toml --set params.v=2"), @"
    $ pipe plan told.toml --set params.v=2
    ? 0
    --- stdout
    run    told  params.v 1 -> 2 (--set params.v=2)  about [TIME]
    1 stage to run, 0 cached; at most about [TIME] of stage time
    shell commands, which a run must allow: told
    disk: at most about [SIZE]; [SIZE] are free
    ");
    shell.write("told.toml", &TOLD.replace("v    = 1", "v    = 30"));
    let plan = shell.transcript("plan told.toml");
    assert!(plan.contains("params.v 1 -> 30 (told.toml:2:8)"), "{plan}");
    // Another template is another text.
    shell.write("told.toml", &TOLD.replace("echo ${what}", "printf ${what}"));
    let plan = shell.transcript("plan told.toml");
    assert!(plan.contains("command echo v1, 1 > $OUT/x -> printf v1, 1"), "{plan}");
}

#[test]
fn files_that_came_and_went_are_named() {
    let shell = Shell::new();
    for name in ["a", "b", "c"] {
        shell.pair("data", name, 9);
    }
    let data = CLIPS
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"data\" }")
        .replace("\"pose\"", "\"pairs\"")
        .replace("count  = 2", "holdout = 0.0");
    shell.write("clips.toml", &data);
    shell.succeed("run clips.toml");
    let reasons = || {
        let plan = shell.plan("clips.toml");
        let all = plan[0]["reasons"].as_array().unwrap().clone();
        let of = |reason: &serde_json::Value| {
            let text = |key| reason[key].as_str().unwrap().to_owned();
            format!("{} {}", text("path"), text("change"))
        };
        all.iter().map(of).collect::<Vec<_>>()
    };
    let target = shell.path("data/target/b.png");
    let kept = std::fs::read(&target).unwrap();
    for side in ["input", "target"] {
        std::fs::remove_file(shell.path("data").join(side).join("b.png")).unwrap();
    }
    assert_eq!(reasons(), ["input/b.png deleted", "target/b.png deleted"]);
    shell.pair("data", "d", 7);
    let all =
        ["input/b.png deleted", "input/d.png added", "target/b.png deleted", "target/d.png added"];
    let mut found = reasons();
    found.sort();
    assert_eq!(found, all);
    let plan = shell.transcript("plan clips.toml");
    assert!(
        plan.contains("`input/b.png` deleted") && plan.contains("`input/d.png` added"),
        "{plan}"
    );
    shell.pair("data", "b", 9);
    std::fs::write(&target, kept).unwrap();
    assert_eq!(reasons(), ["input/d.png added", "target/d.png added"]);
}
