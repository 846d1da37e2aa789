//! Events for other programs.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use super::RunArgs;
use crate::{
    cli::{error::CliError, overwrite::refuse_overwrite},
    report::json::JsonReporter,
};

/// The file of `--events`.
pub(super) struct EventFile {
    path: PathBuf,
    pub reporter: JsonReporter<BufWriter<File>>,
}

impl EventFile {
    /// Creates the file, if one is asked for.
    pub fn of(args: &RunArgs) -> Result<Option<Self>, CliError> {
        args.events.as_deref().map(|path| Self::create(path, &args.files)).transpose()
    }

    /// The file must be none of the pipelines that are `run`.
    fn create(path: &Path, run: &[PathBuf]) -> Result<Self, CliError> {
        refuse_overwrite(path, run.iter().map(PathBuf::as_path))?;
        let reporter = JsonReporter::create(path);
        let reporter = reporter.map_err(|error| CliError::file("create", path, &error))?;
        Ok(Self { path: path.to_owned(), reporter })
    }

    pub fn finish(self) -> Result<(), CliError> {
        let Self { path, reporter } = self;
        let finished = reporter.finish().map(drop);
        finished.map_err(|error| CliError::file("write the events to", &path, &error))
    }
}
