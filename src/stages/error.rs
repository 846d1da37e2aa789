//! What can go wrong in a stage, and whose fault it is.

use crate::{
    data::DataError,
    models::LoadError,
    store::{Digest, StoreError},
};

/// Why a stage did not finish.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The user interrupted the run.
    #[error("interrupted")]
    Cancelled,
    /// A file of an input no longer has the content it had; the engine makes it again.
    #[error("the content of {digest} in the cache is damaged")]
    Damaged {
        /// The content asked for.
        digest: Digest,
    },
    /// The weights are not those any more that the stage was decided for; the engine decides it
    /// anew.
    #[error("the weights changed while they were used")]
    Outdated,
    /// No worker can be had on the device that was to compute the stage; the engine has another
    /// device compute it, if there is one.
    #[error("{message}")]
    NoWorker {
        /// Why.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(StoreError),
    /// The stage's input, data or arithmetic is wrong: exit code 1.
    #[error("{message}")]
    Failed {
        /// What was wanted and what was found.
        message: String,
        /// The item at fault.
        item: Option<String>,
        /// What to do.
        help: Option<String>,
    },
    /// What must not happen, such as a panic: a bug of ours, exit code 101.
    #[error("{0}")]
    Bug(String),
    /// The machine lacks something (a device, memory, weights, data): exit code 3.
    #[error("{message}")]
    Environment {
        /// What is missing.
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

impl StageError {
    /// A failure of the stage's own work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), item: None, help: None }
    }

    /// Something the machine lacks.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::Environment { message: message.into(), help: None }
    }

    /// Names the item at fault.
    #[must_use]
    pub fn on_item(mut self, name: &str) -> Self {
        if let Self::Failed { item, .. } = &mut self {
            item.get_or_insert_with(|| name.to_owned());
        }
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_help(mut self, text: impl Into<String>) -> Self {
        if let Self::Failed { help, .. } | Self::Environment { help, .. } = &mut self {
            *help = Some(text.into());
        }
        self
    }
}

impl From<StoreError> for StageError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { digest } => Self::Damaged { digest },
            error => Self::Store(error),
        }
    }
}

impl From<DataError> for StageError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Failed { message, item, help } => Self::Failed { message, item, help },
            DataError::Environment { message, help } => Self::Environment { message, help },
        }
    }
}

impl From<LoadError> for StageError {
    /// Files that are not there or cannot be read are the machine's fault, all else the file's.
    fn from(error: LoadError) -> Self {
        let message = error.to_string();
        let help = error.help().map(str::to_owned);
        match error {
            LoadError::Changed { .. } => Self::Outdated,
            LoadError::Damaged { digest } => Self::Damaged { digest: digest.into() },
            LoadError::Io { .. } | LoadError::Missing { .. } => Self::Environment { message, help },
            _ => Self::Failed { message, item: None, help },
        }
    }
}
