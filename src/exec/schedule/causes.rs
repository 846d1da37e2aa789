//! Where the changes of a run began: a stage whose input changed runs because a stage above it did.

use std::collections::HashMap;

use crate::{
    config::Instance,
    plan::{Beginnings, Cause, StaleReason},
};

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
        index: usize,
        instances: &[Instance],
        reasons: &[StaleReason],
    ) -> Option<Cause> {
        let instance = &instances[index];
        let above = reasons.iter().filter_map(|reason| match reason {
            StaleReason::InputChanged { port, .. } => instance.inputs.get(port),
            _ => None,
        });
        let above = Beginnings::join(above.map(|input| &self.beginnings[*input]));
        let is_input = |reason: &StaleReason| matches!(reason, StaleReason::InputChanged { .. });
        let cause = above.first().map(|(root, more)| {
            let reasons = self.reasons.get(&root).map_or(&[][..], Vec::as_slice);
            Cause::new(instance, &instances[root], reasons, more)
        });
        self.beginnings[index] = if cause.is_some() && reasons.iter().all(is_input) {
            above
        } else {
            // What it changed for itself; where no input ran in this run, its inputs did in another one.
            let reasons: Vec<_> = match &cause {
                Some(_) => reasons.iter().filter(|reason| !is_input(reason)).cloned().collect(),
                None => reasons.to_vec(),
            };
            let own = Beginnings::own(index, &reasons);
            self.reasons.insert(index, reasons);
            Beginnings::join([&above, &own])
        };
        cause
    }
}
