//! The walk over the graph: what is decided when, and what runs next.

mod causes;
mod decide;
mod deferred;
mod ends;
mod slots;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::mpsc::{Receiver, Sender},
    time::Instant,
};

use self::{
    causes::Causes,
    slots::{SlotPool, Target},
};
use super::{
    ExecOptions, Outcome, RunEvent, RunSummary,
    budget::{Budget, Room},
    job::{Job, Message},
    lookups::Lookup,
    queue::Queue,
};
use crate::{
    config::Pipeline,
    plan::{self, Decider, Graph, Lacking, MemoryPlan, Selection},
    store::{Digest, Fingerprint, Record, Store},
};

/// Where an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Was not asked for.
    Unneeded,
    /// Its inputs are not all known, or it is about to be decided.
    Waiting,
    /// Is looked up behind the store.
    LookedUp,
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

/// Whether a job has made its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobOutput {
    Missing,
    Made,
}

/// The state of one run.
pub(super) struct Schedule<'a> {
    decider: &'a Decider<'a>,
    graph: &'a Graph,
    selection: &'a Selection,
    store: &'a Store,
    options: &'a ExecOptions,
    /// How many jobs can be done at once.
    threads: usize,
    states: Vec<State>,
    /// Instances whose inputs are all known, to be decided.
    ready: BTreeSet<usize>,
    /// Where to have keys looked up that the walk shall not wait for; and how many are.
    lookups: Sender<Lookup>,
    looking: usize,
    /// Instances that must run.
    queue: Queue,
    /// Those of them that somebody else computes, each with when to look again.
    deferred: Vec<(Instant, Job)>,
    /// Locks of what runs; an instance with the same lock waits and is then decided again.
    running: HashSet<Fingerprint>,
    /// The memory they take.
    budget: Budget,
    memory: MemoryPlan<'a>,
    /// Keys that were forced and ran, and keys that failed, with the first instance that had them.
    forced: HashSet<Fingerprint>,
    failed: HashMap<Fingerprint, usize>,
    /// Where stages are called.
    slots: SlotPool,
    /// What each output was before a repair.
    before: HashMap<usize, Digest>,
    /// Stages that were tried again though nothing was damaged any more, each once per content.
    retried: HashSet<(usize, Digest)>,
    /// Whether an instance ran in this run; after a repair it may be found fresh once more.
    ran: Vec<bool>,
    /// Where the changes began for which instances ran in this run.
    causes: Causes,
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
        threads: usize,
        lookups: Sender<Lookup>,
    ) -> Self {
        let instances = selection.needed.len();
        let needed = decider.pipeline.instances.iter().zip(&selection.needed);
        let has_device_work =
            needed.into_iter().any(|(it, needed)| *needed && it.work.uses_device());
        let state = |needed: &bool| if *needed { State::Waiting } else { State::Unneeded };
        Self {
            decider,
            graph,
            selection,
            store,
            options,
            threads,
            states: selection.needed.iter().map(state).collect(),
            ready: BTreeSet::new(),
            lookups,
            looking: 0,
            queue: Queue::default(),
            deferred: Vec::new(),
            running: HashSet::new(),
            budget: Budget::new(options.memory),
            memory: MemoryPlan::new(decider.pipeline, options.is_on_host()),
            forced: HashSet::new(),
            failed: HashMap::new(),
            slots: SlotPool::new(options.slots.len(), threads, has_device_work),
            before: HashMap::new(),
            retried: HashSet::new(),
            ran: vec![false; instances],
            causes: Causes::new(instances),
            fresh: Vec::new(),
            outcome: Outcome::Done,
        }
    }

    /// With the records of instances that were found fresh already.
    pub(super) fn with_fresh(self, fresh: Vec<Option<Box<Record>>>) -> Self {
        Self { fresh, ..self }
    }

    /// Decides, starts and waits until nothing is left to do. Before the first stage starts, the
    /// files of the models of all that may run are looked at; with one that cannot be used, nothing
    /// runs.
    pub(super) fn walk(
        mut self,
        jobs: &Sender<Job>,
        messages: &Receiver<Message>,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> (RunSummary, Vec<Lacking>) {
        for &index in self.graph.order() {
            self.wake(index);
        }
        let mut unusable = None;
        loop {
            self.requeue_due();
            self.decide_ready(on_event);
            while self.running.len() < self.threads
                && let Some(job) = self.next_job()
            {
                let unusable = unusable.get_or_insert_with(|| self.unusable());
                if !unusable.is_empty() {
                    self.outcome = Outcome::Failed;
                    self.states[job.index] = State::Queued;
                    return (self.summary(), std::mem::take(unusable));
                }
                jobs.send(job).expect("threads wait for jobs as long as the sender lives");
            }
            if self.running.is_empty() {
                let waits = self.looking > 0 || !self.deferred.is_empty();
                if self.is_stopped() || self.ready.is_empty() && !waits {
                    break;
                }
                if !self.ready.is_empty() {
                    // The last job that waited was not to be done any more.
                    continue;
                }
                if self.looking == 0 {
                    self.tell_of_waits(on_event);
                }
            }
            match self.next_message(messages) {
                None => {}
                Some(Message::Event(event)) => {
                    if let RunEvent::StageRetried { index, .. } = &*event {
                        self.slots.worker_replaced(*index);
                    }
                    on_event(*event);
                }
                Some(Message::Held { job }) => self.defer(*job),
                Some(Message::Looked { lookup, found }) => self.looked(*lookup, *found, on_event),
                Some(Message::Ended { job, result }) => self.ended(&job, *result, on_event),
            }
        }
        (self.summary(), Vec::new())
    }

    /// What is wrong with the models and adapters of what may run.
    fn unusable(&self) -> Vec<Lacking> {
        let may_run = |index: usize| {
            !matches!(self.states[index], State::Unneeded | State::Done { .. } | State::Skipped)
        };
        plan::unusable(self.decider.pipeline, may_run)
    }

    /// Makes an instance ready if all it needs is known.
    fn wake(&mut self, index: usize) {
        let known = |input: &usize| matches!(self.states[*input], State::Done { .. });
        if self.states[index] == State::Waiting && self.graph.inputs(index).iter().all(known) {
            self.ready.insert(index);
        }
    }

    /// The next job whose key nobody computes and that can be started: one whose model is loaded,
    /// else the first.
    fn next_job(&mut self) -> Option<Job> {
        if self.is_stopped() {
            return None;
        }
        let mut job = loop {
            let loaded = self.slots.loaded();
            let Self { decider, queue, running, budget, slots, .. } = self;
            let can_start = |job: &Job| {
                budget.has_room(job.need) && slots.is_free(target(decider.pipeline, job))
            };
            let job = queue.pop(&loaded, running, &can_start)?;
            if !self.redecide_if_outdated(&job, JobOutput::Missing) {
                break job;
            }
        };
        let weights = job.key.ingredients.weights;
        job.room = self.budget.start(job.index, job.need);
        job.slot = self.slots.start(job.index, target(self.decider.pipeline, &job), weights);
        // What a worker keeps loaded is no matter of the others.
        if let Some(limit) = job.slot.and_then(|slot| self.options.slots[slot].memory) {
            job.room = (job.need > 0).then_some(Room { needed: job.need, limit });
        }
        self.states[job.index] = State::Running;
        self.running.insert(job.key.lock());
        Some(job)
    }
}

/// Where a job is done.
fn target(pipeline: &Pipeline, job: &Job) -> Target {
    if pipeline.instances[job.index].work.uses_device() { Target::Device } else { Target::Host }
}
