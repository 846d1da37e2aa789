//! Each reason as people read it, and what is none.

use serde_json::{Map, json};

use super::*;
use crate::{
    config::{LoadOptions, Pipeline, load_with},
    stages::STAGES,
};

#[test]
fn every_reason_is_a_sentence() {
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let place = Place { file: "pipelines/pose.toml".into(), line: 31, column: 8 };
    let reasons = [
        StaleReason::NeverRun,
        StaleReason::VersionChanged { old: 1, new: 2 },
        StaleReason::KindChanged { old: "transform".into(), new: "command".into() },
        changed("rank", &64, &32, Some(place)),
        changed("optimizer.lr", &"unset", &0.001, None),
        StaleReason::InputChanged { port: "pairs".into(), old, new },
        StaleReason::WeightsChanged { model: "builtin:tiny".into() },
        StaleReason::SourceChanged { path: "images/1.png".into(), change: SourceChange::Changed },
        StaleReason::SourceChanged { path: "images/2.png".into(), change: SourceChange::Deleted },
        changed("command", &"a\nb", &"c", None),
        StaleReason::SourceChanged { path: "images/\n3.png".into(), change: SourceChange::Added },
        StaleReason::OutputMissing { digest: old },
        StaleReason::RecordDamaged,
        StaleReason::Forced,
    ];
    let text = reasons.map(|reason| reason.to_string()).join("\n");
    let text = text.replace(&old.short(), "OLD").replace(&new.short(), "NEW");
    insta::assert_snapshot!(text, @r"
    never run
    stage version 1 -> 2
    kind transform -> command
    rank 64 -> 32 (pipelines/pose.toml:31:8)
    optimizer.lr unset -> 0.001
    input `pairs` changed (OLD -> NEW)
    the weights of `builtin:tiny` changed
    `images/1.png` changed
    `images/2.png` deleted
    command a\nb -> c
    `images/\n3.png` added
    its output OLD is gone from the cache or damaged
    its record in the cache is damaged
    forced
    ");
}

#[test]
fn another_data_set_is_no_other_version_of_the_stage() {
    let entry = STAGES.iter().find(|entry| entry.kind == "dataset").unwrap();
    let key = |source: &str, version: u32| {
        let params = json!({
            "source": { "source": source }, "task": "images", "size": [8, 8],
        });
        Ingredients {
            kind: entry.kind.to_owned(),
            version,
            output_format: 1,
            params: params.as_object().unwrap().clone(),
            inputs: BTreeMap::new(),
            weights: None,
            sources: BTreeMap::new(),
        }
    };
    let own = entry.version;
    let coco = (entry.revision)(&key("coco", own).params).unwrap();
    assert_eq!((coco, (entry.revision)(&key("folder", own).params)), (1, Some(0)));
    assert!(names_another(&key("coco", own + coco), &key("folder", own), entry));
    assert!(!names_another(&key("coco", own + coco), &key("folder", own + 1), entry));
    assert!(!names_another(&key("folder", own - 1), &key("folder", own), entry));
    assert!(!names_another(&key("of_old", own + 1), &key("folder", own), entry), "not known");
}

/// A stage of a kind with one parameter, with what it would be made from.
fn stage(kind: &str, param: &str, value: f64) -> (Pipeline, Ingredients) {
    let text = "name = 'a'\n[stages.one]\nkind = 'command'\ncommand = 'true'\noutputs = ['f']\n";
    let file = std::path::Path::new("a.toml");
    let loaded = load_with(STAGES, file, &LoadOptions::default(), &|_| Ok(text.to_owned()));
    let pipeline = loaded.unwrap_or_else(|errors| panic!("{}", errors.errors[0].message));
    let ingredients = Ingredients {
        kind: kind.to_owned(),
        version: 1,
        output_format: 1,
        params: Map::from_iter([(param.to_owned(), value.into())]),
        inputs: BTreeMap::from([("pairs".to_owned(), Digest::of(b"pairs"))]),
        weights: None,
        sources: BTreeMap::new(),
    };
    (pipeline, ingredients)
}

fn told(old: &Ingredients, new: &Ingredients, instance: &Instance) -> Vec<String> {
    differences(old, new, instance).iter().map(ToString::to_string).collect()
}

#[test]
fn a_number_that_differs_in_its_last_digit_is_said_to_have_changed() {
    let (pipeline, old) = stage("toy", "rate", 0.1);
    let (_, new) = stage("toy", "rate", 0.1_f64.next_up());
    assert_eq!(told(&old, &new, &pipeline.instances[0]), ["rate 0.1 -> 0.10000000000000002"]);
    // And one that was only stored is not.
    for number in [0.1, 261_573_697.235_922_34, f64::MIN_POSITIVE, 1e300] {
        let (_, now) = stage("toy", "rate", number);
        let stored = serde_json::from_str(&serde_json::to_string(&now).unwrap()).unwrap();
        assert_eq!(told(&stored, &now, &pipeline.instances[0]), [""; 0]);
    }
}

#[test]
fn another_kind_is_named_and_not_what_it_takes() {
    let (pipeline, old) = stage("transform", "hflip", 1.0);
    let (_, mut new) = stage("command", "rate", 2.0);
    new.version = 7;
    assert_eq!(told(&old, &new, &pipeline.instances[0]), ["kind transform -> command"]);
    new.inputs.insert("pairs".to_owned(), Digest::of(b"others"));
    assert_eq!(
        told(&old, &new, &pipeline.instances[0]).len(),
        2,
        "what it is given may be others, too"
    );
}
