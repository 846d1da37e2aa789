//! The worker's side: calls the stages that it is told of, one after the other.

use std::{
    any::Any,
    io::{BufRead, BufReader, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use burn::tensor::Device;
use serde_json::Value;

use super::protocol::{Fault, Order, Report, Task};
use crate::{
    artifact::Item,
    config::value::Node,
    device::{DeviceFailure, text_of},
    exec::{
        call::{Call, CallError, Given, LocalRunner, Made, make_room},
        meter::Meter,
    },
    models::ModelCache,
    plan::Weights,
    stages::{CancelFlag, CommandGuard, Progress, STAGES, Stage, StageError},
    store::{Store, StoreError},
    sync::Unpoisoned,
};

/// What both sides must be.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a worker computes with.
pub struct Fitting {
    /// The store of the run, which has declared that it is in use.
    pub store: Store,
    /// Where tensors live.
    pub device: Device,
    /// What the driver's tool calls the card, to measure what stages take of it.
    pub card: Option<String>,
}

/// Serves a run until it says no more: `orders` and `reports` are the pipes to it. If that is in
/// the middle of a call, the process ends at once, since nobody wants the result any more.
pub fn serve(
    fitting: Fitting,
    orders: impl Read + Send + 'static,
    reports: impl Write + Send + 'static,
) {
    let Fitting { store, device, card } = fitting;
    let desk = Arc::new(Desk { reports: Mutex::new(Box::new(reports)), call: Mutex::default() });
    let (sender, tasks) = channel();
    let listener = Arc::clone(&desk);
    std::thread::spawn(move || listener.listen(orders, &sender));
    let heard = Arc::clone(&desk);
    let store = store.stopped_by(move || heard.is_stopped());
    let meter = Meter::new(&device, card.as_deref());
    let commands = CommandGuard::default();
    let worker = Worker { store, device, models: ModelCache::default(), meter, commands, desk };
    worker.desk.say(&Report::Ready { version: VERSION.to_owned() });
    for (task, cancel) in tasks {
        let report = worker.call(*task, &cancel);
        worker.desk.call_ended();
        worker.desk.say(&report);
    }
}

/// Says that this process cannot serve.
pub fn unfit(
    message: String,
    help: Option<String>,
    reports: &mut impl Write,
) -> std::io::Result<()> {
    write(&Report::Unfit { message, help }, reports)
}

fn write(report: &Report, reports: &mut (impl Write + ?Sized)) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    reports.write_all(&line).and_then(|()| reports.flush())
}

/// What a worker's threads share: the way to the run, and the call at hand.
struct Desk {
    reports: Mutex<Box<dyn Write + Send>>,
    call: Mutex<Option<(u64, CancelFlag)>>,
}

impl Desk {
    /// Tells the run something; without a run, this is over.
    fn say(&self, report: &Report) {
        let mut reports = self.reports.lock().unpoisoned();
        if write(report, &mut **reports).is_err() {
            leave();
        }
    }

    /// Takes orders until the run says no more.
    fn listen(&self, orders: impl Read, tasks: &Sender<(Box<Task>, CancelFlag)>) {
        for line in BufReader::new(orders).lines() {
            match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
                Some(Order::Call(task)) => {
                    let cancel = CancelFlag::default();
                    *self.at_hand() = Some((task.number, cancel.clone()));
                    if tasks.send((task, cancel)).is_err() {
                        break;
                    }
                }
                Some(Order::Stop(number)) => {
                    if let Some((at_hand, cancel)) = &*self.at_hand()
                        && *at_hand == number
                    {
                        cancel.cancel();
                    }
                }
                // Half a line: the run is dead.
                None => break,
            }
        }
        if self.at_hand().is_some() {
            leave();
        }
    }

    /// The call at hand is over.
    fn call_ended(&self) {
        *self.at_hand() = None;
    }

    fn is_stopped(&self) -> bool {
        self.at_hand().as_ref().is_some_and(|(_, cancel)| cancel.is_cancelled())
    }

    fn at_hand(&self) -> MutexGuard<'_, Option<(u64, CancelFlag)>> {
        self.call.lock().unpoisoned()
    }
}

/// Ends the process at once. What it was writing nobody will see.
fn leave() -> ! {
    const LONGEST: Duration = Duration::from_secs(2);
    std::thread::spawn(|| {
        // A driver may have its own idea of how a process ends.
        std::thread::sleep(LONGEST);
        std::process::abort();
    });
    std::process::exit(1)
}

/// What calls stages.
struct Worker {
    store: Store,
    device: Device,
    models: ModelCache,
    meter: Meter,
    /// Of no command, as none computes on a device.
    commands: CommandGuard,
    desk: Arc<Desk>,
}

impl Worker {
    /// Calls a stage; a panic is told as what it says.
    fn call(&self, task: Task, cancel: &CancelFlag) -> Report {
        let runner = LocalRunner {
            device: &self.device,
            models: &self.models,
            store: &self.store,
            cancel,
            allow_commands: false,
            commands: &self.commands,
        };
        let (result, usage) = self.meter.measure(|| {
            let called = catch_unwind(AssertUnwindSafe(|| self.call_on(&runner, task)));
            called.unwrap_or_else(|panic| Err(fault_of(&*panic)))
        });
        match result {
            Ok(Made { steps, .. }) => Report::Done { steps, usage },
            Err(fault) => {
                if is_full(&fault) {
                    runner.empty_device();
                }
                Report::Failed(fault)
            }
        }
    }

    fn call_on(&self, runner: &LocalRunner<'_>, task: Task) -> Result<Made, Fault> {
        let work = stage(&task)?;
        let given: Given =
            task.given.into_iter().map(|(port, manifest)| (port, Arc::new(manifest))).collect();
        let weights = task.weights.map(|files| {
            let parts = given.get("model").map(|model| &model.items[..]).unwrap_or_default();
            let parts: Vec<String> = parts.iter().map(|item| item.name.clone()).collect();
            Weights::of_files(&*work, &parts, files)
        });
        let weights = weights.transpose().map_err(|error| Fault::of(error.into()))?.flatten();
        make_room(&self.models, &*work, task.room);
        let checkpoints = task.trajectory.map(|key| self.store.checkpoints(key)).transpose();
        let checkpoints = checkpoints.map_err(|error| Fault::of(error.into()))?;
        let call = Call {
            index: 0,
            given,
            sources: None,
            trajectory: task.trajectory,
            weights: weights.as_ref(),
            into: &self.store,
            at: None,
        };
        let progress = |Progress { done, total, message }: Progress| {
            self.desk.say(&Report::Progress { done, total, message });
        };
        let mut on_item = |item: &Item| {
            self.desk.say(&Report::Item(item.clone()));
            runner.cancel.check()
        };
        let made = runner.call(&*work, call, checkpoints.as_ref(), &progress, &mut on_item);
        made.map_err(|error| match error {
            CallError::Stage(StageError::Store(StoreError::Cancelled)) => Fault::Cancelled,
            CallError::Stage(error) => Fault::of(error),
            CallError::Device(text) => Fault::Device(text),
        })
    }
}

/// The stage of a task.
pub(super) fn stage(task: &Task) -> Result<Box<dyn Stage>, Fault> {
    let kind = &task.kind;
    let bug = |what: &str| Fault::Bug(format!("a worker {what} a stage of kind `{kind}`"));
    let entry = STAGES.iter().find(|entry| entry.kind == kind);
    let entry = entry.ok_or_else(|| bug("was given"))?;
    let params = Node::from(Value::Object(task.params.clone()));
    let parsed = (entry.parse)(&params).map_err(|_| bug("cannot read the parameters of"))?;
    // It must do what the key says.
    if parsed.params == task.params { Ok(parsed.stage) } else { Err(bug("misread")) }
}

fn fault_of(panic: &(dyn Any + Send)) -> Fault {
    Fault::Panicked(text_of(panic).to_owned())
}

fn is_full(fault: &Fault) -> bool {
    let (Fault::Panicked(text) | Fault::Device(text)) = fault else { return false };
    DeviceFailure::of(text) == Some(DeviceFailure::OutOfMemory)
}
