//! What a running stage sees: its inputs, its output, and the context.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use burn::tensor::Device;
use tempfile::TempDir;

use super::{CommandGuard, StageError};
use crate::{
    artifact::{FileRef, Item, Manifest},
    models::{ModelCache, params::StoredFile},
    store::{CheckpointFolder, NewObject, SourceReader, Store},
};

/// Set when the user asks the run to stop.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks every stage to stop at its next safe point.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns an error when the run is to stop.
    pub fn check(&self) -> Result<(), StageError> {
        if self.is_cancelled() { Err(StageError::Cancelled) } else { Ok(()) }
    }
}

/// How far a stage is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What is being counted, and a figure worth seeing: `step, loss 0.113`.
    pub message: String,
}

/// The inputs of one stage by port name.
pub struct Inputs<'a> {
    store: &'a Store,
    ports: BTreeMap<String, Arc<Manifest>>,
}

impl<'a> Inputs<'a> {
    /// Inputs read from `store`. For a mapped port, the executor passes a manifest that is
    /// restricted to the items to compute.
    pub fn new(store: &'a Store, ports: BTreeMap<String, Arc<Manifest>>) -> Self {
        Self { store, ports }
    }

    /// The artifact on an optional port.
    pub fn get(&self, port: &str) -> Option<&Manifest> {
        self.ports.get(port).map(AsRef::as_ref)
    }

    /// The items on a port; none when an optional port is not connected.
    pub fn items(&self, port: &str) -> &[Item] {
        self.get(port).map_or(&[], |manifest| &manifest.items)
    }

    /// The only item on a port of an artifact that holds one thing, such as an adapter.
    pub fn only(&self, port: &str) -> Result<&Item, StageError> {
        match self.items(port) {
            [item] => Ok(item),
            items => Err(StageError::failed(format!(
                "input `{port}` must hold exactly one item, but holds {}",
                items.len()
            ))),
        }
    }

    /// Reads a file of an item and checks it against its digest.
    pub fn read(&self, item: &Item, file: &str) -> Result<Vec<u8>, StageError> {
        Ok(self.store.read(reference(item, file)?)?)
    }

    /// Where a file of an item is, for one that is too large to be read at once; whoever reads it
    /// checks it.
    pub fn stored(&self, item: &Item, file: &str) -> Result<StoredFile, StageError> {
        let digest = reference(item, file)?.digest;
        Ok(StoredFile { path: self.store.object_path(digest), digest: digest.into() })
    }

    /// Writes a file of an item to `path`, checked against its digest, without holding it in
    /// memory.
    pub fn write(&self, item: &Item, file: &str, path: &Path) -> Result<(), StageError> {
        self.store.materialise(reference(item, file)?, path)?;
        Ok(())
    }
}

fn reference<'a>(item: &'a Item, file: &str) -> Result<&'a FileRef, StageError> {
    item.files
        .get(file)
        .ok_or_else(|| StageError::failed(format!("item has no file `{file}`")).on_item(&item.name))
}

/// Called with each item as soon as it is complete.
pub type OnItem<'a> = dyn FnMut(&Item) -> Result<(), StageError> + 'a;

/// Collects the items a stage writes.
pub struct Output<'a> {
    store: &'a Store,
    on_item: &'a mut OnItem<'a>,
    items: Vec<Item>,
}

impl<'a> Output<'a> {
    /// An empty output; `on_item` is told of each item once its files are in the store.
    pub fn new(store: &'a Store, on_item: &'a mut OnItem<'a>) -> Self {
        Self { store, on_item, items: Vec::new() }
    }

    /// Adds an item with its files' names and bytes.
    pub fn item(&mut self, name: &str, files: &[(&str, &[u8])]) -> Result<(), StageError> {
        let files = files
            .iter()
            .map(|(file, bytes)| Ok(((*file).to_owned(), self.store.put(bytes)?)))
            .collect::<Result<_, StageError>>()?;
        self.complete(Item { name: name.to_owned(), files })
    }

    /// Adds a file that is written piece by piece, for an item that is complete later.
    pub fn file(
        &mut self,
        write: impl FnOnce(&mut NewObject<'_>) -> Result<(), StageError>,
    ) -> Result<FileRef, StageError> {
        let mut object = self.store.begin()?;
        write(&mut object)?;
        Ok(object.finish()?)
    }

    /// Adds an item of an input as it is.
    pub fn pass_on(&mut self, inputs: &Inputs<'_>, item: &Item) -> Result<(), StageError> {
        for file in item.files.values() {
            self.store.take_over(inputs.store, file)?;
        }
        self.complete(item.clone())
    }

    /// Adds an item whose files were added before.
    pub fn complete(&mut self, item: Item) -> Result<(), StageError> {
        (self.on_item)(&item)?;
        self.items.push(item);
        Ok(())
    }

    /// Adds an item with its files' names and where they lie, in a [work
    /// folder](Self::work_folder), which they leave; they are not held in memory.
    pub fn item_of_files(
        &mut self,
        name: &str,
        files: &[(&str, PathBuf)],
    ) -> Result<(), StageError> {
        let mut taken: BTreeMap<&Path, FileRef> = BTreeMap::new();
        for (_, path) in files {
            if !taken.contains_key(&**path) {
                taken.insert(path, self.store.take_in(path)?);
            }
        }
        let files = files.iter().map(|(file, path)| ((*file).to_owned(), taken[&**path]));
        let files = files.collect();
        let item = Item { name: name.to_owned(), files };
        (self.on_item)(&item)?;
        self.items.push(item);
        Ok(())
    }

    /// An empty folder, by its full path. It goes when it is dropped, or with `gc` if this process
    /// was killed.
    pub fn work_folder(&self) -> Result<TempDir, StageError> {
        Ok(self.store.work_folder()?)
    }

    /// The bytes that may still be written to the disk of the store; none where the system does not
    /// tell.
    pub fn free_space(&self) -> Option<u64> {
        self.store.free_space()
    }

    /// The items written, in order.
    pub fn into_items(self) -> Vec<Item> {
        self.items
    }
}

/// What a stage may use besides its parameters and inputs.
pub struct StageContext<'a> {
    /// Where tensors live.
    pub device: &'a Device,
    /// Loaded models, shared by the stages of a run.
    pub models: &'a ModelCache,
    /// Files outside the store, if [`super::Stage::source_root`] names a folder.
    pub sources: Option<&'a SourceReader>,
    /// A folder that outlives the run, for checkpoints along a training trajectory.
    pub checkpoints: Option<&'a CheckpointFolder>,
    /// Whether shell commands may run.
    pub allow_commands: bool,
    /// Ends the commands that run when this process is no more.
    pub commands: &'a CommandGuard,
    /// Fails if the weights are not those any more that the stage was decided for. Asked once they
    /// are loaded, before anything of them is kept that the engine does not see.
    pub weights_hold: &'a (dyn Fn() -> Result<(), StageError> + Sync),
    /// Told how far the stage is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// The steps that a training made, counted by it: not those that checkpoints spare it.
    pub steps_made: &'a AtomicU64,
    /// Set when the stage is to stop.
    pub cancel: &'a CancelFlag,
}

impl StageContext<'_> {
    /// Reports progress and stops if the run is cancelled.
    pub fn tick(&self, done: u64, total: u64, message: &str) -> Result<(), StageError> {
        (self.progress)(Progress { done, total, message: message.to_owned() });
        self.cancel.check()
    }

    /// Does something for each item; reports progress and names the item in an error.
    pub fn for_each(
        &self,
        items: &[Item],
        what: &str,
        mut work: impl FnMut(&Item) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        for (done, item) in items.iter().enumerate() {
            self.tick(done as u64, items.len() as u64, what)?;
            work(item).map_err(|error| error.on_item(&item.name))?;
        }
        Ok(())
    }
}
