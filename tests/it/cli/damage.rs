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
    shell.write("scores.toml", &scores());
    let before = shell.succeed("run scores.toml");
    let pictures = || -> Vec<_> {
        let files = walk(&shell.path("cache/pictures")).into_iter();
        files.map(|file| (fs::read(&file).unwrap(), file)).collect()
    };
    let drawn = pictures();
    assert!(!drawn.is_empty());
    for folder in ["cache/objects", "cache"] {
        assert!(corrupt_all(&shell.path(folder)) > 3, "{folder}");
        // A test of its own says what is told of it.
        shell.write("cache/format", "2\n");
        assert_eq!(shell.succeed("run scores.toml"), before, "{folder}");
        assert_eq!(shell.output("cache verify").status.code(), Some(0), "{folder}");
        assert!(shell.transcript("run scores.toml").contains("0 stages ran"), "{folder}");
        assert_eq!(pictures(), drawn, "{folder}");
    }
}

/// The pipeline of scores with a table.
fn scores() -> String {
    format!("{SCORES}{SCORE}\n[tables.main]\nvalue = \"score.psnr\"\n")
}

#[test]
fn damaged_scores_are_made_again() {
    let shell = Shell::new();
    shell.write("scores.toml", &scores());
    let before = shell.succeed("run scores.toml");
    let damage = || {
        let plan = shell.plan("scores.toml");
        let score = plan.iter().find(|found| found["stage"] == "score").unwrap();
        let shown = shell.succeed(&format!("show --json {}", score["digest"].as_str().unwrap()));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let file = &shown["artifact"]["items"][0]["files"]["metrics.json"];
        let (shard, rest) = file["digest"].as_str().unwrap().split_at(2);
        corrupt(&shell.path(&format!("cache/objects/{shard}/{rest}")), true);
    };
    damage();
    let said = shell.transcript("table scores.toml");
    assert!(said.contains("? 3") && said.contains("it was removed from the cache"), "{said}");
    assert_eq!(shell.succeed("run scores.toml"), before);
    damage();
    let said = shell.transcript("run scores.toml --events events.ndjson");
    assert!(said.contains("? 0") && said.contains("is damaged; it is made again"), "{said}");
    assert_eq!(shell.succeed("table scores.toml"), before);
    // Who follows the events sees where the second run begins, and why.
    let events = std::fs::read_to_string(shell.path("events.ndjson")).unwrap();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_runs =
        |event: &&serde_json::Value| !event["event"].as_str().unwrap().starts_with("stage");
    let told: Vec<_> = events.iter().filter(of_runs).collect();
    let names: Vec<_> = told.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let run = ["run_started", "run_finished"];
    assert_eq!(names, [&run[..], &["damage_found"], &run].concat());
    assert_eq!(
        (told[2]["pipeline"].as_str(), told[2]["files"].as_u64()),
        (Some("scores"), Some(1))
    );
    assert_eq!((told[1]["ran"].as_u64(), told[4]["ran"].as_u64()), (Some(0), Some(1)));
}

/// `cleaner` deletes what `first` has just given, once or each time; `last` reads it.
fn with_cleaner(shell: &Shell, condition: &str) -> String {
    let objects = shell.path("cache/objects");
    let clean = format!("find {} -type f -delete", objects.display());
    format!(
        r#"
[stages.first]
kind    = "command"
command = "echo 1 > $OUT/one"
outputs = ["one"]

[stages.cleaner]
kind    = "command"
inputs  = {{ input = "first" }}
command = "{condition} {{ touch {flag}; {clean}; }}; echo 2 > $OUT/two"
outputs = ["two"]

[stages.last]
kind    = "command"
inputs  = {{ input = "first", second = "cleaner" }}
command = "cat $IN/*/*/* > $OUT/all"
outputs = ["all"]
"#,
        flag = shell.path("flag").display()
    )
}

#[test]
fn content_that_is_deleted_during_a_run_is_made_once_more() {
    let shell = Shell::new();
    let once = format!("test -e {} ||", shell.path("flag").display());
    shell.write("clean.toml", &with_cleaner(&shell, &once));
    let run = shell.transcript("run clean.toml --allow-commands");
    assert!(shell.path("flag").exists() && run.contains("? 0\n"), "{run}");
    shell.succeed("cache verify");
    assert!(shell.transcript("run clean.toml").contains("0 stages ran, 3 reused"));
}

#[test]
fn a_damaged_picture_is_drawn_again() {
    let shell = Shell::new();
    shell.write("scores.toml", &scores());
    shell.succeed("run scores.toml");
    let pictures = || walk(&shell.path("cache/pictures"));
    let [picture] = &pictures()[..] else { panic!("{:?}", pictures()) };
    let whole = fs::read(picture).unwrap();
    let run = || shell.transcript("run scores.toml");
    assert!(run().contains("0 stages ran") && !run().contains("drawn again"));
    let cut = &whole[..whole.len() / 2];
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [cut, &flipped, b""] {
        fs::write(picture, damaged).unwrap();
        let said = run();
        assert!(said.contains("0 stages ran") && said.contains("1 of them damaged"), "{said}");
        assert_eq!(fs::read(picture).unwrap(), whole);
    }
    fs::write(picture, cut).unwrap();
    let said = shell.transcript("cache verify");
    assert!(said.contains("? 4") && said.contains(", 1 picture, "), "{said}");
    assert!(
        said.contains("damaged and removed: pictures/") && said.contains(", of `scores: "),
        "{said}"
    );
    assert!(said.contains("draws the pictures again"), "{said}");
    run();
    assert_eq!(fs::read(picture).unwrap(), whole);
    fs::remove_file(picture).unwrap();
    fs::create_dir(picture).unwrap();
    let said = run();
    assert!(said.contains("? 3") && said.contains("move the folder away"), "{said}");
    fs::remove_dir(picture).unwrap();
    run();
    // One that an older version called otherwise gives way, and one of another stage does not.
    let name = picture.file_name().unwrap().to_str().unwrap();
    let hashes: Vec<_> = name.rsplitn(4, '-').collect();
    let [_, all, predictions, of] = hashes[..] else { panic!("{name}") };
    let older = [format!("{of}-{predictions}-{all}.png"), format!("{of}-{all}.png")];
    let [other, mine] = [format!("{of}-x-{all}.png"), "mine.png".to_owned()];
    for name in older.iter().chain([&other, &mine]) {
        fs::write(picture.with_file_name(name), "older").unwrap();
    }
    fs::remove_file(picture).unwrap();
    run();
    assert_eq!(fs::read(picture).unwrap(), whole);
    assert!(!older.iter().any(|name| picture.with_file_name(name).exists()));
    assert_eq!(pictures().len(), 3);
}

#[test]
fn what_a_remote_will_never_take_is_not_said_to_be_sent_by_push() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    let not_sent = |folder: &str, file: &str, cache: &str| {
        fs::create_dir(shell.path(folder)).unwrap();
        shell.write(&format!("{folder}/{file}"), "9\n");
        let said = shell.transcript(&format!("run clips.toml --remote {folder} --cache {cache}"));
        let line = said.lines().find(|line| line.contains("3 results not sent to"));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let newer = not_sent("newer", "format", "a");
    assert!(newer.ends_with("has format 9, but this `pipe` knows formats up to 3"), "{newer}");
    let data = not_sent("data", "picture.png", "b");
    assert!(data.ends_with("is no remote cache, and is not empty"), "{data}");
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
    // A plan is made all the same, and says it too; that such a place has no space is not the
    // point.
    for line in ["plan clips.toml --cache /proc/such", "plan clips.toml --cache /proc/none/such"] {
        let text = shell.transcript(line);
        assert!(text.contains("? 0") && text.contains(", 0 cached"), "{text}");
        assert!(text.contains("cannot make the cache `/proc/"), "{text}");
        assert!(text.contains("  help: name a folder that you may write to"), "{text}");
        assert!(!text.contains("full"), "{text}");
    }
    let json = shell.succeed("plan clips.toml --cache /proc/such --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let told = json["disk"]["no_cache"].as_str().unwrap();
    assert!(told.starts_with("cannot make the cache `/proc/such`"), "{told}");
    let text = shell.transcript("run clips.toml --remote /proc/none/such");
    assert!(text.contains("? 0") && text.contains("/proc/none/such"), "{text}");
}

#[test]
fn the_remedy_for_a_lost_format_helps() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    // Gone, it is written anew by what the records say.
    fs::remove_file(shell.path("cache/format")).unwrap();
    shell.succeed("run clips.toml");
    assert_eq!(fs::read_to_string(shell.path("cache/format")).unwrap(), "3\n");
    shell.write("cache/format", "?\n");
    insta::assert_snapshot!(shell.transcript("run clips.toml"), @"
    $ pipe run clips.toml
    ? 3
    --- stderr
      × the cache cannot be used, because its file `cache/format` is lost or damaged
      help: if this is your cache, `echo 3 > format` in its folder makes it usable again, and `pipe
            cache verify` checks it; else name another folder with `--cache DIR` or `PIPE_CACHE`
    ");
    shell.write("cache/format", "2\n");
    shell.succeed("cache verify");
    assert!(shell.transcript("run clips.toml").contains("0 stages ran, 3 reused"));
}

#[test]
fn what_is_damaged_is_not_called_gone_or_absent() {
    let shell = Shell::new();
    shell.write("clips.toml", CLIPS);
    shell.succeed("run clips.toml");
    let shown = shell.succeed("show clips.toml pairs --json");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let files = shown["artifacts"][0]["artifact"]["items"][0]["files"].as_object().unwrap();
    let digest = files.values().next().unwrap()["digest"].as_str().unwrap();
    let object = shell.path("cache/objects").join(&digest[..2]).join(&digest[2..]);
    corrupt(&object, false);
    let push = shell.transcript("cache push --all --remote shared");
    assert!(push.contains("left out: clips: pairs: 1 file is damaged\n"), "{push}");
    insta::assert_snapshot!(shell.transcript("export clips.toml clips --to out"), @"
    $ pipe export clips.toml clips --to out
    ? 1
    --- stderr
      × not in the cache: `clips[method=linear]` and 1 more, because `pairs` is damaged there or
      │ partly gone
      help: `pipe run clips.toml --only 'clips[method=linear]'` computes it
    ");
    insta::assert_snapshot!(shell.transcript("export clips.toml --crate out"), @"
    $ pipe export clips.toml --crate out
    ? 1
    --- stderr
      × `pairs` is not up to date in the cache, because `pairs` is damaged there or partly gone
      help: `pipe run clips.toml` computes what is missing
    ");
    let verify = shell.transcript("verify clips.toml");
    let why = "not up to date in the cache, because `pairs` is damaged there or partly gone\n";
    assert_eq!(verify.matches(why).count(), 3, "{verify}");
    fs::remove_file(&object).unwrap();
    let push = shell.transcript("cache push --all --remote shared");
    assert!(push.contains("left out: clips: pairs: 1 file is gone\n"), "{push}");
}
