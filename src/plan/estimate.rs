//! How long a stage may take: as long as stages like it took, in proportion to the work.
//!
//! The work of a stage is its [`Stage::effort_params`] multiplied, times the items it makes if it maps
//! items. A training that goes on from a checkpoint does the rest of it.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Decider, Freshness, PlanNode};
use crate::{config::Instance, stages::Stage, store::Record};

/// Sets the last runs and the estimates of nodes that are all decided.
pub(super) fn fill(decider: &Decider<'_>, nodes: &mut [PlanNode]) {
    let instances = &decider.pipeline.instances;
    let mut rates = Rates::default();
    for (index, (node, instance)) in nodes.iter_mut().zip(instances).enumerate() {
        if !matches!(node.freshness, Freshness::Fresh(_)) {
            node.last = decider.last(index);
        }
        rates.add(node.record().into_iter(), instance);
    }
    let others = decider.records_seen();
    for (instance, node) in instances.iter().zip(&*nodes) {
        if !matches!(node.freshness, Freshness::Fresh(_)) && !rates.knows(instance) {
            rates.add(others.iter().map(AsRef::as_ref), instance);
        }
    }
    let mut items = Vec::with_capacity(nodes.len());
    for (instance, node) in instances.iter().zip(&*nodes) {
        items.push(items_given(instance, node, &items));
    }
    for (index, node) in nodes.iter_mut().enumerate() {
        node.estimate_secs = if let Freshness::Fresh(record) = &node.freshness {
            Some(record.wall_secs)
        } else {
            let work = work_to_do(&instances[index], node, items[index]);
            let last = node.last.as_deref();
            last.and_then(|last| scaled(last, &*instances[index].work, work))
                .or_else(|| rates.estimate(&instances[index], work))
        };
    }
}

/// What a record took, brought to another amount of work; as it was where the work is not known.
fn scaled(record: &Record, stage: &dyn Stage, work: Option<f64>) -> Option<f64> {
    let done = work_done(record, stage);
    if done == Some(0.0) {
        // It only gathered what was there.
        return None;
    }
    Some(done.zip(work).map_or(record.wall_secs, |(done, work)| record.wall_secs * work / done))
}

/// Seconds and work of all stages of a kind, and the seconds and number of its runs.
#[derive(Clone, Copy, Default)]
struct Rate {
    secs: f64,
    work: f64,
    runs: f64,
}

/// What stages took, by kind.
#[derive(Default)]
struct Rates(HashMap<&'static str, Rate>);

impl Rates {
    fn add<'a>(&mut self, records: impl Iterator<Item = &'a Record>, like: &Instance) {
        let kind = like.entry.kind;
        for record in records.filter(|record| record.ingredients.kind == kind) {
            let work = work_done(record, &*like.work).unwrap_or_default();
            if work > 0.0 {
                let rate = self.0.entry(kind).or_default();
                rate.secs += record.wall_secs;
                rate.work += work;
                rate.runs += 1.0;
            }
        }
    }

    fn knows(&self, instance: &Instance) -> bool {
        self.0.contains_key(instance.entry.kind)
    }

    fn estimate(&self, instance: &Instance, work: Option<f64>) -> Option<f64> {
        let rate = self.0.get(instance.entry.kind)?;
        Some(work.map_or(rate.secs / rate.runs, |work| rate.secs * work / rate.work))
    }
}

/// The work that a run did.
fn work_done(record: &Record, stage: &dyn Stage) -> Option<f64> {
    let whole = effort(&record.ingredients.params, stage)?;
    let items = if stage.mapped_port().is_some() { record.items_run as f64 } else { 1.0 };
    let steps = record.reached.map(|steps| (record.went_on_from.unwrap_or(0), steps));
    Some(whole * items * steps.map_or(1.0, rest))
}

/// The work that an instance has before it.
fn work_to_do(instance: &Instance, node: &PlanNode, items: Option<usize>) -> Option<f64> {
    let whole = effort(&instance.params, &*instance.work)?;
    let items = match (instance.work.mapped_port(), node.items) {
        (None, _) => 1.0,
        (Some(_), Some((cached, total))) => (total - cached) as f64,
        (Some(_), None) => items? as f64,
    };
    Some(whole * items * node.goes_on.map_or(1.0, rest))
}

/// The share of a training that is left after a step.
fn rest((at, steps): (u64, u64)) -> f64 {
    if steps == 0 { 1.0 } else { steps.saturating_sub(at) as f64 / steps as f64 }
}

/// The product of the parameters that the time is proportional to; none where one is not set.
fn effort(params: &Map<String, Value>, stage: &dyn Stage) -> Option<f64> {
    stage.effort_params().iter().map(|name| params.get(*name)?.as_f64()).product()
}

/// How many items an instance gives, or will give, as far as that can be told; `before` says it of the
/// instances before it.
pub(super) fn items_given(
    instance: &Instance,
    node: &PlanNode,
    before: &[Option<usize>],
) -> Option<usize> {
    if let Freshness::Fresh(record) = &node.freshness {
        return Some(record.items_total);
    }
    if let Some((_, total)) = node.items {
        return Some(total);
    }
    let on = |port: &str| instance.inputs.get(port).map(|input| *before.get(*input)?);
    match instance.work.mapped_port() {
        Some(port) => {
            let crossed = instance.work.crossed_port().and_then(on).unwrap_or(Some(1))?;
            Some(on(port)?? * crossed)
        }
        None => instance.work.num_items(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_that_goes_on_does_only_the_rest() {
        let percent = [(0, 40), (30, 40), (40, 40), (0, 0)].map(|(at, steps)| {
            let share = 100.0 * rest((at, steps));
            share.round() as i64
        });
        assert_eq!(percent, [100, 25, 0, 100]);
    }
}
