//! The walk over the graph: what is decided when, what runs next, and what a failure stops.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::mpsc::{Receiver, Sender},
};

use burn::tensor::Device;

use super::{
    ExecOptions, Outcome, RunEvent, RunSummary,
    budget::Budget,
    queue::Queue,
    work::{Finished, Job, Message, stage_error},
};
use crate::{
    plan::{Decider, Found, Graph, MemoryPlan, PlanError, Selection, StaleReason},
    stages::StageError,
    store::{Digest, Fingerprint, Record, Store},
};

/// Times a stage is tried again because an input turned out damaged.
const REPAIRS: u32 = 3;

/// What to do about a bug of ours.
const REPORT: &str = "this is a bug in pipe; please report it with this file";

/// Where an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Was not asked for.
    Unneeded,
    /// Its inputs are not all known, or it is about to be decided.
    Waiting,
    /// Must run.
    Queued,
    /// Runs.
    Running,
    /// Its output is in the store.
    Done { output: Digest },
    /// Its work failed.
    Failed,
    /// Something it needs failed.
    Skipped,
}

/// The state of one run.
pub(super) struct Schedule<'a> {
    decider: &'a Decider<'a>,
    graph: &'a Graph,
    selection: &'a Selection,
    store: &'a Store,
    options: &'a ExecOptions,
    states: Vec<State>,
    /// Instances whose inputs are all known, to be decided.
    ready: BTreeSet<usize>,
    /// Instances that must run.
    queue: Queue,
    /// Locks of what runs; an instance with the same lock waits and is then decided again.
    running: HashSet<Fingerprint>,
    /// The memory they take.
    budget: Budget,
    memory: MemoryPlan<'a>,
    /// Keys that were forced and ran, and keys that failed, with the first instance that had them.
    forced: HashSet<Fingerprint>,
    failed: HashMap<Fingerprint, usize>,
    /// The weights of the last stage that was started, which a worker has loaded.
    loaded: Option<Digest>,
    /// What each output was before a repair.
    before: HashMap<usize, Digest>,
    repairs: Vec<u32>,
    /// Whether an instance ran in this run; after a repair it may be found fresh once more.
    ran: Vec<bool>,
    /// What was found fresh before the run began, by index.
    fresh: Vec<Option<Box<Record>>>,
    outcome: Outcome,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(
        decider: &'a Decider<'a>,
        graph: &'a Graph,
        selection: &'a Selection,
        store: &'a Store,
        options: &'a ExecOptions,
    ) -> Self {
        let instances = selection.needed.len();
        let state = |needed: &bool| if *needed { State::Waiting } else { State::Unneeded };
        Self {
            decider,
            graph,
            selection,
            store,
            options,
            states: selection.needed.iter().map(state).collect(),
            ready: BTreeSet::new(),
            queue: Queue::default(),
            running: HashSet::new(),
            budget: Budget::new(options.memory),
            memory: MemoryPlan::new(decider.pipeline, options.device == Device::flex()),
            forced: HashSet::new(),
            failed: HashMap::new(),
            loaded: None,
            before: HashMap::new(),
            repairs: vec![0; instances],
            ran: vec![false; instances],
            fresh: Vec::new(),
            outcome: Outcome::Done,
        }
    }

    /// With the records of instances that were found fresh already.
    pub(super) fn with_fresh(self, fresh: Vec<Option<Box<Record>>>) -> Self {
        Self { fresh, ..self }
    }

    /// Decides, starts and waits until nothing is left to do.
    pub(super) fn walk(
        mut self,
        jobs: &Sender<Job>,
        messages: &Receiver<Message>,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> RunSummary {
        for &index in self.graph.order() {
            self.wake(index);
        }
        loop {
            self.decide_ready(on_event);
            while self.running.len() < self.options.jobs.max(1)
                && let Some(job) = self.next_job()
            {
                jobs.send(job).expect("workers wait for jobs as long as the sender lives");
            }
            if self.running.is_empty() {
                break;
            }
            match messages.recv().expect("workers live as long as the sender of jobs") {
                Message::Event(event) => on_event(event),
                Message::Ended { job, result } => self.ended(&job, *result, on_event),
            }
        }
        self.summary()
    }

    /// Makes an instance ready if all it needs is known.
    fn wake(&mut self, index: usize) {
        let known = |input: &usize| matches!(self.states[*input], State::Done { .. });
        if self.states[index] == State::Waiting && self.graph.inputs(index).iter().all(known) {
            self.ready.insert(index);
        }
    }

    fn decide_ready(&mut self, on_event: &mut dyn FnMut(RunEvent)) {
        while !self.stopped()
            && let Some(index) = self.ready.pop_first()
        {
            let Err(error) = self.decide(index, on_event) else { continue };
            match stage_error(error) {
                StageError::Damaged { digest } if self.repair(index, digest) => {}
                error => self.fail(index, &error, on_event),
            }
        }
    }

    /// Fresh: done. Stale: queued.
    fn decide(
        &mut self,
        index: usize,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        let instance = &self.decider.pipeline.instances[index];
        let inputs = instance.inputs.iter().filter_map(|(port, input)| match self.states[*input] {
            State::Done { output } => Some((port.clone(), output)),
            _ => None,
        });
        let inputs: BTreeMap<String, Digest> = inputs.collect();
        let fresh = self.fresh.get_mut(index).and_then(Option::take);
        if let Some(record) = fresh.filter(|record| record.ingredients.inputs == inputs) {
            return self.reuse(index, &record, record.fingerprint, on_event);
        }
        let key = self.decider.key(index, inputs)?;
        if let Some(first) = self.failed.get(&key.direct) {
            let because = self.decider.pipeline.instances[*first].to_string();
            self.skip(index, &because, on_event);
            self.skip_dependants(index, &because, on_event);
            return Ok(());
        }
        let forced = self.selection.forced[index] && !self.forced.contains(&key.direct);
        let found = self.decider.find(index, &key)?;
        match found {
            Found::Whole(record) if !forced => self.reuse(index, &record, key.direct, on_event)?,
            found => {
                let reasons = if forced {
                    vec![StaleReason::Forced]
                } else {
                    self.decider.reasons(index, &key, &found)
                };
                self.states[index] = State::Queued;
                let need = self.memory.of(index).map_or(0, |memory| memory.total());
                self.queue.push(Job { index, key, reasons, forced, need, room: None });
            }
        }
        Ok(())
    }

    /// Takes what the store holds.
    fn reuse(
        &mut self,
        index: usize,
        record: &Record,
        key: Fingerprint,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        if let Err(error) = self.check_lock(index, record.output) {
            self.failed.insert(key, index);
            self.fail(index, &error, on_event);
            return Ok(());
        }
        self.decider.note(index, record.fingerprint)?;
        self.done(index, record.output, false);
        let stage = self.decider.pipeline.instances[index].to_string();
        on_event(RunEvent::StageReused { index, stage, digest: record.output });
        Ok(())
    }

    /// The next job whose key nobody computes: one whose model is loaded, else the first.
    fn next_job(&mut self) -> Option<Job> {
        if self.stopped() {
            return None;
        }
        let budget = &self.budget;
        let has_room = |job: &Job| budget.has_room(job.need);
        let mut job = self.queue.pop(self.loaded, &self.running, &has_room)?;
        job.room = self.budget.start(job.index, job.need);
        self.states[job.index] = State::Running;
        self.running.insert(job.key.lock());
        if job.key.ingredients.weights.is_some() {
            self.loaded = job.key.ingredients.weights;
        }
        Some(job)
    }

    fn ended(
        &mut self,
        job: &Job,
        result: Result<Finished, StageError>,
        on_event: &mut dyn FnMut(RunEvent),
    ) {
        let index = job.index;
        self.running.remove(&job.key.lock());
        self.budget.end(index);
        match result {
            Ok(finished) => {
                if job.forced {
                    self.forced.insert(job.key.direct);
                }
                if let Err(error) = self.check_lock(index, finished.record.output) {
                    self.failed.insert(job.key.direct, index);
                    self.fail(index, &error, on_event);
                    return;
                }
                if let Err(error) = self.finish(index, &finished, on_event) {
                    self.fail(index, &stage_error(error), on_event);
                }
            }
            Err(StageError::Cancelled) => {
                self.states[index] = State::Waiting;
                self.outcome = Outcome::Interrupted;
            }
            Err(StageError::Damaged { digest }) if self.repair(index, digest) => {}
            Err(error) => {
                self.failed.insert(job.key.direct, index);
                self.fail(index, &error, on_event);
            }
        }
        // What waited for this lock may be fresh now.
        for index in self.queue.take_locked(job.key.lock()) {
            self.states[index] = State::Waiting;
            self.wake(index);
        }
    }

    fn finish(
        &mut self,
        index: usize,
        finished: &Finished,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        let stage = self.decider.pipeline.instances[index].to_string();
        let output = finished.record.output;
        let unchanged = self.decider.last(index).is_some_and(|last| last.output == output);
        self.decider.note(index, finished.record.fingerprint)?;
        self.done(index, output, finished.ran);
        on_event(if finished.ran {
            let wall_secs = finished.record.wall_secs;
            let items = (finished.record.items_run, finished.record.items_total);
            RunEvent::StageFinished { index, stage, digest: output, wall_secs, items, unchanged }
        } else {
            RunEvent::StageReused { index, stage, digest: output }
        });
        Ok(())
    }

    /// A locked output must come out as it was locked.
    fn check_lock(&self, index: usize, output: Digest) -> Result<(), StageError> {
        let name = self.decider.pipeline.instances[index].to_string();
        match self.options.locked.get(&name) {
            Some(locked) if *locked != output => Err(StageError::failed(format!(
                "its output is {}, but {} is locked",
                output.short(),
                locked.short()
            ))
            .with_help(
                "`pipe verify` says how far they are apart; `pipe run --lock` accepts the new one",
            )),
            _ => Ok(()),
        }
    }

    /// The output is known: those who wait for it may be decided. If it was made again and came
    /// out otherwise, what was made from the old one is decided again too.
    fn done(&mut self, index: usize, output: Digest, ran: bool) {
        self.ran[index] |= ran;
        self.states[index] = State::Done { output };
        let differs = self.before.remove(&index).is_some_and(|before| before != output);
        for user in self.graph.users(index) {
            if let State::Done { output } = self.states[user]
                && differs
            {
                self.before.insert(user, output);
                self.states[user] = State::Waiting;
            }
            self.wake(user);
        }
    }

    /// Drops damaged content and has its producers make it again. Returns whether that is possible.
    fn repair(&mut self, index: usize, digest: Digest) -> bool {
        self.repairs[index] += 1;
        if self.repairs[index] > REPAIRS {
            return false;
        }
        let produced = |output: Digest| {
            output == digest
                || self.store.manifest(output).is_ok_and(|manifest| {
                    let mut files = manifest.items.iter().flat_map(|item| item.files.values());
                    files.any(|file| file.digest == digest)
                })
        };
        let inputs = self.graph.inputs(index).into_iter();
        let producers: Vec<_> = inputs
            .filter_map(|input| match self.states[input] {
                State::Done { output } if produced(output) => Some((input, output)),
                _ => None,
            })
            .collect();
        if producers.is_empty() || self.store.evict(digest).is_err() {
            return false;
        }
        self.states[index] = State::Waiting;
        for (producer, output) in producers {
            self.before.insert(producer, output);
            self.states[producer] = State::Waiting;
            self.wake(producer);
        }
        true
    }

    fn fail(&mut self, index: usize, error: &StageError, on_event: &mut dyn FnMut(RunEvent)) {
        let stage = self.decider.pipeline.instances[index].to_string();
        let (item, help) = match error {
            StageError::Failed { item, help, .. } => (item.clone(), help.clone()),
            StageError::Environment { help, .. } => (None, help.clone()),
            StageError::Store(error) => (None, error.help().map(str::to_owned)),
            StageError::Bug(_) => (None, Some(REPORT.to_owned())),
            StageError::Cancelled | StageError::Damaged { .. } => (None, None),
        };
        let bug = matches!(error, StageError::Bug(_));
        let environment = matches!(error, StageError::Environment { .. } | StageError::Store(_));
        self.outcome = match (self.outcome, environment) {
            (Outcome::Interrupted, _) => Outcome::Interrupted,
            (Outcome::Bug, _) => Outcome::Bug,
            _ if bug => Outcome::Bug,
            (Outcome::Done | Outcome::Environment, true) => Outcome::Environment,
            _ => Outcome::Failed,
        };
        self.states[index] = State::Failed;
        let error = error.to_string();
        on_event(RunEvent::StageFailed { index, stage: stage.clone(), error, item, help });
        self.skip_dependants(index, &stage, on_event);
    }

    fn skip_dependants(&mut self, index: usize, because: &str, on_event: &mut dyn FnMut(RunEvent)) {
        for dependant in self.graph.descendants(index) {
            if self.states[dependant] == State::Waiting {
                self.skip(dependant, because, on_event);
            }
        }
    }

    fn skip(&mut self, index: usize, because: &str, on_event: &mut dyn FnMut(RunEvent)) {
        self.states[index] = State::Skipped;
        self.ready.remove(&index);
        let stage = self.decider.pipeline.instances[index].to_string();
        on_event(RunEvent::StageSkipped { index, stage, because: because.to_owned() });
    }

    /// Whether nothing new may start.
    fn stopped(&self) -> bool {
        let failed = !matches!(self.outcome, Outcome::Done | Outcome::Interrupted);
        self.options.cancel.is_cancelled() || failed && !self.options.keep_going
    }

    fn summary(&self) -> RunSummary {
        let count = |is: fn(&State) -> bool| self.states.iter().filter(|state| is(state)).count();
        let done = count(|state| matches!(state, State::Done { .. }));
        let ran = (self.states.iter().zip(&self.ran))
            .filter(|(state, ran)| **ran && matches!(state, State::Done { .. }))
            .count();
        let mut summary = RunSummary {
            outcome: self.outcome,
            reused: done - ran,
            ran,
            failed: count(|state| *state == State::Failed),
            skipped: count(|state| {
                matches!(state, State::Skipped | State::Waiting | State::Queued)
            }),
            wall_secs: 0.0,
        };
        if self.options.cancel.is_cancelled() && summary.failed + summary.skipped > 0 {
            summary.outcome = Outcome::Interrupted;
        }
        summary
    }
}
