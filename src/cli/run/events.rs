//! Events for other programs.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::RunArgs;
use crate::{
    cli::{
        error::CliError,
        overwrite::{has_content, not_ours, refuse_overwrite},
    },
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
        if !is_ours(path).map_err(|error| CliError::file("read", path, &error))? {
            let what = "is there already and holds no events of `pipe`";
            return Err(not_ours(path, what, "--events"));
        }
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

/// Whether events may take the place of a file: of none, of an empty one, of older events.
fn is_ours(path: &Path) -> std::io::Result<bool> {
    const MOST: u64 = 1 << 16;
    if !has_content(path) {
        return Ok(true);
    }
    let mut line = Vec::new();
    BufReader::new(File::open(path)?.take(MOST)).read_until(b'\n', &mut line)?;
    let event = serde_json::from_slice::<Value>(&line);
    Ok(event.is_ok_and(|line| line["event"].is_string() && line["schema_version"].is_u64()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_events_are_overwritten_by_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let written = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            EventFile::create(&path, &[]).is_ok()
        };
        assert!(EventFile::create(&path, &[]).is_ok(), "there is none yet");
        let older = br#"{"schema_version":1,"time":"2026-11-27T00:00:00Z","event":"run_started"}"#;
        for ours in [&b""[..], older] {
            assert!(written(ours));
        }
        for other in [&b"\x89PNG\r\n"[..], b"a line", b"{\"event\":1}\n", b"{}"] {
            assert!(!written(other));
            assert_eq!(fs::read(&path).unwrap(), other);
        }
    }
}
