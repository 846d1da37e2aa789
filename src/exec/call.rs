//! The one way to call a stage, for runs, for verifications and in workers.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use burn::tensor::Device;

use super::{
    ExecOptions,
    budget::Room,
    workers::{SlotContext, Workers},
};
use crate::{
    artifact::{Item, Manifest},
    config::Pipeline,
    huge_pages,
    models::ModelCache,
    plan::Weights,
    stages::{
        CancelFlag, CommandGuard, Inputs, OnItem, Output, Progress, Stage, StageContext, StageError,
    },
    store::{CheckpointFolder, Digest, Fingerprint, SourceReader, Store, StoreError},
};

/// The content of each input of a stage.
pub(super) type Given = BTreeMap<String, Arc<Manifest>>;

/// What calls stages.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) pipeline: &'a Pipeline,
    /// Where inputs are.
    pub(super) store: &'a Store,
    pub(super) options: &'a ExecOptions,
    pub(super) models: &'a ModelCache,
    pub(super) workers: &'a Workers,
    pub(super) commands: &'a CommandGuard,
}

/// One call of a stage.
pub(super) struct Call<'a> {
    /// The instance.
    pub(super) index: usize,
    pub(super) given: Given,
    pub(super) sources: Option<&'a SourceReader>,
    /// The trajectory whose checkpoints it goes on from, if it trains.
    pub(super) trajectory: Option<Fingerprint>,
    /// The weights that it must find, where that is watched.
    pub(super) weights: Option<&'a Weights>,
    /// Where its items go.
    pub(super) into: &'a Store,
    /// The worker that does it, unless it is done here.
    pub(super) at: Option<SlotContext<'a>>,
}

/// What a stage made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) items: Vec<Item>,
    /// How many of these it computed; the others were cached.
    pub(super) items_run: usize,
    /// The steps that a training made, without those that checkpoints spared it.
    pub(super) steps: u64,
}

impl Made {
    /// Items that were all computed.
    pub(super) fn all(items: Vec<Item>, steps: u64) -> Self {
        Self { items_run: items.len(), items, steps }
    }
}

/// Why a call came to no end.
pub(super) enum CallError {
    /// The stage says so.
    Stage(StageError),
    /// The device failed afterwards at what it was asked; its text.
    Device(String),
}

impl From<StageError> for CallError {
    fn from(error: StageError) -> Self {
        Self::Stage(error)
    }
}

impl Caller<'_> {
    /// Does what a stage asks for; a panic, in the stage or around it, is the failure of the stage.
    pub(super) fn guarded<T>(
        &self,
        index: usize,
        work: impl FnOnce() -> Result<T, StageError>,
    ) -> Result<T, StageError> {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(self.panicked(index, &*panic)))
    }

    /// Frees memory of models that other stages left loaded.
    pub(super) fn make_room(&self, index: usize, room: Option<Room>) {
        make_room(self.models, &*self.pipeline.instances[index].work, room);
    }

    /// The inputs of these contents.
    pub(super) fn given(&self, inputs: &BTreeMap<String, Digest>) -> Result<Given, StoreError> {
        let read =
            |(port, digest): (&String, &Digest)| Ok((port.clone(), self.store.manifest(*digest)?));
        inputs.iter().map(read).collect()
    }

    /// Calls the stage, here or in a worker, and waits until its device has done what it was asked.
    pub(super) fn call(
        &self,
        mut call: Call<'_>,
        progress: &(dyn Fn(Progress) + Sync),
        on_item: &mut OnItem<'_>,
    ) -> Result<Made, StageError> {
        if let Some(at) = call.at.take() {
            return self.call_worker(&at, call, progress, on_item);
        }
        let index = call.index;
        let checkpoints = call.trajectory.map(|key| self.store.checkpoints(key)).transpose()?;
        let work = &*self.pipeline.instances[index].work;
        let made = self.local_runner().call(work, call, checkpoints.as_ref(), progress, on_item);
        made.map_err(|error| match error {
            CallError::Stage(error) => error,
            CallError::Device(text) => self.unsettled(index, &text),
        })
    }

    /// What calls a stage here.
    pub(super) fn local_runner(&self) -> LocalRunner<'_> {
        LocalRunner {
            device: &self.options.device,
            models: self.models,
            store: self.store,
            cancel: &self.options.cancel,
            allow_commands: self.options.allow_commands,
            commands: self.commands,
        }
    }
}

/// Frees memory of models that other stages left loaded.
pub(super) fn make_room(models: &ModelCache, work: &dyn Stage, room: Option<Room>) {
    let Some(Room { needed, limit }) = room else { return };
    let source = work.model().and_then(|model| model.resolve().ok());
    models.make_room(needed, limit, source.as_ref());
}

/// Calls stages in this process.
pub(super) struct LocalRunner<'a> {
    pub(super) device: &'a Device,
    pub(super) models: &'a ModelCache,
    /// Where inputs are.
    pub(super) store: &'a Store,
    pub(super) cancel: &'a CancelFlag,
    pub(super) allow_commands: bool,
    pub(super) commands: &'a CommandGuard,
}

impl LocalRunner<'_> {
    /// Calls the stage and waits until the device has done what it was asked.
    pub(super) fn call(
        &self,
        work: &dyn Stage,
        call: Call<'_>,
        checkpoints: Option<&CheckpointFolder>,
        progress: &(dyn Fn(Progress) + Sync),
        on_item: &mut OnItem<'_>,
    ) -> Result<Made, CallError> {
        huge_pages::allow();
        let steps = AtomicU64::new(0);
        let looked = AtomicBool::new(false);
        // Once: what is loaded then stays in memory, whatever becomes of the files.
        let weights_hold = || match call.weights {
            Some(weights) if !looked.swap(true, Ordering::Relaxed) && !weights.hold() => {
                Err(StageError::Outdated)
            }
            _ => Ok(()),
        };
        let context = StageContext {
            device: self.device,
            models: self.models,
            sources: call.sources,
            checkpoints,
            allow_commands: self.allow_commands,
            commands: self.commands,
            weights_hold: &weights_hold,
            progress,
            steps_made: &steps,
            cancel: self.cancel,
        };
        let inputs = Inputs::new(self.store, call.given);
        let mut on_item = |item: &Item| {
            weights_hold()?;
            on_item(item)
        };
        let mut output = Output::new(call.into, &mut on_item);
        work.run(&inputs, &mut output, &context)?;
        // What fails on the device only now fails the stage that asked for it.
        self.device.sync().map_err(|error| CallError::Device(error.to_string()))?;
        weights_hold()?;
        Ok(Made::all(output.into_items(), steps.into_inner()))
    }

    /// Frees what no running stage holds of a full device, which may fail once more at what was
    /// queued.
    pub(super) fn empty_device(&self) {
        self.models.clear();
        let freed = catch_unwind(AssertUnwindSafe(|| {
            // The failure itself is told already.
            let _ = self.device.sync();
            self.device.memory_cleanup();
        }));
        if freed.is_err() {
            tracing::warn!("the device could not be emptied");
        }
    }
}

/// The inputs with no other items on a port than these.
pub(super) fn narrowed(given: &Given, port: &str, items: Vec<Item>) -> Given {
    let mut given = given.clone();
    if let Some(manifest) = given.get_mut(port) {
        *manifest = Arc::new(Manifest { items, ..(**manifest).clone() });
    }
    given
}
