//! Why a model did not load.

use std::fmt::Display;

/// One disagreement between a file and a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The model needs it, the file lacks it.
    #[error("missing `{name}` {shape:?}")]
    Missing {
        /// Published name.
        name: String,
        /// Shape the model needs.
        shape: Vec<usize>,
    },
    /// The file has it in another shape.
    #[error("`{name}` must be {wanted:?}, but is {found:?}")]
    Shape {
        /// Published name.
        name: String,
        /// Shape the model needs.
        wanted: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// The file has it, the model does not use it.
    #[error("`{name}` is not part of the model")]
    Unused {
        /// Published name.
        name: String,
    },
}

/// All disagreements; the first eight are shown.
#[derive(Clone, Debug)]
pub struct Problems(pub Vec<Problem>);

impl Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<_> = self.0.iter().take(8).map(ToString::to_string).collect();
        f.write_str(&shown.join("; "))?;
        if self.0.len() > shown.len() {
            write!(f, "; and {} more", self.0.len() - shown.len())?;
        }
        Ok(())
    }
}

/// Why a model did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not safetensors, or is cut short.
    #[error("`{file}` is not a whole safetensors file: {source}")]
    Format {
        /// The file.
        file: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A file of a cache is gone, or not what it was.
    #[error("the content of {} in the cache is damaged", .digest.to_hex())]
    Damaged {
        /// The hash of the content.
        digest: blake3::Hash,
    },
    /// A file is of another format than its name says.
    #[error("`{file}` {what}")]
    Foreign {
        /// The file.
        file: String,
        /// What it is, as in "is a GGUF file".
        what: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// A tensor has a type that holds no weights.
    #[error("tensor `{name}` of `{file}` is {found}, but weights must be F32, F16 or BF16")]
    Dtype {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The model, or one of its files, is not where it should be.
    #[error("{message}")]
    Missing {
        /// What was wanted and what was found.
        message: String,
        /// What to do.
        help: String,
    },
    /// The files of a part were replaced while they were read.
    #[error("the files of `{part}` changed while they were read")]
    Changed {
        /// `vae` or `transformer`.
        part: &'static str,
    },
    /// Values of weights are no finite numbers, or would be none.
    #[error("{message}")]
    NotFinite {
        /// Which.
        message: String,
        /// What to do.
        help: &'static str,
    },
    /// The branches of an adapter are of ranks so far apart that as one rank they would be far
    /// larger than the file.
    #[error("`{file}`: {message}")]
    Ranks {
        /// The file.
        file: String,
        /// What was wanted and what was found.
        message: String,
    },
    /// A file is not an adapter that can be used, or adapters do not go together.
    #[error("`{file}`: {message}")]
    Adapter {
        /// The file.
        file: String,
        /// What was wanted and what was found.
        message: String,
        /// What to do.
        help: &'static str,
    },
    /// The tensors do not fit the model.
    #[error("the weights do not fit the model: {0}")]
    Mismatch(Problems),
    /// A choice that the model's family does not offer.
    #[error("`{key}` must be {known} for this family of models, but is {found}")]
    Choice {
        /// The parameter.
        key: &'static str,
        /// What it may be, in backticks.
        known: String,
        /// What it is, in backticks.
        found: String,
    },
    /// The tensors of one part do not fit its configuration.
    #[error("the weights of `{part}` do not fit its configuration: {problems}")]
    PartMismatch {
        /// `vae`, `transformer` or `text_encoder`.
        part: &'static str,
        /// What does not fit.
        problems: Problems,
    },
    /// A value of a configuration is not one the model can have.
    #[error("`{file}`: `{key}` {message}")]
    Setting {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What it must be.
        message: String,
    },
    /// The same, of a configuration that a pipeline states.
    #[error("{0}")]
    Stated(String),
    /// A configuration is not one the model can have.
    #[error("`{file}`: {message}")]
    Config {
        /// The file.
        file: String,
        /// What was wanted and what was found.
        message: String,
    },
}

impl LoadError {
    /// What to do, where there is more to say than the message does.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Missing { help, .. } => Some(help),
            Self::NotFinite { help, .. }
            | Self::Adapter { help, .. }
            | Self::Foreign { help, .. } => Some(help),
            Self::Ranks { .. } => Some(
                "resize the branches to ranks that are nearer to each other, with the program that \
                 made the file",
            ),
            Self::Format { .. } => Some("it may be cut short: copy or download it again"),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge => {
                Some("it is not what its name says: copy or download it again")
            }
            Self::Config { .. } | Self::Setting { .. } => {
                Some("it must be the file that came with the weights")
            }
            Self::Mismatch(_) | Self::PartMismatch { .. } => Some(
                "weights and `config.json` must come from the same model: copy or download both \
                 again",
            ),
            _ => None,
        }
    }

    /// Says that a configuration is no file but the table `param` of a stage.
    #[must_use]
    pub fn stated_in(self, param: &str) -> Self {
        match self {
            Self::Setting { key, message, .. } => {
                Self::Stated(format!("`{param}.{key}` {message}"))
            }
            Self::Config { message, .. } => Self::Stated(format!("`{param}`: {message}")),
            error => error,
        }
    }

    /// Names the file that a configuration, or an adapter, was read from.
    #[must_use]
    pub fn of_file(self, file: &str) -> Self {
        let file = file.to_owned();
        match self {
            Self::Config { message, .. } => Self::Config { file, message },
            Self::Ranks { message, .. } => Self::Ranks { file, message },
            Self::Adapter { message, help, .. } => Self::Adapter { file, message, help },
            error => error,
        }
    }

    /// Says what a setting is, where the configuration that was read has it and the message does
    /// not yet.
    #[must_use]
    pub fn with_found(self, config: &serde_json::Value) -> Self {
        match self {
            Self::Setting { file, key, mut message } if message.starts_with("must be ") => {
                if let Some(found) = config.get(&key).filter(|_| !message.contains(", but is ")) {
                    message = format!("{message}, but is {}", shortened(found.to_string()));
                }
                Self::Setting { file, key, message }
            }
            error => error,
        }
    }

    /// Names the part whose weights do not fit.
    #[must_use]
    pub fn of_part(self, part: &'static str) -> Self {
        match self {
            Self::Mismatch(problems) => Self::PartMismatch { part, problems },
            error => error,
        }
    }
}

/// A value as far as it is worth reading.
fn shortened(mut value: String) -> String {
    const MOST: usize = 80;
    if value.len() > MOST {
        value.truncate(value.floor_char_boundary(MOST));
        value.push('…');
    }
    value
}
