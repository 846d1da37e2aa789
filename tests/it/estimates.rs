//! How long a stage may take, in proportion to its work.

use serde_json::{Value, json};

use crate::support::{Shout, TestPipeline, Train, Words};

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
