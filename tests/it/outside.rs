//! Files from outside that take long to hash.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pipe::{
    exec::{Executor, Outcome, RunEvent},
    store::Store,
};
use serde_json::json;

use crate::{
    support::{Run, TestPipeline},
    toys::{Texts, Words},
};

/// More than the walk hashes itself.
const LARGE: u64 = 65 << 20;

/// `texts` reads a large file, whose hash is not known to the next run, and has run; `words` reads
/// none, and is new.
fn large() -> TestPipeline {
    let test = TestPipeline::empty();
    let folder = test.dir.path().join("texts");
    fs::create_dir(&folder).unwrap();
    fs::File::create(folder.join("large.txt")).unwrap().set_len(LARGE).unwrap();
    let traps = test.dir.path().join("traps");
    let test = test.stage::<Texts>("texts", json!({ "root": folder }), &[]);
    assert_eq!(test.run().summary.outcome, Outcome::Done);
    test.stage::<Words>("words", json!({ "words": ["one"], "trap": traps }), &[])
}

fn run(test: &TestPipeline, store: &Store, on_event: &mut dyn FnMut(&RunEvent)) -> Run {
    let mut events = Vec::new();
    let executor = Executor::new(store, test.options.clone());
    let executed = executor.execute(&test.pipeline, &mut |event| {
        on_event(&event);
        events.push(event);
    });
    Run { events, summary: executed.unwrap() }
}

#[test]
fn who_is_interrupted_while_files_are_hashed_stops_at_once_and_fails_nothing() {
    let test = large();
    let cancel = test.options.cancel.clone();
    // Ctrl-C, after a part of the file.
    let asked = AtomicBool::new(false);
    let store = test.store().stopped_by(move || {
        if asked.swap(true, Ordering::Relaxed) {
            cancel.cancel();
        }
        cancel.is_cancelled()
    });
    let run = run(&test, &store, &mut |_| {});
    assert_eq!(run.summary.outcome, Outcome::Interrupted);
    assert_eq!(
        (run.summary.failed, run.count(|e| matches!(e, RunEvent::StageFailed { .. }))),
        (0, 0)
    );
}

#[test]
fn other_stages_start_while_much_is_hashed() {
    let test = large();
    let has_run = Arc::new(AtomicBool::new(false));
    let waits_for = Arc::clone(&has_run);
    // Hashing takes until the other stage has run.
    let store = test.store().stopped_by(move || {
        let start = Instant::now();
        while !waits_for.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    });
    let run = run(&test, &store, &mut |event| {
        if matches!(event, RunEvent::StageFinished { .. }) {
            has_run.store(true, Ordering::Relaxed);
        }
    });
    insta::assert_snapshot!(run.story(), @r"
    ran words (1 of 1): never run
    reused texts
    ");
}
