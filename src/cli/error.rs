//! How a command ends badly: message, remedy and exit code.

use std::{io, path::Path};

use tempfile::TempDir;

use super::{exit, session::Session};
use crate::{
    config::{ConfigErrors, settings::SettingsError},
    exec::ExecError,
    plan::{LockError, PlanError},
    provenance::FactsError,
    remote::RemoteError,
    report::{results::ResultsError, style::WIDTH},
    store::{Digest, StoreError},
};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum CliError {
    /// The pipeline file is wrong.
    Config(ConfigErrors),
    /// The request is wrong, or the machine lacks something.
    Message { code: u8, message: String, help: Option<String> },
    /// Several things are wrong, each with what to do.
    Messages { code: u8, parts: Vec<(String, Option<String>)> },
    /// Content of the cache is damaged.
    Damaged(Digest),
    /// All is said already.
    Told(u8),
    /// Nobody reads stdout any more.
    ClosedPipe,
}

impl CliError {
    /// A wrong request.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Message { code: exit::USAGE, message: message.into(), help: None }
    }

    /// Something the machine lacks.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::Message { code: exit::ENVIRONMENT, message: message.into(), help: None }
    }

    /// What came of printing, where the rest of a command does not depend on a reader.
    pub fn unless_unread(printed: Result<(), Self>) -> Result<(), Self> {
        match printed {
            Err(Self::ClosedPipe) => Ok(()),
            printed => printed,
        }
    }

    /// A file that could not be read or written.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let failed = Self::environment(format!("cannot {what} `{}`: {error}", path.display()));
        let help = match (error.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(folder))
                if !folder.exists() && folder != Path::new("") =>
            {
                format!("there is no folder `{}`: make it first", folder.display())
            }
            (io::ErrorKind::NotFound, _) => "check the path".to_owned(),
            (io::ErrorKind::PermissionDenied, _) => {
                "name another one, or ask for the right to it".to_owned()
            }
            (io::ErrorKind::IsADirectory, _) => "it is a folder: name a file".to_owned(),
            (io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists, _) => {
                "a file is where a folder must be: name another path".to_owned()
            }
            _ => return failed,
        };
        failed.with_help(help)
    }

    /// Results of a pipeline file of which nothing can be said before `command` ran.
    pub fn of_facts(error: &FactsError, command: &str) -> Self {
        match error {
            FactsError::Stale { .. } => Self::Message {
                code: exit::STAGE_FAILED,
                message: error.to_string(),
                help: Some(format!("`{command}` computes what is missing")),
            },
            FactsError::Io { .. } => Self::environment(error.to_string()),
        }
    }

    /// Adds what to do.
    pub fn with_help(mut self, text: impl Into<String>) -> Self {
        if let Self::Message { help, .. } = &mut self {
            *help = Some(text.into());
        }
        self
    }

    /// What it says and what to do, if it is one message.
    pub fn into_message(self) -> Option<(String, Option<String>)> {
        match self {
            Self::Message { message, help, .. } => Some((message, help)),
            _ => None,
        }
    }

    /// Tells the user and gives the exit code.
    pub fn report(self, session: &Session) -> u8 {
        match self {
            Self::Config(errors) => {
                session.talk(errors.render(session.stderr.theme(), WIDTH).trim_end());
                exit::USAGE
            }
            Self::Message { code, message, help } => {
                let block = session.stderr.message_block(&message, help.as_deref());
                session.talk(block.trim_end());
                code
            }
            Self::Messages { code, parts } => {
                for (message, help) in parts {
                    let block = session.stderr.message_block(&message, help.as_deref());
                    session.talk(block.trim_end());
                }
                code
            }
            Self::Damaged(digest) => {
                let error = StoreError::Damaged { digest };
                let dropped = session.store().is_ok_and(|store| store.evict(digest).is_ok());
                let help = if dropped {
                    "it was removed from the cache, and `pipe run` makes it again"
                } else {
                    "`pipe cache verify` removes it where it can write, and `pipe run` makes it again"
                };
                Self::environment(error.to_string()).with_help(help).report(session)
            }
            Self::Told(code) => code,
            Self::ClosedPipe => exit::DONE,
        }
    }
}

/// A folder for what need not stay.
pub(super) fn scratch_folder(prefix: &str) -> Result<TempDir, CliError> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir();
    folder.map_err(|e| {
        CliError::environment(format!("cannot make a scratch folder: {e}"))
            .with_help("name a folder that is there, and that you may write to, with `TMPDIR`")
    })
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

impl From<SettingsError> for CliError {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::File(errors) => Self::Config(errors),
            error @ SettingsError::Environment { .. } => {
                Self::usage(error.to_string()).with_help("set it to such a value, or unset it")
            }
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { digest } => return Self::Damaged(digest),
            StoreError::Cancelled => return Self::Told(exit::INTERRUPTED),
            _ => {}
        }
        let help = error.help().map(str::to_owned);
        Self::Message { code: exit::ENVIRONMENT, message: error.to_string(), help }
    }
}

impl From<RemoteError> for CliError {
    fn from(error: RemoteError) -> Self {
        let code = match error {
            RemoteError::Stopped => return Self::Told(exit::INTERRUPTED),
            RemoteError::Address { .. }
            | RemoteError::Incomplete { .. }
            | RemoteError::NoFolder { .. } => exit::USAGE,
            _ => exit::ENVIRONMENT,
        };
        let help = error.help().map(str::to_owned);
        Self::Message { code, message: error.to_string(), help }
    }
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        if matches!(error, PlanError::Store(StoreError::Cancelled)) {
            return Self::Told(exit::INTERRUPTED);
        }
        let code = if error.is_environment() { exit::ENVIRONMENT } else { exit::USAGE };
        Self::Message { code, message: error.to_string(), help: error.help() }
    }
}

impl From<LockError> for CliError {
    fn from(error: LockError) -> Self {
        let code = match error {
            LockError::Stale { .. } => exit::STAGE_FAILED,
            LockError::Foreign { .. } | LockError::Other { .. } => exit::USAGE,
            _ => exit::ENVIRONMENT,
        };
        let help = Some(error.help().to_owned());
        Self::Message { code, message: error.to_string(), help }
    }
}

impl From<ExecError> for CliError {
    fn from(error: ExecError) -> Self {
        let code = if error.is_environment() { exit::ENVIRONMENT } else { exit::USAGE };
        Self::Messages { code, parts: error.parts() }
    }
}

impl From<ResultsError> for CliError {
    fn from(error: ResultsError) -> Self {
        match error {
            ResultsError::Store(error) => error.into(),
            error @ ResultsError::Reference(_) => Self::usage(error.to_string())
                .with_help("`reference.values` of a table names a CSV with a column per axis"),
            error @ ResultsError::Form { .. } => Self::usage(error.to_string()),
        }
    }
}
