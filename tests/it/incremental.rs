//! Run, change one thing, run: which stages ran, and why.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{fs, sync::mpsc};

use insta::assert_snapshot;
use pipe::{
    exec::{ExecError, Executor, Outcome, RunEvent},
    plan::{Freshness, Lack},
    store::{GcPolicy, Store, StoreError},
};
use serde_json::json;

use crate::support::{Clumsy, Cross, Letters, Shout, TestPipeline, Texts, Train, Words};

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
fn two_runs_at_once_compute_each_key_once() {
    let test = TestPipeline::words(&["one", "two"]);
    let hold = test.trap("hold-words");
    let (started, starts) = mpsc::channel();
    let run = |on_event: &mut dyn FnMut(&RunEvent)| {
        let store = test.store();
        let executor = Executor::new(&store, test.options.clone());
        executor.execute(&test.pipeline, &mut |event| on_event(&event)).unwrap()
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            run(&mut |event| {
                if matches!(event, RunEvent::StageStarted { .. }) {
                    let _ = started.send(());
                }
            })
        });
        starts.recv().unwrap();
        let mut waits = 0;
        let second = run(&mut |event| {
            if matches!(event, RunEvent::StageWaiting { .. }) {
                waits += 1;
                // The first goes on only once the second was seen to wait.
                let _ = fs::remove_file(&hold);
            }
        });
        assert!(waits >= 1);
        (first.join().unwrap(), second)
    });
    assert_eq!(first.ran + second.ran, 3);
    assert_eq!(first.reused + second.reused, 3);
}

/// Two runs of pipelines at once, each in a thread with a store of its own.
fn at_once(first: &TestPipeline, second: &TestPipeline) -> [Vec<RunEvent>; 2] {
    let start = std::sync::Barrier::new(2);
    let run = |test: &TestPipeline| {
        let (store, mut events) = (test.store(), Vec::new());
        let executor = Executor::new(&store, test.options.clone());
        start.wait();
        let summary = executor.execute(&test.pipeline, &mut |event| events.push(event)).unwrap();
        assert_eq!(summary.outcome, Outcome::Done);
        events
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run(first));
        let second = run(second);
        [first.join().unwrap(), second]
    })
}

#[test]
fn two_runs_at_once_share_what_does_not_depend_on_each_other() {
    let mut test = TestPipeline::empty();
    for i in 0..8 {
        // Slow enough that each run meets what the other is at.
        let params = json!({ "words": [format!("w{i}")], "millis": 50 });
        test = test.stage::<Words>(&format!("words{i}"), params, &[]);
    }
    let ran = |events: &Vec<RunEvent>| {
        events.iter().filter(|event| matches!(event, RunEvent::StageFinished { .. })).count()
    };
    let [first, second] = at_once(&test, &test).map(|events| ran(&events));
    assert_eq!(first + second, 8, "each key is computed once");
    assert!(first >= 1 && second >= 1, "{first} and {second}: one waited for the other");
}

#[test]
fn items_that_two_stages_want_at_once_are_made_once() {
    let words: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
    let made = |events: &[RunEvent]| -> usize {
        let items = events.iter().map(|event| match event {
            RunEvent::StageFinished { stage, items: (run, _), .. }
                if stage.starts_with("shout") =>
            {
                *run
            }
            _ => 0,
        });
        items.sum()
    };
    let wants = |test: TestPipeline, name: &str, words: &[String]| {
        let shout = json!({ "mark": "!", "millis": 5 });
        test.stage::<Words>(&format!("words-{name}"), json!({ "words": words }), &[])
            .stage::<Shout>(&format!("shout-{name}"), shout, &[("words", &format!("words-{name}"))])
    };
    // In one run, and in two.
    let mut test = wants(wants(TestPipeline::empty(), "few", &words[..24]), "all", &words);
    test.options.jobs = 2;
    let (store, mut events) = (test.store(), Vec::new());
    Executor::new(&store, test.options.clone())
        .execute(&test.pipeline, &mut |event| events.push(event))
        .unwrap();
    assert_eq!(made(&events), 40);
    assert_eq!(test.text("shout-few", "w7"), "W7!");
    assert_eq!(test.text("shout-all", "w39"), "W39!");

    let few = wants(TestPipeline::empty(), "few", &words[..24]);
    let all = wants(TestPipeline::at(few.dir.clone()), "all", &words);
    let [first, second] = at_once(&few, &all);
    assert_eq!(made(&first) + made(&second), 40);
    assert_eq!(all.text("shout-all", "w7"), "W7!");
}

#[test]
fn a_failure_stops_its_dependants_and_names_the_item() {
    let test = TestPipeline::words(&["one", "two"]).stage::<Words>(
        "apart",
        json!({ "words": ["x"] }),
        &[],
    );
    let trap = test.trap("fail-two");
    let run = test.run();
    assert_snapshot!(run.story(), @r"
    ran words (2 of 2): never run
    failed shout at two: it is a trap
    skipped letters: shout failed
    ");
    assert_eq!(run.summary.outcome, Outcome::Failed);
    assert_eq!((run.summary.failed, run.summary.skipped), (1, 2));
    fs::remove_file(trap).unwrap();
    // The item that was finished before the failure is kept.
    assert_snapshot!(test.run().story(), @r"
    reused words
    ran shout (1 of 2): never run
    ran letters (1 of 1): never run
    ran apart (1 of 1): never run
    ");
}

#[test]
fn keep_going_finishes_what_does_not_depend_on_the_failure() {
    let mut test = TestPipeline::words(&["one", "two"]).stage::<Words>(
        "apart",
        json!({ "words": ["x"] }),
        &[],
    );
    test.options.keep_going = true;
    test.trap("fail-two");
    let run = test.run();
    assert_snapshot!(run.story(), @r"
    ran words (2 of 2): never run
    failed shout at two: it is a trap
    skipped letters: shout failed
    ran apart (1 of 1): never run
    ");
    assert_eq!(run.summary.outcome, Outcome::Failed);
}

#[test]
fn a_panic_is_a_failure_that_says_it_is_a_bug() {
    let test = TestPipeline::words(&["one", "two"]);
    test.trap("panic-letters");
    let run = test.run();
    assert_snapshot!(run.story(), @r"
    ran words (2 of 2): never run
    ran shout (2 of 2): never run
    failed letters: the stage panicked: sprung (this is a bug in pipe; please report it with this file)
    ");
    assert_eq!(run.summary.outcome, Outcome::Bug);
    assert!(test.plan_story().starts_with("words fresh\nshout fresh"), "{}", test.plan_story());
}

#[test]
fn a_full_device_fails_one_stage_and_leaves_the_next_able_to_run() {
    let mut test = TestPipeline::words(&["one", "two"]);
    test.options.keep_going = true;
    let trap = test.trap("full-letters");
    let test = test.stage::<Words>("after", json!({ "words": ["late"] }), &[]);
    let run = test.run();
    let story = run.story();
    let failed = "failed letters: the device ran out of memory; how much it needs was not known \
                  beforehand (run fewer stages at once (`--jobs 1`); or see that no other program \
                  uses the device)";
    assert!(story.contains(failed), "{story}");
    assert!(story.contains("ran after"), "{story}");
    assert_eq!(run.summary.outcome, Outcome::Environment);
    assert!(test.plan_story().contains("shout fresh"), "{}", test.plan_story());
    fs::remove_file(trap).unwrap();
    assert_eq!(test.run().summary.outcome, Outcome::Done, "the cache is whole");
}

#[test]
fn a_lost_device_is_no_bug_of_ours() {
    let test = TestPipeline::words(&["one", "two"]);
    test.trap("lost-letters");
    let run = test.run();
    let story = run.story();
    let failed = "failed letters: the device is lost to this process: CUDA_ERROR_ILLEGAL_ADDRESS \
                  (run again; what is done stays done)";
    assert!(story.contains(failed), "{story}");
    assert_eq!(run.summary.outcome, Outcome::Environment);
}

#[test]
fn a_panic_beside_a_stage_ends_the_run_too() {
    let test = TestPipeline::empty().stage::<Clumsy>("clumsy", json!({}), &[]);
    let run = test.run();
    assert_snapshot!(run.story(), @"failed clumsy: the stage panicked: dropped a cup (this is a bug in pipe; please report it with this file)");
    assert_eq!(run.summary.outcome, Outcome::Bug);
}

#[test]
fn an_interrupted_run_keeps_finished_items() {
    let test = TestPipeline::words(&["one", "two", "three"]);
    let trap = test.trap("cancel-two");
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Interrupted);
    fs::remove_file(trap).unwrap();
    let mut test = test;
    test.options.cancel = pipe::stages::CancelFlag::default();
    assert!(test.run().story().contains("ran shout (1 of 3)"));
}

/// Run as a process of its own by the test below, which has it die.
#[test]
#[ignore = "a part of another test"]
fn child_that_dies() {
    let dir = std::env::var("PIPE_TEST_DIR").unwrap();
    let store = Store::open(&std::path::Path::new(&dir).join("cache")).unwrap();
    let test = TestPipeline::words(&["one", "two", "three"]);
    let trap = std::path::Path::new(&dir).join("traps");
    let test = test.edit::<Shout>("shout", "trap", trap.to_str().unwrap());
    let _ = Executor::new(&store, test.options.clone()).execute(&test.pipeline, &mut |_| {});
}

#[test]
fn a_killed_run_leaves_a_cache_that_goes_on() {
    let test = TestPipeline::words(&["one", "two", "three"]);
    let trap = test.trap("abort-three");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "incremental::child_that_dies", "--ignored"])
        .env("PIPE_TEST_DIR", test.dir.path())
        .output()
        .unwrap();
    assert!(!child.status.success());
    fs::remove_file(trap).unwrap();
    assert_snapshot!(test.run().story(), @r"
    reused words
    ran shout (1 of 3): never run
    ran letters (1 of 1): never run
    ");
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
fn trainings_on_one_trajectory_do_not_run_at_once() {
    let mut test = TestPipeline::empty()
        .stage::<Train>("short", json!({ "rate": 2, "steps": 100 }), &[])
        .stage::<Train>("long", json!({ "rate": 2, "steps": 300 }), &[]);
    test.options.jobs = 2;
    let run = test.run();
    assert_eq!(run.count(|event| matches!(event, RunEvent::StageProgress { .. })), 300);
    assert_eq!(run.summary.ran, 2);
}

#[test]
fn gc_keeps_what_the_pipelines_last_were() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    let test = test.edit::<Shout>("shout", "mark", "?");
    test.run();
    let store = test.store();
    let report = store.gc(&GcPolicy::default()).unwrap();
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
