//! How long a stage may take, in proportion to its work, and the disk space that a run adds.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use pipe::plan::{DiskPlan, Freshness};
use serde_json::{Value, json};

use crate::{
    support::TestPipeline,
    toys::{Shout, Train, Words},
};

/// The bytes that a run is estimated to add to the cache.
fn bytes(test: &TestPipeline) -> u64 {
    DiskPlan::new(&test.plan(), &test.store()).unwrap().total()
}

/// The estimate of a stage, in seconds.
fn estimate(test: &TestPipeline, stage: &str) -> Option<f64> {
    test.plan().nodes[test.index(stage)].estimate_secs
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b
}

#[test]
fn more_steps_take_longer() {
    let train = |steps: u64| {
        TestPipeline::empty().stage::<Train>("train", json!({ "rate": 3, "steps": steps }), &[])
    };
    let test = train(4);
    assert_eq!(estimate(&test, "train"), None);
    test.run();
    let took = estimate(&test, "train").unwrap();
    let longer = test.edit::<Train>("train", "steps", 12);
    assert!(is_close(estimate(&longer, "train").unwrap(), 3.0 * took));
    let other = longer.edit::<Train>("train", "rate", 5);
    assert!(is_close(estimate(&other, "train").unwrap(), 3.0 * took));
}

#[test]
fn only_the_items_that_are_not_cached_take_time() {
    let test = TestPipeline::words(&["a", "b"]);
    test.run();
    let took = estimate(&test, "shout").unwrap();
    let words = |words: &[&str]| Value::from(words.to_vec());
    let more = test.edit::<Words>("words", "words", words(&["a", "b", "c"]));
    more.run();
    // One of three items was made, the two others were there.
    let one = estimate(&more, "shout").unwrap();
    let all = more.edit::<Shout>("shout", "mark", "?");
    assert!(is_close(estimate(&all, "shout").unwrap(), 3.0 * one), "{took} {one}");
}

#[test]
fn a_new_stage_takes_what_its_kind_took_elsewhere() {
    let test = TestPipeline::empty()
        .stage::<Words>("words", json!({ "words": ["a", "b"] }), &[])
        .stage::<Shout>("shout", json!({ "mark": "!" }), &[("words", "words")]);
    test.run();
    let took = estimate(&test, "shout").unwrap();
    let more = test.stage::<Shout>("louder", json!({ "mark": "!!" }), &[("words", "words")]);
    assert!(is_close(estimate(&more, "louder").unwrap(), took));
}

#[test]
fn a_longer_training_adds_its_own_states_and_not_those_of_others() {
    let test = TestPipeline::empty().stage::<Train>("train", json!({ "rate": 3, "steps": 4 }), &[]);
    test.run();
    assert_eq!(bytes(&test), 0);
    let Freshness::Fresh(record) = &test.plan().nodes[0].freshness else { panic!() };
    let folder = test.store().checkpoints(record.trajectory.unwrap()).unwrap().path().to_owned();
    for step in [1, 2, 3, 4] {
        let name = format!("final-{step:08}-ab.safetensors");
        std::fs::write(folder.join(name), vec![0; 100_000]).unwrap();
    }
    // Its last state, and one on the way, beside a few bytes of output.
    let longer = bytes(&test.edit::<Train>("train", "steps", 12));
    assert!((200_000..201_000).contains(&longer), "{longer}");
}

#[test]
fn a_training_whose_last_state_is_there_adds_only_its_output() {
    let test = TestPipeline::empty().stage::<Train>("train", json!({ "rate": 3, "steps": 4 }), &[]);
    test.run();
    let Freshness::Fresh(record) = &test.plan().nodes[0].freshness else { panic!() };
    let folder = test.store().checkpoints(record.trajectory.unwrap()).unwrap().path().to_owned();
    std::fs::write(folder.join("final-00000003-ab.safetensors"), vec![0; 100_000]).unwrap();
    let shorter = bytes(&test.edit::<Train>("train", "steps", 3));
    assert!((1..1000).contains(&shorter), "{shorter}");
}
