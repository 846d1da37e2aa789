//! Flags and settings of the machine that cannot be.

use super::{CLIPS, Shell, command};

#[test]
fn zero_jobs_and_misspelt_filters_are_refused() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run clips.toml --jobs 0"), @"
    $ pipe run clips.toml --jobs 0
    ? 2
    --- stderr
    error: invalid value '0' for '--jobs <N>': must be a whole number, at least 1

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shell.transcript("run clips.toml --log inof"), @"
    $ pipe run clips.toml --log inof
    ? 2
    --- stderr
    error: invalid value 'inof' for '--log <FILTER>': `inof` is no level; it can be off, error, warn, info, debug, trace, or `pipe::exec=debug` for one module

    For more information, try '--help'.
    ");
    shell.write("pipe.toml", "jobs = 0\nlog = \"pipe=loud\"\n");
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @r#"
    $ pipe run clips.toml
    ? 2
    --- stderr
      × `jobs` must be a whole number, one or more, but is the number 0
       ╭─[pipe.toml:1:8]
     1 │ jobs = 0
       ·        ┬
       ·        ╰── must be a whole number, one or more
     2 │ log = "pipe=loud"
       ╰────
    "#);
    shell.write("pipe.toml", "log = \"pipe=loud\"\n");
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @r#"
    $ pipe run clips.toml
    ? 2
    --- stderr
      × the setting `log` is wrong (set by `pipe.toml:1:7`): error parsing level filter: expected one
      │ of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
      help: write it as `info` or `pipe::exec=debug`
    "#);
}

#[test]
fn a_wrong_variable_is_named_with_what_it_must_be() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let output = command(shell.dir.path())
        .args(["plan", "clips.toml"])
        .env("PIPE_JOBS", "abc")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"
    × `PIPE_JOBS` must be a whole number, one or more, but is `abc`
    help: set it to such a value, or unset it
    ");
}

/// A folder in the place of the user's settings.
#[test]
fn settings_that_cannot_be_read_stop_only_what_needs_them() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    std::fs::create_dir_all(shell.path(".config/pipe/config.toml")).unwrap();
    for line in [
        "--help",
        "run --help",
        "version",
        "completions bash",
        "schema",
        "init first",
        "check clips.toml",
        "show clips.toml",
        "diff --help",
    ] {
        shell.succeed(line);
    }
    insta::assert_snapshot!(shell.transcript_at_home("plan clips.toml"), @"
    $ pipe plan clips.toml
    ? 2
    --- stderr
      × cannot read the settings `[HOME]/.config/pipe/config.toml`: Is a directory (os error 21)
      help: a folder stands where the file would: move it away
    ");
    std::fs::remove_dir_all(shell.path(".config/pipe")).unwrap();
    // Where a file is in the place of the folder, there are no settings.
    shell.write(".config/pipe", "");
    shell.succeed("plan clips.toml");
}

#[cfg(unix)]
#[test]
fn a_cache_may_have_a_name_that_is_no_text() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let cache = OsStr::from_bytes(b"ca\xffche");
    let output = command(shell.dir.path())
        .args(["run", "clips.toml", "--cache"])
        .arg(cache)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shell.dir.path().join(cache).join("objects").is_dir());
}

#[test]
fn a_cache_that_is_used_by_other_locks_is_refused_until_it_says_so() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    shell.write("pipe.toml", "locks = \"lease\"\n");
    for line in ["run clips.toml", "plan clips.toml", "cache gc"] {
        let text = shell.transcript(line);
        assert!(text.contains("? 3") && text.contains("locks/mode"), "{text}");
    }
    shell.write("cache/locks/mode", "lease\n");
    shell.succeed("run clips.toml");
    shell.write("pipe.toml", "");
    shell.succeed("run clips.toml");
    shell.succeed("cache gc");
}

#[test]
fn settings_above_the_current_folder_count_and_their_paths_are_meant_from_there() {
    let shell = Shell::new();
    let below = shell.path("experiments/poses");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join("clips.toml"), CLIPS).unwrap();
    shell.write("pipe.toml", "cache = \"all\"\n");
    let output = command(&below).args(["run", "clips.toml"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shell.path("all/objects").is_dir() && !below.join("cache").exists());
    shell.write("pipe.toml", "device = \"gpu\"\n");
    let output = command(&below).args(["run", "clips.toml"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("(set by `../../pipe.toml:1:10`)"), "{told}");
}
