//! One stage's work: lock the key, run what is not cached, commit.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender},
    },
    time::Instant,
};

use super::{ExecOptions, RunEvent, budget::Room, meter::Meter};
use crate::{
    artifact::{FileRef, Item, Manifest, crossed_name},
    config::Instance,
    models::ModelCache,
    plan::{
        Decider, Found, ItemGroup, Items, Key, PlanError, StaleReason, fingerprint::action_key,
        trace_of, with_sources,
    },
    stages::{Inputs, Output, StageContext, StageError},
    store::{
        FORMAT_VERSION, Fingerprint, ItemRecord, Made, Record, SourceReader, Store, StoreError,
    },
};

/// A stage that must run.
pub(super) struct Job {
    pub(super) index: usize,
    pub(super) key: Key,
    pub(super) reasons: Vec<StaleReason>,
    pub(super) forced: bool,
    /// The memory that it is estimated to need.
    pub(super) need: u64,
    /// The memory that must be free when it starts.
    pub(super) room: Option<Room>,
}

/// A stage whose output is in the store.
pub(super) struct Finished {
    pub(super) record: Record,
    /// False if another process made it while this one waited.
    pub(super) ran: bool,
}

/// What a worker says.
pub(super) enum Message {
    /// For the observer.
    Event(RunEvent),
    /// A job is over.
    Ended { job: Box<Job>, result: Box<Result<Finished, StageError>> },
}

/// What runs stages, one at a time, in its own thread.
pub(super) struct Worker<'a> {
    pub(super) store: &'a Store,
    pub(super) decider: &'a Decider<'a>,
    pub(super) options: &'a ExecOptions,
    pub(super) models: &'a ModelCache,
    pub(super) meter: &'a Meter,
    pub(super) messages: Sender<Message>,
}

impl Worker<'_> {
    /// Runs jobs until there will be no more.
    pub(super) fn serve(&self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = jobs.lock().expect("no panic while held").recv();
            let Ok(job) = job else { return };
            // A panic, in the stage or around it, must not leave the walk waiting for this job.
            let result = catch_unwind(AssertUnwindSafe(|| self.run(&job)))
                .unwrap_or_else(|panic| Err(self.panicked(job.index, &*panic)));
            self.tell(Message::Ended { job: Box::new(job), result: Box::new(result) });
        }
    }

    fn run(&self, job: &Job) -> Result<Finished, StageError> {
        let instance = &self.decider.pipeline.instances[job.index];
        let (index, stage) = (job.index, instance.to_string());
        let cancel = &self.options.cancel;
        let lock = self.store.lock_key(
            job.key.lock(),
            &mut |holder| {
                let holder = holder.map(ToString::to_string);
                self.event(RunEvent::StageWaiting { index, stage: stage.clone(), holder });
            },
            &|| cancel.is_cancelled(),
        );
        let _lock = match lock {
            Err(StoreError::Cancelled) => return Err(StageError::Cancelled),
            lock => lock?,
        };
        // Somebody else may have made it before the lock was free.
        if !job.forced
            && let Found::Whole(record) = self.decider.find(index, &job.key).map_err(stage_error)?
        {
            return Ok(Finished { record: *record, ran: false });
        }

        if let Some(Room { needed, limit }) = job.room {
            let source = instance.work.weights().and_then(|(model, _)| model.resolve().ok());
            self.models.make_room(needed, limit, source.as_ref());
        }

        let items = self.items(job).map_err(stage_error)?;
        let items = items.map(|items| if job.forced { items.none_cached() } else { items });
        let goes_on = self.decider.goes_on(index, &job.key).filter(|_| !job.forced);
        self.event(RunEvent::StageStarted {
            index,
            stage: stage.clone(),
            kind: instance.entry.kind,
            reasons: job.reasons.clone(),
            items: items.as_ref().map(|items| (items.cached(), items.total())),
            goes_on,
        });
        #[expect(clippy::disallowed_methods, reason = "a record says when; no key holds it")]
        let started = jiff::Timestamp::now().to_string();
        let wall = Instant::now();
        let sources = instance.work.source_root().map(SourceReader::new);
        let item_keys = items.as_ref().map(Items::keys).unwrap_or_default();
        let (result, usage) = self.meter.measure(|| match items {
            Some(found) => self.run_items(job, instance, sources.as_ref(), &found),
            None => self.run_whole(job, instance, sources.as_ref()),
        });
        let (items, items_run) = result?;

        let kind = instance.work.output().unwrap_or(instance.entry.ports.output);
        let manifest = Manifest { kind, format_version: kind.format_version(), items };
        let output = self.store.put_manifest(&manifest)?;
        let read = sources.map(|sources| sources.ingredients()).unwrap_or_default();
        let ingredients = with_sources(&job.key, read);
        let record = Record {
            format_version: FORMAT_VERSION,
            fingerprint: action_key(&ingredients),
            output,
            files: Record::few_files(&manifest),
            trajectory: job.key.trajectory,
            reached: job.key.trajectory.and_then(|_| instance.work.steps_to_go()),
            went_on_from: goes_on.map(|(step, _)| step),
            traced: instance.work.source_root().map(|_| job.key.direct),
            started,
            wall_secs: wall.elapsed().as_secs_f64(),
            cpu_secs: usage.cpu_secs,
            device_secs: usage.device_secs,
            peak_memory: usage.peak_memory,
            device: self.options.device_name.clone(),
            pipe_version: env!("CARGO_PKG_VERSION").to_owned(),
            items_run,
            items_total: manifest.items.len(),
            ingredients,
        };
        self.store.commit(&record)?;
        if instance.work.source_root().is_some() {
            self.store.add_trace(job.key.direct, trace_of(&record.ingredients.sources))?;
        }
        if let Some(behind) = self.store.behind() {
            behind.made(Made { name: stage, record: record.clone(), items: item_keys });
        }
        Ok(Finished { record, ran: true })
    }

    /// The items of a mapped stage, after the cache behind the store was asked for those it has.
    fn items(&self, job: &Job) -> Result<Option<Items>, PlanError> {
        let items = self.decider.items(job.index, &job.key)?;
        if let (Some(behind), Some(items)) = (self.store.behind(), &items)
            && !job.forced
            && items.cached() < items.total()
        {
            behind.bring_items(self.store, &items.missing());
            return self.decider.items(job.index, &job.key);
        }
        Ok(items)
    }

    /// Runs a stage that makes its output as a whole.
    fn run_whole(
        &self,
        job: &Job,
        instance: &Instance,
        sources: Option<&SourceReader>,
    ) -> Result<(Vec<Item>, usize), StageError> {
        let ports = self.ports(job)?;
        let items = self.call(job, instance, ports, sources, &mut |_| Ok(()))?;
        let mut names = HashSet::new();
        if let Some(item) = items.iter().find(|item| !names.insert(&item.name)) {
            return Err(StageError::Bug(format!("the stage wrote item `{}` twice", item.name)));
        }
        let count = items.len();
        Ok((items, count))
    }

    /// Runs a mapped stage on the items that are not cached, each content once, and keeps each as
    /// soon as it is done.
    fn run_items(
        &self,
        job: &Job,
        instance: &Instance,
        sources: Option<&SourceReader>,
        found: &Items,
    ) -> Result<(Vec<Item>, usize), StageError> {
        let port = instance.work.mapped_port().expect("only a mapped stage has items");
        let ports = self.ports(job)?;
        let input = Arc::clone(&ports[port]);
        let cached = found.groups.iter().flat_map(|group| &group.items);
        let mut files: HashMap<Fingerprint, BTreeMap<String, FileRef>> = cached
            .filter_map(|(key, record)| Some((*key, record.as_ref()?.files.clone())))
            .collect();
        let mut items_run = 0;
        let mut items = Vec::with_capacity(found.total());
        for group in &found.groups {
            let mut ports = ports.clone();
            if let (Some(port), Some(item)) = (instance.work.crossed_port(), &group.with) {
                let one = Manifest { items: vec![item.clone()], ..(*ports[port]).clone() };
                ports.insert(port.to_owned(), Arc::new(one));
            }
            items_run += self.run_group(job, instance, sources, (group, ports), &mut files)?;
            for (item, (key, _)) in input.items.iter().zip(&group.items) {
                let files = files.get(key).cloned().ok_or_else(|| {
                    StageError::Bug(format!("the stage wrote nothing for item `{}`", item.name))
                })?;
                items.push(Item { name: crossed_name(group.prefix.as_deref(), &item.name), files });
            }
        }
        Ok((items, items_run))
    }

    /// Makes the items of a group that are in `files` not yet, and adds them; gives their number.
    fn run_group(
        &self,
        job: &Job,
        instance: &Instance,
        sources: Option<&SourceReader>,
        (group, mut ports): (&ItemGroup, BTreeMap<String, Arc<Manifest>>),
        files: &mut HashMap<Fingerprint, BTreeMap<String, FileRef>>,
    ) -> Result<usize, StageError> {
        let port = instance.work.mapped_port().expect("only a mapped stage has items");
        let input = Arc::clone(&ports[port]);
        let mut keys = HashMap::new();
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for (item, (key, _)) in input.items.iter().zip(&group.items) {
            if !files.contains_key(key) && seen.insert(*key) {
                keys.insert(item.name.clone(), *key);
                missing.push(item.clone());
            }
        }
        let items_run = missing.len();
        if items_run > 0 {
            let missing = Manifest { items: missing, ..(*input).clone() };
            ports.insert(port.to_owned(), Arc::new(missing));
            self.call(job, instance, ports, sources, &mut |item| {
                let key = keys.get(&item.name).ok_or_else(|| {
                    StageError::Bug(format!(
                        "the stage wrote item `{}`, which it was not given",
                        item.name
                    ))
                })?;
                self.store.commit_item(*key, &ItemRecord::new(item.files.clone()))?;
                files.insert(*key, item.files.clone());
                self.options.cancel.check()
            })?;
        }
        Ok(items_run)
    }

    /// Calls the stage.
    fn call(
        &self,
        job: &Job,
        instance: &Instance,
        ports: BTreeMap<String, Arc<Manifest>>,
        sources: Option<&SourceReader>,
        on_item: &mut dyn FnMut(&Item) -> Result<(), StageError>,
    ) -> Result<Vec<Item>, StageError> {
        if let Some(trajectory) = job.key.trajectory.filter(|_| job.forced) {
            // To go on from a finished state would be to do nothing.
            self.store.forget_checkpoints(trajectory)?;
        }
        let checkpoints = job.key.trajectory.map(|key| self.store.checkpoints(key)).transpose()?;
        let context = StageContext {
            device: &self.options.device,
            models: self.models,
            sources,
            checkpoints: checkpoints.as_deref(),
            allow_commands: self.options.allow_commands,
            progress: &|progress| {
                self.event(RunEvent::StageProgress {
                    index: job.index,
                    done: progress.done,
                    total: progress.total,
                    message: progress.message,
                });
            },
            cancel: &self.options.cancel,
        };
        let inputs = Inputs::new(self.store, ports);
        let mut output = Output::new(self.store, on_item);
        instance.work.run(&inputs, &mut output, &context)?;
        self.settle(job.index)?;
        Ok(output.into_items())
    }

    fn ports(&self, job: &Job) -> Result<BTreeMap<String, Arc<Manifest>>, StoreError> {
        let inputs = job.key.ingredients.inputs.iter();
        inputs.map(|(port, digest)| Ok((port.clone(), self.store.manifest(*digest)?))).collect()
    }

    fn event(&self, event: RunEvent) {
        self.tell(Message::Event(event));
    }

    fn tell(&self, message: Message) {
        // The receiver outlives the workers; if it were gone, nobody would be left to tell.
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
