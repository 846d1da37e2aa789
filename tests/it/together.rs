//! Two runs, or two stages, that want the same at once.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{fs, sync::mpsc};

use pipe::exec::{Executor, Outcome, RunEvent};
use serde_json::json;

use crate::{
    support::TestPipeline,
    toys::{Shout, Train, Words},
};

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
    for batch in [1, 4] {
        items_are_made_once(batch);
    }
}

fn items_are_made_once(batch: usize) {
    let words: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
    let made = |events: &[RunEvent]| -> usize {
        let items = events.iter().map(|event| match event {
            RunEvent::StageFinished { stage, items_run, .. } if stage.starts_with("shout") => {
                *items_run
            }
            _ => 0,
        });
        items.sum()
    };
    let wants = |test: TestPipeline, name: &str, words: &[String]| {
        let shout = json!({ "mark": "!", "millis": 5, "batch": batch });
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
fn trainings_on_one_trajectory_do_not_run_at_once() {
    let mut test = TestPipeline::empty()
        .stage::<Train>("short", json!({ "rate": 2, "steps": 100 }), &[])
        .stage::<Train>("long", json!({ "rate": 2, "steps": 300 }), &[]);
    test.options.jobs = 2;
    let run = test.run();
    assert_eq!(run.count(|event| matches!(event, RunEvent::StageProgress { .. })), 300);
    assert_eq!(run.summary.ran, 2);
}
