//! The record of one finished stage: what it was made from, and what came out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Digest, Fingerprint};

/// Everything that decides a stage's output; its canonical JSON is hashed to the [`Fingerprint`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ingredients {
    /// Stage kind.
    pub kind: String,
    /// The kind's `VERSION`.
    pub version: u32,
    /// Parameters after defaults, paths left out.
    pub params: Map<String, Value>,
    /// Content on each port: the artifact's digest, or the item's for a mapped port of an item key.
    pub inputs: BTreeMap<String, Digest>,
    /// Content of the model's parts, if the stage reads a model.
    pub weights: Option<Digest>,
    /// Content of the files read from outside, by path below the source root.
    pub sources: BTreeMap<String, Digest>,
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
    /// What the key was made from, for explanations.
    pub ingredients: Ingredients,
    /// Start, RFC 3339.
    pub started: String,
    /// Wall seconds.
    pub wall_secs: f64,
    /// Process CPU seconds.
    pub cpu_secs: f64,
    /// Device name.
    pub device: String,
    /// Crate version.
    pub pipe_version: String,
    /// Items computed in this execution.
    pub items_run: usize,
    /// Items in the output.
    pub items_total: usize,
}
