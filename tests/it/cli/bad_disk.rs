//! Disks that are full or cannot be written: nothing is lost, and the next run goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{CLIPS, Shell, walk};
use crate::{incremental::corrupt, support::skipped};

/// A file system of its own, small enough to be filled.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one at `path`; says why and gives none where that is not allowed.
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let disk = Self(path.to_owned());
        if disk.run(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]) {
            return Some(disk);
        }
        std::mem::forget(disk);
        skipped("a disk of its own can be mounted only by root, and not in every container");
        None
    }

    /// Changes its size, or whether it can be written.
    fn remount(&self, options: &str) {
        assert!(self.run(&["-o", &format!("remount,{options}")]), "remount {options}");
    }

    fn run(&self, arguments: &[&str]) -> bool {
        let output = Command::new("mount").args(arguments).arg(&self.0).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder could not be removed otherwise.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    let shell = Shell::new();
    let Some(disk) = Disk::mount(&shell.path("cache"), "1400k") else { return };
    let text = CLIPS
        .replace("count  = 2", "count  = 8")
        .replace("[32, 32]", "[64, 64]")
        .replace("frames = 5", "frames = 33")
        .replace("[\"linear\", \"quadratic\"]", "[\"linear\"]");
    shell.write("clips.toml", &text);
    let text = shell.transcript("run clips.toml");
    // A path may need a line of its own.
    let place = regex::Regex::new("[\\s│]+(item `[^`]*`|`cache/[^`]*`)").unwrap();
    insta::assert_snapshot!(place.replace_all(&text, " [PLACE]"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
    clips: 2 stages on cpu
    warning: the disk of the cache is almost full: it has [SIZE] left
      help: free space with `pipe cache gc`, or name another disk with `--cache DIR`; `--only STAGE` runs a part; what is finished is kept
    ran      pairs  new  [TIME]
    failed   clips[method=linear]
      × stage `clips[method=linear]`: no space left for [PLACE]
      help: free space with `pipe cache gc`, or `pipe cache gc --max-size SIZE` where that is too
            little, or name another disk with `--cache DIR`; what is finished is kept, so running
            again goes on from here
    failed   1 stage ran, 1 failed in [TIME]
    ");
    disk.remount("size=64m");
    shell.succeed("run clips.toml --events events.ndjson");
    let events = fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let events =
        events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let [mut reused, mut kept] = [0, 0];
    for event in events {
        reused += u64::from(event["event"] == "stage_reused");
        if event["event"] == "stage_started" {
            kept += event["items_cached"].as_u64().unwrap_or_default();
        }
    }
    assert!(reused == 1 && kept >= 1, "{reused} stages reused, {kept} clips kept");
    shell.succeed("cache verify");
}

#[test]
fn a_disk_that_a_command_fills() {
    let shell = Shell::new();
    let Some(_disk) = Disk::mount(&shell.path("cache"), "400k") else { return };
    shell.write(
        "fill.toml",
        r#"
        name = "fill"
        [stages.a]
        kind    = "command"
        command = "head -c 5000000 /dev/zero > $OUT/zeros"
        outputs = ["zeros"]
        "#,
    );
    insta::assert_snapshot!(shell.transcript("run fill.toml --allow-commands"), @"
    $ pipe run fill.toml --allow-commands
    ? 3
    --- stderr
    fill: 1 stage on cpu
    warning: the disk of the cache is almost full: it has [SIZE] left
      help: free space with `pipe cache gc`, or name another disk with `--cache DIR`; `--only STAGE` runs a part; what is finished is kept
    failed   a
      × stage `a`: the disk of the cache is full, where it writes: the command ended with exit status:
      │ 1
      help: free space with `pipe cache gc`, or name another disk with `--cache DIR`
    failed   0 stages ran, 1 failed in [TIME]
    ");
}

#[test]
fn a_cache_that_cannot_be_written() {
    let shell = Shell::new();
    let Some(disk) = Disk::mount(&shell.path("cache"), "8m") else { return };
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    disk.remount("ro");
    insta::assert_snapshot!(shell.transcript("run clips.toml --set clips.frames=9"), @"
    $ pipe run clips.toml --set clips.frames=9
    ? 3
    --- stderr
      × cannot write to `cache/tmp`: read-only filesystem or storage medium, and 2 stages would have
      │ to run, first `clips[method=linear]`
      help: name a folder that you may write to with `--cache DIR` or `PIPE_CACHE`
    ");
    // What is up to date needs no writing.
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 0
    --- stderr
    all is up to date, which cannot be noted: the cache cannot be written
    ");
    // Questions can still be answered, each from a cache that nobody could write to.
    insta::assert_snapshot!(shell.transcript("plan clips.toml"), @"
    $ pipe plan clips.toml
    ? 0
    --- stdout
    0 stages to run, 3 cached
    ");
    let digest = shell.plan("clips.toml")[0]["digest"].as_str().unwrap().to_owned();
    for question in [
        "explain clips.toml clips".to_owned(),
        "export clips.toml pairs --to out".to_owned(),
        "cache stats".to_owned(),
        "cache pins".to_owned(),
        "cache verify".to_owned(),
        "verify clips.toml".to_owned(),
        "cache gc clips.toml --dry-run".to_owned(),
        format!("show {digest}"),
    ] {
        shell.succeed(&question);
    }
    disk.remount("rw");
    shell.succeed("run clips.toml --set clips.frames=9");
}

#[test]
fn a_run_on_a_cache_that_cannot_be_written_locks_what_is_there_and_begins_nothing() {
    let shell = Shell::new();
    let Some(disk) = Disk::mount(&shell.path("cache"), "8m") else { return };
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    disk.remount("ro");
    insta::assert_snapshot!(shell.transcript("run clips.toml --lock"), @"
    $ pipe run clips.toml --lock
    ? 0
    --- stderr
    all is up to date, which cannot be noted: the cache cannot be written
    locked in clips.lock
    ");
    // Also where a remote is set, to which nothing is to be sent.
    shell.succeed("run clips.toml --locked --remote shared");
    for line in ["--set pairs.seed=9", "--set pairs.seed=9 --lock --remote shared", "--force pairs"]
    {
        let told = shell.transcript(&format!("run clips.toml {line}"));
        let wanted = "and `pairs` would have to run, then perhaps 2 more stages";
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ").replace(" │", "");
        assert!(told.contains("? 3") && told.contains(wanted), "{told}");
    }
}

#[test]
fn damage_in_a_cache_that_cannot_be_written_is_told() {
    let shell = Shell::new();
    let Some(disk) = Disk::mount(&shell.path("cache"), "8m") else { return };
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    for record in walk(&shell.path("cache/actions")) {
        corrupt(&record, true);
    }
    let file = regex::Regex::new("actions/.*, of `[^`]*`").unwrap();
    let told = |line: &str| file.replace_all(&shell.transcript(line), "[FILE]").into_owned();
    insta::assert_snapshot!(told("cache verify --dry-run"), @"
    $ pipe cache verify --dry-run
    ? 4
    --- stdout
    checked 13 objects, [SIZE], and 7 records
    damaged: [FILE]
    damaged: [FILE]
    damaged: [FILE]
    --- stderr
    3 damaged files not removed; `pipe cache verify` without --dry-run removes what is damaged
    ");
    disk.remount("ro");
    insta::assert_snapshot!(told("cache verify"), @"
    $ pipe cache verify
    ? 4
    --- stdout
    checked 13 objects, [SIZE], and 7 records
    damaged: [FILE]
    damaged: [FILE]
    damaged: [FILE]
    --- stderr
    3 damaged files not removed, since the cache cannot be written; `pipe cache verify` where it can be removes what is damaged
    ");
    let report = || -> serde_json::Value {
        serde_json::from_slice(&shell.output("cache verify --json").stdout).unwrap()
    };
    let removed = |report: &serde_json::Value| {
        let damaged = report["verify"]["damaged"].as_array().unwrap().clone();
        damaged.iter().map(|damage| damage["removed"] == true).collect::<Vec<_>>()
    };
    assert_eq!(removed(&report()), [false; 3]);
    disk.remount("rw");
    assert_eq!(removed(&report()), [true; 3]);
    let report = report();
    assert_eq!((&report["sound"], removed(&report)), (&true.into(), Vec::new()));
}

#[test]
fn an_empty_folder_that_cannot_be_written() {
    let shell = Shell::new();
    let Some(disk) = Disk::mount(&shell.path("cache"), "64m") else { return };
    disk.remount("ro");
    let obstacle = "cannot make the cache `cache`: Read-only file system (os error 30)\n  help: name a \
                    folder that you may write to with `--cache DIR` or `PIPE_CACHE`\n";
    questions_about_nothing(&shell, obstacle);
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
      × cannot make the cache `cache`: Read-only file system (os error 30)
      help: name a folder that you may write to with `--cache DIR` or `PIPE_CACHE`
    ");
    insta::assert_snapshot!(shell.transcript("run clips.toml --cache cache/new"), @"
    $ pipe run clips.toml --cache cache/new
    ? 3
    --- stderr
      × cannot make the cache `cache/new`: Read-only file system (os error 30)
      help: name a folder that you may write to with `--cache DIR` or `PIPE_CACHE`
    ");
}

#[test]
fn questions_make_no_cache() {
    let shell = Shell::new();
    questions_about_nothing(&shell, "");
    assert!(!shell.path("cache").exists());
    fs::create_dir(shell.path("cache")).unwrap();
    questions_about_nothing(&shell, "");
    assert_eq!(fs::read_dir(shell.path("cache")).unwrap().count(), 0);
}

/// What can be asked without a cache: answered, and nothing is written. A plan ends with why no
/// cache can be made, if so.
fn questions_about_nothing(shell: &Shell, obstacle: &str) {
    shell.write("clips.toml", CLIPS);
    shell.output("init first");
    let plan = shell.transcript("plan clips.toml");
    let plan = plan.strip_suffix(obstacle).unwrap_or_else(|| panic!("{plan}"));
    insta::allow_duplicates! {
        insta::assert_snapshot!(plan, @"
        $ pipe plan clips.toml
        ? 0
        --- stdout
        run    pairs  new
        maybe  clips[method=linear]  after pairs
        maybe  clips[method=quadratic]  after pairs
        1 stage to run, 2 waiting for others, 0 cached; how long is not known, as no run of this file and profile timed the like yet
        ");
        insta::assert_snapshot!(shell.transcript("table first.toml"), @"
        $ pipe table first.toml
        ? 1
        --- stdout
        result
        score.f1
        ────────────────────────────────
         varied   value   n = 1   n = 4
        ────────────────────────────────
         rank     16      – (a)   – (a)
                  32      – (a)   – (a)
        ────────────────────────────────
        (a) not run
        --- stderr
        nothing is computed yet: `pipe run first.toml` computes it
        ");
        insta::assert_snapshot!(shell.transcript("cache gc --dry-run"), @"
        $ pipe cache gc --dry-run
        ? 3
        --- stderr
          × there is no cache at `cache`
          help: see that `--cache DIR` or `PIPE_CACHE` names the right folder; `pipe run` makes a cache
        ");
        insta::assert_snapshot!(shell.transcript("export clips.toml pairs --to out"), @"
        $ pipe export clips.toml pairs --to out
        ? 1
        --- stderr
          × not in the cache: `pairs`
          help: `pipe run clips.toml --only pairs` computes it
        ");
        insta::assert_snapshot!(shell.transcript("show 0123456789ab"), @"
        $ pipe show [HASH]
        ? 2
        --- stderr
          × nothing in the cache begins with `[HASH]`
          help: `pipe show FILE STAGE` shows what a stage gave, with its digest
        ");
    }
    for question in [
        "check clips.toml",
        "explain clips.toml clips",
        "show clips.toml",
        "diff clips.toml clips.toml",
    ] {
        shell.succeed(question);
    }
}

#[test]
fn a_disk_that_a_run_will_probably_fill_is_told_of_and_no_reason_to_refuse() {
    let shell = Shell::new();
    let Some(_disk) = Disk::mount(&shell.path("cache"), "4m") else { return };
    let file = |command: &str| {
        format!(
            "[stages.zeros]\nkind = \"command\"\ncommand = \"{command}\"\noutputs = [\"zeros\"]\n"
        )
    };
    shell.write("zeros.toml", &file("head -c 2900000 /dev/zero > $OUT/zeros"));
    shell.succeed("run zeros.toml --allow-commands");
    // Another command, whose output is about as large for all that is known, but is not.
    shell.write("zeros.toml", &file("echo > $OUT/zeros"));
    let told = shell.succeed("plan zeros.toml");
    let help = "too little disk space\n  help: free space with `pipe cache gc`";
    assert!(told.contains(help), "{told}");
    insta::assert_snapshot!(shell.transcript("run zeros.toml --allow-commands"), @"
    $ pipe run zeros.toml --allow-commands
    ? 0
    --- stderr
    zeros: 1 stage on cpu
    warning: this run may write about [SIZE], but the disk of the cache has [SIZE] left; the run will probably fill it
      help: free space with `pipe cache gc`, or name another disk with `--cache DIR`; `--only STAGE` runs a part; what is finished is kept
    ran      zeros  command head -c 2900000 /dev/zero > $OUT/zeros -> echo > $OUT/zeros (zeros.toml:3:11)  [TIME]
    done     1 stage ran in [TIME]
    ");
}

#[test]
fn folders_that_cannot_be_made_or_stand_in_the_way_say_what_to_do() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    shell.write("taken", "");
    for folder in ["taken/below", "/proc/below"] {
        let told = shell.transcript(&format!("export clips.toml pairs --to {folder}"));
        let wanted = format!("cannot make the folder `{folder}`");
        assert!(told.contains(&wanted) && told.contains("with `--to DIR`"), "{told}");
    }
    insta::assert_snapshot!(shell.transcript("export clips.toml --crate taken/below"), @"
    $ pipe export clips.toml --crate taken/below
    ? 3
    --- stderr
      × cannot make the folder `taken/below`: Not a directory (os error 20)
      help: name a folder that can be made, or is there, with `--crate DIR`
    ");
    fs::create_dir_all(shell.path("other/format")).unwrap();
    insta::assert_snapshot!(shell.transcript("plan clips.toml --cache other"), @"
    $ pipe plan clips.toml --cache other
    ? 3
    --- stderr
      × cannot access `other/format`: Is a directory (os error 21)
      help: a folder stands where a file must be: move it away, or name another path
    ");
}
