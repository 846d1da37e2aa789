//! What lies in the cache: exported, counted, collected, verified.

use super::{CLIPS, Shell, command, walk};

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
    checked 13 objects, [SIZE], and 7 records
    damaged and removed: objects/11/[HASH], of `clips: pairs`
    --- stderr
    the next `pipe run` makes it again
    ");
}

#[test]
fn nothing_is_removed_by_a_damaged_history_and_the_next_run_writes_it_anew() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let history = walk(&shell.path("cache/history")).remove(0);
    std::fs::write(&history, "{}").unwrap();
    let gc = shell.transcript("cache gc");
    assert!(gc.contains("? 3\n") && gc.contains("is damaged, so what its pipeline"), "{gc}");
    let verified = shell.transcript("cache verify");
    assert!(verified.contains("? 4\n") && verified.contains("damaged: history/"), "{verified}");
    std::fs::remove_file(&history).unwrap();
    let gc = shell.transcript("cache gc");
    assert!(gc.contains("? 3\n") && gc.contains("no history says which"), "{gc}");
    std::fs::write(&history, "").unwrap();
    let run = shell.transcript("run clips.toml");
    assert!(run.contains("0 stages ran"), "{run}");
    assert!(shell.succeed("cache gc").starts_with("nothing to remove\nkept 13 objects"));

    std::fs::remove_dir_all(shell.path("cache/objects")).unwrap();
    std::fs::create_dir(shell.path("cache/objects")).unwrap();
    let verified = shell.transcript("cache verify");
    assert!(verified.contains("? 4\n"), "{verified}");
    assert!(verified.contains("content is gone of `clips: pairs`"), "{verified}");
    shell.succeed("run clips.toml");
    assert_eq!(shell.output("cache verify").status.code(), Some(0));
}

#[test]
#[cfg(unix)]
fn data_of_others_that_cannot_be_read_keeps_nobody_from_cleaning_up() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let theirs = CLIPS
        .replace("\"clips\"\n", "\"theirs\"\n")
        .replace("{ source = \"builtin:figures\" }", "{ source = \"folder\", root = \"data\" }")
        .replace("\"pose\"", "\"pairs\"\nholdout = 0.0");
    shell.write("theirs.toml", &theirs);
    for (name, shade) in [("a", 10), ("b", 90)] {
        shell.pair("data", name, shade);
    }
    shell.succeed("run theirs.toml");
    // What nobody can list, not even root.
    std::fs::remove_dir_all(shell.path("data/input")).unwrap();
    std::os::unix::fs::symlink("input", shell.path("data/input")).unwrap();
    shell.write("clips.toml", &CLIPS.replace("[\"linear\", \"quadratic\"]", "[\"linear\"]"));
    shell.succeed("run clips.toml");
    let gc = shell.transcript("cache gc");
    assert!(gc.contains("? 0\n") && gc.contains("removed clips: clips[method=quadratic]"), "{gc}");
    assert!(!gc.contains("removed theirs"), "{gc}");
    assert!(gc.contains("warning: only the results of the last run are kept of `theirs`"), "{gc}");
    assert!(gc.contains("data/input/`: Too many levels of symbolic links"), "{gc}");
}

#[test]
fn what_is_asked_of_nothing_is_no_success() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    insta::assert_snapshot!(shell.transcript("cache unpin clips.toml"), @"
    $ pipe cache unpin clips.toml
    ? 1
    --- stderr
      × nothing of this is pinned
      help: `pipe cache pins` lists what is
    ");
    insta::assert_snapshot!(
        shell.transcript("verify clips.toml --only clips --set clips.frames=9"), @"
    $ pipe verify clips.toml --only clips --set clips.frames=9
    ? 1
    --- stdout
    skipped    clips[method=linear]  not up to date in the cache
    skipped    clips[method=quadratic]  not up to date in the cache
    identical  pairs  [TIME]
    verified 1 stage: 1 identical, 0 different, 2 skipped
    --- stderr
      × nothing of `clips` was verified
      help: `pipe run clips.toml --set 'clips.frames=9'` computes what can be compared
    "
    );
    insta::assert_snapshot!(shell.transcript("export clips.toml clips --to out --set seed=9"), @"
    $ pipe export clips.toml clips --to out --set seed=9
    ? 1
    --- stderr
      × not in the cache: `clips[method=linear]` and 1 more
      help: `pipe run clips.toml --set 'seed=9' --only 'clips[method=linear]'` computes it
    ");
    insta::assert_snapshot!(
        shell.transcript("export clips.toml clips --to out --format peft"), @"
    $ pipe export clips.toml clips --to out --format peft
    ? 2
    --- stderr
      × `--format` is for adapters, but `clips` gives videos
      help: leave it out
    "
    );
    insta::assert_snapshot!(shell.transcript("export clips.toml --crate out --license mine"), @"
    $ pipe export clips.toml --crate out --license mine
    ? 2
    --- stderr
    error: invalid value 'mine' for '--license <URL>': must be an address, such as https://spdx.org/licenses/CC-BY-4.0

    For more information, try '--help'.
    ");
    let absent = "0".repeat(64);
    insta::assert_snapshot!(shell.transcript(&format!("show {absent}")), @"
    $ pipe show [HASH]
    ? 2
    --- stderr
      × nothing in the cache begins with
      │ `[HASH]`
      help: `pipe show FILE STAGE` shows what a stage gave, with its digest
    ");
    insta::assert_snapshot!(shell.transcript("verify clips.toml --tolerance -1"), @"
    $ pipe verify clips.toml --tolerance -1
    ? 2
    --- stderr
    error: invalid value '-1' for '--tolerance <DISTANCE>': must be a number, zero or more

    For more information, try '--help'.
    ");
}

/// Every file in the cache that a result may lose.
fn objects(shell: &Shell) -> usize {
    walk(&shell.path("cache/objects")).len()
}

#[test]
fn two_files_and_two_profiles_of_one_name_keep_their_results() {
    let shell = Shell::new();
    let text =
        CLIPS.replace("[sweep]", "[params]\nlength = 5\n[profiles.long]\nlength = 9\n[sweep]");
    let text = text.replace("frames = 5", "frames = \"${length}\"");
    shell.write("one.toml", &text);
    shell.write("two.toml", &text.replace("count  = 2", "count  = 1"));
    for line in ["one.toml", "one.toml --profile long", "two.toml"] {
        shell.succeed(&format!("run {line}"));
    }
    let before = objects(&shell);
    shell.succeed("cache gc");
    assert_eq!(objects(&shell), before);
    for line in ["one.toml", "one.toml --profile long", "two.toml"] {
        let states = shell.plan(line);
        assert!(states.iter().all(|stage| stage["state"] == "fresh"), "{line}");
    }
    // Named files count alone, with all profiles they were run with.
    insta::assert_snapshot!(shell.transcript("cache gc one.toml --dry-run"), @"
    $ pipe cache gc one.toml --dry-run
    ? 0
    --- stdout
    would remove clips: pairs, [SIZE]
    would remove clips: clips[method=linear], [SIZE]
    would remove clips: clips[method=quadratic], [SIZE]
    would remove 3 files of actions, [SIZE]
    would remove 3 files of objects, [SIZE]
    kept 19 objects, [SIZE]
    ");
    shell.succeed("cache gc one.toml");
    assert!(shell.plan("one.toml --profile long").iter().all(|stage| stage["state"] == "fresh"));
    assert!(shell.plan("two.toml").iter().any(|stage| stage["state"] != "fresh"));
}

#[test]
fn a_trial_with_set_frees_nothing_that_the_file_states() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let trial = "clips.toml --set stages.clips.frames=9";
    shell.succeed(&format!("run {trial}"));
    shell.succeed("cache gc");
    for line in ["clips.toml", trial] {
        assert!(shell.plan(line).iter().all(|stage| stage["state"] == "fresh"), "{line}");
    }
    // Who writes it into the file has no use for the old clips.
    shell.write("clips.toml", &CLIPS.replace("frames = 5", "frames = 9"));
    assert!(shell.succeed("cache gc").contains("removed clips: clips"));
}

#[test]
fn no_output_is_written_over_what_it_is_made_from() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run clips.toml --events clips.toml"), @"
    $ pipe run clips.toml --events clips.toml
    ? 2
    --- stderr
      × `clips.toml` would be overwritten
      help: it is no output of `pipe`: name another file
    ");
    assert_eq!(std::fs::read_to_string(shell.path("clips.toml")).unwrap(), CLIPS);
}

#[test]
fn what_was_pinned_before_the_file_changed_can_be_unpinned() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    shell.succeed("cache pin clips.toml");
    shell.succeed("cache pin clips.toml pairs");
    shell.write("clips.toml", &CLIPS.replace("count  = 2", "count  = 1"));
    assert_eq!(shell.succeed("cache unpin clips.toml pairs"), "unpinned 0 results\n");
    assert_eq!(shell.succeed("cache unpin clips.toml"), "unpinned 3 results\n");
    assert_eq!(shell.succeed("cache pins"), "");
}

#[test]
fn a_cell_that_leaves_the_sweep_is_freed_by_name_unless_it_is_pinned() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let mut pin = command(shell.dir.path());
    pin.args(["cache", "pin", "clips.toml", "clips[method=quadratic]"]);
    assert_eq!(String::from_utf8(pin.output().unwrap().stdout).unwrap(), "pinned 2 results\n");
    shell.write("clips.toml", &CLIPS.replace("[\"linear\", \"quadratic\"]", "[\"linear\"]"));
    shell.succeed("run clips.toml");
    insta::assert_snapshot!(shell.transcript("cache gc --dry-run"), @"
    $ pipe cache gc --dry-run
    ? 0
    --- stdout
    nothing to remove
    kept 13 objects, [SIZE]
    kept 2 results because of pins
    ");
    assert_eq!(shell.succeed("cache unpin clips.toml"), "unpinned 2 results\n");
    insta::assert_snapshot!(shell.transcript("cache gc --older-than 1h --dry-run"), @"
    $ pipe cache gc --older-than 1h --dry-run
    ? 0
    --- stdout
    nothing to remove
    kept 13 objects, [SIZE]
    ");
    insta::assert_snapshot!(shell.transcript("cache gc"), @"
    $ pipe cache gc
    ? 0
    --- stdout
    removed clips: clips[method=quadratic], [SIZE]
    removed 1 file of actions, [SIZE]
    removed 2 files of items, [SIZE]
    removed 3 files of objects, [SIZE]
    kept 10 objects, [SIZE]
    ");
    insta::assert_snapshot!(shell.transcript("cache gc --older-than soon"), @"
    $ pipe cache gc --older-than soon
    ? 2
    --- stderr
    error: invalid value 'soon' for '--older-than <AGE>': must be a time such as `12h`, `30d` or `8 weeks`

    For more information, try '--help'.
    ");
}

#[test]
fn a_folder_that_is_no_cache_is_left_alone() {
    let shell = Shell::new();
    for name in ["mesh/objects", "mesh/tmp"] {
        std::fs::create_dir_all(shell.path(name)).unwrap();
    }
    shell.write("mesh/objects/teapot.obj", "v 0 0 0");
    shell.write("mesh/tmp/draft.txt", "mine");
    let before = walk(&shell.path("mesh"));
    for line in ["cache gc --cache mesh", "cache stats --cache mesh", "cache verify --cache mesh"] {
        let text = shell.transcript(line);
        assert!(text.contains("? 3"), "{text}");
        assert!(text.contains("`mesh` is not a cache of `pipe`"), "{text}");
        assert!(text.contains("help: name a cache, or a folder that is empty"), "{text}");
    }
    assert_eq!(walk(&shell.path("mesh")), before);
}

#[test]
fn a_misspelt_cache_is_told_and_not_made() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    insta::assert_snapshot!(shell.transcript("cache gc --cache cahce"), @"
    $ pipe cache gc --cache cahce
    ? 3
    --- stderr
      × there is no cache at `cahce`
      help: see that `--cache DIR` or `PIPE_CACHE` names the right folder; `pipe run` makes a cache
    ");
    let commands = [
        "stats",
        "stats --json",
        "gc",
        "gc --dry-run",
        "gc clips.toml",
        "pin clips.toml",
        "unpin clips.toml",
        "pins",
        "push --all --remote shared",
        "verify",
    ];
    for line in commands {
        let text = shell.transcript(&format!("cache {line} --cache cahce"));
        assert!(text.contains("? 3") && text.contains("no cache at `cahce`"), "{line}: {text}");
    }
    assert!(!shell.path("cahce").exists() && !shell.path("shared").exists());
    // An empty folder is none yet, either.
    std::fs::create_dir(shell.path("empty")).unwrap();
    assert!(shell.transcript("cache gc --cache empty").contains("no cache at `empty`"));
    assert_eq!(walk(&shell.path("empty")).len(), 0);
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let shell = Shell::new();
    let mut stats = command(shell.dir.path());
    stats.args(["cache", "stats"]);
    for name in ["PIPE_CACHE", "PIPE_DEVICE", "PIPE_JOBS", "PIPE_LOG"] {
        stats.env(name, "");
    }
    let output = stats.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no cache at `cache`"), "{said}");
    // Neither is there a folder of an empty name, nor one that a question made.
    assert_eq!(std::fs::read_dir(shell.dir.path()).unwrap().count(), 0);
}

#[test]
fn what_a_newer_version_wrote_is_refused() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml --lock");

    // A lock file.
    let lock = std::fs::read_to_string(shell.path("clips.lock")).unwrap();
    shell.write("clips.lock", &lock.replace("\"lock_version\": 2", "\"lock_version\": 7"));
    insta::assert_snapshot!(shell.transcript("run clips.toml --locked"), @"
    $ pipe run clips.toml --locked
    ? 3
    --- stderr
      × the lock file `clips.lock` has version 7, but this `pipe` knows versions up to 2
      help: use the newer `pipe`, or write it anew with --lock
    ");

    // A record that this version could read, but might not understand.
    let records = walk(&shell.path("cache/actions"));
    let at = r#","record":"#;
    for path in &records {
        let sealed = std::fs::read_to_string(path).unwrap();
        let record = &sealed[sealed.find(at).unwrap() + at.len()..sealed.len() - 1];
        let newer = record.replacen("\"format_version\":3", "\"format_version\":4", 1);
        assert_ne!(newer, record);
        let hash = pipe::store::Digest::of(newer.as_bytes());
        std::fs::write(path, format!(r#"{{"blake3":"{hash}"{at}{newer}}}"#)).unwrap();
    }
    // It may stand on two lines.
    let place = regex::Regex::new("actions/ ?../[^`]*").unwrap();
    for line in ["plan clips.toml", "run clips.toml", "cache gc"] {
        let text = shell.transcript(line);
        let text = text.replace("\n  │", "");
        let text = place.replace(&text, "actions/[KEY]");
        assert!(
            text.contains("actions/[KEY]` has format 4, but this `pipe` knows formats up to 3"),
            "{text}"
        );
        assert!(text.contains("? 3") && text.contains("use the newer `pipe`"), "{text}");
    }
    for path in &records {
        assert!(std::fs::read_to_string(path).unwrap().contains("\"format_version\":4"));
    }

    // The cache as a whole, for every command that opens it.
    shell.write("cache/format", "4\n");
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
      × `cache/format` has format 4, but this `pipe` knows formats up to 3
      help: use the newer `pipe` that wrote it, or another folder with `--cache DIR`
    ");
    for line in ["plan clips.toml", "cache stats", "cache gc", "cache verify"] {
        let text = shell.transcript(line);
        assert!(text.contains("? 3") && text.contains("has format 4"), "{text}");
    }
}
