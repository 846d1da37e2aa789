//! A call of a stage in a worker, as the run makes it: once more in a new worker, if the first one
//! dies.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    Slot,
    process::{Death, Heard, Process},
    protocol::{FaultText, Order, Report, Task},
    serve::VERSION,
};
use crate::{
    artifact::Item,
    device::DeviceFailure,
    exec::{
        RunEvent,
        budget::Room,
        call::{Call, Caller, Made},
        meter::Usage,
    },
    plan::Weights,
    stages::{OnItem, Progress, StageError},
    sync::Unpoisoned,
};

/// How soon a worker hears of Ctrl-C, at the latest.
const LOOK: Duration = Duration::from_millis(50);
/// How long a worker may take to stop before it is told that it is waited for.
const QUIET: Duration = Duration::from_secs(2);

/// The slot in whose worker a stage is called, and what is told from there.
#[derive(Clone, Copy)]
pub(in crate::exec) struct SlotContext<'a> {
    pub(in crate::exec) slot: usize,
    /// The memory that must be free there.
    pub(in crate::exec) room: Option<Room>,
    /// What the worker took is added to this.
    pub(in crate::exec) spent: &'a Mutex<Usage>,
    /// Told that the stage is called once more.
    pub(in crate::exec) on_event: &'a dyn Fn(RunEvent),
}

/// Why a call in a worker came to no end.
enum CallFailure {
    /// The stage failed, or cannot be called.
    Stage(StageError),
    /// The worker is of no more use.
    Lost(Loss),
}

impl From<StageError> for CallFailure {
    fn from(error: StageError) -> Self {
        Self::Stage(error)
    }
}

/// How a worker was lost.
struct Loss {
    process: u32,
    death: Death,
    /// What its device said before, where that was the reason.
    device: Option<FaultText>,
    /// Whether it was ever ready for a call.
    was_ready: bool,
}

/// Ends a worker that is of no more use; `device` is what its device said before, where that is
/// why.
fn lost(process: Process, device: Option<FaultText>) -> CallFailure {
    let (id, was_ready) = (process.id(), process.calls > 0);
    CallFailure::Lost(Loss { process: id, death: process.death(), device, was_ready })
}

fn no_worker(message: String, help: Option<String>) -> StageError {
    StageError::NoWorker { message, help }
}

impl Loss {
    /// `its worker (process 4711) was killed by signal 9 (SIGKILL)`.
    fn reason(&self) -> String {
        let Self { process, death, device, .. } = self;
        match device {
            Some(text) => {
                let lost = DeviceFailure::Lost.message(text.said());
                format!("its worker (process {process}) says that {lost}")
            }
            None => format!("its worker (process {process}) {}", death.how),
        }
    }
}

/// Has a worker stop, once, and says so if it takes its time.
#[derive(Default)]
struct StopOrder {
    given: Option<Instant>,
    is_told: bool,
}

impl StopOrder {
    fn give(&mut self, process: &mut Process, task: &Task, call: &WorkerCall<'_, '_>) {
        let Some(given) = self.given else {
            self.given = Some(Instant::now());
            // A number can always be told.
            let _ = process.tell(&Order::Stop(task.number));
            return;
        };
        if given.elapsed() < QUIET || std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let (stage, name, id) = (call.stage(), &call.slot.name, process.id());
        let how = if process.is_stopped() {
            format!(", which somebody has stopped: `kill -CONT {id}` has it go on")
        } else {
            String::new()
        };
        call.caller
            .options
            .talk
            .line(&format!("waiting for `{stage}` in the worker of {name} (process {id}){how}"));
    }
}

/// What the worker said last of a call that failed.
enum WorkerError {
    Stage(StageError),
    Said(FaultText),
    /// Nothing: it is dead.
    Dead,
}

impl Caller<'_> {
    /// Calls the stage in a worker.
    pub(in crate::exec) fn call_worker(
        &self,
        at: &SlotContext<'_>,
        call: Call<'_>,
        progress: &(dyn Fn(Progress) + Sync),
        on_item: &mut OnItem<'_>,
    ) -> Result<Made, StageError> {
        let (index, slot) = (call.index, &self.options.slots[at.slot]);
        let mut task = self.task(call, at);
        let mut call =
            WorkerCall { caller: self, index, at, slot, progress, on_item, items: vec![] };
        let mut is_first = true;
        loop {
            match call.attempt(&mut task) {
                Ok(steps) => return Ok(Made::all(call.items, steps)),
                Err(CallFailure::Stage(error)) => return Err(error),
                // Whoever stops the run may have stopped the worker as well.
                Err(CallFailure::Lost(_)) if self.options.cancel.is_cancelled() => {
                    return Err(StageError::Cancelled);
                }
                Err(CallFailure::Lost(loss)) if std::mem::take(&mut is_first) => {
                    call.tell_of(&loss);
                    if call.drop_made_items(&mut task) {
                        return Ok(Made::all(call.items, 0));
                    }
                }
                Err(CallFailure::Lost(loss)) => return Err(call.lost_twice(&loss)),
            }
        }
    }

    /// The call as a worker is told of it.
    fn task(&self, call: Call<'_>, at: &SlotContext<'_>) -> Task {
        let instance = &self.pipeline.instances[call.index];
        let given = call.given.into_iter();
        Task {
            number: 0,
            kind: instance.entry.kind.to_owned(),
            params: (*instance.params).clone(),
            given: given.map(|(port, manifest)| (port, Arc::unwrap_or_clone(manifest))).collect(),
            trajectory: call.trajectory,
            weights: call.weights.map(Weights::files),
            room: at.room,
        }
    }
}

/// A stage that is called in a worker.
struct WorkerCall<'a, 'i> {
    caller: &'a Caller<'a>,
    index: usize,
    at: &'a SlotContext<'a>,
    slot: &'a Slot,
    progress: &'a (dyn Fn(Progress) + Sync),
    on_item: &'a mut OnItem<'i>,
    /// What is made so far.
    items: Vec<Item>,
}

impl WorkerCall<'_, '_> {
    /// One call; gives the steps that a training made.
    fn attempt(&mut self, task: &mut Task) -> Result<u64, CallFailure> {
        let mut worker = self.caller.workers.of(self.at.slot);
        // Whatever breaks this off, a panic included, ends the worker: it may be in the middle of
        // something.
        let mut process = match worker.take().and_then(|process| self.alive(process)) {
            Some(process) => process,
            None => self.start()?,
        };
        process.calls += 1;
        task.number = process.calls;
        let error = match self.follow(&mut process, task) {
            Ok(steps) => {
                *worker = Some(process);
                return Ok(steps);
            }
            Err(WorkerError::Dead) => return Err(lost(process, None)),
            Err(WorkerError::Said(text)) if text.is_of_lost_device() => {
                return Err(lost(process, Some(text)));
            }
            Err(WorkerError::Said(text)) => self.meaning_of(&text),
            Err(WorkerError::Stage(error)) => error,
        };
        *worker = Some(process);
        Err(error.into())
    }

    /// A worker that has not died since its last call.
    fn alive(&self, mut process: Process) -> Option<Process> {
        if !process.has_ended() {
            return Some(process);
        }
        let (id, how) = (process.id(), process.death().how);
        tracing::warn!("Worker {id} of {} {how} while it had nothing to do.", self.slot.name);
        None
    }

    /// Starts a worker and waits until it is ready.
    fn start(&self) -> Result<Process, CallFailure> {
        let Slot { name, launch, .. } = self.slot;
        let options = self.caller.options;
        let mut process = (self.caller.workers)
            .start(self.slot, &options.talk)
            .map_err(|error| no_worker(format!("cannot start a worker: {error}"), None))?;
        let start = Instant::now();
        while start.elapsed() < launch.patience {
            match process.hear(LOOK) {
                Heard::Report(Report::Ready { version }) if version == VERSION => {
                    tracing::debug!("Worker {} computes on {name}.", process.id());
                    return Ok(process);
                }
                Heard::Report(Report::Unfit { message, help }) => {
                    return Err(no_worker(message, help).into());
                }
                Heard::Report(_) => {
                    let message = "the program was replaced by another version while it ran";
                    return Err(StageError::environment(message).with_help("run again").into());
                }
                Heard::Nothing => options.cancel.check()?,
                Heard::End => return Err(lost(process, None)),
            }
        }
        process.kill();
        let waited = launch.patience.as_secs_f64();
        let message = format!("the worker of {name} was not ready after {waited} s");
        let help = "see whether the device answers, or leave it out of `--device`";
        Err(no_worker(message, Some(help.to_owned())).into())
    }

    /// Gives the worker its task and passes on what it says, until the call is over.
    fn follow(&mut self, process: &mut Process, task: &Task) -> Result<u64, WorkerError> {
        process.tell(&Order::Call(Box::new(task.clone()))).map_err(|error| {
            let message = format!("the stage cannot be handed to a worker: {error}");
            let help = "run it with one device";
            WorkerError::Stage(StageError::environment(message).with_help(help))
        })?;
        let (mut stop, mut refused) = (StopOrder::default(), None);
        loop {
            if refused.is_some() || self.caller.options.cancel.is_cancelled() {
                stop.give(process, task, self);
            }
            let over = match process.hear(LOOK) {
                Heard::Report(Report::Progress { done, total, message }) => {
                    (self.progress)(Progress { done, total, message });
                    continue;
                }
                Heard::Report(Report::Item(item)) if refused.is_none() => {
                    refused = self.take(item).err();
                    continue;
                }
                Heard::Report(Report::Done { steps, usage }) => {
                    let mut spent = self.at.spent.lock().unpoisoned();
                    spent.add(usage);
                    Ok(steps)
                }
                Heard::Report(Report::Failed(fault)) => {
                    Err(fault.into_error().map_or_else(WorkerError::Said, WorkerError::Stage))
                }
                Heard::End => Err(WorkerError::Dead),
                // What it says once it is stopped, nobody wants to know.
                Heard::Nothing | Heard::Report(_) => continue,
            };
            return refused.map_or(over, |error| Err(WorkerError::Stage(error)));
        }
    }

    /// Takes an item that the worker has put into the store.
    fn take(&mut self, item: Item) -> Result<(), StageError> {
        for file in item.files.values() {
            self.caller.store.note_written(file.digest);
        }
        (self.on_item)(&item)?;
        self.items.push(item);
        Ok(())
    }

    /// The name of the stage.
    fn stage(&self) -> String {
        self.caller.pipeline.instances[self.index].to_string()
    }

    fn meaning_of(&self, text: &FaultText) -> StageError {
        match text {
            FaultText::Panic(text) => self.caller.panicked_with(self.index, text),
            FaultText::Device(text) => self.caller.unsettled(self.index, text),
        }
    }

    /// Says that the stage is called once more, and why.
    fn tell_of(&self, loss: &Loss) {
        let stage = self.stage();
        let (device, reason) = (self.slot.name.clone(), loss.reason());
        (self.at.on_event)(RunEvent::StageRetried { index: self.index, stage, device, reason });
    }

    /// Takes what is made of a mapped stage out of the task; says whether that was all. Any other
    /// stage begins anew, or at its last checkpoint.
    fn drop_made_items(&mut self, task: &mut Task) -> bool {
        let port = self.caller.pipeline.instances[self.index].work.mapped_port();
        let Some(wanted) = port.and_then(|port| task.given.get_mut(port)) else {
            self.items.clear();
            return false;
        };
        let made: HashSet<&str> = self.items.iter().map(|item| &*item.name).collect();
        wanted.items.retain(|item| !made.contains(&*item.name));
        wanted.items.is_empty()
    }

    /// The failure of a stage that was called twice, each time in a worker that was lost.
    fn lost_twice(&self, loss: &Loss) -> StageError {
        if let Some(text) = &loss.device {
            return self.meaning_of(text);
        }
        let Death { how, was_killed, lines } = &loss.death;
        let said = match &lines[..] {
            [] => String::new(),
            lines => format!("; the last that it said:\n{}", lines.join("\n")),
        };
        let message =
            format!("its worker on {} was lost twice: the second one {how}{said}", self.slot.name);
        let help = "a process that is killed by signal 9 mostly took more memory than the machine has, which its \
                    log tells (`dmesg`): use fewer devices at once";
        if loss.was_ready || *was_killed {
            StageError::failed(message).with_help(help)
        } else {
            no_worker(message, Some(help.to_owned()))
        }
    }
}
