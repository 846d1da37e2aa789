//! Events as NDJSON, one object per line.
//!
//! A file holds all runs of a command, one after the other: each from `run_started` to
//! `run_finished`, one per pipeline, and one more wherever `damage_found` says so.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Reporter, SCHEMA_VERSION};
use crate::exec::RunEvent;

/// Writes each event with the time it happened at.
pub struct JsonReporter<W: Write> {
    out: W,
    clock: fn() -> Timestamp,
    failed: Option<io::Error>,
}

/// One line.
#[derive(Serialize, JsonSchema)]
pub(super) struct Line<'a> {
    /// Version of this form.
    schema_version: u32,
    /// When it happened, RFC 3339.
    time: String,
    #[serde(flatten)]
    event: &'a RunEvent,
}

impl JsonReporter<BufWriter<File>> {
    /// Writes to a new file.
    #[expect(clippy::disallowed_methods, reason = "events say when they happened")]
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(BufWriter::new(File::create(path)?), Timestamp::now))
    }
}

impl<W: Write> JsonReporter<W> {
    /// Writes to `out`, with the times of `clock`.
    pub fn new(out: W, clock: fn() -> Timestamp) -> Self {
        Self { out, clock, failed: None }
    }

    /// Returns the error that ended the writing, if one did; the run goes on without events.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        self.failed.map_or(Ok(self.out), Err)
    }

    fn write(&mut self, event: &RunEvent) -> io::Result<()> {
        let line = Line { schema_version: SCHEMA_VERSION, time: (self.clock)().to_string(), event };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")?;
        // Progress is frequent and may wait in the buffer; a reader that follows the file sees
        // everything else at once.
        if matches!(event, RunEvent::StageProgress { .. }) { Ok(()) } else { self.out.flush() }
    }
}

impl<W: Write> Reporter for JsonReporter<W> {
    fn on(&mut self, event: &RunEvent) {
        if self.failed.is_none() {
            self.failed = self.write(event).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{Outcome, RunSummary};

    #[test]
    fn each_event_is_one_line_with_time_and_version() {
        let mut reporter = JsonReporter::new(Vec::new(), || Timestamp::UNIX_EPOCH);
        let started =
            RunEvent::RunStarted { pipeline: "pose".into(), instances: 2, device: "cpu".into() };
        reporter.on(&started);
        let outcome = Outcome::Done;
        reporter.on(&RunEvent::RunFinished(RunSummary {
            outcome,
            reused: 2,
            ..Default::default()
        }));
        let text = String::from_utf8(reporter.finish().unwrap()).unwrap();
        insta::assert_snapshot!(text, @r#"
        {"schema_version":1,"time":"1970-01-01T00:00:00Z","event":"run_started","pipeline":"pose","instances":2,"device":"cpu"}
        {"schema_version":1,"time":"1970-01-01T00:00:00Z","event":"run_finished","outcome":"done","reused":2,"ran":0,"failed":0,"skipped":0,"wall_secs":0.0}
        "#);
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut reporter = JsonReporter::new(Full, || Timestamp::UNIX_EPOCH);
        reporter.on(&RunEvent::RunFinished(RunSummary::default()));
        let error = reporter.finish().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
