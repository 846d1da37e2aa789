//! Executes stages again, in a scratch store, and says whether they give what they gave.
//!
//! Each stage gets the inputs it had, from the cache, so that a difference shows where it arises and
//! not in all that follows. Nothing of the cache is changed; trainings start from nothing.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use super::{ExecError, Executor};
use crate::{
    artifact::{
        Item, Manifest,
        compare::{Distance, distance},
        crossed_name,
    },
    config::{Instance, Pipeline},
    plan::{self, Freshness, PlanOptions},
    stages::{Inputs, Output, Progress, StageContext, StageError},
    store::{Fingerprint, Record, SourceReader, Store},
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
        /// Why.
        message: String,
    },
    /// It was not executed.
    Skipped {
        /// Why.
        message: String,
    },
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
        let _use = self.store.in_use()?;
        let wanted = PlanOptions { only: options.only.clone(), ..PlanOptions::default() };
        let plan = plan::build(pipeline, self.store, &wanted)?;
        let records = plan.nodes.iter().map(|node| match &node.freshness {
            Freshness::Fresh(record) if node.needed => Some(&**record),
            _ => None,
        });
        let records: Vec<Option<&Record>> = records.collect();
        let chosen = choose(&records, options);
        let mut all = Vec::new();
        for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.needed) {
            let instance = &pipeline.instances[index];
            let start = Instant::now();
            let verdict = match records[index] {
                None => Verdict::Skipped { message: "not up to date in the cache".to_owned() },
                Some(_) if !chosen.contains(&index) => continue,
                Some(_) if instance.work.command().is_some() && !self.options.allow_commands => {
                    let message = "runs a shell command, which was not allowed".to_owned();
                    Verdict::Skipped { message }
                }
                Some(record) => {
                    let again = Again { executor: self, scratch, instance, record, on_progress };
                    match again.verdict(options) {
                        Err(StageError::Cancelled) => return Ok(all),
                        verdict => verdict.unwrap_or_else(|error| failed(&error)),
                    }
                }
            };
            debug_assert!(node.needed);
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
    Verdict::Failed { message: error.to_string() }
}

/// The stages that are executed: the first ones in an order that looks random but is not.
fn choose(records: &[Option<&Record>], options: &VerifyOptions) -> Vec<usize> {
    let order = |record: &Record| {
        Fingerprint::of(format!("{} {}", options.seed, record.fingerprint).as_bytes())
    };
    let mut known: Vec<(Fingerprint, usize)> = records
        .iter()
        .enumerate()
        .filter_map(|(index, record)| Some((order((*record)?), index)))
        .collect();
    known.sort_unstable();
    let count = (options.sample * known.len() as f64).ceil() as usize;
    known.into_iter().take(count).map(|(_, index)| index).collect()
}

/// One stage that is executed again.
struct Again<'a> {
    executor: &'a Executor<'a>,
    scratch: &'a Store,
    instance: &'a Instance,
    record: &'a Record,
    on_progress: &'a (dyn Fn(&str, Progress) + Sync),
}

impl Again<'_> {
    fn verdict(&self, options: &VerifyOptions) -> Result<Verdict, StageError> {
        let store = self.executor.store;
        let made = self.execute()?;
        if options.twice {
            let again = self.execute()?;
            return compare((&made, self.scratch), (&again, self.scratch), options.tolerance);
        }
        let before = store.manifest(self.record.output)?;
        compare((&before.items, store), (&made, self.scratch), options.tolerance)
    }

    /// The items that the stage gives now.
    fn execute(&self) -> Result<Vec<Item>, StageError> {
        let store = self.executor.store;
        let inputs = self.record.ingredients.inputs.iter();
        let ports = inputs.map(|(port, digest)| Ok((port.clone(), store.manifest(*digest)?)));
        let ports: BTreeMap<String, Arc<Manifest>> = ports.collect::<Result<_, StageError>>()?;
        let crossed = self.instance.work.crossed_port().and_then(|port| ports.get_key_value(port));
        let Some((port, others)) = crossed else { return self.call(ports.clone()) };
        let mut items = Vec::new();
        for other in &others.items {
            let one = Manifest { items: vec![other.clone()], ..(**others).clone() };
            let mut ports = ports.clone();
            ports.insert(port.clone(), Arc::new(one));
            let prefix = (others.items.len() > 1).then_some(other.name.as_str());
            let made = self.call(ports)?.into_iter();
            items
                .extend(made.map(|i| Item { name: crossed_name(prefix, &i.name), files: i.files }));
        }
        Ok(items)
    }

    fn call(&self, ports: BTreeMap<String, Arc<Manifest>>) -> Result<Vec<Item>, StageError> {
        let Executor { store, options, models } = self.executor;
        let sources = self.instance.work.source_root().map(SourceReader::new);
        let name = self.instance.to_string();
        let context = StageContext {
            device: &options.device,
            models,
            sources: sources.as_ref(),
            checkpoints: None,
            allow_commands: options.allow_commands,
            progress: &|progress| (self.on_progress)(&name, progress),
            cancel: &options.cancel,
        };
        let inputs = Inputs::new(store, ports);
        let mut on_item = |_: &Item| options.cancel.check();
        let mut output = Output::new(self.scratch, &mut on_item);
        let work = &self.instance.work;
        match catch_unwind(AssertUnwindSafe(|| work.run(&inputs, &mut output, &context))) {
            Ok(ended) => ended.map(|()| output.into_items()),
            Err(_) => Err(StageError::failed("the stage panicked")),
        }
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
