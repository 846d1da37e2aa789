//! The adapter files behind a stage's ports, known before any of them is read: what they are for is
//! compared with the model that they reach, however many merges lie between.

use std::{path::PathBuf, rc::Rc};

use super::super::Stage;
use crate::artifact::ArtifactKind;

/// A file of an adapter, and the stage that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFile {
    /// The stage.
    pub stage: String,
    /// The folder below which it lies.
    pub root: PathBuf,
    /// Its path there.
    pub file: String,
}

/// The adapter files behind what each stage of a pipeline gives, found from the first stage on.
#[derive(Default)]
pub struct KnownAdapters {
    given: Vec<Rc<[AdapterFile]>>,
}

impl KnownAdapters {
    /// Adds the next stage, which gives `output` and whose ports are connected to the stages
    /// `inputs`; gives the files behind its ports.
    pub fn add(
        &mut self,
        (stage, work): (&str, &dyn Stage),
        output: ArtifactKind,
        inputs: impl IntoIterator<Item = usize>,
    ) -> Rc<[AdapterFile]> {
        let mut behind: Vec<AdapterFile> = Vec::new();
        for file in inputs.into_iter().flat_map(|input| self.given[input].iter()) {
            if !behind.contains(file) {
                behind.push(file.clone());
            }
        }
        let behind: Rc<[AdapterFile]> = behind.into();
        let own = work.adapter_files();
        let given = match own {
            // In a model they are part of its weights.
            _ if output != ArtifactKind::LoraAdapter => Rc::default(),
            None => Rc::clone(&behind),
            Some((root, files)) => {
                let own = files.iter().map(|file| AdapterFile {
                    stage: stage.to_owned(),
                    root: root.to_owned(),
                    file: file.clone(),
                });
                behind.iter().cloned().chain(own).collect()
            }
        };
        self.given.push(given);
        behind
    }
}
