//! Many stages and many items.

use std::{
    fmt::Write,
    io,
    path::Path,
    time::{Duration, Instant},
};

use pipe::{
    artifact::{ArtifactKind, Item, Manifest},
    config::{LoadOptions, Pipeline, load_with},
    plan::{self, Freshness, PlanOptions},
    stages::STAGES,
    store::Store,
};
use serde_json::json;

use crate::{
    support::TestPipeline,
    toys::{Shout, Words},
};

/// Shell stages in a row.
fn chain(stages: usize) -> Pipeline {
    let mut text = String::new();
    for i in 0..stages {
        let input = i.checked_sub(1).map(|i| format!("input = \"s{i}\"")).unwrap_or_default();
        writeln!(text, "[stages.s{i}]\nkind = \"command\"\ncommand = \"echo {i} > $OUT/f\"")
            .unwrap();
        writeln!(text, "outputs = [\"f\"]\ninputs = {{ {input} }}").unwrap();
    }
    let read = |path: &Path| {
        if path == Path::new("chain.toml") {
            Ok(text.clone())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    };
    let loaded = load_with(STAGES, Path::new("chain.toml"), &LoadOptions::default(), &read);
    loaded.unwrap_or_else(|errors| panic!("{}", errors.errors[0].message))
}

#[test]
fn a_chain_of_ten_thousand_stages_needs_no_deep_stack() {
    const STAGES: usize = 10_000;
    let work = || {
        let pipeline = chain(STAGES);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let plan = plan::build(&pipeline, &store, &PlanOptions::default()).unwrap();
        let pending = |node: &&plan::PlanNode| matches!(node.freshness, Freshness::Pending { .. });
        assert_eq!(plan.nodes.iter().filter(pending).count(), STAGES - 1);
        let cause = plan.cause(STAGES - 1).unwrap();
        assert_eq!((cause.stage.as_str(), cause.more), ("s0", 0));
        // To need the last one is to need all.
        let only = PlanOptions { only: vec![format!("s{}", STAGES - 1)], ..PlanOptions::default() };
        let plan = plan::build(&pipeline, &store, &only).unwrap();
        assert!(plan.nodes.iter().all(|node| node.needed));
    };
    // A frame for each stage would not fit.
    std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_list_of_100_000_items_is_read_and_checked_in_seconds() {
    const ITEMS: usize = 100_000;
    // It takes a second or so; the rest is for machines that do other things, too.
    const MOST: Duration = Duration::from_secs(20);
    let dir = tempfile::tempdir().unwrap();
    let digest = {
        let store = Store::open(dir.path()).unwrap();
        let file = store.put(b"the same for all").unwrap();
        let item =
            |at| Item { name: format!("word{at:06}"), files: [("f".to_owned(), file)].into() };
        let items = (0..ITEMS).map(item).collect();
        let kind = ArtifactKind::Metrics;
        let manifest = Manifest { kind, format_version: kind.format_version(), items };
        store.put_manifest(&manifest).unwrap()
    };
    let start = Instant::now();
    let store = Store::look(dir.path()).unwrap();
    let manifest = store.complete(digest).unwrap();
    let mut digests: Vec<_> = manifest.items.iter().map(Item::digest).collect();
    let took = start.elapsed();
    digests.dedup();
    assert_eq!((manifest.items.len(), digests.len()), (ITEMS, 1));
    assert!(took < MOST, "{took:?}");
}

/// `TMPDIR=/dev/shm cargo test --release --test it -- --ignored of_100_000_items --nocapture`
#[test]
#[ignore = "a figure, not a check; takes minutes"]
fn one_of_100_000_items_changes() {
    const ITEMS: usize = 100_000;
    let names: Vec<String> = (0..ITEMS).map(|i| format!("word{i:06}")).collect();
    let mut words: Vec<&str> = names.iter().map(String::as_str).collect();
    let test = TestPipeline::empty()
        .stage::<Words>("words", json!({ "words": words }), &[])
        .stage::<Shout>("shout", json!({ "mark": "!" }), &[("words", "words")]);
    let timed = |what: &str, work: &mut dyn FnMut() -> String| {
        let start = Instant::now();
        let story = work();
        println!("{what}: {:.2?}\n{story}", start.elapsed());
        story
    };
    timed("first run", &mut || test.run().story());
    let reused = timed("nothing to do", &mut || test.run().story());
    assert_eq!(reused, "reused words\nreused shout\n");
    timed("plan", &mut || test.plan_story());
    words[ITEMS / 2] = "changed";
    let test = test.edit::<Words>("words", "words", json!(words));
    let story = timed("one item changed", &mut || test.run().story());
    assert!(story.contains("ran shout (1 of 100000)"), "{story}");
}
