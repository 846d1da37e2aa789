//! Executes stages again, in a scratch store, and says whether they give what they gave.
//!
//! Each stage gets the inputs it had, from the cache, so that a difference shows where it arises
//! and not in all that follows. Nothing of the cache is changed; trainings start from nothing. So
//! no stage waits for another, and as many are executed at once as there are threads and memory
//! for.

use std::{
    path::Path,
    sync::mpsc::{Receiver, channel},
};

use serde::Serialize;

use super::{
    ExecError, Executor, MAX_THREADS, Outcome,
    failure::Failure,
    reexecute::{Ended, MemoryQueue, Reexecution},
};
use crate::{
    config::Pipeline,
    plan::{self, Freshness, MemoryPlan, PlanOptions},
    stages::{Progress, StageError},
    store::{Fingerprint, Record, Store, StoreError},
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
    /// The largest distance of numbers that counts as reproduced; see
    /// [`crate::artifact::compare::Distance::Numbers`].
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
    /// Executes what the cache holds of a pipeline again, in folders of their own below `scratch`.
    /// Tells each result as it is known, and gives all in the order of the pipeline.
    pub fn verify(
        &self,
        pipeline: &Pipeline,
        scratch: &Path,
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
        let sizes = MemoryPlan::new(pipeline, self.options.is_on_host());
        // Of what is not executed, none.
        let executed = chosen.iter().filter(|index| records[**index].is_some());
        let memory = executed.filter_map(|index| Some((*index, sizes.of(*index)?))).collect();
        let caller = self.caller(pipeline);
        let broken = |index| plan.damage_note(index);
        let execution = Reexecution {
            caller,
            records: &records,
            broken: &broken,
            memory,
            options,
            on_progress,
        };
        let threads = self.options.jobs.min(chosen.len()).clamp(1, MAX_THREADS);
        let folder = |thread: usize| Store::open(&scratch.join(thread.to_string()));
        let folders = (0..threads).map(folder).collect::<Result<Vec<_>, _>>()?;
        let queue = MemoryQueue::new(chosen, self.options.memory);
        std::thread::scope(|scope| {
            let (sender, ended) = channel();
            for scratch in &folders {
                let (execution, queue, sender) = (&execution, &queue, sender.clone());
                scope.spawn(move || execution.serve(queue, scratch, &sender));
            }
            drop(sender);
            gather(pipeline, ended, on_verified)
        })
    }
}

/// What came of the stages, in the order of the pipeline; what was interrupted is left out.
fn gather(
    pipeline: &Pipeline,
    ended: Receiver<Ended>,
    on_verified: &mut dyn FnMut(&Verified),
) -> Result<Vec<Verified>, ExecError> {
    let mut all = Vec::new();
    for Ended { index, verdict, wall_secs } in ended {
        let verdict = match verdict? {
            Err(StageError::Cancelled) => continue,
            verdict => verdict.unwrap_or_else(|error| failed(&error)),
        };
        let instance = &pipeline.instances[index];
        let (stage, kind) = (instance.to_string(), instance.entry.kind);
        let verified = Verified { stage, kind, verdict, wall_secs };
        on_verified(&verified);
        all.push((index, verified));
    }
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, verified)| verified).collect())
}

fn failed(error: &StageError) -> Verdict {
    let Failure { outcome, error: message, item, mut help } = Failure::of(error);
    if let StageError::Store(StoreError::Full { .. }) = error {
        // Nothing is written but results, and those not to the cache.
        help = Some("name a folder on a larger disk for scratch files with `TMPDIR`".to_owned());
    }
    Verdict::Failed { outcome, message, item, help }
}

/// The stages that are executed: the first ones in an order that looks random but is not. Those
/// that are not up to date are drawn with the others, so that a sample tells of them, too.
fn choose(
    pipeline: &Pipeline,
    needed: &[bool],
    records: &[Option<&Record>],
    options: &VerifyOptions,
) -> Vec<usize> {
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
    let mut chosen: Vec<usize> = order.into_iter().take(count).map(|(_, index)| index).collect();
    chosen.sort_unstable();
    chosen
}
