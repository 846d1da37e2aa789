//! Each reason as people read it, and what is none.

use serde_json::json;

use super::*;
use crate::stages::STAGES;

#[test]
fn every_reason_is_a_sentence() {
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let place = Place { file: "pipelines/pose.toml".into(), line: 31, column: 8 };
    let reasons = [
        StaleReason::NeverRun,
        StaleReason::VersionChanged { old: 1, new: 2 },
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

#[test]
fn a_number_that_was_stored_is_not_said_to_have_changed() {
    let number = Value::from(261_573_697.235_922_34);
    let stored: Value = serde_json::from_str(&number.to_string()).unwrap();
    assert!(same(Some(&stored), Some(&number)));
    assert!(!same(Some(&Value::from(0.1)), Some(&Value::from(0.100_000_01))));
    assert!(!same(None, Some(&number)));
}
