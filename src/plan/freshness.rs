//! The three states of a stage, and the sentence for each reason to run.

use crate::{
    config::Place,
    store::{Digest, Record},
};

/// Whether a stage must run.
#[derive(Debug)]
pub enum Freshness {
    /// The store already holds the output.
    Fresh(Box<Record>),
    /// Must run; never empty.
    Stale(Vec<StaleReason>),
    /// Depends on outputs that do not exist yet (indices of instances); decided when they do.
    Pending {
        /// The instances it waits for.
        upstream: Vec<usize>,
    },
}

/// Why a stage must run.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum StaleReason {
    /// No stage like it ever ran.
    NeverRun,
    /// The kind's `VERSION` is another.
    VersionChanged {
        /// Before.
        old: u32,
        /// Now.
        new: u32,
    },
    /// A parameter has another value.
    ParamChanged {
        /// `rank`, `optimizer.lr`.
        path: String,
        /// Before.
        old: String,
        /// Now.
        new: String,
        /// Where the new value was written.
        place: Option<Place>,
    },
    /// An input has other content.
    InputChanged {
        /// The port.
        port: String,
        /// Before.
        old: Digest,
        /// Now.
        new: Digest,
    },
    /// The model's weights are others.
    WeightsChanged {
        /// The model.
        model: String,
    },
    /// A file read from outside has other content.
    SourceChanged {
        /// Path below the source root.
        path: String,
    },
    /// The output was made once, but is gone or damaged.
    OutputMissing {
        /// Its digest.
        digest: Digest,
    },
    /// `--force`.
    Forced,
}
