//! Runs single stages in tests.

use std::{collections::BTreeMap, sync::Arc};

use super::{CancelFlag, CommandGuard, Inputs, Output, Stage, StageContext, StageError};
use crate::{
    artifact::{ArtifactKind, Item, Manifest},
    models::ModelCache,
    store::{SourceReader, Store},
};

/// A store in a folder that goes with it.
pub struct Bench {
    pub store: Store,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: Store::open(folder.path()).unwrap(), _folder: folder }
    }

    /// An item with the given files.
    pub fn item(&self, name: &str, files: &[(&str, &[u8])]) -> Item {
        let files = files
            .iter()
            .map(|(file, bytes)| ((*file).to_owned(), self.store.put(bytes).unwrap()))
            .collect();
        Item { name: name.to_owned(), files }
    }

    /// The inputs of a stage.
    pub fn inputs(&self, ports: &[(&str, ArtifactKind, &[Item])]) -> Inputs<'_> {
        let ports = ports.iter().map(|(port, kind, items)| {
            let manifest = Manifest { kind: *kind, format_version: 1, items: items.to_vec() };
            ((*port).to_owned(), Arc::new(manifest))
        });
        Inputs::new(&self.store, ports.collect::<BTreeMap<_, _>>())
    }

    /// The items that a stage writes.
    pub fn run(&self, stage: &dyn Stage, inputs: &Inputs<'_>) -> Result<Vec<Item>, StageError> {
        self.run_with(stage, inputs, true)
    }

    pub fn run_with(
        &self,
        stage: &dyn Stage,
        inputs: &Inputs<'_>,
        allow_commands: bool,
    ) -> Result<Vec<Item>, StageError> {
        let mut on_item = |_: &Item| Ok(());
        let mut out = Output::new(&self.store, &mut on_item);
        let sources = stage.source_root().map(SourceReader::new);
        let (device, models, cancel) =
            (burn::tensor::Device::flex(), ModelCache::default(), CancelFlag::default());
        let cx = StageContext {
            device: &device,
            models: &models,
            sources: sources.as_ref(),
            checkpoints: None,
            allow_commands,
            commands: &CommandGuard::default(),
            weights_hold: &|| Ok(()),
            progress: &|_| {},
            steps_made: &std::sync::atomic::AtomicU64::new(0),
            cancel: &cancel,
        };
        stage.run(inputs, &mut out, &cx)?;
        Ok(out.into_items())
    }
}
