//! Damage that no look at the metadata shows: one run makes all of it good that it meets.

use std::fs;

use pipe::{
    exec::{Outcome, RunEvent},
    store::{FORMAT_VERSION, Store},
};
use serde_json::json;

use crate::{
    incremental::corrupt,
    support::TestPipeline,
    toys::{Letters, Spoil, Texts, Words},
};

const WORDS: [&str; 12] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "last",
];

#[test]
fn many_files_damaged_at_once_are_made_again_by_one_run() {
    let test = TestPipeline::words(&WORDS);
    test.run();
    for word in WORDS {
        corrupt(&test.object(word), true);
        corrupt(&test.object(&format!("{}!", word.to_uppercase())), true);
    }
    let test = test.edit::<Letters>("letters", "step", 1);
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Done, "{}", run.story());
    // Each stage once, not once for each file.
    insta::assert_snapshot!(run.story(), @"
    reused words
    reused shout
    ran words (12 of 12, same output): its output # is gone from the cache or damaged
    ran shout (12 of 12, same output): its output # is gone from the cache or damaged
    ran letters (1 of 1): step 10 -> 1 (toy.toml:7:9)
    ");
    assert_eq!(test.store().verify(false).unwrap().damaged, []);
}

#[test]
fn every_object_damaged_but_those_that_no_stage_reads_is_made_again() {
    let test = TestPipeline::words(&WORDS);
    test.run();
    let cache = test.dir.path().join("cache");
    let objects = files(&cache.join("objects"));
    for object in &objects {
        corrupt(object, true);
    }
    let test = test.edit::<Letters>("letters", "step", 1);
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Done, "{}", run.story());
    assert_eq!(test.text("letters", "letters"), (WORDS.concat().len() + WORDS.len()).to_string());
    // The letters of another step and their list.
    assert_eq!(test.store().verify(false).unwrap().damaged.len(), 2);
}

#[test]
fn a_disk_that_damages_everything_anew_ends_the_run_with_a_remedy() {
    let test = TestPipeline::empty();
    let object = test.object("one");
    let test = test
        .stage::<Words>("words", json!({ "words": ["one", "two"] }), &[])
        .stage::<Spoil>("spoil", json!({ "object": object }), &[("words", "words")]);
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Environment);
    let story = run.story();
    assert!(story.contains("was written in this run, and already holds something else"), "{story}");
    assert!(story.contains("PIPE_CACHE"), "{story}");
    // What an earlier run wrote is made again once.
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Environment);
    assert_eq!(run.story().matches("ran words").count(), 1, "{}", run.story());
}

/// All files below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn every_damaged_record_is_found_told_and_made_again() {
    let test = TestPipeline::words(&["one", "two"]);
    let data = test.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.txt"), "a").unwrap();
    let test = test.stage::<Texts>("texts", json!({ "root": data }), &[]);
    test.run();
    let cache = test.dir.path().join("cache");
    let folders = ["actions", "items", "traces"];
    let records: Vec<_> = folders.iter().flat_map(|name| files(&cache.join(name))).collect();
    assert_eq!(records.len(), 4 + 2 + 1);
    for record in &records {
        let whole = fs::read(record).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(record, &flipped).unwrap();
            let story = test.plan_story();
            let is_item = record.starts_with(cache.join("items"));
            assert_eq!(
                story.matches("record in the cache is damaged").count(),
                usize::from(!is_item)
            );
        }
        let damaged = test.store().verify(false).unwrap().damaged;
        assert_eq!(damaged.len(), 1);
        assert!(record.ends_with(&damaged[0].file));
        fs::write(record, &whole).unwrap();
        assert_eq!(test.run().summary.ran, 0);
    }
    for record in &records {
        corrupt(record, false);
    }
    insta::assert_snapshot!(test.run().story(), @"
    ran words (2 of 2): its record in the cache is damaged
    ran shout (2 of 2): its record in the cache is damaged
    ran letters (1 of 1): its record in the cache is damaged
    ran texts (1 of 1): its record in the cache is damaged
    ");
    assert_eq!(test.run().summary.ran, 0);
    assert_eq!(test.store().verify(false).unwrap().damaged, []);
}

#[test]
fn a_cache_of_the_first_format_is_used_on() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let cache = test.dir.path().join("cache");
    // As it was: records without checksums, and those of items without their keys.
    fs::write(cache.join("format"), "1\n").unwrap();
    for record in ["actions", "items"].iter().flat_map(|name| files(&cache.join(name))) {
        let sealed: serde_json::Value =
            serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        let mut record_of_then = sealed["record"].clone();
        if record.starts_with(cache.join("items")) {
            record_of_then.as_object_mut().unwrap().remove("key").unwrap();
        }
        let text = record_of_then.to_string();
        let plain =
            text.replace(&format!("\"format_version\":{FORMAT_VERSION}"), "\"format_version\":1");
        fs::write(&record, plain).unwrap();
    }
    let looked = Store::look(&cache).unwrap();
    assert_eq!(looked.verify(false).unwrap().damaged, []);
    assert_eq!(test.run().story(), "reused words\nreused shout\nreused letters\n");
    let format = fs::read_to_string(cache.join("format")).unwrap();
    assert_eq!(format, format!("{FORMAT_VERSION}\n"));
}

#[test]
fn exchanged_records_of_items_are_found_and_made_again() {
    let test = TestPipeline::words(&["one", "three"]);
    test.run();
    let records = files(&test.dir.path().join("cache/items"));
    assert_eq!(records.len(), 2);
    let bytes: Vec<_> = records.iter().map(|record| fs::read(record).unwrap()).collect();
    let exchange = || {
        for (record, bytes) in records.iter().zip(bytes.iter().rev()) {
            fs::write(record, bytes).unwrap();
        }
    };
    exchange();
    assert_eq!(test.store().verify(false).unwrap().damaged.len(), 2);
    exchange();
    // Another word beside them: the stage looks its items up one by one, finds none, and has them
    // from its last result, whose manifest says which is which.
    let test = test.edit::<Words>("words", "words", json!(["one", "three", "four"]));
    let run = test.run();
    assert!(run.story().contains("ran shout (1 of 3)"), "{}", run.story());
    let shouted = ["one", "three", "four"].map(|word| test.text("shout", word));
    assert_eq!(shouted, ["ONE!", "THREE!", "FOUR!"]);
}

#[test]
fn a_run_whose_work_is_done_ends_well_without_the_files_that_save_time() {
    let test = TestPipeline::empty();
    let data = test.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.txt"), "a").unwrap();
    let test = test.stage::<Texts>("texts", json!({ "root": data }), &[]);
    test.store();
    // A folder in its place, since a full disk needs a mount.
    let stat_cache = test.dir.path().join("cache/stat-cache");
    fs::create_dir_all(stat_cache.join("in the way")).unwrap();
    assert!(test.store().digest_file(&data.join("a.txt")).is_ok());
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Done);
    assert_eq!(run.count(|event| matches!(event, RunEvent::RunFinished(_))), 1);
    fs::remove_dir_all(&stat_cache).unwrap();
    assert_eq!(test.run().story(), "reused texts\n");
}
