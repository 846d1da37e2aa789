//! What an instance would be made from, and what the store holds of that.

use std::{collections::BTreeMap, path::Path};

use crate::{
    config::Pipeline,
    store::{Digest, Fingerprint, Ingredients, Record, Trace},
};

/// What an instance would be made from.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Everything but the files from outside, which are known only after reading.
    pub(crate) ingredients: Ingredients,
    /// The hash of [`Self::ingredients`]; for a stage that reads nothing from outside, its
    /// fingerprint.
    pub(crate) direct: Fingerprint,
    /// The key of its checkpoints, if it trains.
    pub(crate) trajectory: Option<Fingerprint>,
}

impl Key {
    /// What must not be computed twice at once: trainings along one trajectory share a folder.
    pub(crate) fn lock(&self) -> Fingerprint {
        self.trajectory.unwrap_or(self.direct)
    }
}

/// What the store holds for a key.
pub(crate) enum Found {
    /// The output, whole.
    Whole(Box<Record>),
    /// A record whose output is gone or damaged.
    Broken(Digest),
    /// Nothing that can be used.
    Nothing {
        /// What the files from outside hold now, as far as an earlier run read them.
        sources: BTreeMap<String, Digest>,
        /// Whether something is known of the key that cannot be read.
        damaged: bool,
    },
}

impl Default for Found {
    fn default() -> Self {
        Self::Nothing { sources: BTreeMap::new(), damaged: false }
    }
}

/// The whole ingredients of a stage that read `sources`.
pub(crate) fn with_sources(key: &Key, sources: BTreeMap<String, Digest>) -> Ingredients {
    Ingredients { sources, ..key.ingredients.clone() }
}

/// A source root as it is seen from the folder of the pipeline file, if it lies below that.
pub(crate) fn from_file<'r>(pipeline: &Pipeline, root: &'r Path) -> &'r Path {
    let folder = pipeline.path.parent().unwrap_or(Path::new(""));
    root.strip_prefix(folder).unwrap_or(root)
}

/// The trace of a run that read `sources`.
pub(crate) fn trace_of(sources: &BTreeMap<String, Digest>) -> Trace {
    Trace::new(sources.keys().cloned())
}
