//! The one way to call a stage, for runs and for verifications.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{ExecOptions, budget::Room};
use crate::{
    artifact::{Item, Manifest},
    config::Pipeline,
    models::ModelCache,
    plan::Weights,
    stages::{CommandGuard, Inputs, OnItem, Output, Progress, StageContext, StageError},
    store::{CheckpointFolder, Digest, SourceReader, Store, StoreError},
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
    pub(super) commands: &'a CommandGuard,
}

/// One call of a stage.
pub(super) struct Call<'a> {
    /// The instance.
    pub(super) index: usize,
    pub(super) given: Given,
    pub(super) sources: Option<&'a SourceReader>,
    pub(super) checkpoints: Option<&'a CheckpointFolder>,
    /// The weights that it must find, where that is watched.
    pub(super) weights: Option<&'a Weights>,
    /// Where its items go.
    pub(super) into: &'a Store,
}

/// What a stage made.
pub(super) struct Made {
    pub(super) items: Vec<Item>,
    /// The steps that a training made, without those that checkpoints spared it.
    pub(super) steps: u64,
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
        let Some(Room { needed, limit }) = room else { return };
        let weights = self.pipeline.instances[index].work.weights();
        let source = weights.and_then(|(model, _)| model.resolve().ok());
        self.models.make_room(needed, limit, source.as_ref());
    }

    /// The inputs of these contents.
    pub(super) fn given(&self, inputs: &BTreeMap<String, Digest>) -> Result<Given, StoreError> {
        let read =
            |(port, digest): (&String, &Digest)| Ok((port.clone(), self.store.manifest(*digest)?));
        inputs.iter().map(read).collect()
    }

    /// Calls the stage and waits until its device has done what it was asked.
    pub(super) fn call(
        &self,
        call: Call<'_>,
        progress: &(dyn Fn(Progress) + Sync),
        on_item: &mut OnItem<'_>,
    ) -> Result<Made, StageError> {
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
            device: &self.options.device,
            models: self.models,
            sources: call.sources,
            checkpoints: call.checkpoints,
            allow_commands: self.options.allow_commands,
            commands: self.commands,
            weights_hold: &weights_hold,
            progress,
            steps_made: &steps,
            cancel: &self.options.cancel,
        };
        let inputs = Inputs::new(self.store, call.given);
        let mut on_item = |item: &Item| {
            weights_hold()?;
            on_item(item)
        };
        let mut output = Output::new(call.into, &mut on_item);
        self.pipeline.instances[call.index].work.run(&inputs, &mut output, &context)?;
        self.settle(call.index)?;
        weights_hold()?;
        Ok(Made { items: output.into_items(), steps: steps.into_inner() })
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
