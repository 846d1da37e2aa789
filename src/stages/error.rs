//! What can go wrong in a stage, and whose fault it is.

use crate::{
    data::{DataError, Problem},
    models::LoadError,
    store::{Digest, StoreError},
};

/// A rule broken by a stage's parameters.
#[derive(Clone, Debug)]
pub struct ParamError {
    /// The parameter at fault, as a path such as `optimizer.lr`.
    pub field: String,
    /// What was wanted and what was found: `must be 1 to 64, but is 0`.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl ParamError {
    /// An error about `field`.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into(), help: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The message with the parameter that it is about: as its subject, where the message only says what
    /// it must be, or before it, where the message does not name it.
    pub fn sentence(&self) -> String {
        let Self { field, message, .. } = self;
        if ["must ", "is "].iter().any(|verb| message.starts_with(verb)) {
            format!("`{field}` {message}")
        } else if message.contains(&format!("`{field}`")) {
            message.clone()
        } else {
            format!("`{field}`: {message}")
        }
    }
}

impl From<Problem> for ParamError {
    fn from(Problem { field, message, help }: Problem) -> Self {
        Self { field: field.to_owned(), message, help: (!help.is_empty()).then_some(help) }
    }
}

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
    /// The weights are not those any more that the stage was decided for; the engine decides it anew.
    #[error("the weights changed while they were used")]
    Outdated,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_rule_names_its_parameter() {
        let told = |message: &str| ParamError::new("optimizer.lr", message).sentence();
        assert_eq!(told("must be positive"), "`optimizer.lr` must be positive");
        assert_eq!(told("without `optimizer.lr`"), "without `optimizer.lr`");
        assert_eq!(told("`IN` cannot be set"), "`optimizer.lr`: `IN` cannot be set");
    }
}
