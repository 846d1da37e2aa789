//! Events for other programs.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use crate::{
    cli::{error::CliError, spare::spare},
    report::json::JsonReporter,
};

/// The file of `--events`.
pub(super) struct EventFile {
    path: PathBuf,
    pub reporter: JsonReporter<BufWriter<File>>,
}

impl EventFile {
    /// Creates the file, which must be none of the pipelines that are `run`.
    pub fn create(path: &Path, run: &[PathBuf]) -> Result<Self, CliError> {
        spare(path, run.iter().map(PathBuf::as_path))?;
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
