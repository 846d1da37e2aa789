//! Reasons and estimates as sentences: what `run`, `plan` and `explain` say about a stage.

use super::style::duration;
use crate::plan::{Freshness, PlanNode, StaleReason};

/// Why a stage runs, in a few words with the place of the change.
pub fn reason(reason: &StaleReason) -> String {
    match reason {
        StaleReason::NeverRun => "new".to_owned(),
        StaleReason::VersionChanged { old, new } => {
            format!("the stage's version {old} -> {new}")
        }
        StaleReason::ParamChanged { path, old, new, place } => match place {
            Some(place) => format!("{path} {old} -> {new} ({place})"),
            None => format!("{path} {old} -> {new}"),
        },
        StaleReason::InputChanged { port, .. } => format!("input `{port}` changed"),
        StaleReason::WeightsChanged { model } => format!("weights of `{model}` changed"),
        StaleReason::SourceChanged { path } => format!("file `{path}` changed"),
        StaleReason::OutputMissing { .. } => "output gone or damaged".to_owned(),
        StaleReason::Forced => "forced".to_owned(),
    }
}

/// All reasons on one line.
pub fn reasons(reasons: &[StaleReason]) -> String {
    reasons.iter().map(reason).collect::<Vec<_>>().join(", ")
}

/// The first word of a line of the plan: `fresh`, `run` or `maybe`.
pub fn verb(freshness: &Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh(_) => "fresh",
        Freshness::Stale(_) => "run",
        Freshness::Pending { .. } => "maybe",
    }
}

/// Items and expected time of a stage that would run: `12 of 20 items, about 3.1 s`.
pub fn outlook(node: &PlanNode) -> String {
    let items = node.items.map(|(cached, all)| format!("{} of {all} items", all - cached));
    let time = node.estimate_secs.map(|secs| format!("about {}", duration(secs)));
    items.into_iter().chain(time).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Place, store::Digest};

    #[test]
    fn each_reason_has_its_words() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let place = Place { file: "pipelines/pose_ablation.toml".into(), line: 31, column: 8 };
        let param = |place| StaleReason::ParamChanged {
            path: "rank".into(),
            old: "64".into(),
            new: "32".into(),
            place,
        };
        let all = [
            StaleReason::NeverRun,
            StaleReason::VersionChanged { old: 1, new: 2 },
            param(Some(place)),
            param(None),
            StaleReason::InputChanged { port: "latents".into(), old, new },
            StaleReason::WeightsChanged { model: "builtin:tiny".into() },
            StaleReason::SourceChanged { path: "val2017/000000000139.jpg".into() },
            StaleReason::OutputMissing { digest: old },
            StaleReason::Forced,
        ];
        let lines: Vec<_> = all.iter().map(reason).collect();
        insta::assert_snapshot!(lines.join("\n"), @"");
    }
}
