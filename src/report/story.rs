//! Reasons and estimates as sentences: what `run`, `plan` and `explain` say about a stage.

use super::style::duration;
use crate::plan::{Cause, Freshness, PlanNode, ResumePoint, StaleReason};

/// All reasons on one line.
pub fn reasons(reasons: &[StaleReason]) -> String {
    let words = reasons.iter().map(|reason| match reason {
        StaleReason::NeverRun => "new".to_owned(),
        reason => reason.to_string(),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The same of a stage that may run because of another. What its input was and is are then only
/// hashes that nobody asks for.
pub fn reasons_after(all: &[StaleReason], cause: Option<&Cause>) -> String {
    let Some(cause) = cause else { return reasons(all) };
    let words = all.iter().map(|reason| match reason {
        StaleReason::InputChanged { .. } => reason.brief(),
        reason => reasons(std::slice::from_ref(reason)),
    });
    format!("{}, {}", words.collect::<Vec<_>>().join(", "), cause.brief())
}

/// The first word of a line of the plan: `fresh`, `run`, `maybe` or `lacks`.
pub fn verb(freshness: &Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh(_) => "fresh",
        Freshness::Stale(_) => "run",
        Freshness::Pending { .. } => "maybe",
        Freshness::Blocked(_) => "lacks",
    }
}

/// Items, checkpoint and expected time of a stage that would run: `12 of 20 items, about 3.1 s`.
pub fn outlook(node: &PlanNode) -> String {
    let items = node.items.map(|items| format!("{} of {} items", items.uncached(), items.total));
    let goes_on = node.resumes_at.map(|ResumePoint { step, steps_total }| {
        format!("goes on at step {step} of {steps_total}")
    });
    let time = node.estimate_secs.map(|secs| format!("about {}", duration(secs)));
    items.into_iter().chain(goes_on).chain(time).collect::<Vec<_>>().join(", ")
}
