//! Changes of earlier runs that a stage has not followed yet: the run ended before it, or was not
//! asked for it.
//!
//! What its inputs were when it last ran and what they are now is compared stage by stage, upwards,
//! by the records that the history leads to, until a stage is found that changed for a reason of
//! its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{Beginnings, Cause, Decider, StaleReason, freshness::differences, model};
use crate::{
    config::Instance,
    store::{Digest, Record},
    sync::Unpoisoned,
};

impl Decider<'_> {
    /// Where the changes began for which the inputs of an instance changed that were made in an
    /// earlier run. `now` gives what an instance is.
    pub(crate) fn earlier(
        &self,
        index: usize,
        reasons: &[StaleReason],
        now: Now<'_>,
    ) -> Beginnings {
        let mut earlier = self.earlier.lock().unpoisoned();
        earlier.beginnings(self, index, reasons, now)
    }

    /// For what an instance changed, if that is why another one runs.
    pub(crate) fn changed_for(&self, index: usize) -> Option<Vec<StaleReason>> {
        self.earlier.lock().unpoisoned().reasons(index)
    }

    /// In what an instance differs from what it was before, and where that began.
    pub(crate) fn since(&self, index: usize, now: Now<'_>) -> Option<Since> {
        let record = now(index)?;
        let before = self.before(index, &record).next()?;
        let instances = &self.pipeline.instances;
        let reasons = differences(&before.ingredients, &record.ingredients, &instances[index]);
        let reasons = model::named(reasons, &before, &instances[index]);
        if reasons.is_empty() {
            return None;
        }
        let first = self.earlier(index, &reasons, now).first();
        let cause = first.and_then(|(root, more)| {
            let reasons = self.changed_for(root)?;
            Some(Cause::new(&instances[index], &instances[root], &reasons, more, true))
        });
        let is_taken_back = started(&before) > started(&record);
        Some(Since { reasons, cause, is_taken_back })
    }
}

/// In what an instance differs from what it was before.
pub(crate) struct Since {
    pub(crate) reasons: Vec<StaleReason>,
    /// Where that began, if elsewhere.
    pub(crate) cause: Option<Cause>,
    /// Whether what it was before was computed after what it is: a change was taken back.
    pub(crate) is_taken_back: bool,
}

fn started(record: &Record) -> Option<jiff::Timestamp> {
    record.started.parse().ok()
}

/// The changes that were found, by instance and what it gave before; and the reasons of their own
/// for which instances changed.
#[derive(Default)]
pub(super) struct Earlier(HashMap<Step, Change>, HashMap<usize, Vec<StaleReason>>);

/// An instance and what it once gave.
type Step = (usize, Digest);

/// A change of an instance.
struct Change {
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

impl Input {
    fn step(&self) -> Step {
        (self.index, self.old)
    }
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
            self.follow(decider, input.step(), now);
        }
        self.join(&inputs)
    }

    /// The reasons of its own for which an instance changed; those that were found first, where
    /// others take it that last saw different outputs of it.
    pub(super) fn reasons(&self, index: usize) -> Option<Vec<StaleReason>> {
        self.1.get(&index).cloned()
    }

    /// Finds where a change of an instance began. Chains are long, so without recursion.
    fn follow(&mut self, decider: &Decider<'_>, step: Step, now: Now<'_>) {
        let mut stack = vec![step];
        while let Some(&top) = stack.last() {
            if let Entry::Vacant(unknown) = self.0.entry(top) {
                let Some(change) = change(decider, top, now) else {
                    stack.pop();
                    continue;
                };
                // It is still on the stack, and comes to its end after its inputs.
                stack.extend(change.inputs.iter().map(Input::step));
                if !change.own.is_empty() {
                    self.1.entry(top.0).or_insert_with(|| change.own.clone());
                }
                unknown.insert(change);
                continue;
            }
            stack.pop();
            let change = &self.0[&top];
            if change.beginnings.is_none() {
                let above = self.join(&change.inputs);
                let own = (!change.own.is_empty()).then(|| Beginnings::own(top.0, &change.own));
                let all = Beginnings::join([&above, &own.unwrap_or_default()]);
                self.0.entry(top).and_modify(|change| change.beginnings = Some(all));
            }
        }
    }

    /// Where the changes of these inputs began, as far as each changed from and to this.
    fn join(&self, inputs: &[Input]) -> Beginnings {
        let known = inputs
            .iter()
            .filter_map(|input| self.0.get(&input.step()).filter(|change| change.new == input.new));
        Beginnings::join(known.filter_map(|change| change.beginnings.as_ref()))
    }
}

/// The change of an instance since it gave `old`, if both what it was then and what it is are
/// known.
fn change(decider: &Decider<'_>, (index, old): Step, now: Now<'_>) -> Option<Change> {
    let now = now(index)?;
    let before = decider.before(index, &now).find(|record| record.output == old)?;
    let instance = &decider.pipeline.instances[index];
    let reasons = differences(&before.ingredients, &now.ingredients, instance);
    let reasons = model::named(reasons, &before, instance);
    let inputs = inputs(instance, &reasons);
    let own = reasons.into_iter().filter(|reason| !reason.is_of_input()).collect();
    Some(Change { new: now.output, own, inputs, beginnings: None })
}
