//! How stages are called: what their ends mean, in a run and in a verification.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{fs, path::Path};

use burn::tensor::Device;
use pipe::{
    config::{self, LoadOptions, Pipeline},
    exec::{ExecOptions, Executor, Outcome, RunEvent, Verdict, Verified, VerifyOptions},
    store::Store,
};
use serde_json::json;

use crate::{
    incremental::corrupt,
    support::TestPipeline,
    toys::{Cross, Letters, Words},
};

/// Verifies everything.
fn verify(test: &TestPipeline) -> Vec<Verified> {
    verified(&Executor::new(&test.store(), test.options.clone()), &test.pipeline)
}

fn verified(executor: &Executor<'_>, pipeline: &Pipeline) -> Vec<Verified> {
    let scratch = tempfile::tempdir().unwrap();
    let options =
        VerifyOptions { only: Vec::new(), sample: 1.0, seed: 0, tolerance: 0.0, twice: false };
    executor.verify(pipeline, scratch.path(), &options, &|_, _| {}, &mut |_| {}).unwrap()
}

#[test]
fn a_verification_tells_failures_as_a_run_does() {
    let test = TestPipeline::words(&["one", "two"]);
    test.run();
    assert!(verify(&test).iter().all(|verified| verified.verdict == Verdict::Identical));
    for (trap, wanted, text, remedy) in [
        ("panic-letters", Outcome::Bug, "the stage panicked: sprung", "please report it"),
        ("full-letters", Outcome::Environment, "the device ran out of memory", "`--jobs 1`"),
        ("lost-letters", Outcome::Environment, "CUDA_ERROR_ILLEGAL_ADDRESS", "run again"),
        ("fail-two", Outcome::Failed, "it is a trap", ""),
    ] {
        let path = test.trap(trap);
        let found = verify(&test);
        fs::remove_file(path).unwrap();
        let mut failed = found.iter().filter_map(|verified| match &verified.verdict {
            Verdict::Failed { outcome, message, item, help } => {
                Some((*outcome, message, item.clone().unwrap_or_default(), help))
            }
            _ => None,
        });
        let (outcome, message, item, help) = failed.next().unwrap();
        assert!(failed.next().is_none(), "{trap}: one stage fails, the others are still compared");
        assert_eq!(found.len(), 3, "{trap}");
        assert_eq!(outcome, wanted, "{trap}");
        assert!(message.contains(text), "{trap}: {message}");
        assert!(help.as_deref().unwrap_or_default().contains(remedy), "{trap}: {help:?}");
        assert_eq!(item, if trap == "fail-two" { "two" } else { "" });
    }
}

#[test]
fn what_does_not_fit_the_device_is_not_begun_by_a_verification() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.toml");
    let text = "name = \"text\"\n[stages.text]\nkind = \"text_encode\"\nmodel = \"builtin:tiny\"\n";
    fs::write(&file, text).unwrap();
    let pipeline = config::load(&file, &LoadOptions::default()).unwrap();
    let store = Store::open(&dir.path().join("cache")).unwrap();
    let mut options = ExecOptions::new(Device::flex(), "cpu");
    let run = Executor::new(&store, options.clone()).execute(&pipeline, &mut |_| {}).unwrap();
    assert_eq!(run.outcome, Outcome::Done);
    for (memory, fits) in [(u64::MAX, true), (1 << 10, false)] {
        options.memory = Some(memory);
        let [found] = &verified(&Executor::new(&store, options.clone()), &pipeline)[..] else {
            panic!("there is one stage")
        };
        match &found.verdict {
            Verdict::Identical => assert!(fits),
            Verdict::Failed { outcome: Outcome::Environment, message, .. } => {
                assert!(!fits && message.contains("the device has 1.0 KiB"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A pipeline of a stage that waits for a trap and one that reads weights, in `dir`.
fn with_weights(dir: &Path, model: &Path) -> Pipeline {
    let file = dir.join("text.toml");
    let model = model.display();
    let text = format!(
        "name = \"text\"\n[stages.a]\nkind = \"command\"\noutputs = [\"x\"]\n\
         command = \"while [ -e {}/hold ]; do sleep 0.01; done; echo > $OUT/x\"\n\
         [stages.b]\nkind = \"text_encode\"\nmodel = \"{model}\"\n",
        dir.display()
    );
    fs::write(&file, text).unwrap();
    config::load(&file, &LoadOptions::default()).unwrap()
}

#[test]
fn weights_that_are_replaced_before_a_stage_reads_them_decide_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny");
    for part in ["transformer", "text_encoder", "tokenizer", "vae", "scheduler"] {
        fs::create_dir_all(model.join(part)).unwrap();
        for file in fs::read_dir(builtin.join(part)).unwrap().flatten() {
            fs::copy(file.path(), model.join(part).join(file.file_name())).unwrap();
        }
    }
    let weights = fs::read_dir(model.join("text_encoder")).unwrap().flatten();
    let weights = weights.map(|file| file.path());
    let weights = weights.filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let [weights] = &weights.collect::<Vec<_>>()[..] else { panic!("one file") };
    let whole = fs::read(weights).unwrap();
    let pipeline = with_weights(dir.path(), &model);
    let mut options = ExecOptions::new(Device::flex(), "cpu");
    options.allow_commands = true;
    // What each stage gave.
    let run = |cache: &str, swap: bool| {
        let hold = dir.path().join("hold");
        if swap {
            fs::write(&hold, "").unwrap();
        }
        let store = Store::open(&dir.path().join(cache)).unwrap();
        let mut given = Vec::new();
        Executor::new(&store, options.clone())
            .execute(&pipeline, &mut |event| match event {
                RunEvent::StageStarted { stage, .. } if stage == "a" && swap => {
                    // `b` is decided by now, and waits.
                    let mut other = whole.clone();
                    let len = other.len();
                    other[len / 4..].fill(0);
                    fs::write(weights, other).unwrap();
                    fs::remove_file(&hold).unwrap();
                }
                RunEvent::StageFinished { stage, digest, .. }
                | RunEvent::StageReused { stage, digest, .. } => given.push((stage, digest)),
                _ => {}
            })
            .unwrap();
        given
    };
    let wanted = run("clean", false);
    let swapped = run("cache", true);
    assert_ne!(swapped[1], wanted[1], "the other weights give other text");
    fs::write(weights, &whole).unwrap();
    assert_eq!(run("cache", false), wanted, "nothing of the others is under the key of these");
}

#[test]
fn a_crossed_stage_is_verified_under_the_names_it_gave() {
    let test = TestPipeline::empty()
        .stage::<Words>("words", json!({ "words": ["one", "two"] }), &[])
        .stage::<Words>("marks", json!({ "words": ["a", "b"] }), &[])
        .stage::<Cross>("cross", json!({}), &[("words", "words"), ("marks", "marks")]);
    test.run();
    assert_eq!(test.text("cross", "a/two"), "twoa");
    assert!(verify(&test).iter().all(|verified| verified.verdict == Verdict::Identical));
}

#[test]
fn what_waits_for_an_input_that_comes_out_otherwise_is_decided_again() {
    let test = TestPipeline::empty();
    let trap = test.dir.path().join("traps");
    let mut test = test
        .stage::<Words>("words", json!({ "words": ["one", "two"], "trap": trap }), &[])
        .stage::<Letters>("first", json!({ "step": 1 }), &[("words", "words")])
        .stage::<Letters>("second", json!({ "step": 2 }), &[("words", "words")]);
    test.options.only = vec!["words".into()];
    test.run();
    test.options.only.clear();
    // `first` finds the damage while `second` waits for it with the old input in hand.
    corrupt(&test.object("two"), true);
    test.trap("other-words");
    let run = test.run();
    assert_eq!(run.summary.outcome, Outcome::Done, "{}", run.story());
    assert_eq!(run.summary.ran, 3, "{}", run.story());
    assert_eq!([test.text("first", "letters"), test.text("second", "letters")], ["8", "8"]);
}

#[test]
fn no_more_stages_start_than_there_are_workers_for() {
    let test = TestPipeline::empty();
    let trap = test.trap("fail-words");
    let mut test = test;
    for i in 0..300 {
        let params = json!({ "words": [format!("w{i}")], "trap": trap.parent().unwrap() });
        test = test.stage::<Words>(&format!("words{i}"), params, &[]);
    }
    test.options.jobs = 1000;
    let run = test.run();
    let started = run.count(|event| matches!(event, RunEvent::StageStarted { .. }));
    assert!((1..=256).contains(&started), "{started} of 300 started although the first failed");
    assert_eq!(run.summary.outcome, Outcome::Failed);
}
