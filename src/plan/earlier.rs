//! Changes of earlier runs that a stage has not followed yet: the run ended before it, or was not asked
//! for it.
//!
//! What its inputs were when it last ran and what they are now is compared stage by stage, upwards, by
//! the records that the history leads to, until a stage is found that changed for a reason of its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{Beginnings, Decider, StaleReason, freshness::differences};
use crate::{
    config::Instance,
    store::{Digest, Record},
};

impl Decider<'_> {
    /// Where the changes began for which the inputs of an instance changed that were made in an earlier run.
    /// `now` gives what an instance is.
    pub(crate) fn earlier(
        &self,
        index: usize,
        reasons: &[StaleReason],
        now: Now<'_>,
    ) -> Beginnings {
        let mut earlier = self.earlier.lock().expect("no panic while held");
        earlier.beginnings(self, index, reasons, now)
    }

    /// For what an instance changed when it last did, if that is why another one runs.
    pub(crate) fn changed_for(&self, index: usize) -> Option<Vec<StaleReason>> {
        self.earlier.lock().expect("no panic while held").reasons(index)
    }
}

/// The changes that were found, by instance.
#[derive(Default)]
pub(super) struct Earlier(HashMap<usize, Change>);

/// The last change of an instance.
struct Change {
    old: Digest,
    new: Digest,
    /// Its reasons, without those that lie in its inputs.
    own: Vec<StaleReason>,
    /// The inputs that changed with it.
    inputs: Vec<Input>,
    /// Where it began; unset until its inputs are known.
    beginnings: Option<Beginnings>,
}

/// An input that changed from one content to another.
#[derive(Clone, Copy)]
struct Input {
    index: usize,
    old: Digest,
    new: Digest,
}

/// The inputs that an instance has other content of.
fn inputs(instance: &Instance, reasons: &[StaleReason]) -> Vec<Input> {
    let changed = reasons.iter().filter_map(|reason| match reason {
        StaleReason::InputChanged { port, old, new } => {
            let index = *instance.inputs.get(port)?;
            Some(Input { index, old: *old, new: *new })
        }
        _ => None,
    });
    changed.collect()
}

/// Gives what an instance is.
type Now<'a> = &'a dyn Fn(usize) -> Option<Arc<Record>>;

impl Earlier {
    /// Where the changes of an instance's inputs began.
    pub(super) fn beginnings(
        &mut self,
        decider: &Decider<'_>,
        index: usize,
        reasons: &[StaleReason],
        now: Now<'_>,
    ) -> Beginnings {
        let inputs = inputs(&decider.pipeline.instances[index], reasons);
        for input in &inputs {
            self.follow(decider, input.index, now);
        }
        self.join(&inputs)
    }

    /// The reasons of its own for which an instance changed.
    pub(super) fn reasons(&self, index: usize) -> Option<Vec<StaleReason>> {
        self.0.get(&index).map(|change| change.own.clone())
    }

    /// Finds where the last change of an instance began. Chains are long, so without recursion.
    fn follow(&mut self, decider: &Decider<'_>, index: usize, now: Now<'_>) {
        let mut stack = vec![index];
        while let Some(&top) = stack.last() {
            if let Entry::Vacant(unknown) = self.0.entry(top) {
                let Some(change) = last_change(decider, top, now) else {
                    stack.pop();
                    continue;
                };
                // It is still on the stack, and comes to its end after its inputs.
                stack.extend(change.inputs.iter().map(|input| input.index));
                unknown.insert(change);
                continue;
            }
            stack.pop();
            let change = &self.0[&top];
            if change.beginnings.is_none() {
                let above = self.join(&change.inputs);
                let own = (!change.own.is_empty()).then(|| Beginnings::own(top, &change.own));
                let all = Beginnings::join([&above, &own.unwrap_or_default()]);
                self.0.entry(top).and_modify(|change| change.beginnings = Some(all));
            }
        }
    }

    /// Where the changes of these inputs began, as far as each changed last from and to this.
    fn join(&self, inputs: &[Input]) -> Beginnings {
        let known = inputs.iter().filter_map(|input| {
            let change = self.0.get(&input.index)?;
            (change.old == input.old && change.new == input.new).then_some(change)
        });
        Beginnings::join(known.filter_map(|change| change.beginnings.as_ref()))
    }
}

/// The last change of an instance, if both what it was and what it is are known.
fn last_change(decider: &Decider<'_>, index: usize, now: Now<'_>) -> Option<Change> {
    let now = now(index)?;
    let before = decider.before(index, &now)?;
    let instance = &decider.pipeline.instances[index];
    let reasons = differences(&before.ingredients, &now.ingredients, instance);
    let inputs = inputs(instance, &reasons);
    let own = reasons.into_iter().filter(|reason| !reason.is_of_input()).collect();
    Some(Change { old: before.output, new: now.output, own, inputs, beginnings: None })
}
