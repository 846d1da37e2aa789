//! Where a change begins: the stages above a stage that are the reason that it runs, or may run.
//!
//! A stage whose input changes is told what its input changed for, through any number of stages.
//! Each instance's beginnings are made of those of its inputs, so a walk in topological order is
//! linear: what a stage takes over from a single input is shared, and what is joined is cut short.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::{Decider, Freshness, Plan, PlanNode, StaleReason};
use crate::config::Instance;

/// More beginnings than this are not told apart; a chain with a change at each of its links would
/// otherwise take memory with the square of its length.
const MOST: usize = 20;

/// The instances where the changes begin that reach an instance: the first few in their order,
/// those that changed before those that are new or cannot run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beginnings(Option<Arc<[Beginning]>>);

/// Whether nothing of it changed (it is new, say), and its index.
type Beginning = (bool, usize);

impl Beginnings {
    /// Those of an instance that runs for these reasons of its own.
    pub(crate) fn own(index: usize, reasons: &[StaleReason]) -> Self {
        let nothing_changed = reasons.iter().all(|reason| *reason == StaleReason::NeverRun);
        Self(Some([(nothing_changed, index)].into()))
    }

    /// Those of an instance that runs for these reasons, where the changes of its inputs began
    /// `above`.
    pub(crate) fn through(index: usize, reasons: &[StaleReason], above: Self) -> Self {
        if above.0.is_some() && reasons.iter().all(StaleReason::is_of_input) {
            return above;
        }
        Self::join([&above, &Self::own(index, reasons)])
    }

    /// All of several.
    pub(crate) fn join<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut known: Vec<&Arc<[Beginning]>> = Vec::new();
        for more in all.into_iter().filter_map(|beginnings| beginnings.0.as_ref()) {
            if !known.last().is_some_and(|last| Arc::ptr_eq(last, more)) {
                known.push(more);
            }
        }
        match known[..] {
            [] => Self(None),
            [one] => Self(Some(Arc::clone(one))),
            _ => {
                let all: BTreeSet<Beginning> =
                    known.into_iter().flat_map(|a| a.iter()).copied().collect();
                Self(Some(all.into_iter().take(MOST + 1).collect()))
            }
        }
    }

    /// The first one, and how many there are besides.
    pub(crate) fn first(&self) -> Option<(usize, usize)> {
        let all = self.0.as_ref()?;
        all.first().map(|(_, index)| (*index, all.len() - 1))
    }
}

/// Why a stage runs, or may run, that is itself as it was: a stage above it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct Cause {
    /// The first stage, from above, where something changed: `lora[n=10]`.
    pub stage: String,
    /// Why that one runs; empty if it cannot run here.
    pub reasons: Vec<StaleReason>,
    /// How many other stages there are of which the same is true; 20 may be more.
    pub more: usize,
    /// The stage without its cell, where the stage that runs is in the same one.
    #[serde(skip)]
    pub(crate) label: String,
    /// Whether that one ran before, so that nothing else is said of it.
    #[serde(skip)]
    pub(crate) earlier: bool,
}

impl Cause {
    /// That `of` runs, because of `root` and `more` others.
    pub(crate) fn new(
        of: &Instance,
        root: &Instance,
        reasons: &[StaleReason],
        more: usize,
        earlier: bool,
    ) -> Self {
        let (stage, label) = (root.to_string(), label(of, root));
        Self { stage, reasons: reasons.to_vec(), more, label, earlier }
    }

    /// `and 3 more` stages, if there are others.
    fn others(&self) -> String {
        match self.more {
            0 => String::new(),
            MOST.. => format!(", and {MOST} or more other stages"),
            1 => ", and 1 other stage".to_owned(),
            more => format!(", and {more} other stages"),
        }
    }

    /// In short, where the stage itself is told nearby: one reason, and not where it is written.
    pub fn brief(&self) -> String {
        let brief = |reason: &StaleReason| match reason {
            StaleReason::ParamChanged { .. } if self.earlier => reason.to_string(),
            reason => reason.brief(),
        };
        let reason = match &self.reasons[..] {
            [] => "cannot run here".to_owned(),
            [one] => brief(one),
            [first, more @ ..] => format!("{} and {} more", brief(first), more.len()),
        };
        format!("because {}: {reason}{}", self.label, self.others())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|reason| match reason {
                StaleReason::NeverRun => reason.brief(),
                reason => reason.to_string(),
            })
            .collect();
        let reasons =
            if reasons.is_empty() { "cannot run here".to_owned() } else { reasons.join(", ") };
        write!(f, "because {}: {reasons}{}", self.stage, self.others())
    }
}

/// What another instance is called beside this one: its stage alone, where its cell is part of this
/// one's.
pub(crate) fn label(of: &Instance, other: &Instance) -> String {
    let same = other.cell.iter().all(|(axis, value)| of.cell.get(axis) == Some(value));
    if same { other.stage.clone() } else { other.to_string() }
}

impl Plan<'_> {
    /// Where the changes begin for which a stage runs, or may run; None if that is the stage
    /// itself.
    pub fn cause(&self, index: usize) -> Option<Cause> {
        let (root, more) = self.root(index)?;
        let (reasons, earlier) = self.changed(root);
        let instances = &self.pipeline.instances;
        Some(Cause::new(&instances[index], &instances[root], reasons, more, earlier))
    }

    /// The same where it is not told already: by one of the stages that this one waits for, which
    /// have lines of their own. That something is new above is not worth telling, either.
    pub fn cause_beyond(&self, index: usize, upstream: &[usize]) -> Option<Cause> {
        let (root, _) = self.root(index).filter(|(root, _)| !upstream.contains(root))?;
        let is_new = self.changed(root).0.iter().all(|reason| *reason == StaleReason::NeverRun);
        if is_new { None } else { self.cause(index) }
    }

    /// The first of the instances where the changes begin, and how many there are besides.
    fn root(&self, index: usize) -> Option<(usize, usize)> {
        self.nodes[index].beginnings.first().filter(|(root, _)| *root != index)
    }

    /// Why an instance runs, or for what it last changed in an earlier run.
    fn changed(&self, root: usize) -> (&[StaleReason], bool) {
        match &self.nodes[root] {
            PlanNode { freshness: Freshness::Stale(reasons), .. } => (reasons, false),
            PlanNode { freshness: Freshness::Fresh(_), changed_for, .. } => (changed_for, true),
            _ => (&[], false),
        }
    }
}

/// Where the changes begin that reach an instance with this node, whose inputs are among `nodes`.
pub(super) fn beginnings(
    decider: &Decider<'_>,
    index: usize,
    node: &PlanNode,
    nodes: &[Option<PlanNode>],
) -> Beginnings {
    match &node.freshness {
        Freshness::Fresh(_) => Beginnings::default(),
        Freshness::Stale(reasons) => {
            let now = |index: usize| match &nodes[index].as_ref()?.freshness {
                Freshness::Fresh(record) => Some(Arc::new((**record).clone())),
                _ => None,
            };
            Beginnings::through(index, reasons, decider.earlier(index, reasons, &now))
        }
        Freshness::Blocked(_) => Beginnings::own(index, &[]),
        Freshness::Pending { upstream } => {
            let nodes = upstream.iter().filter_map(|input| nodes[*input].as_ref());
            Beginnings::join(nodes.map(|node| &node.beginnings))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed() -> Vec<StaleReason> {
        vec![StaleReason::VersionChanged { old: 1, new: 2 }]
    }

    #[test]
    fn what_changed_is_named_before_what_is_new() {
        let new = Beginnings::own(0, &[StaleReason::NeverRun]);
        let changed = Beginnings::own(7, &changed());
        assert_eq!(Beginnings::join([&new, &changed]).first(), Some((7, 1)));
        assert_eq!(Beginnings::join([&new, &new, &Beginnings::default()]), new);
        assert_eq!(Beginnings::join([]).first(), None);
    }

    #[test]
    fn a_chain_with_a_change_at_every_link_stays_small() {
        let mut all = Beginnings::default();
        for index in 0..10_000 {
            all = Beginnings::join([&all, &Beginnings::own(index, &changed())]);
        }
        assert_eq!(all.first(), Some((0, MOST)));
        assert_eq!(all.0.unwrap().len(), MOST + 1);
    }
}
