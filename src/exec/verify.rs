//! Executes stages again, in a scratch store, and says whether they give what they gave.
//!
//! Each stage gets the inputs it had, from the cache, so that a difference shows where it arises and
//! not in all that follows. Nothing of the cache is changed; trainings start from nothing.

use std::{collections::HashSet, time::Instant};

use burn::tensor::Device;
use serde::Serialize;

use super::{
    ExecError, Executor, Outcome,
    budget::Budget,
    call::{Call, Caller, Given, narrowed},
    failure::Failure,
};
use crate::{
    artifact::{
        Item,
        compare::{Distance, distance},
        crossed_name,
    },
    config::Pipeline,
    plan::{self, Freshness, MemoryPlan, PlanOptions},
    stages::{Progress, StageError},
    store::{Fingerprint, Record, SourceReader, Store, StoreError},
};

/// What is verified, and how.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Only this stage, or these cells of it, and what they need.
    pub only: Vec<String>,
    /// The share of the stages that is executed, chosen by `seed`.
    pub sample: f64,
    /// Another seed chooses other stages.
    pub seed: u64,
    /// The largest distance of numbers that counts as reproduced; see [`Distance::Numbers`].
    pub tolerance: f64,
    /// Whether each stage is executed twice and compared with itself, not with the cache.
    pub twice: bool,
}

/// What came of one stage.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Verified {
    /// `lora[n=10]`.
    pub stage: String,
    /// Stage kind.
    pub kind: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Wall seconds.
    pub wall_secs: f64,
}

/// Whether a stage gave again what it gave.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every byte is equal.
    Identical,
    /// Numbers differ by no more than the tolerance.
    WithinTolerance {
        /// The largest distance.
        distance: f64,
        /// Where it is.
        place: Difference,
    },
    /// Something differs by more.
    Different {
        /// The largest distance of numbers, if the form is the same.
        distance: Option<f64>,
        /// What differs.
        message: String,
        /// Where it is.
        place: Option<Difference>,
    },
    /// The stage failed this time.
    Failed {
        /// As what a run would have ended.
        outcome: Outcome,
        /// Why.
        message: String,
        /// The item at fault.
        item: Option<String>,
        /// What to do.
        help: Option<String>,
    },
    /// It was not executed.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// The same in words.
        message: String,
    },
}

/// Why a stage was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The cache has no result to compare with.
    NotUpToDate,
    /// It runs a shell command, which was not allowed.
    Command,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Difference {
    /// The item.
    pub item: String,
    /// Its file.
    pub file: String,
}

impl Executor<'_> {
    /// Executes what the cache holds of a pipeline again, in `scratch`, and tells each result.
    pub fn verify(
        &self,
        pipeline: &Pipeline,
        scratch: &Store,
        options: &VerifyOptions,
        on_progress: &(dyn Fn(&str, Progress) + Sync),
        on_verified: &mut dyn FnMut(&Verified),
    ) -> Result<Vec<Verified>, ExecError> {
        let _use = self.store.in_use_to_read(&|| self.options.cancel.is_cancelled())?;
        let wanted = PlanOptions { only: options.only.clone(), ..PlanOptions::default() };
        let plan = plan::build(pipeline, self.store, &wanted)?;
        let records = plan.nodes.iter().map(|node| match &node.freshness {
            Freshness::Fresh(record) if node.needed => Some(&**record),
            _ => None,
        });
        let records: Vec<Option<&Record>> = records.collect();
        let needed: Vec<bool> = plan.nodes.iter().map(|node| node.needed).collect();
        let chosen = choose(pipeline, &needed, &records, options);
        let memory = MemoryPlan::new(pipeline, self.options.device == Device::flex());
        let again =
            Again { caller: self.caller(pipeline), scratch, memory: &memory, options, on_progress };
        let mut all = Vec::new();
        for index in (0..plan.nodes.len()).filter(|index| chosen.contains(index)) {
            let start = Instant::now();
            let verdict = match again.verdict(index, records[index]) {
                Err(StageError::Cancelled) => return Ok(all),
                verdict => verdict.unwrap_or_else(|error| failed(&error)),
            };
            // Nothing of it is needed any more, and all of it together may be as much as the cache.
            scratch.clear()?;
            let instance = &pipeline.instances[index];
            let wall_secs = start.elapsed().as_secs_f64();
            let kind = instance.entry.kind;
            let verified = Verified { stage: instance.to_string(), kind, verdict, wall_secs };
            on_verified(&verified);
            all.push(verified);
        }
        Ok(all)
    }
}

fn failed(error: &StageError) -> Verdict {
    let Failure { outcome, error: message, item, mut help } = Failure::of(error);
    if let StageError::Store(StoreError::Full { .. }) = error {
        // Nothing is written but results, and those not to the cache.
        help = Some("name a folder on a larger disk for scratch files with `TMPDIR`".to_owned());
    }
    Verdict::Failed { outcome, message, item, help }
}

fn skipped(reason: SkipReason) -> Verdict {
    let message = match reason {
        SkipReason::NotUpToDate => "not up to date in the cache",
        SkipReason::Command => "runs a shell command, which was not allowed",
    };
    Verdict::Skipped { reason, message: message.to_owned() }
}

/// The stages that are executed: the first ones in an order that looks random but is not. Those that are
/// not up to date are drawn with the others, so that a sample tells of them, too.
fn choose(
    pipeline: &Pipeline,
    needed: &[bool],
    records: &[Option<&Record>],
    options: &VerifyOptions,
) -> HashSet<usize> {
    let order = |index: usize| {
        let name = match records[index] {
            Some(record) => record.fingerprint.to_string(),
            None => pipeline.instances[index].to_string(),
        };
        (Fingerprint::of(format!("{} {name}", options.seed).as_bytes()), index)
    };
    let mut order: Vec<_> = (0..needed.len()).filter(|index| needed[*index]).map(order).collect();
    order.sort_unstable();
    let count = (options.sample * order.len() as f64).ceil() as usize;
    order.into_iter().take(count).map(|(_, index)| index).collect()
}

/// What executes stages again.
struct Again<'a> {
    caller: Caller<'a>,
    scratch: &'a Store,
    memory: &'a MemoryPlan<'a>,
    options: &'a VerifyOptions,
    on_progress: &'a (dyn Fn(&str, Progress) + Sync),
}

impl Again<'_> {
    fn verdict(&self, index: usize, record: Option<&Record>) -> Result<Verdict, StageError> {
        let Caller { pipeline, store, options, .. } = self.caller;
        let Some(record) = record else { return Ok(skipped(SkipReason::NotUpToDate)) };
        if pipeline.instances[index].work.command().is_some() && !options.allow_commands {
            return Ok(skipped(SkipReason::Command));
        }
        self.check_fits(index)?;
        let made = self.execute(index, record)?;
        let tolerance = self.options.tolerance;
        if self.options.twice {
            let again = self.execute(index, record)?;
            return compare((&made, self.scratch), (&again, self.scratch), tolerance);
        }
        let before = store.manifest(record.output)?;
        compare((&before.items, store), (&made, self.scratch), tolerance)
    }

    /// Refuses what cannot fit the device, before anything is loaded.
    fn check_fits(&self, index: usize) -> Result<(), StageError> {
        match (self.memory.of(index), self.caller.options.memory) {
            (Some(needed), Some(limit)) if needed.total() > limit => {
                Err(self.caller.too_large(index, &needed, limit))
            }
            _ => Ok(()),
        }
    }

    /// The items that the stage gives now.
    fn execute(&self, index: usize, record: &Record) -> Result<Vec<Item>, StageError> {
        let Caller { pipeline, options, .. } = self.caller;
        let need = self.memory.of(index).map_or(0, |memory| memory.total());
        let room = Budget::new(options.memory).start(index, need);
        // A device that is lost may say so when it is to give something back.
        self.caller.guarded(index, || {
            self.caller.make_room(index, room);
            Ok(())
        })?;
        let given = self.caller.given(&record.ingredients.inputs)?;
        let crossed = pipeline.instances[index].work.crossed_port();
        let Some((port, others)) = crossed.and_then(|port| Some((port, given.get(port)?))) else {
            return self.call(index, given);
        };
        let mut items = Vec::new();
        for (other, prefix) in others.crossed() {
            for made in self.call(index, narrowed(&given, port, vec![other.clone()]))? {
                items.push(Item { name: crossed_name(prefix, &made.name), files: made.files });
            }
        }
        Ok(items)
    }

    fn call(&self, index: usize, given: Given) -> Result<Vec<Item>, StageError> {
        let Caller { pipeline, options, .. } = self.caller;
        let instance = &pipeline.instances[index];
        let sources = instance.work.source_root().map(SourceReader::new);
        let sources = sources.as_ref();
        let (checkpoints, weights) = (None, None);
        let call = Call { index, given, sources, checkpoints, weights, into: self.scratch };
        let name = instance.to_string();
        let progress = |progress: Progress| (self.on_progress)(&name, progress);
        let mut on_item = |_: &Item| options.cancel.check();
        self.caller
            .guarded(index, || self.caller.call(call, &progress, &mut on_item))
            .map(|made| made.items)
    }
}

/// Compares two lists of items, each with the store that holds its files.
fn compare(
    (before, before_in): (&[Item], &Store),
    (after, after_in): (&[Item], &Store),
    tolerance: f64,
) -> Result<Verdict, StageError> {
    let different = |message: String| Verdict::Different { distance: None, message, place: None };
    if !before.iter().map(|item| &item.name).eq(after.iter().map(|item| &item.name)) {
        return Ok(different("the items are others".to_owned()));
    }
    let mut farthest: Option<(f64, Difference)> = None;
    for (old, new) in before.iter().zip(after) {
        if !old.files.keys().eq(new.files.keys()) {
            return Ok(different(format!("the files of item `{}` are others", old.name)));
        }
        for ((file, a), b) in old.files.iter().zip(new.files.values()) {
            if a.digest == b.digest {
                continue;
            }
            let place = Difference { item: old.name.clone(), file: file.clone() };
            match distance(file, &before_in.read(a)?, &after_in.read(b)?) {
                Distance::None => {}
                Distance::Form(message) => {
                    return Ok(Verdict::Different { distance: None, message, place: Some(place) });
                }
                Distance::Numbers(far) => {
                    if farthest.as_ref().is_none_or(|(farthest, _)| far > *farthest) {
                        farthest = Some((far, place));
                    }
                }
            }
        }
    }
    Ok(match farthest {
        None => Verdict::Identical,
        Some((distance, place)) if distance <= tolerance => {
            Verdict::WithinTolerance { distance, place }
        }
        Some((distance, place)) => Verdict::Different {
            distance: distance.is_finite().then_some(distance),
            message: "numbers differ".to_owned(),
            place: Some(place),
        },
    })
}
