//! How long a stage may take: as long as stages like it took, in proportion to the work.
//!
//! The work of a stage is its [`Stage::effort_params`] multiplied, times the items it makes if it maps
//! items. A training that goes on from a checkpoint does the rest of it. What stages took on another device
//! counts only where nothing is known of this one.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Decider, Freshness, PlanNode};
use crate::{config::Instance, stages::Stage, store::Record};

/// Sets the last runs and the estimates of nodes that are all decided, for a run on `device`, if one is
/// named.
pub(super) fn fill(decider: &Decider<'_>, nodes: &mut [PlanNode], device: Option<&str>) {
    let instances = &decider.pipeline.instances;
    let mut rates = Rates { device: device.map(sort_of), known: HashMap::new() };
    for (index, (node, instance)) in nodes.iter_mut().zip(instances).enumerate() {
        if !matches!(node.freshness, Freshness::Fresh(_)) {
            node.last = decider.last(index);
        }
        rates.add(node.record().into_iter(), instance);
    }
    let others = decider.records_seen();
    let mut tried = HashSet::new();
    for (instance, node) in instances.iter().zip(&*nodes) {
        let runs = !matches!(node.freshness, Freshness::Fresh(_));
        if runs && !rates.knows_here(instance.entry.kind) && tried.insert(instance.entry.kind) {
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
            let last = node.last.as_deref().filter(|last| {
                rates.is_here(&last.device) || !rates.knows_here(instances[index].entry.kind)
            });
            last.and_then(|last| scaled(last, &*instances[index].work, work))
                .or_else(|| rates.estimate(instances[index].entry.kind, work))
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

/// What stages took, by kind, on the device of the run and on others.
struct Rates<'d> {
    device: Option<&'d str>,
    known: HashMap<(&'static str, bool), Rate>,
}

/// `cuda` of `cuda:1`.
fn sort_of(device: &str) -> &str {
    device.split(':').next().unwrap_or(device)
}

impl Rates<'_> {
    /// Whether this is a device like that of the run; any is, where none is named.
    fn is_here(&self, device: &str) -> bool {
        self.device.is_none_or(|here| here == sort_of(device))
    }

    fn knows_here(&self, kind: &'static str) -> bool {
        self.known.contains_key(&(kind, true))
    }

    fn add<'a>(&mut self, records: impl Iterator<Item = &'a Record>, like: &Instance) {
        let kind = like.entry.kind;
        for record in records.filter(|record| record.ingredients.kind == kind) {
            let work = work_done(record, &*like.work).unwrap_or_default();
            self.count(kind, &record.device, record.wall_secs, work);
        }
    }

    fn count(&mut self, kind: &'static str, device: &str, secs: f64, work: f64) {
        if work > 0.0 {
            let rate = self.known.entry((kind, self.is_here(device))).or_default();
            rate.secs += secs;
            rate.work += work;
            rate.runs += 1.0;
        }
    }

    fn estimate(&self, kind: &'static str, work: Option<f64>) -> Option<f64> {
        let rate = self.known.get(&(kind, true)).or_else(|| self.known.get(&(kind, false)))?;
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

    #[test]
    fn another_device_counts_only_where_this_one_is_unknown() {
        let mut rates = Rates { device: Some(sort_of("cuda:1")), known: HashMap::new() };
        rates.count("lora_train", "cpu", 1000.0, 10.0);
        assert_eq!(rates.estimate("lora_train", Some(5.0)), Some(500.0));
        assert!(!rates.is_here("cpu") && !rates.knows_here("lora_train"));
        rates.count("lora_train", "cuda:0", 20.0, 10.0);
        assert_eq!(rates.estimate("lora_train", Some(5.0)), Some(10.0));
        assert_eq!(rates.estimate("sample", Some(5.0)), None);
        // Where no device is named, all are alike.
        let mut rates = Rates { device: None, known: HashMap::new() };
        rates.count("sample", "cpu", 30.0, 10.0);
        rates.count("sample", "cuda:0", 10.0, 10.0);
        assert_eq!(rates.estimate("sample", Some(10.0)), Some(20.0));
    }
}
