//! Why there is no lock, or none may be written, and what to do.

use std::{io, path::PathBuf};

use super::LOCK_VERSION;

/// Why there is no lock to go by.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file could not be read or written.
    #[error("cannot access the lock file `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written where it belongs.
    #[error("cannot write the lock file `{}`: {source}", path.display())]
    NotWritten {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no lock file.
    #[error("`{}` is no lock file of `pipe`: {message}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A newer `pipe` wrote it.
    #[error("the lock file `{}` has version {found}, but this `pipe` knows versions up to {LOCK_VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Something else is where the lock would be written.
    #[error("`{}` is there already and is no lock file of `pipe`, so it is not overwritten", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is the lock of another pipeline, or of another profile.
    #[error("`{}` is the lock of {found}, not of {wanted}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A stage has no output that could be locked.
    #[error("`{stage}` is not up to date, so it cannot be locked")]
    Stale {
        /// The instance.
        stage: String,
    },
}

impl LockError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "`pipe run --lock` writes it beside the pipeline file",
            Self::NotWritten { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free space on its disk, then run again: what is computed is kept"
            }
            Self::NotWritten { .. } => {
                "it lies beside the pipeline file: ask for the right to write there, or run a copy of the file in a \
                 folder of your own"
            }
            Self::Form { .. } => "restore it from version control, or write it anew with --lock",
            Self::Newer { .. } => "use the newer `pipe`, or write it anew with --lock",
            Self::Foreign { .. } => {
                "the lock of `x.toml` is `x.lock`: rename the pipeline file, or move the other file away"
            }
            Self::Other { .. } => {
                "rename one of the pipeline files or profiles, so that each has a lock of its own; or remove \
                 this one, if nobody needs it any more"
            }
            Self::Stale { .. } => "`pipe run --lock` brings everything up to date first",
        }
    }
}
