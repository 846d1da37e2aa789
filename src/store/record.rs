//! The records of finished stages and items: what they were made from, and what came out.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Digest, FORMAT_VERSION, Fingerprint, seal::Form};
use crate::artifact::{FileRef, Manifest};

/// What there is under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// A record.
    Found(T),
    /// A record that is not what was written, or was cut short by a power failure: as good as none.
    Damaged,
    /// Nothing.
    Absent,
}

impl<T> Lookup<T> {
    /// The record, if it can be read.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(record) => Some(record),
            Self::Damaged | Self::Absent => None,
        }
    }

    /// Whether there is a record that cannot be read.
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Damaged)
    }
}

/// Everything that decides a stage's output; its canonical JSON is hashed to the [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ingredients {
    /// Stage kind.
    pub kind: String,
    /// The kind's `VERSION`.
    pub version: u32,
    /// The version of the files that the stage writes.
    pub output_format: u32,
    /// Parameters after defaults; paths and the model's name are left out.
    pub params: Map<String, Value>,
    /// Content on each port: the artifact's digest, or the item's for a mapped port of an item key.
    pub inputs: BTreeMap<String, Digest>,
    /// Content of the model's parts, if the stage reads a model.
    pub weights: Option<Digest>,
    /// Content of the files read from outside, by path below the source root; a path that ends in
    /// `/` stands for the names in that folder.
    pub sources: BTreeMap<String, Digest>,
}

impl Form for Record {
    fn version(&self) -> Option<u32> {
        Some(self.format_version)
    }
}

impl Form for ItemRecord {
    fn version(&self) -> Option<u32> {
        Some(self.format_version)
    }
}

impl Form for Trace {
    fn version(&self) -> Option<u32> {
        None
    }
}

impl Form for Vec<Trace> {
    fn version(&self) -> Option<u32> {
        None
    }
}

/// What is known of a finished stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub format_version: u32,
    /// The key.
    pub fingerprint: Fingerprint,
    /// The hash of the manifest.
    pub output: Digest,
    /// The output's files where they are few, so that a look at them needs no manifest; else none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRef>,
    /// What the key was made from, for explanations.
    pub ingredients: Ingredients,
    /// The folder of checkpoints it used, if it trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trajectory: Option<Fingerprint>,
    /// How many steps along its trajectory it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<u64>,
    /// How many of these steps checkpoints spared it: what it took is that of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub went_on_from: Option<u64>,
    /// The key under which the outside files it read are known, if it read any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traced: Option<Fingerprint>,
    /// Which folder these were in, by its path from the pipeline file: [`Trace::root_name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_root: Option<Fingerprint>,
    /// Start, RFC 3339.
    pub started: String,
    /// Wall seconds.
    pub wall_secs: f64,
    /// CPU seconds; stages that run at once share those of the process. 0 where the system does not
    /// tell.
    pub cpu_secs: f64,
    /// Seconds in which the device worked: CPU seconds on the CPU; on a GPU, the time in which a
    /// kernel ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_secs: Option<f64>,
    /// The most bytes of the device's memory in use while it ran, by this process on the CPU and by
    /// all on a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// What its model was called, if it has one: [`crate::models::ModelRef::short_name`]. It is in
    /// no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Device name.
    pub device: String,
    /// What the driver's tool calls the card that it is, where it is one and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// Crate version.
    pub pipe_version: String,
    /// Items computed in this execution.
    pub items_run: usize,
    /// Items in the output.
    pub items_total: usize,
}

/// What people are told of a result that no history has a name for.
pub fn unnamed(kind: &str, key: Fingerprint) -> String {
    format!("a result of `{kind}` ({})", key.short())
}

/// The most files that a record names itself.
const FEW: usize = 8;

impl Record {
    /// On what it was computed: `cuda:0 (NVIDIA H100 80GB HBM3)`.
    pub fn computed_on(&self) -> String {
        match &self.card {
            Some(card) => format!("{} ({card})", self.device),
            None => self.device.clone(),
        }
    }

    /// What a record says of the files of its output.
    pub fn few_files(manifest: &Manifest) -> Vec<FileRef> {
        let is_many = manifest.files().take(FEW + 1).count() > FEW;
        if is_many { Vec::new() } else { manifest.files().copied().collect() }
    }
}

/// What a mapped stage gave for one item. The item's name is not part of it: two items of equal
/// content share the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Version of this form.
    pub format_version: u32,
    /// The key. Before format 3 it was not said, so such a record may stand in another's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Fingerprint>,
    /// The files by name.
    pub files: BTreeMap<String, FileRef>,
}

impl ItemRecord {
    /// The record of an item with these files.
    pub fn new(key: Fingerprint, files: BTreeMap<String, FileRef>) -> Self {
        Self { format_version: FORMAT_VERSION, key: Some(key), files }
    }

    /// Whether it says that it is the record of this key.
    pub fn is_of(&self, key: Fingerprint) -> bool {
        self.key == Some(key)
    }
}

/// The outside files that one run of a stage read. That of another stage misleads nobody: what is
/// looked up is the key with the content of these files, and the record there says which key it is
/// of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Paths below the source root, sorted; one that ends in `/` is the listing of a folder.
    pub paths: Vec<String>,
    /// Which folder the source root was, where that is known: the key leaves it out, so that data
    /// may be moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Fingerprint>,
}

impl Trace {
    /// How many are kept under a key for each source root, here and at a remote: the latest ones.
    pub const KEPT: usize = 8;
    /// How many paths those of a key may have beyond the latest [`Self::KEPT`]: all are read at
    /// each look-up.
    const PATHS: usize = 20_000;

    /// The trace of these paths.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self { paths: paths.into_iter().collect(), root: None }
    }

    /// The same, read below the source root of this name, if it has one.
    #[must_use]
    pub fn below(self, root: Option<Fingerprint>) -> Self {
        Self { root, ..self }
    }

    /// Whether it was read below the source root of this name.
    pub fn is_below(&self, root: Option<Fingerprint>) -> bool {
        self.root == root
    }

    /// The name of a source root, by its path from the folder of the pipeline file: on all machines
    /// the same, where the data lie alike.
    pub fn root_name(root: &Path) -> Fingerprint {
        Fingerprint::of(root.as_os_str().as_encoded_bytes())
    }

    /// Puts those that were read below `root` first, and leaves [`Self::KEPT`] of the others, which
    /// tell what to look for where data were moved.
    pub(crate) fn likely(traces: Vec<Self>, root: Option<Fingerprint>) -> Vec<Self> {
        let (own, mut others): (Vec<_>, Vec<_>) = traces.into_iter().partition(|t| t.root == root);
        others.truncate(Self::KEPT);
        own.into_iter().chain(others).collect()
    }

    /// Puts one before earlier ones, the latest first, and drops what is more than is kept.
    pub(super) fn remember(traces: &mut Vec<Self>, latest: Self) {
        let is_other = |old: &Self| old.root.is_some() && old.root != latest.root;
        traces.retain(|old| old.paths != latest.paths || is_other(old));
        traces.insert(0, latest);
        let (mut count, mut paths) = (0, 0);
        let mut of_root: HashMap<_, usize> = HashMap::new();
        traces.retain(|trace| {
            let of_root = of_root.entry(trace.root).or_default();
            (count, paths, *of_root) = (count + 1, paths + trace.paths.len().max(1), *of_root + 1);
            count <= Self::KEPT || (*of_root <= Self::KEPT && paths <= Self::PATHS)
        });
    }
}
