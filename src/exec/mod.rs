//! Brings a pipeline's results up to date: looks up, runs, commits, tells. Prints nothing.
//!
//! One thread walks the graph (`schedule`): it decides each instance as soon as its inputs are
//! known and hands what must run to other threads (`job`), which lock the key, run the stage and
//! commit its output. Where there are several devices, each has a process that stages are called in
//! (`workers`). A stage that another process computes is put aside for as long as there is
//! something else to do, and of a mapped stage each item is made once (`items`). Everything an
//! observer learns is a [`RunEvent`], sent from the one thread.

mod budget;
mod call;
mod event;
mod failure;
mod items;
mod job;
mod lookups;
mod meter;
mod queue;
mod reexecute;
mod schedule;
mod verify;
mod workers;

pub use event::{Outcome, RunEvent, RunSummary};
pub use verify::{Difference, SkipReason, Verdict, Verified, VerifyOptions};
pub use workers::{Fitting, Launch, Slot, Talk, serve, unfit};

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, mpsc},
    time::Instant,
};

use burn::tensor::Device;

use crate::{
    config::{Pipeline, Place},
    models::ModelCache,
    plan::{
        self, Decider, Freshness, Graph, Lacking, Locked, Plan, PlanError, PlanOptions, Selection,
    },
    stages::{CancelFlag, CommandGuard},
    store::{Digest, Record, Store, StoreError},
};
use call::Caller;
use job::{JobThread, Message};
use meter::Meter;
use schedule::Schedule;
use workers::Workers;

/// How a pipeline is run.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Where tensors live.
    pub device: Device,
    /// The device's name in records and events.
    pub device_name: String,
    /// Stages that run at once; at least one.
    pub jobs: usize,
    /// The device's memory, if it is known; stages that together need more do not run at once.
    pub memory: Option<u64>,
    /// What the driver's tool calls the card, to measure what stages take of it.
    pub card: Option<String>,
    /// What it calls a card of its kind, for records.
    pub card_name: Option<String>,
    /// Devices beside which there are others: a stage that computes on the device does so in the
    /// worker of one of these, and all others here, on `device`. None if that is the only one.
    pub slots: Vec<Slot>,
    /// Where what workers write to their standard error is told.
    pub talk: Talk,
    /// Whether stages that do not depend on a failed one still run.
    pub keep_going: bool,
    /// Stages, or instances, that run even if they are fresh.
    pub force: Vec<String>,
    /// Only these stages, or instances, and what they need; all if there are none.
    pub only: Vec<String>,
    /// Whether `command` stages may run.
    pub allow_commands: bool,
    /// What instances must give, by name; another output, or another key, is a failure.
    pub locked: BTreeMap<String, Locked>,
    /// Set from outside to stop the run.
    pub cancel: CancelFlag,
}

impl ExecOptions {
    /// One stage at a time, nothing forced, no commands.
    pub fn new(device: Device, device_name: &str) -> Self {
        Self {
            device,
            device_name: device_name.to_owned(),
            jobs: 1,
            memory: None,
            card: None,
            card_name: None,
            slots: Vec::new(),
            talk: Talk::default(),
            keep_going: false,
            force: Vec::new(),
            only: Vec::new(),
            allow_commands: false,
            locked: BTreeMap::new(),
            cancel: CancelFlag::default(),
        }
    }

    /// Whether what computes on the device does so on the CPU.
    fn is_on_host(&self) -> bool {
        self.slots.first().map_or_else(|| self.device == Device::flex(), |slot| slot.on_host)
    }

    /// Which stages are meant.
    fn wanted(&self) -> PlanOptions {
        PlanOptions { force: self.force.clone(), only: self.only.clone() }
    }
}

/// Most stages that run at once: threads of a machine are not without end.
const MAX_THREADS: usize = 256;

/// Runs pipelines on one store; keeps models loaded from one to the next.
pub struct Executor<'a> {
    store: &'a Store,
    options: ExecOptions,
    models: ModelCache,
    workers: Workers,
    commands: Arc<CommandGuard>,
}

impl<'a> Executor<'a> {
    /// An executor with no model loaded.
    pub fn new(store: &'a Store, options: ExecOptions) -> Self {
        let commands = Arc::<CommandGuard>::default();
        let workers = Workers::new(options.slots.len(), Arc::clone(&commands));
        Self { store, options, models: ModelCache::default(), workers, commands }
    }

    /// From now on, what instances must give, by name.
    pub fn lock_to(&mut self, locked: BTreeMap<String, Locked>) {
        self.options.locked = locked;
    }

    /// Brings the pipeline's results up to date. A stage that fails is an event and an outcome;
    /// an error is what kept the run from starting.
    pub fn execute(
        &self,
        pipeline: &Pipeline,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<RunSummary, ExecError> {
        let start = Instant::now();
        let _use = self.store.in_use(&|| self.options.cancel.is_cancelled())?;
        self.store.drop_left_work_folders();
        let decider = Decider::new(pipeline, self.store)?;
        let graph = Graph::new(pipeline);
        let wanted = self.options.wanted();
        let selection = Selection::new(pipeline, &graph, &wanted)?;
        let fresh = self.check(&decider, &graph, &selection)?;
        on_event(RunEvent::RunStarted {
            pipeline: pipeline.name.clone(),
            instances: selection.needed.iter().filter(|needed| **needed).count(),
            device: self.options.device_name.clone(),
        });

        // More threads than stages would have nothing to do.
        let threads = self.options.jobs.min(pipeline.instances.len()).clamp(1, MAX_THREADS);
        let meter = Meter::new(&self.options.device, self.options.card.as_deref());
        let (mut summary, unusable) = std::thread::scope(|scope| {
            let (job_sender, jobs) = mpsc::channel();
            let (message_sender, messages) = mpsc::channel::<Message>();
            let jobs = Arc::new(Mutex::new(jobs));
            for _ in 0..threads {
                let thread = JobThread {
                    caller: self.caller(pipeline),
                    decider: &decider,
                    meter: &meter,
                    messages: message_sender.clone(),
                    spent: Mutex::default(),
                };
                let jobs = Arc::clone(&jobs);
                scope.spawn(move || thread.serve(&jobs));
            }
            let lookups = lookups::start(scope, &decider, self.store, &message_sender);
            // With this one gone, the walk ends when the last thread does.
            drop(message_sender);
            let (store, options) = (self.store, &self.options);
            Schedule::new(&decider, &graph, &selection, store, options, threads, lookups)
                .with_fresh(fresh)
                .walk(&job_sender, &messages, on_event)
        });

        self.end(&decider);
        summary.wall_secs = start.elapsed().as_secs_f64();
        on_event(RunEvent::RunFinished(summary.clone()));
        if unusable.is_empty() { Ok(summary) } else { Err(ExecError::Lacks(unusable)) }
    }

    /// Writes what spares the next run work, and `gc` guesses. All results are there already, so a
    /// disk that is full by now fails nothing.
    fn end(&self, decider: &Decider<'_>) {
        if let Err(error) = self.store.save_stat_cache() {
            tracing::warn!("The next run reads all outside files anew: {error}.");
        }
        if let Err(error) = decider.ran() {
            tracing::warn!("What the pipeline has no more is kept until its next run: {error}.");
        }
    }

    /// What calls the stages of a pipeline.
    fn caller<'e>(&'e self, pipeline: &'e Pipeline) -> Caller<'e> {
        let Self { store, options, models, workers, commands } = self;
        Caller { pipeline, store, options, models, workers, commands }
    }

    /// Refuses commands that would run without permission.
    pub fn refuse_commands(&self, pipeline: &Pipeline) -> Result<(), ExecError> {
        if self.options.allow_commands || !has_commands(pipeline) {
            return Ok(());
        }
        let wanted = self.options.wanted();
        let refused = commands(&plan::build(pipeline, self.store, &wanted)?);
        if refused.is_empty() { Ok(()) } else { Err(ExecError::Commands(refused)) }
    }

    /// Reads all that the store holds of a pipeline, after some of it turned out damaged, and drops
    /// what is; gives how much.
    pub fn drop_damaged(&self, pipeline: &Pipeline) -> Result<usize, ExecError> {
        let plan = plan::build(pipeline, self.store, &self.options.wanted())?;
        let outputs = plan.nodes.iter().filter_map(|node| match &node.freshness {
            Freshness::Fresh(record) => Some(record.output),
            _ => None,
        });
        let outputs: HashSet<Digest> = outputs.collect();
        let dropped = outputs.into_iter().map(|output| self.store.drop_damaged(output));
        Ok(dropped.sum::<Result<usize, StoreError>>()?)
    }

    /// Refuses, before anything runs, what could not be run to its end. What had to be looked up
    /// for that and is fresh, by index, need not be looked up again.
    fn check(
        &self,
        decider: &Decider<'_>,
        graph: &Graph,
        selection: &Selection,
    ) -> Result<Vec<Option<Box<Record>>>, ExecError> {
        let lacks = decider.lacks(selection);
        if !lacks.is_empty() {
            return Err(ExecError::Lacks(lacks));
        }
        if self.options.allow_commands || !has_commands(decider.pipeline) {
            return Ok(Vec::new());
        }
        // A command whose output is in the store does not run, so it needs no permission.
        let plan = plan::decide_all(decider.pipeline, decider, graph, selection)?;
        let refused = commands(&plan);
        if !refused.is_empty() {
            return Err(ExecError::Commands(refused));
        }
        let records = plan.nodes.into_iter().map(|node| match node.freshness {
            Freshness::Fresh(record) => Some(record),
            _ => None,
        });
        Ok(records.collect())
    }
}

fn has_commands(pipeline: &Pipeline) -> bool {
    pipeline.instances.iter().any(|instance| instance.work.command().is_some())
}

/// The commands that a run of this plan may start, each once.
fn commands(plan: &Plan<'_>) -> Vec<RefusedCommand> {
    let mut found: Vec<RefusedCommand> = Vec::new();
    let mut seen = HashSet::new();
    for (node, instance) in plan.nodes.iter().zip(&plan.pipeline.instances) {
        let Some(command) = instance.work.command() else { continue };
        if !node.needed || matches!(node.freshness, Freshness::Fresh(_)) {
            continue;
        }
        let command = command.trim().lines().next().unwrap_or_default();
        let place = instance.places.get("command");
        if seen.insert((&instance.stage, command, place.as_ref().map(ToString::to_string))) {
            let (stage, command) = (instance.stage.clone(), command.to_owned());
            found.push(RefusedCommand { stage, command, place });
        }
    }
    found
}

/// A shell command that would run without permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCommand {
    /// The stage.
    pub stage: String,
    /// Its first line.
    pub command: String,
    /// Where it is written.
    pub place: Option<Place>,
}

impl RefusedCommand {
    /// What is refused, and where to read it.
    pub fn message(&self) -> String {
        let Self { stage, command, place } = self;
        let place = place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
        format!("stage `{stage}` runs a shell command{place}, which was not allowed: {command}")
    }
}

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No plan could be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Weights or data are not there, or cannot be used: exit code 3.
    #[error("{}", .0.iter().map(Lacking::message).collect::<Vec<_>>().join("\n"))]
    Lacks(Vec<Lacking>),
    /// Stages would run shell commands without permission: exit code 2.
    #[error("{}", .0.iter().map(RefusedCommand::message).collect::<Vec<_>>().join("\n"))]
    Commands(Vec<RefusedCommand>),
    /// The store failed: exit code 3.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ExecError {
    /// Each thing that is wrong, with what to do.
    pub fn parts(&self) -> Vec<(String, Option<String>)> {
        match self {
            Self::Lacks(lacks) => {
                lacks.iter().map(|lacking| (lacking.message(), lacking.lack.help())).collect()
            }
            Self::Commands(refused) => {
                refused.iter().map(|refused| (refused.message(), self.help())).collect()
            }
            Self::Plan(_) | Self::Store(_) => vec![(self.to_string(), self.help())],
        }
    }

    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.help(),
            Self::Lacks(lacks) => lacks.first().and_then(|lacking| lacking.lack.help()),
            Self::Commands(_) => {
                Some("read the command, then run again with --allow-commands".to_owned())
            }
            Self::Store(error) => error.help().map(str::to_owned),
        }
    }

    /// Whether the machine lacks something (exit code 3) or the request is wrong (2).
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Plan(error) => error.is_environment(),
            Self::Commands(_) => false,
            Self::Lacks(_) | Self::Store(_) => true,
        }
    }
}
