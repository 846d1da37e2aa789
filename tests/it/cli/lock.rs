//! Lock files, and whether results can be reproduced.

use super::{CLIPS, Shell, command};

#[test]
fn a_locked_run_refuses_to_deviate_and_says_in_what() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run clips.toml --locked"), @"
    $ pipe run clips.toml --locked
    ? 3
    --- stderr
      × cannot access the lock file `clips.lock`: No such file or directory (os error 2)
      help: `pipe run --lock` writes it beside the pipeline file
    ");
    shell.succeed("run clips.toml --lock");
    let lock = std::fs::read_to_string(shell.path("clips.lock")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(lock["lock_version"], 2);
    let locked = &lock["stages"]["clips[method=linear]"];
    assert_eq!((&locked["kind"], &locked["params"]["frames"]), (&"interpolate".into(), &5.into()));

    let is_key = |key: &str| shell.path("cache/actions").join(&key[..2]).join(&key[2..]).exists();
    assert!(locked["key"].as_str().is_some_and(is_key), "{locked}");

    // Also on a machine that has computed nothing yet, and whatever is not an input.
    shell.succeed("run clips.toml --locked");
    shell.succeed("run clips.toml --locked --cache other");
    shell.write("clips.toml", &format!("# A comment.\n{CLIPS}"));
    shell.succeed("run clips.toml --locked --cache other");

    let edited = CLIPS.replace("frames = 5", "frames = 9").replace("\"quadratic\"", "\"discrete\"");
    shell.write("clips.toml", &edited);
    insta::assert_snapshot!(shell.transcript("run clips.toml --locked"), @"
    $ pipe run clips.toml --locked
    ? 4
    --- stderr
      × `clips[method=discrete]`: not in the lock
      × `clips[method=linear]`: frames 5 -> 9 (clips.toml:18:10)
      × `clips[method=quadratic]`: locked, but not in the pipeline
      × this deviates from `clips.lock`
      help: run without --locked to go on, and with --lock to lock what comes of it
    ");
    assert!(shell.plan("clips.toml").iter().any(|stage| stage["state"] == "stale"));
    shell.write("clips.lock", "{}");
    assert_eq!(shell.output("run clips.toml --locked").status.code(), Some(3));
}

#[test]
fn another_key_is_a_deviation_though_all_looks_alike() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --lock");
    let text = std::fs::read_to_string(shell.path("clips.lock")).unwrap();
    let mut lock: serde_json::Value = serde_json::from_str(&text).unwrap();
    let other = lock["stages"]["pairs"]["key"].clone();
    lock["stages"]["clips[method=linear]"]["key"] = other;
    shell.write("clips.lock", &lock.to_string());
    insta::assert_snapshot!(shell.transcript("run clips.toml --locked"), @"
    $ pipe run clips.toml --locked
    ? 4
    --- stderr
      × `clips[method=linear]`: its key is [HASH], but [HASH] is locked, though its
      │ parameters and inputs are alike: the lock was edited
      × this deviates from `clips.lock`
      help: run without --locked to go on, and with --lock to lock what comes of it
    ");
    let elsewhere = shell.transcript("run clips.toml --locked --cache other");
    assert!(elsewhere.contains("? 4") && elsewhere.contains("its key is"), "{elsewhere}");
    // The locks of version 1 had no keys.
    lock["lock_version"] = 1.into();
    for stage in lock["stages"].as_object_mut().unwrap().values_mut() {
        stage.as_object_mut().unwrap().remove("key");
    }
    shell.write("clips.lock", &lock.to_string());
    shell.succeed("run clips.toml --locked");
}

#[test]
fn what_was_read_otherwise_is_a_deviation_also_where_the_output_is_the_same() {
    let shell = Shell::new();
    shell.pair("photos", "one", 10);
    let text = "[stages.pairs]\nkind = \"dataset\"\ntask = \"pairs\"\ncount = 1\nsize = [32, 32]\n\
                holdout = 0.0\nsource = { source = \"folder\", root = \"photos\" }\n";
    shell.write("photos.toml", text);
    shell.succeed("run photos.toml --lock");
    shell.write("photos/note.txt", "read by nobody, but listed");
    let here = shell.transcript("run photos.toml --locked");
    assert!(here.contains("? 4") && here.contains("the files it reads changed"), "{here}");
    // A machine that has read nothing yet knows only afterwards.
    let there = shell.transcript("run photos.toml --locked --cache other");
    assert!(there.contains("? 4") && there.contains("as locked, but made otherwise"), "{there}");
}

#[test]
fn two_pipelines_or_profiles_share_no_lock() {
    let shell = Shell::new();
    let profile = format!("{CLIPS}\n[profiles.paper]\n");
    shell.write("pose.toml", &profile.replace("name = \"clips\"", "name = \"pose\""));
    shell.write("pose.paper.toml", &CLIPS.replace("name = \"clips\"", "name = \"pose\""));
    shell.succeed("run pose.toml --profile paper --lock");
    let lock = || std::fs::read(shell.path("pose.paper.lock")).unwrap();
    let before = lock();
    insta::assert_snapshot!(shell.transcript("run pose.paper.toml --lock"), @"
    $ pipe run pose.paper.toml --lock
    ? 2
    --- stderr
      × `pose.paper.lock` is the lock of `pose` with the profile `paper`, not of `pose` without a
      │ profile
      help: rename one of the pipeline files or profiles, so that each has a lock of its own; or
            remove this one, if nobody needs it any more
    ");
    insta::assert_snapshot!(shell.transcript("run pose.paper.toml --locked"), @"
    $ pipe run pose.paper.toml --locked
    ? 2
    --- stderr
      × `pose.paper.lock` is the lock of `pose` with the profile `paper`, not of `pose` without a
      │ profile
      help: rename one of the pipeline files or profiles, so that each has a lock of its own; or
            remove this one, if nobody needs it any more
    ");
    assert!(lock() == before);
    shell.succeed("run pose.toml --profile paper --locked");
}

#[test]
fn a_lock_replaces_no_file_of_others() {
    let shell = Shell::new();
    shell.write("uv.toml", CLIPS);
    shell.write("uv.lock", "version = 1\n");
    insta::assert_snapshot!(shell.transcript("run uv.toml --lock"), @"
    $ pipe run uv.toml --lock
    ? 2
    --- stderr
      × `uv.lock` is there already and is no lock file of `pipe`, so it is not overwritten
      help: the lock of `x.toml` is `x.lock`: rename the pipeline file, or move the other file away
    ");
    assert_eq!(std::fs::read_to_string(shell.path("uv.lock")).unwrap(), "version = 1\n");
    assert!(
        !shell.path("cache/actions").exists()
            || super::walk(&shell.path("cache/actions")).is_empty()
    );
    shell.write("uv.lock", "");
    shell.succeed("run uv.toml --lock");
    shell.succeed("run uv.toml --lock");
}

#[test]
fn an_output_that_comes_out_otherwise_than_locked_is_a_deviation() {
    let shell = Shell::new();
    shell.write("clock.toml", CLOCK);
    shell.succeed("run clock.toml --allow-commands --lock");
    shell.succeed("run clock.toml --locked");
    let text = shell.transcript("run clock.toml --allow-commands --locked --force clock");
    assert!(text.contains("? 4"), "{text}");
    assert!(text.contains("its output is [HASH], but [HASH] is locked"), "{text}");
}

/// A stage that gives something else each time, and one that does not.
const CLOCK: &str = r#"name = "clock"

[stages.clock]
kind    = "command"
command = "cat /proc/sys/kernel/random/uuid > $OUT/id; echo '{\"x\": 1}' > $OUT/x.json"
outputs = ["id", "x.json"]

[stages.count]
kind    = "command"
inputs  = { input = "clock" }
command = "ls $IN/input/files > $OUT/names"
outputs = ["names"]
"#;

/// Two stages, each of which ends only while the other one runs.
const MEETING: &str = r#"name = "meeting"

[stages.one]
kind    = "command"
command = "touch PLACE/one; for i in $(seq 400); do [ -e PLACE/two ] && break; sleep 0.05; done; ls PLACE > $OUT/met"
outputs = ["met"]

[stages.two]
kind    = "command"
command = "touch PLACE/two; for i in $(seq 400); do [ -e PLACE/one ] && break; sleep 0.05; done; ls PLACE > $OUT/met"
outputs = ["met"]
"#;

#[test]
fn stages_are_executed_again_side_by_side() {
    let shell = Shell::new();
    let place = shell.path("place");
    shell.write("meeting.toml", &MEETING.replace("PLACE", place.to_str().unwrap()));
    for line in ["run", "verify"] {
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir(&place).unwrap();
        let started = std::time::Instant::now();
        shell.succeed(&format!("{line} meeting.toml --allow-commands --jobs 2"));
        assert!(started.elapsed().as_secs() < 20, "{line}: one waited for the other in vain");
    }
    let report = shell.succeed("verify meeting.toml --allow-commands --jobs 2 --json");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let stages: Vec<_> = report["stages"].as_array().unwrap().iter().collect();
    assert_eq!(stages.iter().map(|stage| &stage["stage"]).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn what_cannot_be_reproduced_is_found() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("verify clips.toml --jobs 1"), @"
    $ pipe verify clips.toml --jobs 1
    ? 1
    --- stdout
    skipped    pairs  not up to date in the cache
    skipped    clips[method=linear]  not up to date in the cache
    skipped    clips[method=quadratic]  not up to date in the cache
    verified 0 stages: 0 identical, 0 different, 3 skipped
    --- stderr
      × nothing was verified
      help: `pipe run clips.toml` computes what can be compared
    ");
    shell.succeed("run clips.toml");
    insta::assert_snapshot!(shell.transcript("verify clips.toml --jobs 1"), @"
    $ pipe verify clips.toml --jobs 1
    ? 0
    --- stdout
    identical  pairs  [TIME]
    identical  clips[method=linear]  [TIME]
    identical  clips[method=quadratic]  [TIME]
    verified 3 stages: 3 identical, 0 different
    ");
    let document = shell.succeed("verify clips.toml --json --sample 0.3 --twice");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["counts"]["identical"], 1);
    assert_eq!(document["stages"][0]["verdict"], "identical");

    shell.write("clock.toml", CLOCK);
    shell.succeed("run clock.toml --allow-commands");
    insta::assert_snapshot!(shell.transcript("verify clock.toml --jobs 1"), @"
    $ pipe verify clock.toml --jobs 1
    ? 1
    --- stdout
    skipped    clock  runs a shell command, which was not allowed
    skipped    count  runs a shell command, which was not allowed
    verified 0 stages: 0 identical, 0 different, 2 skipped
    --- stderr
      × nothing was verified
      help: read the commands, then verify again with --allow-commands
    ");
    insta::assert_snapshot!(shell.transcript("verify clock.toml --allow-commands --jobs 1"), @"
    $ pipe verify clock.toml --allow-commands --jobs 1
    ? 4
    --- stdout
    different  clock  the bytes differ, item `files`, `id`  [TIME]
    identical  count  [TIME]
    verified 2 stages: 1 identical, 1 different
    ");
    let twice = shell.output("verify clock.toml --allow-commands --twice");
    assert_eq!(twice.status.code(), Some(4));
    // Nothing of the cache has changed.
    shell.succeed("run clock.toml");
}

#[test]
fn stages_without_a_result_to_compare_with_are_no_success() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --only clips[method=linear]");
    insta::assert_snapshot!(shell.transcript("verify clips.toml --jobs 1"), @"
    $ pipe verify clips.toml --jobs 1
    ? 1
    --- stdout
    identical  pairs  [TIME]
    identical  clips[method=linear]  [TIME]
    skipped    clips[method=quadratic]  not up to date in the cache
    verified 2 stages: 2 identical, 0 different, 1 skipped
    --- stderr
      × 1 stage was not verified, because it is not up to date in the cache
      help: `pipe run clips.toml` computes what can be compared
    ");
    // Of three stages a sample of one leaves that one out, or asks for it alone.
    let codes: Vec<_> = (0..8)
        .map(|seed| {
            let output =
                shell.output(&format!("verify clips.toml --sample 0.3 --sample-seed {seed}"));
            let told = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.success(), !told.contains("skipped"), "{told}");
            output.status.code().unwrap()
        })
        .collect();
    assert!(codes.contains(&0), "{codes:?}");
}

#[test]
fn a_verified_stage_leaves_nothing_in_the_scratch_folder() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("scratch")).unwrap();
    let objects = format!("{}/pipe-verify-*/objects", shell.path("scratch").display());
    // The second writes how many objects there are: none without `verify`, so none with it.
    let text = CLOCK
        .replace("cat /proc/sys/kernel/random/uuid", "echo 1")
        .replace("ls $IN/input/files", &format!("find {objects} -type f 2>/dev/null | wc -l"));
    shell.write("scratch.toml", &text);
    shell.succeed("run scratch.toml --allow-commands");
    let mut verify = command(shell.dir.path());
    verify
        .args(["verify", "scratch.toml", "--allow-commands"])
        .env("TMPDIR", shell.path("scratch"));
    let output = verify.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("verified 2 stages: 2 identical"), "{told}");
}

#[test]
fn a_stage_that_fails_this_time_says_why() {
    let shell = Shell::new();
    let flag = shell.path("flag");
    let command = format!("test ! -e {} && echo > $OUT/f", flag.display());
    let text =
        format!("[stages.once]\nkind = \"command\"\ncommand = \"{command}\"\noutputs = [\"f\"]\n");
    shell.write("once.toml", &text);
    shell.succeed("run once.toml --allow-commands");
    std::fs::write(&flag, "").unwrap();
    insta::assert_snapshot!(shell.transcript("verify once.toml --allow-commands --jobs 1"), @"
    $ pipe verify once.toml --allow-commands --jobs 1
    ? 1
    --- stdout
    failed     once  [TIME]
    verified 1 stage: 0 identical, 0 different, 1 failed
    --- stderr
      × stage `once`: the command ended with exit status: 1
    ");
    let output = shell.output("verify once.toml --allow-commands --json");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["stages"][0]["outcome"], "failed", "{document}");
}

#[test]
fn a_result_within_the_tolerance_is_told_apart() {
    let shell = Shell::new();
    let text = CLOCK
        .replace("cat /proc/sys/kernel/random/uuid > $OUT/id; ", "")
        .replace("\\\"x\\\": 1", "\\\"x\\\": '$(date +1%N)'")
        .replace("\"id\", ", "");
    shell.write("clock.toml", &text);
    shell.succeed("run clock.toml --allow-commands");
    let mut verify = command(shell.dir.path());
    verify.args(["verify", "clock.toml", "--allow-commands", "--json", "--tolerance", "100"]);
    let output = verify.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stages = document["stages"].as_array().unwrap();
    let verdicts = ["identical", "within_tolerance"].map(serde_json::Value::from);
    assert!(stages.iter().all(|stage| verdicts.contains(&stage["verdict"])), "{document}");
}

#[test]
fn a_stage_that_only_was_not_allowed_is_not_said_to_be_computed_by_a_run() {
    let shell = Shell::new();
    let command = "[stages.sum]\nkind = \"command\"\ninputs = { input = \"clips\" }\n\
                   command = \"ls $IN/input > $OUT/sum\"\noutputs = [\"sum\"]\n";
    shell.write("mixed.toml", &format!("{CLIPS}\n{command}"));
    shell.succeed("run mixed.toml --allow-commands");
    let allow = "help: read the commands, then verify again with --allow-commands";
    let said = shell.transcript("verify mixed.toml --only sum");
    assert!(said.contains("nothing of `sum` was verified") && said.contains(allow), "{said}");
    shell.write("mixed.toml", &format!("{}\n{command}", CLIPS.replace("frames = 5", "frames = 9")));
    let said = shell.transcript("verify mixed.toml --only clips");
    assert!(said.contains("computes what can be compared\n"), "{said}");
}

#[test]
fn a_folder_for_scratch_files_that_is_not_there_is_told_with_what_to_do() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let mut verify = command(shell.dir.path());
    verify.args(["verify", "clips.toml"]).env("TMPDIR", shell.path("none"));
    let said = String::from_utf8(verify.output().unwrap().stderr).unwrap();
    assert!(said.contains("cannot make a scratch folder") && said.contains("`TMPDIR`"), "{said}");
}
