//! What fails, panics or is killed, and what a run makes of it.

use std::fs;

use insta::assert_snapshot;
use pipe::{
    exec::{Executor, Outcome},
    store::Store,
};
use serde_json::json;

use crate::{
    support::TestPipeline,
    toys::{Clumsy, Shout, Words},
};

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
        .args(["--exact", "failures::child_that_dies", "--ignored"])
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
