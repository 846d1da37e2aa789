//! Pipeline and store to a plan: what is fresh, stale or pending, and why.

mod advice;
mod cause;
mod decide;
mod disk;
mod earlier;
mod estimate;
mod filled;
pub mod fingerprint;
mod freshness;
mod gather;
pub mod graph;
mod items;
mod key;
mod listing;
mod lock;
mod look;
mod memory;
mod missing;
mod model;
mod select;
mod siblings;
mod size;
mod weights;

pub use advice::{Advice, TooLarge};
pub use cause::Cause;
pub(crate) use cause::{Beginnings, label};
pub(crate) use decide::Decider;
pub use decide::owner_of;
pub use disk::DiskPlan;
pub(crate) use earlier::Since;
pub use estimate::Here;
pub use freshness::{Freshness, StaleReason};
pub(crate) use freshness::{flat, place_of};
pub(crate) use gather::Gatherer;
pub use gather::Hashing;
pub use graph::Graph;
pub(crate) use items::{ItemGroup, Items};
pub(crate) use key::{Found, Key, from_file, trace_of, with_sources};
pub(crate) use lock::described;
pub use lock::{Deviation, DeviationKind, Lock, LockError, Locked, LockedModel, LockedStage};
pub use memory::MemoryPlan;
pub use missing::{Lack, Lacking, absent_models, lacks, models_of_hub, unusable};
pub use select::{SelectError, select};
pub(crate) use weights::{Watch, WeightFile, Weights};

use std::{collections::HashSet, sync::Arc};

use look::{Batches, Looked};

use crate::{
    config::{Instance, Pipeline},
    store::{Record, Store, StoreError},
};

/// What the user asked for besides the file.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Stages, or cells of them such as `lora[n=10]`, that run even if they are fresh.
    pub force: Vec<String>,
    /// Only these stages, or cells of them, and what they need; all if there are none.
    pub only: Vec<String>,
}

/// What would happen to each instance of a pipeline.
pub struct Plan<'a> {
    /// The pipeline planned.
    pub pipeline: &'a Pipeline,
    /// One node per instance, in the same order.
    pub nodes: Vec<PlanNode>,
}

impl Plan<'_> {
    /// What the stages that were asked for need and this machine does not have.
    pub fn lacks(&self) -> Vec<Lacking> {
        let nodes = self.nodes.iter().zip(&self.pipeline.instances);
        Lacking::gather(nodes.filter_map(|(node, instance)| match &node.freshness {
            Freshness::Blocked(lack) if node.needed => Some((instance, lack.clone())),
            _ => None,
        }))
    }

    /// Of an instance that is not fresh, the one of which the cache holds a result that is not
    /// whole, if that is why: itself, or one that it needs.
    pub fn broken(&self, index: usize) -> Option<&Instance> {
        let (mut stack, mut seen) = (vec![index], HashSet::from([index]));
        while let Some(index) = stack.pop() {
            match &self.nodes[index].freshness {
                Freshness::Stale(reasons) if reasons.iter().any(StaleReason::is_of_damage) => {
                    return Some(&self.pipeline.instances[index]);
                }
                Freshness::Pending { upstream } => {
                    stack.extend(upstream.iter().copied().filter(|input| seen.insert(*input)));
                }
                _ => {}
            }
        }
        None
    }

    /// The same in words, to be added to the message that an instance is not up to date; empty if
    /// there is no such thing.
    pub fn damage_note(&self, index: usize) -> String {
        let told = |broken| format!(", because `{broken}` is damaged there or partly gone");
        self.broken(index).map(told).unwrap_or_default()
    }
}

/// How many items a mapped stage has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemCount {
    /// Those that are in the store.
    pub cached: usize,
    /// All of them.
    pub total: usize,
}

impl ItemCount {
    fn all_cached(total: usize) -> Self {
        Self { cached: total, total }
    }

    /// Those that are not in the store.
    pub fn uncached(self) -> usize {
        self.total - self.cached
    }
}

/// Where a training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The step of the checkpoint.
    pub step: u64,
    /// How many steps the training has.
    pub steps_total: u64,
}

/// What would happen to one instance.
#[derive(Debug)]
pub struct PlanNode {
    /// Whether it must run, and why.
    pub freshness: Freshness,
    /// Whether it belongs to what was asked for; if not, a run leaves it alone.
    pub needed: bool,
    /// For a mapped stage whose input is known.
    pub items: Option<ItemCount>,
    /// For a training that would go on from a checkpoint.
    pub resumes_at: Option<ResumePoint>,
    /// What it was when it last ran, if it is not fresh and anything is known.
    pub last: Option<Arc<Record>>,
    /// Seconds it took, or may take by what it or its kind took for its work, if anything is known.
    pub estimate_secs: Option<f64>,
    /// Where the changes begin that reach it.
    pub(crate) beginnings: Beginnings,
    /// If it is fresh, for what it last changed, where stages below have not followed that yet.
    pub(crate) changed_for: Vec<StaleReason>,
}

impl PlanNode {
    fn of(freshness: Freshness) -> Self {
        Self {
            freshness,
            needed: true,
            items: None,
            resumes_at: None,
            last: None,
            estimate_secs: None,
            beginnings: Beginnings::default(),
            changed_for: Vec::new(),
        }
    }

    /// What it is, or was when it last ran.
    pub fn record(&self) -> Option<&Record> {
        match &self.freshness {
            Freshness::Fresh(record) => Some(record),
            _ => self.last.as_deref(),
        }
    }
}

/// Decides every instance as far as it can be decided without running anything.
pub fn build<'a>(
    pipeline: &'a Pipeline,
    store: &Store,
    options: &PlanOptions,
) -> Result<Plan<'a>, PlanError> {
    build_for(pipeline, store, options, None)
}

/// The same for a run on such a device, which estimates of time then go by.
pub fn build_for<'a>(
    pipeline: &'a Pipeline,
    store: &Store,
    options: &PlanOptions,
    here: Option<Here<'_>>,
) -> Result<Plan<'a>, PlanError> {
    let decider = Decider::new(pipeline, store)?;
    let graph = Graph::new(pipeline);
    let selection = Selection::new(pipeline, &graph, options)?;
    let mut plan = decide_all(pipeline, &decider, &graph, &selection)?;
    estimate::fill(&decider, &mut plan.nodes, here);
    if let Err(error) = store.save_stat_cache() {
        // A plan is an answer; what it learnt of outside files only saves time.
        tracing::debug!("The hashes of outside files are not kept: {error}.");
    }
    Ok(plan)
}

/// Decides every instance, inputs before their users; nothing is estimated.
pub(crate) fn decide_all<'a>(
    pipeline: &'a Pipeline,
    decider: &Decider<'_>,
    graph: &Graph,
    selection: &Selection,
) -> Result<Plan<'a>, PlanError> {
    let mut nodes: Vec<Option<PlanNode>> = pipeline.instances.iter().map(|_| None).collect();
    let batches = Batches::new(graph, decider.store.behind().is_some());
    for batch in batches.iter() {
        for (index, looked) in look::look_up(decider, selection, batch, &nodes) {
            let mut node = plan_node(decider, index, looked?, selection.forced[index])?;
            node.needed = selection.needed[index];
            node.beginnings = cause::beginnings(decider, index, &node, &nodes);
            if let Some((root, _)) = node.beginnings.first()
                && let Some(PlanNode { freshness: Freshness::Fresh(_), changed_for, .. }) =
                    &mut nodes[root]
            {
                *changed_for = decider.changed_for(root).unwrap_or_default();
            }
            nodes[index] = Some(node);
        }
    }
    Ok(Plan { pipeline, nodes: nodes.into_iter().flatten().collect() })
}

/// What would happen to an instance of which this is known.
fn plan_node(
    decider: &Decider<'_>,
    index: usize,
    looked: Looked,
    forced: bool,
) -> Result<PlanNode, PlanError> {
    let instance = &decider.pipeline.instances[index];
    let (key, found) = match looked {
        Looked::Undecided(node) => return Ok(node),
        Looked::Found(_, Found::Whole(record)) if !forced => {
            let mapped = instance.work.mapped_port().is_some();
            return Ok(PlanNode {
                items: mapped.then_some(ItemCount::all_cached(record.items_total)),
                ..PlanNode::of(Freshness::Fresh(record))
            });
        }
        Looked::Found(key, found) => (key, found),
    };
    let items = match decider.items(index, &key) {
        // An input whose list of items turns out damaged is made again first.
        Err(PlanError::Store(StoreError::Damaged { .. })) => {
            let inputs = instance.inputs.values().copied().collect();
            return Ok(PlanNode::of(Freshness::after(inputs)));
        }
        items => items?,
    };
    let items = items.map(|found| ItemCount {
        cached: if forced { 0 } else { found.cached() },
        total: found.total(),
    });
    let reasons =
        if forced { vec![StaleReason::Forced] } else { decider.reasons(index, &key, &found) };
    Ok(PlanNode {
        items,
        resumes_at: if forced { None } else { decider.resume_point(index, &key) },
        ..PlanNode::of(Freshness::Stale(reasons))
    })
}

/// Which instances were asked for, and which run in any case.
pub(crate) struct Selection {
    pub(crate) needed: Vec<bool>,
    pub(crate) forced: Vec<bool>,
}

impl Selection {
    pub(crate) fn new(
        pipeline: &Pipeline,
        graph: &Graph,
        options: &PlanOptions,
    ) -> Result<Self, PlanError> {
        let mut forced = vec![false; pipeline.instances.len()];
        for name in &options.force {
            for index in select(pipeline, name)? {
                forced[index] = true;
            }
        }
        let mut needed = vec![options.only.is_empty(); pipeline.instances.len()];
        for name in &options.only {
            for index in select(pipeline, name)? {
                for ancestor in graph.ancestors(index) {
                    needed[ancestor] = true;
                }
            }
        }
        Ok(Self { needed, forced })
    }
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// `--only` or `--force` names no stage: exit code 2.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Weights or data are not there: exit code 3.
    #[error("stage `{stage}`: {lack}")]
    Lack {
        /// The instance.
        stage: String,
        /// What is missing.
        lack: Box<Lack>,
    },
    /// The store failed: exit code 3.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PlanError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Select(error) => Some(error.help.clone()),
            Self::Lack { lack, .. } => lack.help(),
            Self::Store(error) => error.help().map(str::to_owned),
        }
    }

    /// Whether the machine lacks something (exit code 3) or the request is wrong (2).
    pub fn is_environment(&self) -> bool {
        !matches!(self, Self::Select(_))
    }
}
