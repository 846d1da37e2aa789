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

/// A rule broken by parameters, before anything is read.
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

    /// The message with the parameter that it is about: as its subject, where the message only says
    /// what it must be, or before it, where the message does not name it.
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
