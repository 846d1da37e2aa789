//! Events for other programs.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use crate::{cli::error::CliError, report::json::JsonReporter};

/// The file of `--events`.
pub(super) struct EventFile {
    path: PathBuf,
    pub reporter: JsonReporter<BufWriter<File>>,
}

impl EventFile {
    pub fn create(path: &Path) -> Result<Self, CliError> {
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
