//! Where the changes of a run began: a stage whose input changed runs because a stage above it did.

use std::collections::HashMap;

use crate::plan::{Beginnings, Cause, Decider, StaleReason};

/// The changes that the instances ran for in this run.
pub(super) struct Causes {
    /// By index; none for what was reused.
    beginnings: Vec<Beginnings>,
    /// The reasons of those where a change began.
    reasons: HashMap<usize, Vec<StaleReason>>,
}

impl Causes {
    pub(super) fn new(instances: usize) -> Self {
        Self { beginnings: vec![Beginnings::default(); instances], reasons: HashMap::new() }
    }

    /// Learns that an instance runs; says because of whom, if not only because of itself.
    pub(super) fn runs(
        &mut self,
        decider: &Decider<'_>,
        index: usize,
        reasons: &[StaleReason],
    ) -> Option<Cause> {
        let instances = &decider.pipeline.instances;
        let above = self.above(decider, index, reasons);
        let cause = above.first().map(|(root, more)| {
            let ours = self.reasons.get(&root).cloned();
            let earlier = ours.is_none();
            let reasons = ours.or_else(|| decider.changed_for(root)).unwrap_or_default();
            Cause::new(&instances[index], &instances[root], &reasons, more, earlier)
        });
        // What its inputs changed for is not its own reason, unless nothing is known of that.
        let own = reasons.iter().filter(|reason| cause.is_none() || !reason.is_of_input());
        self.reasons.insert(index, own.cloned().collect());
        self.beginnings[index] = Beginnings::through(index, reasons, above);
        cause
    }

    /// Where the changes of an instance's inputs began, in this run or in an earlier one.
    fn above(&self, decider: &Decider<'_>, index: usize, reasons: &[StaleReason]) -> Beginnings {
        let inputs = &decider.pipeline.instances[index].inputs;
        let ran = |reason: &StaleReason| match reason {
            StaleReason::InputChanged { port, .. } => {
                inputs.get(port).is_some_and(|input| self.beginnings[*input].first().is_some())
            }
            _ => false,
        };
        let before: Vec<_> = reasons.iter().filter(|reason| !ran(reason)).cloned().collect();
        let before = decider.earlier(index, &before, &|input| decider.last(input));
        let changed = reasons.iter().filter_map(|reason| match reason {
            StaleReason::InputChanged { port, .. } => inputs.get(port),
            _ => None,
        });
        let now = changed.map(|input| &self.beginnings[*input]);
        Beginnings::join(now.chain([&before]))
    }
}
