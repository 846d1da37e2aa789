//! How long a stage may take: as long as stages like it took, in proportion to the work.
//!
//! The work of a stage is its [`Stage::effort_params`] multiplied, times the pixels of a clip,
//! times the items it makes if it maps items. A training that goes on from a checkpoint does the
//! rest of it. Of a stage with weights of a model, only what took place with the same weights and
//! on such a device counts: a large model may take a thousand times as long as a small one. Of
//! others, what they took on another device counts where nothing is known of this one. Cards of two
//! names are two devices.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Decider, Freshness, PlanNode, ResumePoint, size::Sizes};
use crate::{
    config::Instance,
    stages::Stage,
    store::{Digest, Record},
};

/// The device of a run.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its name, such as `cuda:1`.
    pub device: &'a str,
    /// What the driver's tool calls the card, if it is one and is known.
    pub card: Option<&'a str>,
}

/// Sets the last runs and the estimates of nodes that are all decided, for a run `here`, if that is
/// known.
pub(super) fn fill(decider: &Decider<'_>, nodes: &mut [PlanNode], here: Option<Here<'_>>) {
    let pipeline = decider.pipeline;
    let instances = &pipeline.instances;
    for (index, node) in nodes.iter_mut().enumerate() {
        if !matches!(node.freshness, Freshness::Fresh(_)) {
            node.last = decider.last(index);
        }
    }
    let mut rates = Rates { here, known: HashMap::new() };
    let then = Sizes::new(pipeline, |index| {
        nodes[index].record().map(|record| &record.ingredients.params)
    });
    for (index, (node, instance)) in nodes.iter().zip(instances).enumerate() {
        let pixels = pixels(&then, index, &*instance.work);
        rates.add(node.record().into_iter(), instance, pixels);
    }
    let now = Sizes::new(pipeline, |index| Some(&*instances[index].params));
    let pixels_now = |index: usize| pixels(&now, index, &*instances[index].work);
    let likes: Vec<Option<Like>> =
        (0..nodes.len()).map(|index| Like::of(decider, index, &nodes[index])).collect();
    let others = decider.records_seen();
    let mut tried = HashSet::new();
    for (index, (instance, like)) in instances.iter().zip(&likes).enumerate() {
        let Some(like) = like else { continue };
        let runs = !matches!(nodes[index].freshness, Freshness::Fresh(_));
        if runs && !rates.knows_here(like) && tried.insert(*like) {
            // How large the clips of these were, nobody knows any more: as large as they are now.
            let alike = others.iter().map(AsRef::as_ref).filter(|record| like.is_of(record));
            rates.add(alike, instance, pixels_now(index));
        }
    }
    let mut items = Vec::with_capacity(nodes.len());
    for (instance, node) in instances.iter().zip(&*nodes) {
        items.push(items_given(instance, node, &items));
    }
    for (index, node) in nodes.iter_mut().enumerate() {
        let stage = &*instances[index].work;
        node.estimate_secs = match (&node.freshness, &likes[index]) {
            (Freshness::Fresh(record), _) => Some(record.wall_secs),
            (_, None) => None,
            (_, Some(like)) => {
                let work = work_to_do(&instances[index], node, items[index], pixels_now(index));
                let last = node.last.as_deref().filter(|last| {
                    like.is_of(last)
                        && (rates.is_here(There::of(last)) || rates.may_be_elsewhere(like))
                });
                last.and_then(|last| scaled(last, stage, pixels(&then, index, stage), work))
                    .or_else(|| rates.estimate(like, work))
            }
        };
    }
}

/// What stages have in common of which one's time tells that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Like {
    kind: &'static str,
    /// Those of a model, if the stage reads any.
    weights: Option<Digest>,
}

impl Like {
    /// Of an instance as it is now; none where it reads weights of which nothing is known, as they
    /// were never used.
    fn of(decider: &Decider<'_>, index: usize, node: &PlanNode) -> Option<Self> {
        let instance = &decider.pipeline.instances[index];
        let weights = match &node.freshness {
            Freshness::Fresh(record) => record.ingredients.weights,
            _ if instance.work.model().is_none() => None,
            _ => Some(decider.weights_at_hand(index, node.last.as_deref())?),
        };
        Some(Self { kind: instance.entry.kind, weights })
    }

    fn is_of(&self, record: &Record) -> bool {
        record.ingredients.kind == self.kind && record.ingredients.weights == self.weights
    }
}

/// The pixels that the time of a stage is in proportion to, beside its parameters.
fn pixels(sizes: &Sizes, index: usize, stage: &dyn Stage) -> Option<f64> {
    // They count frames already.
    if stage.effort_params().contains(&"frames") { sizes.area(index) } else { sizes.volume(index) }
}

/// What a record took, brought to another amount of work; as it was where the work is not known.
fn scaled(
    record: &Record,
    stage: &dyn Stage,
    pixels: Option<f64>,
    work: Option<f64>,
) -> Option<f64> {
    let done = work_done(record, stage, pixels);
    if done == Some(0.0) {
        // It only gathered what was there.
        return None;
    }
    Some(done.zip(work).map_or(record.wall_secs, |(done, work)| record.wall_secs * work / done))
}

/// Seconds and work of all stages like one, and the seconds and number of its runs.
#[derive(Clone, Copy, Default)]
struct Rate {
    secs: f64,
    work: f64,
    runs: f64,
}

/// What stages took, on the device of the run and on others.
struct Rates<'d> {
    here: Option<Here<'d>>,
    known: HashMap<(Like, bool), Rate>,
}

/// The device of an earlier run.
type There<'a> = Here<'a>;

impl<'a> There<'a> {
    fn of(record: &'a Record) -> Self {
        Self { device: &record.device, card: record.card.as_deref() }
    }
}

/// `cuda` of `cuda:1`.
fn sort_of(device: &str) -> &str {
    device.split(':').next().unwrap_or(device)
}

impl Rates<'_> {
    /// Whether this is a device like that of the run; any is, where none is named. Of a card whose
    /// name nobody knows, as older versions kept none, nothing else can be said.
    fn is_here(&self, there: There<'_>) -> bool {
        self.here.is_none_or(|here| {
            let cards = here.card.zip(there.card);
            sort_of(here.device) == sort_of(there.device) && cards.is_none_or(|(a, b)| a == b)
        })
    }

    fn knows_here(&self, like: &Like) -> bool {
        self.known.contains_key(&(*like, true))
    }

    /// Whether what was timed on another device counts.
    fn may_be_elsewhere(&self, like: &Like) -> bool {
        like.weights.is_none() && !self.knows_here(like)
    }

    fn add<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        instance: &Instance,
        pixels: Option<f64>,
    ) {
        let kind = instance.entry.kind;
        for record in records.filter(|record| record.ingredients.kind == kind) {
            let work = work_done(record, &*instance.work, pixels).unwrap_or_default();
            let like = Like { kind, weights: record.ingredients.weights };
            self.count(like, There::of(record), record.wall_secs, work);
        }
    }

    fn count(&mut self, like: Like, there: There<'_>, secs: f64, work: f64) {
        if work > 0.0 {
            let rate = self.known.entry((like, self.is_here(there))).or_default();
            rate.secs += secs;
            rate.work += work;
            rate.runs += 1.0;
        }
    }

    fn estimate(&self, like: &Like, work: Option<f64>) -> Option<f64> {
        let elsewhere = || self.known.get(&(*like, false)).filter(|_| self.may_be_elsewhere(like));
        let rate = self.known.get(&(*like, true)).or_else(elsewhere)?;
        Some(work.map_or(rate.secs / rate.runs, |work| rate.secs * work / rate.work))
    }
}

/// The work that a run did.
fn work_done(record: &Record, stage: &dyn Stage, pixels: Option<f64>) -> Option<f64> {
    let whole = effort(&record.ingredients.params, stage)? * pixels.unwrap_or(1.0);
    let items = if stage.mapped_port().is_some() { record.items_run as f64 } else { 1.0 };
    let resumed = record.reached.map(|steps_total| {
        let step = record.went_on_from.unwrap_or(0);
        ResumePoint { step, steps_total }
    });
    Some(whole * items * resumed.map_or(1.0, rest))
}

/// The work that an instance has before it.
fn work_to_do(
    instance: &Instance,
    node: &PlanNode,
    items: Option<usize>,
    pixels: Option<f64>,
) -> Option<f64> {
    let whole = effort(&instance.params, &*instance.work)? * pixels.unwrap_or(1.0);
    let items = match (instance.work.mapped_port(), node.items) {
        (None, _) => 1.0,
        (Some(_), Some(items)) => items.uncached() as f64,
        (Some(_), None) => items? as f64,
    };
    Some(whole * items * node.resumes_at.map_or(1.0, rest))
}

/// The share of a training that is left after a step.
fn rest(ResumePoint { step, steps_total }: ResumePoint) -> f64 {
    if steps_total == 0 {
        return 1.0;
    }
    steps_total.saturating_sub(step) as f64 / steps_total as f64
}

/// The product of the parameters that the time is proportional to; none where one is not set.
fn effort(params: &Map<String, Value>, stage: &dyn Stage) -> Option<f64> {
    stage.effort_params().iter().map(|name| params.get(*name)?.as_f64()).product()
}

/// How many items an instance gives, or will give, as far as that can be told; `before` says it of
/// the instances before it.
pub(super) fn items_given(
    instance: &Instance,
    node: &PlanNode,
    before: &[Option<usize>],
) -> Option<usize> {
    if let Freshness::Fresh(record) = &node.freshness {
        return Some(record.items_total);
    }
    if let Some(items) = node.items {
        return Some(items.total);
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
        let percent = [(0, 40), (30, 40), (40, 40), (0, 0)].map(|(step, steps_total)| {
            let share = 100.0 * rest(ResumePoint { step, steps_total });
            share.round() as i64
        });
        assert_eq!(percent, [100, 25, 0, 100]);
    }

    const CPU: Here<'static> = Here { device: "cpu", card: None };
    const CUDA: Here<'static> = Here { device: "cuda:0", card: None };

    const TRAINING: Like = Like { kind: "lora_train", weights: None };

    #[test]
    fn another_device_counts_only_where_this_one_is_unknown() {
        let mut rates =
            Rates { here: Some(Here { device: "cuda:1", ..CUDA }), known: HashMap::new() };
        let other = Like { kind: "sample", ..TRAINING };
        rates.count(TRAINING, CPU, 1000.0, 10.0);
        assert_eq!(rates.estimate(&TRAINING, Some(5.0)), Some(500.0));
        assert!(!rates.is_here(CPU) && !rates.knows_here(&TRAINING));
        rates.count(TRAINING, CUDA, 20.0, 10.0);
        assert_eq!(rates.estimate(&TRAINING, Some(5.0)), Some(10.0));
        assert_eq!(rates.estimate(&other, Some(5.0)), None);
        // Where no device is named, all are alike.
        let mut rates = Rates { here: None, known: HashMap::new() };
        rates.count(other, CPU, 30.0, 10.0);
        rates.count(other, CUDA, 10.0, 10.0);
        assert_eq!(rates.estimate(&other, Some(10.0)), Some(20.0));
    }

    #[test]
    fn another_card_is_another_device() {
        let on = |card: &'static str| Here { card: Some(card), ..CUDA };
        let weights = Some(Digest::of(b"large"));
        let large = Like { weights, ..TRAINING };
        let mut rates = Rates { here: Some(on("NVIDIA A10")), known: HashMap::new() };
        rates.count(large, on("NVIDIA H100 80GB HBM3"), 1.0, 10.0);
        assert_eq!(rates.estimate(&large, Some(10.0)), None);
        // What is known to no card counts for each of its sort.
        rates.count(large, CUDA, 7.0, 10.0);
        assert_eq!(rates.estimate(&large, Some(10.0)), Some(7.0));
        rates.count(large, on("NVIDIA A10"), 13.0, 10.0);
        assert_eq!(rates.estimate(&large, Some(10.0)), Some(10.0));
        let rates = Rates { here: Some(CUDA), ..rates };
        assert!(rates.is_here(on("NVIDIA A10")) && !rates.is_here(CPU));
    }

    #[test]
    fn of_a_model_only_the_same_weights_on_such_a_device_count() {
        let mut rates =
            Rates { here: Some(Here { device: "cuda", ..CUDA }), known: HashMap::new() };
        let with = |model: &[u8]| Like { weights: Some(Digest::of(model)), ..TRAINING };
        rates.count(with(b"tiny"), CPU, 10.0, 10.0);
        assert_eq!(rates.estimate(&with(b"tiny"), Some(10.0)), None);
        rates.count(with(b"tiny"), CUDA, 1.0, 10.0);
        assert_eq!(rates.estimate(&with(b"tiny"), Some(10.0)), Some(1.0));
        assert_eq!(rates.estimate(&with(b"large"), Some(10.0)), None);
    }
}
