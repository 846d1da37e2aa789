//! A cache and a remote in which many files are damaged, and what one run makes of them.

use std::{fs, path::Path};

use super::{CLIPS, SCORE, Shell, walk};
use crate::incremental::corrupt;

/// Untrained answers to a set of pairs, and their scores, which no stage reads.
const SCORES: &str = r#"name = "scores"

[sweep]
baseline      = { seed = 1 }
one_at_a_time = { seed = [1] }

[stages.pairs]
kind   = "dataset"
source = { source = "builtin:figures" }
task   = "pose"
count  = 1
size   = [32, 32]
seed   = "${seed}"

[stages.prompt]
kind  = "text_encode"
model = "builtin:tiny"

[stages.predict]
kind   = "sample"
inputs = { pairs = "pairs", text = "prompt" }
model  = "builtin:tiny"
steps  = 1
"#;

/// Damages every file below a folder as a failing disk does.
fn corrupt_all(folder: &Path) -> usize {
    let mut files = walk(folder);
    // Locks have no content.
    files.retain(|file| fs::metadata(file).unwrap().len() > 0);
    for file in &files {
        corrupt(file, true);
    }
    files.len()
}

#[test]
fn one_run_makes_all_damaged_results_again() {
    let shell = Shell::new();
    let file = format!("{SCORES}{SCORE}\n[tables.main]\nvalue = \"score.psnr\"\n");
    shell.write("scores.toml", &file);
    let before = shell.succeed("run scores.toml");
    for folder in ["cache/objects", "cache"] {
        assert!(corrupt_all(&shell.path(folder)) > 3, "{folder}");
        // A test of its own says what is told of it.
        shell.write("cache/format", "2\n");
        assert_eq!(shell.succeed("run scores.toml"), before, "{folder}");
        assert_eq!(shell.output("cache verify").status.code(), Some(0), "{folder}");
        assert!(shell.transcript("run scores.toml").contains("0 stages ran"), "{folder}");
    }
}

#[test]
fn a_damaged_record_is_the_reason() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    for record in walk(&shell.path("cache/actions")) {
        corrupt(&record, true);
    }
    insta::assert_snapshot!(shell.transcript("run clips.toml --jobs 1"), @"
    $ pipe run clips.toml --jobs 1
    ? 0
    --- stderr
    clips: 3 stages on cpu
    ran      pairs  its record in the cache is damaged  [TIME]
    ran      clips[method=linear]  its record in the cache is damaged  0 of 2 items  [TIME]
    ran      clips[method=quadratic]  its record in the cache is damaged  0 of 2 items  [TIME]
    done     3 stages ran in [TIME]
    ");
    for record in walk(&shell.path("cache/items")) {
        corrupt(&record, true);
    }
    // What no run has to read, a check finds.
    let text = shell.transcript("cache verify");
    assert!(
        text.contains("? 4") && text.matches("damaged and removed: items/").count() == 4,
        "{text}"
    );
}

#[test]
fn all_that_is_damaged_at_a_remote_is_replaced_by_one_run() {
    let (shell, shared) = (Shell::new(), "--remote shared");
    shell.write("clips.toml", CLIPS);
    shell.succeed(&format!("run clips.toml --cache one {shared}"));
    for (at, folders) in
        [&["objects"][..], &["actions"], &["items"], &["objects", "actions", "items"]]
            .into_iter()
            .enumerate()
    {
        for folder in folders {
            assert!(corrupt_all(&shell.path("shared").join(folder)) > 2, "{folder}");
        }
        let text = shell.transcript(&format!("run clips.toml --cache mending{at} {shared}"));
        assert!(text.contains("? 0"), "{text}");
        let text = shell.transcript(&format!("run clips.toml --cache whole{at} {shared}"));
        assert!(
            text.contains("0 stages ran, 3 reused") && !text.contains("warning"),
            "{folders:?} {text}"
        );
        assert!(!text.to_lowercase().contains("damaged"), "{folders:?} {text}");
        let whole = shell.transcript(&format!("cache pull --all --cache copy{at} {shared}"));
        assert!(whole.contains("? 0") && !whole.contains("left out"), "{whole}");
        assert_eq!(shell.output(&format!("cache verify --cache copy{at}")).status.code(), Some(0));
    }
}

#[test]
fn a_remote_that_is_not_there_is_an_error_and_stays_away() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let place = shell.dir.path().canonicalize().unwrap().display().to_string();
    let shown = |line: &str| shell.transcript(line).replace(&place, "[DIR]");
    insta::assert_snapshot!(shown("cache pull --all --remote misspelt"), @"
    $ pipe cache pull --all --remote misspelt
    ? 3
    --- stderr
      × there is no remote cache at `file://[DIR]/misspelt/`
      help: see that the address is right; `pipe cache push`, or a run with `--remote`, makes a cache
            there, also where only its file `format` is lost
    ");
    for line in ["cache pull", "cache pull clips.toml", "cache pull --all --dry-run"] {
        let text = shown(&format!("{line} --remote misspelt"));
        assert!(text.contains("? 3") && text.contains("misspelt"), "{line}: {text}");
    }
    shell.succeed("run clips.toml");
    let dry = shell.succeed("cache push --dry-run --remote misspelt");
    assert!(dry.contains("would send 3 results"), "{dry}");
    assert!(!shell.path("misspelt").exists());
    // What its message says helps.
    shell.succeed("cache push --remote shared");
    for text in [None, Some("?")] {
        match text {
            None => fs::remove_file(shell.path("shared/format")).unwrap(),
            Some(text) => fs::write(shell.path("shared/format"), text).unwrap(),
        }
        let text = shell.transcript("cache pull --all --cache two --remote shared");
        assert!(text.contains("? 3") && text.contains("`pipe cache push`"), "{text}");
        let _ = fs::remove_file(shell.path("shared/format"));
        shell.succeed("cache push --remote shared");
        shell.succeed("cache pull --all --cache two --remote shared");
    }
}

#[test]
fn a_place_where_no_cache_can_be_is_named_with_a_remedy() {
    if !Path::new("/proc/self").exists() {
        return crate::support::skipped("there is no `/proc` here");
    }
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    insta::assert_snapshot!(shell.transcript("run clips.toml --cache /proc/none/such"), @"
    $ pipe run clips.toml --cache /proc/none/such
    ? 3
    --- stderr
      × cannot make the cache `/proc/none/such`: No such file or directory (os error 2)
      help: name a folder that you may write to with `--cache DIR` or `PIPE_CACHE`
    ");
    let text = shell.transcript("run clips.toml --remote /proc/none/such");
    assert!(text.contains("? 0") && text.contains("/proc/none/such"), "{text}");
}

#[test]
fn the_remedy_for_a_lost_format_helps() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    fs::remove_file(shell.path("cache/format")).unwrap();
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
      × the cache cannot be used, because its file `cache/format` is lost or damaged
      help: if this is your cache, `echo 2 > format` in its folder makes it usable again, and `pipe
            cache verify` checks it; else name another folder with `--cache DIR` or `PIPE_CACHE`
    ");
    shell.write("cache/format", "2\n");
    shell.succeed("cache verify");
    assert!(shell.transcript("run clips.toml").contains("0 stages ran, 3 reused"));
}
