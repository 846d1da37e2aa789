//! What a run and its workers say to each other: JSON, one line each. Both are the same program, so
//! there are no versions of this; that they are is checked first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    artifact::{Item, Manifest},
    device::DeviceFailure,
    exec::{budget::Room, meter::Usage},
    plan::WeightFile,
    stages::StageError,
    store::{Digest, Fingerprint},
};

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Call a stage.
    Call(Box<Task>),
    /// Stop the call of this number at its next safe point. Of one that is over, it means nothing.
    Stop(u64),
}

/// A call of a stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// Counts the calls of a worker.
    pub number: u64,
    /// The kind of the stage.
    pub kind: String,
    /// Its parameters after defaults.
    pub params: Map<String, Value>,
    /// What is on its ports; the files are in the store.
    pub given: BTreeMap<String, Manifest>,
    /// The trajectory whose checkpoints it goes on from.
    pub trajectory: Option<Fingerprint>,
    /// The files of weights that it must find, where that is watched.
    pub weights: Option<Vec<WeightFile>>,
    /// The memory that must be free.
    pub room: Option<Room>,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// First of all: it can be given stages.
    Ready {
        /// The version of the program.
        version: String,
    },
    /// Instead: it cannot, and ends.
    Unfit {
        /// Why.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// How far the call is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// A figure worth seeing.
        message: String,
    },
    /// An item is complete; its files are in the store.
    Item(Item),
    /// The call is over, and all is told.
    Done {
        /// The steps that a training made.
        steps: u64,
        /// What it took.
        usage: Usage,
    },
    /// The call failed.
    Failed(Fault),
}

/// A failure, as far as it can be told to another process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// It was told to stop.
    Cancelled,
    /// The weights are others by now.
    Outdated,
    /// Content of an input is damaged.
    Damaged(Digest),
    /// The stage's own work failed.
    Failed {
        /// What was wanted and what was found.
        message: String,
        /// The item at fault.
        item: Option<String>,
        /// What to do.
        help: Option<String>,
    },
    /// The machine lacks something.
    Environment {
        /// What.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// What must not happen.
    Bug(String),
    /// A panic, with its text: of a bug, or of a device.
    Panicked(String),
    /// What the device said when it was waited for.
    Device(String),
}

impl Fault {
    /// The failure of a stage; the store's are told as what they are to people.
    pub fn of(error: StageError) -> Self {
        match error {
            StageError::Cancelled => Self::Cancelled,
            StageError::Outdated => Self::Outdated,
            StageError::Damaged { digest } => Self::Damaged(digest),
            StageError::Store(error) => {
                let help = error.help().map(str::to_owned);
                Self::Environment { message: error.to_string(), help }
            }
            StageError::Failed { message, item, help } => Self::Failed { message, item, help },
            StageError::Environment { message, help } | StageError::NoWorker { message, help } => {
                Self::Environment { message, help }
            }
            StageError::Bug(text) => Self::Bug(text),
        }
    }

    /// The same the other way round; a text, where only the run can say what it means.
    pub fn into_error(self) -> Result<StageError, FaultText> {
        Ok(match self {
            Self::Cancelled => StageError::Cancelled,
            Self::Outdated => StageError::Outdated,
            Self::Damaged(digest) => StageError::Damaged { digest },
            Self::Failed { message, item, help } => StageError::Failed { message, item, help },
            Self::Environment { message, help } => StageError::Environment { message, help },
            Self::Bug(text) => StageError::Bug(text),
            Self::Panicked(text) => return Err(FaultText::Panic(text)),
            Self::Device(text) => return Err(FaultText::Device(text)),
        })
    }
}

/// What was said in a failure that is no stage's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FaultText {
    /// By a panic.
    Panic(String),
    /// By the device.
    Device(String),
}

impl FaultText {
    /// The text itself.
    pub fn said(&self) -> &str {
        let (Self::Panic(text) | Self::Device(text)) = self;
        text
    }

    /// Whether the device will answer nothing more to the process.
    pub fn is_of_lost_device(&self) -> bool {
        DeviceFailure::of(self.said()) == Some(DeviceFailure::Lost)
    }
}
