//! Brings a pipeline's results up to date: looks up, runs, commits, tells. Prints nothing.
//!
//! One thread walks the graph (`schedule`): it decides each instance as soon as its inputs are
//! known and hands what must run to the workers (`work`), which lock the key, run the stage and
//! commit its output. Everything an observer learns is a [`RunEvent`], sent from the one thread.

mod event;
mod queue;
mod schedule;
mod work;

pub use event::{Outcome, RunEvent, RunSummary};

use std::{
    sync::{Mutex, mpsc},
    time::Instant,
};

use burn::tensor::Device;

use crate::{
    config::Pipeline,
    models::ModelCache,
    plan::{Decider, Graph, PlanError, PlanOptions, Selection},
    stages::CancelFlag,
    store::{Store, StoreError},
};
use schedule::Schedule;
use work::{Message, Worker};

/// How a pipeline is run.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Where tensors live.
    pub device: Device,
    /// The device's name in records and events.
    pub device_name: String,
    /// Stages that run at once; at least one.
    pub jobs: usize,
    /// Whether stages that do not depend on a failed one still run.
    pub keep_going: bool,
    /// Stages, or instances, that run even if they are fresh.
    pub force: Vec<String>,
    /// Only this stage, or instance, and what it needs.
    pub only: Option<String>,
    /// Whether `command` stages may run.
    pub allow_commands: bool,
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
            keep_going: false,
            force: Vec::new(),
            only: None,
            allow_commands: false,
            cancel: CancelFlag::default(),
        }
    }
}

/// Runs pipelines on one store; keeps models loaded from one to the next.
pub struct Executor<'a> {
    store: &'a Store,
    options: ExecOptions,
    models: ModelCache,
}

impl<'a> Executor<'a> {
    /// An executor with no model loaded.
    pub fn new(store: &'a Store, options: ExecOptions) -> Self {
        Self { store, options, models: ModelCache::default() }
    }

    /// Brings the pipeline's results up to date. A stage that fails is an event and an outcome;
    /// an error is what kept the run from starting.
    pub fn execute(
        &self,
        pipeline: &Pipeline,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<RunSummary, ExecError> {
        let start = Instant::now();
        let _use = self.store.in_use()?;
        let decider = Decider::new(pipeline, self.store)?;
        let graph = Graph::new(pipeline);
        let wanted =
            PlanOptions { force: self.options.force.clone(), only: self.options.only.clone() };
        let selection = Selection::new(pipeline, &graph, &wanted)?;
        decider.check_source_roots(&selection)?;
        on_event(RunEvent::RunStarted {
            pipeline: pipeline.name.clone(),
            instances: selection.needed.iter().filter(|needed| **needed).count(),
            device: self.options.device_name.clone(),
        });

        let schedule = Schedule::new(&decider, &graph, &selection, self.store, &self.options);
        let mut summary = std::thread::scope(|scope| {
            let (job_sender, jobs) = mpsc::channel();
            let (message_sender, messages) = mpsc::channel::<Message>();
            let jobs = std::sync::Arc::new(Mutex::new(jobs));
            for _ in 0..self.options.jobs.max(1) {
                let worker = Worker {
                    store: self.store,
                    decider: &decider,
                    options: &self.options,
                    models: &self.models,
                    messages: message_sender.clone(),
                };
                let jobs = std::sync::Arc::clone(&jobs);
                scope.spawn(move || worker.serve(&jobs));
            }
            schedule.walk(&job_sender, &messages, on_event)
        });

        self.store.save_stat_cache()?;
        summary.wall_secs = start.elapsed().as_secs_f64();
        on_event(RunEvent::RunFinished(summary.clone()));
        Ok(summary)
    }
}

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No plan could be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The store failed: exit code 3.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ExecError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.help(),
            Self::Store(error) => error.help().map(str::to_owned),
        }
    }

    /// Whether the machine lacks something (exit code 3) or the request is wrong (2).
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Plan(error) => error.is_environment(),
            Self::Store(_) => true,
        }
    }
}
