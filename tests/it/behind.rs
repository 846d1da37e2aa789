//! A cache behind the store, asked by a plan.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use pipe::{
    plan::{self, PlanOptions},
    store::{Behind, Fingerprint, NewResult, Record, Store, Trace},
};
use serde_json::json;

use crate::{
    support::TestPipeline,
    toys::{Cross, Shout, Words},
};

/// Has nothing, and takes its time to say so.
#[derive(Debug, Default)]
struct Far {
    asked: Mutex<BTreeSet<String>>,
    asking: AtomicUsize,
    busiest: AtomicUsize,
}

impl Behind for Far {
    fn bring(&self, _: &Store, _: Fingerprint, name: &dyn fmt::Display) -> Option<Record> {
        self.asked.lock().unwrap().insert(name.to_string());
        let now = self.asking.fetch_add(1, Ordering::SeqCst) + 1;
        self.busiest.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        self.asking.fetch_sub(1, Ordering::SeqCst);
        None
    }

    fn bring_items(&self, _: &Store, _: &[Fingerprint]) {}

    fn traces(&self, _: Fingerprint, _: Option<Fingerprint>) -> Vec<Trace> {
        Vec::new()
    }

    fn made(&self, _: NewResult) {}
}

/// Brings whole results from another store, and no record of an item.
#[derive(Debug)]
struct Whole(Store);

impl Behind for Whole {
    fn bring(&self, store: &Store, key: Fingerprint, _: &dyn fmt::Display) -> Option<Record> {
        let record = self.0.lookup(key).unwrap().found()?;
        let manifest = self.0.manifest(record.output).unwrap();
        store.put_manifest(&manifest).unwrap();
        for file in manifest.files() {
            store.put(&self.0.read(file).unwrap()).unwrap();
        }
        store.commit(&record).unwrap();
        Some(record)
    }

    fn bring_items(&self, _: &Store, _: &[Fingerprint]) {}

    fn traces(&self, _: Fingerprint, _: Option<Fingerprint>) -> Vec<Trace> {
        Vec::new()
    }

    fn made(&self, _: NewResult) {}
}

#[test]
fn what_was_brought_whole_is_known_item_by_item() {
    let crossed = |dir: Option<&TestPipeline>, words: &[&str], marks: &[&str]| {
        let test =
            dir.map_or_else(TestPipeline::empty, |other| TestPipeline::at(other.dir.clone()));
        test.stage::<Words>("words", json!({ "words": words }), &[])
            .stage::<Words>("marks", json!({ "words": marks }), &[])
            .stage::<Shout>("shout", json!({ "mark": "!" }), &[("words", "words")])
            .stage::<Cross>("cross", json!({}), &[("words", "shout"), ("marks", "marks")])
    };
    let (words, marks) = (["one", "two", "three"], ["!", "?"]);
    let elsewhere = crossed(None, &words, &marks);
    elsewhere.run();
    let here = crossed(None, &words, &marks);
    let store = here.store().with_behind(Arc::new(Whole(elsewhere.store())));
    plan::build(&here.pipeline, &store, &PlanOptions::default()).unwrap();
    // Without the other store, after a change of one word.
    let changed = crossed(Some(&here), &["one", "2", "three"], &marks);
    let story = changed.run().story();
    assert!(story.contains("ran shout (1 of 3)"), "{story}");
    assert!(story.contains("ran cross (2 of 6)"), "{story}");
    assert_eq!(changed.text("cross", "?/three"), "THREE!?");
    // What was once here only as a whole, as after `pipe cache pull --all` and a run.
    std::fs::remove_dir_all(changed.dir.path().join("cache/items")).unwrap();
    let changed = crossed(Some(&here), &["one", "2", "3"], &marks);
    let story = changed.run().story();
    assert!(story.contains("ran shout (1 of 3)"), "{story}");
    assert!(story.contains("ran cross (2 of 6)"), "{story}");
}

/// Twelve stages that nothing is before, each with one behind it.
fn many(dir: Arc<tempfile::TempDir>) -> TestPipeline {
    (0..12).fold(TestPipeline::at(dir), |test, at| {
        let traps = test.dir.path().join("traps");
        let words = format!("words_{at}");
        test.stage::<Words>(&words, json!({ "words": [format!("{at}")], "trap": traps }), &[])
            .stage::<Shout>(
                &format!("shout_{at}"),
                json!({ "mark": "!", "trap": traps }),
                &[("words", &words)],
            )
    })
}

fn asked(test: &TestPipeline, only: &[&str]) -> Arc<Far> {
    let far = Arc::new(Far::default());
    let store = test.store().with_behind(Arc::clone(&far) as _);
    let only = only.iter().map(|name| (*name).to_owned()).collect();
    plan::build(&test.pipeline, &store, &PlanOptions { only, ..PlanOptions::default() }).unwrap();
    far
}

#[test]
fn what_a_plan_asks_a_cache_afar_it_asks_at_once() {
    let test = many(Arc::new(tempfile::tempdir().unwrap()));
    let far = asked(&test, &[]);
    assert_eq!(far.asked.lock().unwrap().len(), 12);
    assert!(far.busiest.load(Ordering::SeqCst) >= 8, "{far:?}");
    // What is known here is not asked for, and what comes after it is.
    test.run();
    let edited = many(Arc::clone(&test.dir)).edit::<Shout>("shout_3", "mark", "?");
    let far = asked(&edited.edit::<Shout>("shout_5", "mark", "?"), &[]);
    let names: Vec<_> = far.asked.lock().unwrap().iter().cloned().collect();
    assert_eq!(names, ["shout_3", "shout_5"]);
}

#[test]
fn what_was_not_asked_for_is_not_fetched() {
    let far = asked(&many(Arc::new(tempfile::tempdir().unwrap())), &["shout_7"]);
    assert_eq!(*far.asked.lock().unwrap(), BTreeSet::from(["words_7".to_owned()]));
}
