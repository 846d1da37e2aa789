//! Why data cannot be used, and whose fault it is.

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The data, or what is asked of it, is wrong.
    #[error("{message}")]
    Failed {
        /// What was wanted and what was found.
        message: String,
        /// The image at fault.
        item: Option<String>,
        /// What to do.
        help: Option<String>,
    },
    /// A file is missing or cannot be read.
    #[error("{message}")]
    Environment {
        /// What is missing.
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

impl DataError {
    /// The data is wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), item: None, help: None }
    }

    /// Something is not there.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::Environment { message: message.into(), help: None }
    }

    /// Names the image at fault.
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
        let (Self::Failed { help, .. } | Self::Environment { help, .. }) = &mut self;
        *help = Some(text.into());
        self
    }
}

/// A rule broken by a request, before any data is read.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The parameter at fault, as a path such as `depth.range`.
    pub field: &'static str,
    /// What was wanted and what was found.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Problem {
    /// A problem of `field`.
    pub fn new(field: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { field, message: message.into(), help: help.into() }
    }
}
