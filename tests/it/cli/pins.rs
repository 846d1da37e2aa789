//! Results that are kept: a result stays pinned as long as any pin needs it.

use super::{Shell, walk};

/// A pipeline whose `clips` have so many frames, and nine of them under a profile.
fn pipeline(name: &str, frames: usize) -> String {
    format!(
        r#"name = "{name}"

[profiles.big]
stages.clips.frames = 9

[stages.pairs]
kind   = "dataset"
source = {{ source = "builtin:figures" }}
task   = "pose"
count  = 1
size   = [32, 32]

[stages.clips]
kind   = "interpolate"
inputs = {{ pairs = "pairs" }}
frames = {frames}
"#
    )
}

/// What is pinned, without the keys.
fn pinned(shell: &Shell) -> Vec<String> {
    let lines = shell.succeed("cache pins");
    let names = lines.lines().map(|line| line.split_once("  ").unwrap().1.to_owned());
    names.collect()
}

#[test]
fn what_another_file_pins_stays_pinned() {
    let shell = Shell::new();
    shell.write("a.toml", &pipeline("a", 5));
    shell.write("b.toml", &pipeline("b", 13));
    shell.succeed("run a.toml b.toml");
    shell.succeed("cache pin a.toml");
    shell.succeed("cache pin b.toml");
    assert_eq!(pinned(&shell), ["a: clips", "a: pairs", "b: clips", "b: pairs"]);
    insta::assert_snapshot!(shell.transcript("cache unpin a.toml"), @"
    $ pipe cache unpin a.toml
    ? 0
    --- stdout
    unpinned 1 result
    --- stderr
    1 result stays pinned, because another pin needs it
    ");
    assert_eq!(pinned(&shell), ["b: clips", "b: pairs"]);
    shell.succeed("cache gc --max-size 0");
    assert!(shell.plan("b.toml").iter().all(|stage| stage["state"] == "fresh"));
    assert!(shell.transcript("cache unpin a.toml").contains("nothing of this is pinned"));
    assert_eq!(shell.succeed("cache unpin b.toml"), "unpinned 2 results\n");
}

#[test]
fn a_profile_and_a_set_are_unpinned_alone() {
    let shell = Shell::new();
    shell.write("a.toml", &pipeline("a", 5));
    shell.succeed("run a.toml");
    shell.succeed("run a.toml -p big");
    shell.succeed("run a.toml --set clips.frames=13");
    shell.succeed("cache pin a.toml clips -p big");
    assert!(shell.transcript("cache unpin a.toml clips").contains("nothing of this is pinned"));
    shell.succeed("cache pin a.toml clips");
    shell.succeed("cache pin a.toml clips --set clips.frames=13");
    assert_eq!(
        pinned(&shell),
        [
            "a --profile big: clips",
            "a --profile big: pairs",
            "a --set clips.frames=13: clips",
            "a --set clips.frames=13: pairs",
            "a: clips",
            "a: pairs",
        ]
    );
    let unpin = |line: &str| shell.succeed(&format!("cache unpin a.toml {line}"));
    assert_eq!(unpin("clips --set clips.frames=13"), "unpinned 1 result\n");
    assert_eq!(unpin(""), "unpinned 1 result\n");
    assert_eq!(pinned(&shell), ["a --profile big: clips", "a --profile big: pairs"]);
    assert_eq!(unpin("-p big"), "unpinned 2 results\n");
}

#[test]
fn of_a_pinned_file_a_stage_is_unpinned_that_no_other_one_needs() {
    let shell = Shell::new();
    shell.write("a.toml", &pipeline("a", 5));
    shell.succeed("run a.toml");
    shell.succeed("cache pin a.toml");
    insta::assert_snapshot!(shell.transcript("cache unpin a.toml pairs"), @"
    $ pipe cache unpin a.toml pairs
    ? 1
    --- stderr
      × nothing of this is pinned but what other pins of the file need
      help: `pipe cache pins` lists what is
    ");
    assert_eq!(shell.succeed("cache unpin a.toml clips"), "unpinned 1 result\n");
    assert_eq!(pinned(&shell), ["a: pairs"]);
    assert_eq!(shell.succeed("cache unpin a.toml pairs"), "unpinned 1 result\n");
}

#[test]
fn pins_of_a_file_that_was_moved_and_of_an_older_version_are_found() {
    let shell = Shell::new();
    shell.write("a.toml", &pipeline("a", 5));
    shell.succeed("run a.toml");
    shell.succeed("cache pin a.toml");
    std::fs::rename(shell.path("a.toml"), shell.path("c.toml")).unwrap();
    assert_eq!(shell.succeed("cache unpin c.toml"), "unpinned 2 results\n");
    // An older version wrote a file a result, with a name alone.
    shell.succeed("cache pin c.toml");
    for path in walk(&shell.path("cache/pins")) {
        let key = path.file_name().unwrap().to_string_lossy()[..64].to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        // One of them cannot be read.
        let name = if text.contains("a: pairs") { "a: pairs" } else { "" };
        std::fs::remove_file(&path).unwrap();
        let form = format!(r#"{{"format_version":1,"name":"{name}"}}"#);
        std::fs::write(path.with_file_name(key), form).unwrap();
    }
    assert_eq!(pinned(&shell).len(), 2);
    shell.succeed("cache gc --max-size 0");
    assert!(shell.plan("c.toml").iter().all(|stage| stage["state"] == "fresh"));
    assert_eq!(shell.succeed("cache unpin c.toml"), "unpinned 2 results\n");
}
