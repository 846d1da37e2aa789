//! Run, change one thing, run: which stages ran, and why.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;

use insta::assert_snapshot;
use pipe::{
    exec::{ExecError, Executor, Outcome, RunEvent},
    plan::{Freshness, Lack},
    store::{GcPolicy, Store, StoreError},
};
use serde_json::json;

use crate::{
    support::TestPipeline,
    toys::{Cross, Letters, Shout, Texts, Train, Words},
};

const ALL_REUSED: &str = "reused words\nreused shout\nreused letters\n";

#[test]
fn everything_runs_once() {
    let test = TestPipeline::words(&["one", "two"]);
    assert_snapshot!(test.plan_story(), @r"
    words stale: never run
    shout pending: words
    letters pending: shout
    ");
    assert_snapshot!(test.run().story(), @r"
    ran words (2 of 2): never run
    ran shout (2 of 2): never run
    ran letters (1 of 1): never run
    ");
    assert_eq!(test.text("shout", "two"), "TWO!");
    assert_eq!(test.run().story(), ALL_REUSED);
    let plan = test.plan();
    assert!(plan.nodes.iter().all(|node| matches!(node.freshness, Freshness::Fresh(_))));
}

#[test]
fn a_changed_parameter_is_named_with_its_place() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let test = test.edit::<Shout>("shout", "mark", "!?");
    assert_snapshot!(test.plan_story(), @r"
    words fresh
    shout stale: mark ! -> !? (toy.toml:7:9) (0 of 2 cached)
    letters pending: shout
    ");
    assert_snapshot!(test.run().story(), @r"
    reused words
    ran shout (2 of 2): mark ! -> !? (toy.toml:7:9)
    ran letters (1 of 1): input `words` changed (# -> #)
    ");
}

#[test]
fn an_equal_output_stops_the_run_early() {
    let test = TestPipeline::words(&["one", "two"]).stage::<Shout>(
        "echo",
        json!({ "mark": "." }),
        &[("words", "letters")],
    );
    test.run();
    let test = test.edit::<Letters>("letters", "step", 2);
    assert_snapshot!(test.run().story(), @r"
    reused words
    reused shout
    ran letters (1 of 1): step 10 -> 2 (toy.toml:7:9)
    ran echo (1 of 1): input `words` changed (# -> #)
    ");
    let test = test.edit::<Letters>("letters", "step", 4);
    assert_snapshot!(test.run().story(), @r"
    reused words
    reused shout
    ran letters (1 of 1, same output): step 2 -> 4 (toy.toml:7:9)
    reused echo
    ");
}

#[test]
fn a_change_that_is_taken_back_runs_nothing() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let test = test.edit::<Shout>("shout", "mark", "?");
    test.run();
    let test = test.edit::<Shout>("shout", "mark", "!");
    assert_eq!(test.run().story(), ALL_REUSED);
    // The old value in the next reason is the one of the last run, reused or not.
    let test = test.edit::<Shout>("shout", "mark", "...");
    assert!(test.plan_story().contains("mark ! -> ..."), "{}", test.plan_story());
}

#[test]
fn renaming_a_stage_does_not_rerun_it() {
    let mut test = TestPipeline::words(&["one", "two"]);
    test.run();
    test.pipeline.instances[1].stage = "cry".into();
    assert_eq!(test.run().story(), "reused words\nreused cry\nreused letters\n");
}

#[test]
fn equal_stages_are_computed_once() {
    let mut test = TestPipeline::words(&["one", "two"]).stage::<Shout>(
        "again",
        json!({ "mark": "!" }),
        &[("words", "words")],
    );
    test.options.jobs = 2;
    let run = test.run();
    assert_eq!((run.summary.ran, run.summary.reused), (3, 1), "{}", run.story());
}

#[test]
fn items_are_cached_one_by_one() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let ran = |words: &[&str]| {
        let test = TestPipeline::at(test.dir.clone()).with_words(words);
        let story = test.run().story();
        story.lines().find(|line| line.contains("shout")).unwrap().to_owned()
    };
    assert_snapshot!(ran(&["one", "two", "three"]), @"ran shout (1 of 3): input `words` changed (# -> #)");
    assert_snapshot!(ran(&["three", "one"]), @"ran shout (0 of 2): input `words` changed (# -> #)");
    assert_snapshot!(ran(&["two", "one"]), @"ran shout (0 of 2): input `words` changed (# -> #)");
    assert_snapshot!(ran(&["one", "two"]), @"reused shout");
}

#[test]
fn a_stage_gets_as_many_items_a_call_as_it_takes_side_by_side() {
    let words: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let shouted = |count: usize, batch: usize| {
        let test = TestPipeline::empty();
        let calls = test.trap("calls");
        let shout = json!({ "mark": "!", "batch": batch, "trap": calls.parent() });
        let test = test
            .stage::<Words>("words", json!({ "words": words[..count] }), &[])
            .stage::<Shout>("shout", shout, &[("words", "words")]);
        test.run();
        let Freshness::Fresh(record) = &test.plan().nodes[1].freshness else { panic!() };
        let calls = fs::read_to_string(calls).unwrap();
        let calls = calls.lines().map(|items| items.parse().unwrap()).collect::<Vec<usize>>();
        (calls, record.output)
    };
    for (count, batch, wanted) in [(12, 4, 3), (16, 4, 4), (100, 4, 25), (10, 4, 3), (3, 4, 1)] {
        let (calls, output) = shouted(count, batch);
        assert_eq!(calls.iter().sum::<usize>(), count);
        // A bucket of many items fills several batches at once.
        let batches: usize = calls.iter().map(|items| items.div_ceil(batch)).sum();
        assert_eq!(batches, wanted, "{count} items, {batch} side by side: {calls:?}");
        assert!(calls.len() <= wanted);
        assert_eq!(output, shouted(count, 1).1, "neither order nor bytes depend on it");
    }
}

#[test]
fn every_item_meets_every_item_of_a_crossed_port() {
    let crossed = |marks: &[&str], dir| {
        TestPipeline::at(dir)
            .stage::<Words>("words", json!({ "words": ["a", "b"] }), &[])
            .stage::<Words>("marks", json!({ "words": marks }), &[])
            .stage::<Cross>("cross", json!({}), &[("words", "words"), ("marks", "marks")])
    };
    let test = crossed(&["!", "?"], TestPipeline::empty().dir);
    assert!(test.run().story().contains("ran cross (4 of 4)"));
    assert_eq!(test.text("cross", "?/b"), "b?");
    // One more on either side makes what is new; fewer, nothing.
    let test = crossed(&["!", "?", "."], test.dir);
    assert!(test.plan_story().contains("cross pending"));
    assert!(test.run().story().contains("ran cross (2 of 6)"), "{}", test.run().story());
    // With one, names are plain, and the results of single items are those known.
    let test = crossed(&["?"], test.dir);
    assert!(test.run().story().contains("ran cross (0 of 2)"));
    assert_eq!(test.text("cross", "b"), "b?");
}

#[test]
fn a_deleted_output_is_made_again_and_nothing_else() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    fs::remove_file(test.object("TWO!")).unwrap();
    assert_snapshot!(test.run().story(), @r"
    reused words
    ran shout (1 of 2, same output): its output # is gone from the cache or damaged
    reused letters
    ");
    fs::remove_dir_all(test.dir.path().join("cache/objects")).unwrap();
    assert_eq!(test.run().summary.ran, 3);
    assert_eq!(test.text("shout", "two"), "TWO!");
}

/// Flips a byte, as an editor would or, with `silent`, as a failing disk would.
pub fn corrupt(path: &std::path::Path, silent: bool) {
    let mut bytes = fs::read(path).unwrap();
    let time = fs::metadata(path).unwrap().modified().unwrap();
    bytes[0] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    if silent {
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn an_output_changed_by_hand_is_noticed_and_repaired() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    corrupt(&test.object("TWO!"), false);
    assert_snapshot!(test.run().story(), @r"
    reused words
    ran shout (1 of 2, same output): its output # is gone from the cache or damaged
    reused letters
    ");
    assert_eq!(test.text("shout", "two"), "TWO!");
}

#[test]
fn damage_found_while_reading_is_repaired_in_the_same_run() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    corrupt(&test.object("TWO!"), true);
    let test = test.edit::<Letters>("letters", "step", 1);
    assert_snapshot!(test.run().story(), @r"
    reused words
    reused shout
    ran shout (1 of 2, same output): its output # is gone from the cache or damaged
    ran letters (1 of 1): step 10 -> 1 (toy.toml:7:9)
    ");
    assert_eq!(test.text("letters", "letters"), "8");
}

#[test]
fn a_silently_damaged_list_of_items_is_made_again() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let Freshness::Fresh(record) = &test.plan().nodes[0].freshness else { panic!() };
    let hex = record.output.to_string();
    let objects = test.dir.path().join("cache/objects");
    corrupt(&objects.join(&hex[..2]).join(&hex[2..]), true);
    let test = test.edit::<Shout>("shout", "mark", "?");
    assert!(test.plan_story().contains("shout pending: words"), "{}", test.plan_story());
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Done, "{}", run.story());
    assert_eq!(test.text("shout", "two"), "TWO?");
}

#[test]
fn a_silently_damaged_input_of_an_input_is_repaired_too() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    corrupt(&test.object("two"), true);
    fs::remove_file(test.object("TWO!")).unwrap();
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Done, "{}", run.story());
    assert_eq!(test.text("shout", "two"), "TWO!");
}

#[test]
fn only_and_force_choose_what_runs() {
    let mut test = TestPipeline::words(&["one", "two"]);
    test.options.only = vec!["shout".into()];
    assert_eq!(test.run().summary.ran, 2);
    assert_eq!(test.plan().nodes.iter().filter(|node| node.needed).count(), 2);
    test.options.only.clear();
    test.run();
    test.options.force = vec!["shout".into()];
    assert_snapshot!(test.plan_story(), @r"
    words fresh
    shout stale: forced (0 of 2 cached)
    letters pending: shout
    ");
    assert_snapshot!(test.run().story(), @r"
    reused words
    ran shout (2 of 2, same output): forced
    reused letters
    ");
    test.options.force = vec!["shuot".into()];
    let store = test.store();
    let error = Executor::new(&store, test.options.clone()).execute(&test.pipeline, &mut |_| {});
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "the pipeline has no stage `shuot`");
    assert_eq!(error.help().unwrap(), "did you mean `shout`?");
}

#[test]
fn a_stage_over_many_folders_is_up_to_date_in_all_of_them() {
    let mut test = TestPipeline::empty();
    for n in 0..20 {
        let folder = test.dir.path().join(format!("data {n}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("{n}.txt")), format!("text {n}")).unwrap();
        test = test.stage::<Texts>(&format!("texts{n}"), json!({ "root": folder }), &[]);
    }
    assert_eq!(test.run().story().matches("ran ").count(), 20);
    assert_eq!(test.run().story().matches("reused ").count(), 20);
}

#[test]
fn only_what_was_read_from_outside_matters() {
    let test = TestPipeline::empty();
    let data = test.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.txt"), "alpha").unwrap();
    fs::write(data.join("notes.md"), "x").unwrap();
    let test = test.stage::<Texts>("texts", json!({ "root": data }), &[]).stage::<Shout>(
        "shout",
        json!({ "mark": "!" }),
        &[("words", "texts")],
    );
    test.run();
    assert_eq!(test.run().story(), "reused texts\nreused shout\n");

    // Neither a file that was not read nor the folder's place is an input.
    fs::write(data.join("notes.md"), "y").unwrap();
    let moved = test.dir.path().join("moved");
    fs::rename(&data, &moved).unwrap();
    let test = test.edit::<Texts>("texts", "root", moved.to_str().unwrap());
    assert_eq!(test.run().story(), "reused texts\nreused shout\n");

    fs::write(moved.join("b.txt"), "beta").unwrap();
    assert_snapshot!(test.run().story(), @r"
    ran texts (2 of 2): `b.txt` added
    ran shout (1 of 2): input `words` changed (# -> #)
    ");
    fs::write(moved.join("a.txt"), "ALPHA").unwrap();
    assert_snapshot!(test.run().story(), @r"
    ran texts (2 of 2): `a.txt` changed
    ran shout (1 of 2, same output): input `words` changed (# -> #)
    ");
    fs::write(moved.join("a.txt"), "alpha").unwrap();
    assert_eq!(test.run().story(), "reused texts\nreused shout\n");

    fs::remove_dir_all(&moved).unwrap();
    let store = test.store();
    let error = Executor::new(&store, test.options.clone())
        .execute(&test.pipeline, &mut |_| {})
        .unwrap_err();
    assert!(matches!(
        &error,
        ExecError::Lacks(lacks)
            if matches!(&lacks[0].lack, Lack::Data { param: Some(param), .. } if param == "root")
    ));
    // A plan is made all the same, and says so.
    let plan = test.plan();
    assert!(matches!(plan.nodes[0].freshness, Freshness::Blocked(Lack::Data { .. })));
    assert!(matches!(plan.nodes[1].freshness, Freshness::Pending { .. }));
    assert!(error.is_environment());
}

#[test]
fn a_longer_training_goes_on_from_the_shorter_one() {
    let test =
        TestPipeline::empty().stage::<Train>("train", json!({ "rate": 2, "steps": 100 }), &[]);
    let steps = |test: &TestPipeline| {
        test.run().count(|event| matches!(event, RunEvent::StageProgress { .. }))
    };
    assert_eq!(steps(&test), 100);
    let test = test.edit::<Train>("train", "steps", 150);
    assert_eq!(steps(&test), 50);
    assert_eq!(test.text("train", "weights"), "300");
    let Freshness::Fresh(record) = &test.plan().nodes[0].freshness else { panic!() };
    assert_eq!((record.reached, record.went_on_from), (Some(150), Some(100)));
    let mut test = test.edit::<Train>("train", "rate", 3);
    assert_eq!(steps(&test), 150);
    test.options.force = vec!["train".into()];
    assert_eq!(steps(&test), 150, "a forced training starts from nothing");
    test.options.force.clear();
    assert_eq!(steps(&test), 0);
}

#[test]
fn a_parameter_without_effect_runs_nothing() {
    let train = |params| TestPipeline::empty().stage::<Train>("train", params, &[]);
    let test = train(json!({ "rate": 2, "steps": 10, "save_every": 3 }));
    test.run();
    let test = test.edit::<Train>("train", "save_every", 4);
    assert_eq!(test.run().story(), "reused train\n");
    // Nor does a change of another parameter name it.
    let test = test.edit::<Train>("train", "save_every", 5).edit::<Train>("train", "rate", 3);
    assert_snapshot!(test.plan_story(), @"train stale: rate 2 -> 3 (toy.toml:7:9)");
}

#[test]
fn gc_keeps_what_the_pipelines_last_were() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let test = test.edit::<Shout>("shout", "mark", "?");
    test.run();
    let store = test.store();
    let report = store.gc(&GcPolicy::default(), &|| false).unwrap();
    assert!(report.removed["objects"].files > 0);
    assert!(!test.object("TWO!").exists());
    assert_eq!(test.run().story(), ALL_REUSED);
    assert_eq!(store.verify(false).unwrap().damaged, []);
}

#[test]
fn a_cache_that_cannot_be_made_is_an_error_with_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Store::open(&path.join("cache")).unwrap_err();
    assert!(matches!(error, StoreError::NotAFolder { .. }), "{error:?}");
    assert!(error.to_string().contains("file/cache"), "{error}");
}
