//! One stage's work: lock the key, run what is not cached, commit.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard,
        mpsc::{Receiver, Sender},
    },
    time::Instant,
};

use super::{
    RunEvent,
    budget::Room,
    call::{Call, Caller, Given, Made},
    lookups::Lookup,
    meter::{Meter, Usage},
    workers::SlotContext,
};
use crate::{
    artifact::Manifest,
    plan::{
        Cause, Decider, Found, Items, Key, PlanError, StaleReason, Watch, Weights,
        fingerprint::action_key, from_file, trace_of, with_sources,
    },
    stages::{OnItem, Progress, StageError},
    store::{
        Attempt, Digest, FORMAT_VERSION, Ingredients, KeyLock, KeyWait, NewResult, Record,
        SourceReader, StoreError, Trace,
    },
    sync::Unpoisoned,
};

/// The device of what is computed beside those that have slots.
const HOST: &str = "cpu";

/// A stage that must run.
pub(super) struct Job {
    pub(super) index: usize,
    pub(super) key: Key,
    pub(super) reasons: Vec<StaleReason>,
    /// Where the change of an input began.
    pub(super) cause: Option<Cause>,
    pub(super) forced: bool,
    /// What it gave when it last ran: a forced run replaces the record of that.
    pub(super) before: Option<Digest>,
    /// The memory that it is estimated to need.
    pub(super) need: u64,
    /// The memory that must be free when it starts.
    pub(super) room: Option<Room>,
    /// The slot whose worker calls it, where that is not this process.
    pub(super) slot: Option<usize>,
    /// Where somebody else computes the same: since when, and who.
    pub(super) wait: Option<Wait>,
}

/// A job whose key somebody else computes.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) key: KeyWait,
    /// Who, where that is known.
    pub(super) holder: Option<String>,
    /// Whether that was told.
    pub(super) told: bool,
}

/// A stage whose output is in the store.
pub(super) struct Finished {
    pub(super) record: Record,
    /// False if another process made it while this one waited.
    pub(super) ran: bool,
}

/// What making an output took.
struct Took {
    started: String,
    wall_secs: f64,
    usage: Usage,
}

/// What the walk is told.
pub(super) enum Message {
    /// For the observer.
    Event(Box<RunEvent>),
    /// A job is over.
    Ended { job: Box<Job>, result: Box<Result<Finished, StageError>> },
    /// Somebody else computes what a job would.
    Held { job: Box<Job> },
    /// What a look-up found.
    Looked { lookup: Box<Lookup>, found: Box<Result<Found, PlanError>> },
}

/// What a stage reads that is not in the store.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a> {
    pub(super) sources: Option<&'a SourceReader>,
    pub(super) weights: Option<&'a Weights>,
}

/// What runs stages, one at a time, in its own thread.
pub(super) struct JobThread<'a> {
    pub(super) caller: Caller<'a>,
    pub(super) decider: &'a Decider<'a>,
    pub(super) meter: &'a Meter,
    pub(super) messages: Sender<Message>,
    /// What a worker process took for the job at hand.
    pub(super) spent: Mutex<Usage>,
}

impl JobThread<'_> {
    /// Runs jobs until there will be no more.
    pub(super) fn serve(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = jobs.lock().unpoisoned().recv();
            let Ok(mut job) = job else { return };
            // A panic must not leave the walk waiting for this job.
            let result = self.caller.guarded(job.index, || {
                let lock = self.lock(&mut job)?;
                lock.map(|lock| self.run(&job, &lock)).transpose()
            });
            let job = Box::new(job);
            self.tell(match result.transpose() {
                None => Message::Held { job },
                Some(result) => Message::Ended { job, result: Box::new(result) },
            });
        }
    }

    /// Takes the lock of the key, if nobody else computes it.
    fn lock(&self, job: &mut Job) -> Result<Option<KeyLock>, StageError> {
        let wait = job.wait.get_or_insert_with(|| Wait {
            key: self.caller.store.key_wait(job.key.lock()),
            holder: None,
            told: false,
        });
        match wait.key.try_take()? {
            Attempt::Taken(lock) => Ok(Some(lock)),
            Attempt::Held(holder) => {
                wait.holder = holder.map(|holder| holder.told());
                Ok(None)
            }
        }
    }

    fn run(&self, job: &Job, lock: &KeyLock) -> Result<Finished, StageError> {
        // Somebody else may have made it before the lock was free.
        if !job.forced
            && let Found::Whole(record) =
                self.decider.find(job.index, &job.key).map_err(stage_error)?
        {
            return Ok(Finished { record: *record, ran: false });
        }
        if let Some(holder) = lock.left_by() {
            let (index, holder) = (job.index, holder.to_string());
            let stage = self.caller.pipeline.instances[index].to_string();
            self.event(RunEvent::StageTakenOver { index, stage, holder });
        }
        if job.slot.is_none() {
            self.caller.make_room(job.index, job.room);
        }
        let items = self.items(job).map_err(stage_error)?;
        let items = items.map(|items| if job.forced { items.none_cached() } else { items });
        let weights = match self.decider.watch(job.index, &job.key).map_err(stage_error)? {
            Watch::Differs => return Err(StageError::Outdated),
            Watch::Holds(weights) => Some(weights),
            Watch::None => None,
        };
        self.start(job, items.as_ref())?;
        let record = self.make(job, items.as_ref(), weights.as_ref())?;
        let Caller { store, .. } = self.caller;
        store.commit(&record)?;
        if let Some(key) = record.traced {
            let trace = trace_of(&record.ingredients.sources).below(record.source_root);
            store.add_trace(key, trace)?;
        }
        if let Some(behind) = store.behind() {
            let name = self.caller.pipeline.instances[job.index].to_string();
            let items = items.as_ref().map(Items::keys).unwrap_or_default();
            behind.made(NewResult { name, record: record.clone(), items });
        }
        Ok(Finished { record, ran: true })
    }

    /// Says that work begins, and from which state.
    fn start(&self, job: &Job, items: Option<&Items>) -> Result<(), StageError> {
        let instance = &self.caller.pipeline.instances[job.index];
        let (index, stage) = (job.index, instance.to_string());
        let mut resume = None;
        if let Some(trajectory) = job.key.trajectory.filter(|_| !job.forced) {
            let stops = instance.work.stops();
            let steps = self.caller.store.drop_damaged_checkpoints(trajectory, &stops)?;
            resume = self.decider.resume_point(index, &job.key);
            if !steps.is_empty() {
                let goes_on_at_step = resume.map(|resume| resume.step);
                let stage = stage.clone();
                let event = RunEvent::CheckpointsDamaged { index, stage, steps, goes_on_at_step };
                self.event(event);
            }
        }
        self.event(RunEvent::StageStarted {
            index,
            stage,
            kind: instance.entry.kind,
            reasons: job.reasons.clone(),
            cause: job.cause.clone(),
            items_cached: items.map(Items::cached),
            items_total: items.map(Items::total),
            goes_on_at_step: resume.map(|resume| resume.step),
            steps_total: resume.map(|resume| resume.steps_total),
        });
        Ok(())
    }

    /// Makes the output and puts it into the store; gives its record.
    fn make(
        &self,
        job: &Job,
        items: Option<&Items>,
        weights: Option<&Weights>,
    ) -> Result<Record, StageError> {
        let instance = &self.caller.pipeline.instances[job.index];
        #[expect(clippy::disallowed_methods, reason = "a record says when; no key holds it")]
        let started = jiff::Timestamp::now().to_string();
        let wall = Instant::now();
        let sources = instance.work.source_root().map(SourceReader::new);
        let outside = Outside { sources: sources.as_ref(), weights };
        let run = || match items {
            Some(found) => self.run_items(job, outside, found),
            None => self.run_whole(job, outside),
        };
        let (result, usage) = if job.slot.is_none() {
            self.meter.measure(run)
        } else {
            *self.spent() = Usage::default();
            (run(), *self.spent())
        };
        let made = result?;
        let ingredients = match &sources {
            Some(sources) => with_sources(&job.key, sources.ingredients()),
            None => job.key.ingredients.clone(),
        };
        let took = Took { started, wall_secs: wall.elapsed().as_secs_f64(), usage };
        self.record(job, made, ingredients, took)
    }

    /// Puts the list of what was made into the store; gives the record.
    fn record(
        &self,
        job: &Job,
        Made { items, items_run, steps }: Made,
        ingredients: Ingredients,
        took: Took,
    ) -> Result<Record, StageError> {
        let Caller { pipeline, store, options, .. } = self.caller;
        let instance = &pipeline.instances[job.index];
        let kind = instance.output();
        let manifest = Manifest { kind, format_version: kind.format_version(), items };
        let (trajectory, root) = (job.key.trajectory, instance.work.source_root());
        let reached = trajectory.and_then(|_| instance.work.stops().last().copied());
        Ok(Record {
            format_version: FORMAT_VERSION,
            fingerprint: action_key(&ingredients),
            output: store.put_manifest(&manifest)?,
            files: Record::few_files(&manifest),
            trajectory,
            reached,
            went_on_from: reached.map(|all| all.saturating_sub(steps)).filter(|spared| *spared > 0),
            traced: root.map(|_| job.key.direct),
            source_root: root.map(|root| Trace::root_name(from_file(pipeline, root))),
            started: took.started,
            wall_secs: took.wall_secs,
            cpu_secs: took.usage.cpu_secs,
            device_secs: took.usage.device_secs,
            peak_memory: took.usage.peak_memory,
            card: match job.slot {
                Some(slot) => options.slots[slot].card_name.clone(),
                None => options.card_name.clone().filter(|_| options.slots.is_empty()),
            },
            model: instance.work.weights().map(|weights| weights.model.short_name()),
            device: match job.slot {
                Some(slot) => options.slots[slot].name.clone(),
                None if options.slots.is_empty() => options.device_name.clone(),
                None => HOST.to_owned(),
            },
            pipe_version: env!("CARGO_PKG_VERSION").to_owned(),
            items_run,
            items_total: manifest.items.len(),
            ingredients,
        })
    }

    /// The items of a mapped stage, after the cache behind the store was asked for those it has.
    fn items(&self, job: &Job) -> Result<Option<Items>, PlanError> {
        let mut items = self.decider.items(job.index, &job.key)?;
        if !job.forced && items.as_ref().is_some_and(|items| items.cached() == 0) {
            // It may be that only the whole was ever here.
            self.decider.keep_last_items(job.index);
            items = self.decider.items(job.index, &job.key)?;
        }
        if let (Some(behind), Some(items)) = (self.caller.store.behind(), &items)
            && !job.forced
            && items.cached() < items.total()
        {
            behind.bring_items(self.caller.store, &items.missing());
            return self.decider.items(job.index, &job.key);
        }
        Ok(items)
    }

    /// Runs a stage that makes its output as a whole.
    fn run_whole(&self, job: &Job, outside: Outside<'_>) -> Result<Made, StageError> {
        let given = self.caller.given(&job.key.ingredients.inputs)?;
        let progress = |progress: Progress| self.progress(job, progress);
        let made = self.call(job, given, outside, &progress, &mut |_| Ok(()))?;
        let mut names = HashSet::new();
        if let Some(item) = made.items.iter().find(|item| !names.insert(&item.name)) {
            return Err(StageError::Bug(format!("the stage wrote item `{}` twice", item.name)));
        }
        Ok(made)
    }

    /// Calls the stage.
    pub(super) fn call(
        &self,
        job: &Job,
        given: Given,
        Outside { sources, weights }: Outside<'_>,
        progress: &(dyn Fn(Progress) + Sync),
        on_item: &mut OnItem<'_>,
    ) -> Result<Made, StageError> {
        let Caller { store, .. } = self.caller;
        if let Some(trajectory) = job.key.trajectory.filter(|_| job.forced) {
            // To go on from a finished state would be to do nothing.
            store.forget_checkpoints(trajectory)?;
        }
        let on_event = |event: RunEvent| self.event(event);
        let (spent, room) = (&self.spent, job.room);
        let at = job.slot.map(|slot| SlotContext { slot, room, spent, on_event: &on_event });
        let (index, trajectory) = (job.index, job.key.trajectory);
        let call = Call { index, given, sources, trajectory, weights, into: store, at };
        self.caller.call(call, progress, on_item)
    }

    fn spent(&self) -> MutexGuard<'_, Usage> {
        self.spent.lock().unpoisoned()
    }

    pub(super) fn progress(&self, job: &Job, Progress { done, total, message }: Progress) {
        self.event(RunEvent::StageProgress { index: job.index, done, total, message });
    }

    pub(super) fn event(&self, event: RunEvent) {
        self.tell(Message::Event(Box::new(event)));
    }

    fn tell(&self, message: Message) {
        // The receiver outlives these threads; if it were gone, nobody would be left to tell.
        let _ = self.messages.send(message);
    }
}

/// What failed while deciding, as the failure of the stage that was decided.
pub(super) fn stage_error(error: PlanError) -> StageError {
    match error {
        PlanError::Store(StoreError::Cancelled) => StageError::Cancelled,
        PlanError::Store(error) => error.into(),
        error => StageError::Environment { message: error.to_string(), help: error.help() },
    }
}
