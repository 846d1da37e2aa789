//! Lines only, and now and then one of each running stage.

use std::{
    io::Write,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::{Duration, Instant},
};

use super::pulse::Pulses;
use crate::{report::style::Style, sync::Unpoisoned};

/// How often running stages are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file or a pipe, shared with the thread that looks at running stages: a stage that tells
/// nothing for long is just the one to hear of.
pub(super) struct Lines(Arc<Mutex<Shared>>);

struct Shared {
    out: Box<dyn Write + Send>,
    style: Style,
    pulses: Pulses,
}

impl Lines {
    pub(super) fn new(out: Box<dyn Write + Send>, style: Style) -> Self {
        let shared = Arc::new(Mutex::new(Shared { out, style, pulses: Pulses::default() }));
        let looked_at = Arc::downgrade(&shared);
        std::thread::spawn(move || look(&looked_at));
        Self(shared)
    }

    pub(super) fn line(&self, line: &str) {
        self.shared().line(line);
    }

    pub(super) fn start(&self, index: usize, stage: &str, now: Instant) {
        self.shared().pulses.start(index, stage, now);
    }

    pub(super) fn progress(
        &self,
        index: usize,
        done: u64,
        total: u64,
        message: &str,
        now: Instant,
    ) {
        self.shared().pulses.progress(index, done, total, message, now);
    }

    pub(super) fn end(&self, index: usize) {
        self.shared().pulses.end(index);
    }

    /// A line of each stage of which nothing was said for a while.
    pub(super) fn tell(&self, now: Instant) {
        self.shared().tell(now);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unpoisoned()
    }
}

impl Shared {
    fn line(&mut self, line: &str) {
        // A closed stderr must not end a run: the work goes on, only the talk is lost.
        let _ = writeln!(self.out, "{line}");
    }

    fn tell(&mut self, now: Instant) {
        let verb = self.style.faint("running");
        for (stage, progress) in self.pulses.due(now) {
            self.line(&format!("{verb}  {stage}  {progress}"));
        }
    }
}

/// Looks at running stages as long as anybody tells of them.
fn look(shared: &Weak<Mutex<Shared>>) {
    while let Some(shared) = shared.upgrade() {
        Lines(shared).tell(Instant::now());
        std::thread::sleep(LOOK);
    }
}
