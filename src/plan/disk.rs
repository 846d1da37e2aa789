//! The disk space that a run will take, from what stages of the same kind took before.
//!
//! An estimate is the size of an earlier output per item, times the items that will be made, times
//! how much larger each is: clips grow with frames, height and width, adapters with their rank.
//! What is in the store already, and what probably comes out as it is there, takes nothing.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Freshness, Plan, PlanNode, StaleReason, estimate::items_given, size::Sizes};
use crate::{
    artifact::ArtifactKind,
    store::{Record, Store, StoreError},
};

/// The bytes that the stages of a plan will add to the store.
pub struct DiskPlan {
    needs: Vec<Need>,
}

/// What running one instance adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It does not run, or was not asked for.
    Nothing,
    /// About so many bytes.
    About(u64),
    /// Nothing like it was ever measured.
    Unknown,
}

impl DiskPlan {
    /// Estimates for everything that a run of the plan must or may run.
    pub fn new(plan: &Plan<'_>, store: &Store) -> Result<Self, StoreError> {
        let runs = |node: &PlanNode| node.needed && !matches!(node.freshness, Freshness::Fresh(_));
        if !plan.nodes.iter().any(runs) {
            return Ok(Self { needs: vec![Need::Nothing; plan.nodes.len()] });
        }
        let past = Past::new(plan, store);
        let repeats = past.repeats();
        let items = past.items();
        let needs = plan.nodes.iter().enumerate().map(|(index, node)| {
            if !runs(node) || repeats[index] {
                return Ok(Need::Nothing);
            }
            Ok(past.bytes(index, items[index])?.map_or(Need::Unknown, Need::About))
        });
        Ok(Self { needs: needs.collect::<Result<_, StoreError>>()? })
    }

    /// The bytes that running an instance adds; none if it does not run or was never measured.
    pub fn of(&self, index: usize) -> Option<u64> {
        match self.needs[index] {
            Need::About(bytes) => Some(bytes),
            Need::Nothing | Need::Unknown => None,
        }
    }

    /// The bytes that all of them add, as far as they are known.
    pub fn total(&self) -> u64 {
        (0..self.needs.len()).filter_map(|index| self.of(index)).sum()
    }

    /// How many stages will run of whose like nothing was ever measured.
    pub fn unknown(&self) -> usize {
        self.needs.iter().filter(|need| **need == Need::Unknown).count()
    }
}

/// What each instance last was, and where to look for another like it.
struct Past<'a> {
    plan: &'a Plan<'a>,
    store: &'a Store,
    by_kind: HashMap<&'static str, Vec<usize>>,
    sizes_now: Sizes,
    sizes_then: Sizes,
}

impl<'a> Past<'a> {
    fn new(plan: &'a Plan<'a>, store: &'a Store) -> Self {
        let mut by_kind: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (node, instance)) in plan.nodes.iter().zip(&plan.pipeline.instances).enumerate()
        {
            if node.record().is_some() {
                by_kind.entry(instance.entry.kind).or_default().push(index);
            }
        }
        let pipeline = plan.pipeline;
        let sizes_now = Sizes::new(pipeline, |index| Some(&*pipeline.instances[index].params));
        let sizes_then = Sizes::new(pipeline, |index| {
            plan.nodes[index].record().map(|record| &record.ingredients.params)
        });
        Self { plan, store, by_kind, sizes_now, sizes_then }
    }

    fn record(&self, index: usize) -> Option<&'a Record> {
        self.plan.nodes[index].record()
    }

    /// Which instances probably give what is in the store: those that run only because they are
    /// forced to, and what waits for nothing else.
    fn repeats(&self) -> Vec<bool> {
        let mut repeats = Vec::with_capacity(self.plan.nodes.len());
        for (index, node) in self.plan.nodes.iter().enumerate() {
            repeats.push(match &node.freshness {
                Freshness::Stale(reasons) => reasons == &[StaleReason::Forced],
                Freshness::Pending { upstream } => {
                    self.same_params(index) && upstream.iter().all(|at| repeats[*at])
                }
                Freshness::Fresh(_) | Freshness::Blocked(_) => false,
            });
        }
        repeats
    }

    /// Whether an instance has the parameters of its last run.
    fn same_params(&self, index: usize) -> bool {
        let instance = &self.plan.pipeline.instances[index];
        let idle = instance.work.params_without_effect();
        self.record(index).is_some_and(|record| {
            let mut params = record.ingredients.params.iter();
            params.all(|(name, value)| {
                instance.params.get(name) == Some(value)
                    || idle.iter().any(|(idle, _)| idle == name)
            })
        })
    }

    /// How many items each instance's output will have; none where nothing tells.
    fn items(&self) -> Vec<Option<usize>> {
        let mut items = Vec::with_capacity(self.plan.nodes.len());
        for index in 0..self.plan.nodes.len() {
            items.push(self.items_of(index, &items));
        }
        items
    }

    fn items_of(&self, index: usize, before: &[Option<usize>]) -> Option<usize> {
        let (node, instance) = (&self.plan.nodes[index], &self.plan.pipeline.instances[index]);
        let given = items_given(instance, node, before);
        if given.is_some() || instance.work.mapped_port().is_some() {
            return given;
        }
        let record = self.record(self.like(index)?)?;
        let grown = ratio(
            number(instance.params.get("count")),
            number(record.ingredients.params.get("count")),
        );
        Some((record.items_total as f64 * grown).round() as usize)
    }

    /// The bytes that an instance adds, whose output will have so many items.
    fn bytes(&self, index: usize, items: Option<usize>) -> Result<Option<u64>, StoreError> {
        let Some(like) = self.like(index) else { return Ok(None) };
        let Some(record) = self.record(like) else { return Ok(None) };
        let Some(size) = self.store.output_size(record) else { return Ok(None) };
        let total = items.unwrap_or(record.items_total);
        let made = match self.plan.nodes[index].items {
            Some(items) => items.uncached(),
            None => total,
        };
        let each = size as f64 / record.items_total.max(1) as f64;
        let output = each * made as f64 * self.grown(index, like);
        Ok(Some((output + self.checkpoints(index, record)?) as u64))
    }

    /// The bytes that a training adds beside its output: a state at each of its stops that it has
    /// still to reach, and the one on the way there. Those of earlier trainings are there already.
    fn checkpoints(&self, index: usize, like: &Record) -> Result<f64, StoreError> {
        let Some(trajectory) = like.trajectory else { return Ok(0.0) };
        let instance = &self.plan.pipeline.instances[index];
        let from = self.plan.nodes[index].resumes_at.map_or(0, |resume| resume.step);
        let ahead = instance.work.stops().iter().filter(|stop| **stop > from).count();
        if ahead == 0 {
            return Ok(0.0);
        }
        let rank = |params: &Map<String, Value>| number(params.get("rank"));
        let grown = ratio(rank(&instance.params), rank(&like.ingredients.params));
        Ok(self.store.checkpoint_size(trajectory)? as f64 * grown * (ahead + 1) as f64)
    }

    /// The instance whose record an estimate is made from: itself, or the one of its kind that
    /// agrees with it in most.
    fn like(&self, index: usize) -> Option<usize> {
        const COMPARED: usize = 64;
        if self.record(index).is_some() {
            return Some(index);
        }
        let instance = &self.plan.pipeline.instances[index];
        let agreement = |other: &usize| {
            let other = &self.plan.pipeline.instances[*other];
            let equal = |(axis, value)| other.cell.get(axis) == Some(value);
            (
                other.stage == instance.stage,
                instance.cell.iter().filter(|&cell| equal(cell)).count(),
            )
        };
        let known = self.by_kind.get(instance.entry.kind)?;
        known.iter().take(COMPARED).copied().max_by_key(agreement)
    }

    /// How much larger an item of `index` is now than one of `like` was.
    fn grown(&self, index: usize, like: usize) -> f64 {
        let instance = &self.plan.pipeline.instances[index];
        match instance.output() {
            ArtifactKind::Pairs
            | ArtifactKind::Videos
            | ArtifactKind::Latents
            | ArtifactKind::Samples
            | ArtifactKind::Frames => {
                ratio(self.sizes_now.volume(index), self.sizes_then.volume(like))
            }
            ArtifactKind::LoraAdapter => {
                let then = self.record(like);
                let then = then.and_then(|record| number(record.ingredients.params.get("rank")));
                ratio(number(instance.params.get("rank")), then)
            }
            _ => 1.0,
        }
    }
}

fn number(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().filter(|number| *number > 0.0)
}

/// `now / then` where both are known; else nothing has changed.
fn ratio(now: Option<f64>, then: Option<f64>) -> f64 {
    match (now, then) {
        (Some(now), Some(then)) => now / then,
        _ => 1.0,
    }
}
