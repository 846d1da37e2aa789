//! What `plan` and `run` say of the disk space that results take.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread::{Scope, ScopedJoinHandle},
    time::Duration,
};

use super::session::Session;
use crate::{
    config::Pipeline,
    plan::{self, DiskPlan, PlanOptions},
    report::style::count,
    store::Store,
    units::bytes,
};

/// What to do about a disk that is too small.
const HELP: &str = "free space with `pipe cache gc`, or name another disk with `--cache DIR`; `--only \
                    STAGE` runs a part";

/// Less than this left is told whatever is expected: clips of a few figures take as much.
const ALMOST_FULL: u64 = 32 << 20;

/// The line of a plan; empty where nothing is known, unless the disk is almost full.
pub(super) fn line(disk: &DiskPlan, free: Option<u64>) -> String {
    let (needed, unknown) = (disk.total(), disk.unknown());
    let verdict = verdict(needed, free);
    let stages = count(unknown, "stage");
    let left = free.map(|free| format!("; {} are free", bytes(free))).unwrap_or_default();
    let line = match (needed, unknown) {
        (0, 0) => return String::new(),
        (0, _) if matches!(verdict, Verdict::Enough) => return String::new(),
        (0, _) => format!("disk: {stages} never measured{left}\n"),
        (_, 0) => format!("disk: at most about {}{left}\n", bytes(needed)),
        _ => format!("disk: at most about {}, and {stages} never measured{left}\n", bytes(needed)),
    };
    match verdict {
        Verdict::Enough => line,
        Verdict::AlmostFull(_) => format!("{line}the disk is almost full\n  help: {HELP}\n"),
        Verdict::Tight(_) | Verdict::TooSmall(_) => {
            format!("{line}too little disk space\n  help: {HELP}\n")
        }
    }
}

/// Whether what a run writes fits the disk.
enum Verdict {
    Enough,
    /// What is expected fits, but little more would.
    AlmostFull(String),
    /// Perhaps not.
    Tight(String),
    /// Not even half of what is expected fits.
    TooSmall(String),
}

fn verdict(needed: u64, free: Option<u64>) -> Verdict {
    let Some(free) = free else { return Verdict::Enough };
    if needed <= free {
        return match free - needed {
            ALMOST_FULL.. => Verdict::Enough,
            _ => Verdict::AlmostFull(format!(
                "the disk of the cache is almost full: it has {} left",
                bytes(free)
            )),
        };
    }
    let message = format!(
        "this run may write about {}, but the disk of the cache has {} left",
        bytes(needed),
        bytes(free)
    );
    if needed / 2 > free { Verdict::TooSmall(message) } else { Verdict::Tight(message) }
}

/// Looks once, when the first stage runs, whether the disk will do. A run that has nothing to do
/// pays nothing for it, and none waits long for it: the plan is made beside the walk.
///
/// It is warned, not refused: this is an estimate, and what is finished when a disk is full is
/// kept.
pub(super) struct Watch<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// What to plan, until that has begun.
    wanted: Option<Wanted<'env>>,
    /// What came of it, until that is told.
    warning: Option<ScopedJoinHandle<'scope, Option<Warning>>>,
}

/// What is to be planned.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'env> {
    pub pipeline: &'env Pipeline,
    pub store: &'env Store,
    pub options: &'env PlanOptions,
}

/// What is said, and whether there is anything to do about it.
struct Warning {
    message: String,
    is_to_help: bool,
}

impl<'scope, 'env> Watch<'scope, 'env> {
    pub fn new(scope: &'scope Scope<'scope, 'env>, wanted: Wanted<'env>) -> Self {
        Self { scope, wanted: Some(wanted), warning: None }
    }

    /// At the first stage, begins to look. What is not known soon is told later.
    pub fn begin(&mut self, session: &Session) {
        /// A plan of 100,000 stages takes as long.
        const PATIENCE: Duration = Duration::from_secs(1);
        let Some(wanted) = self.wanted.take() else { return };
        let (looking, ended) = channel::<()>();
        self.warning = Some(self.scope.spawn(move || {
            let _looking = looking;
            wanted.look()
        }));
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Disconnected) {
            self.finish(session);
        }
    }

    /// Warns of a disk that may be too small, or will probably be filled, once that is known.
    pub fn tell(&mut self, session: &Session) {
        if self.warning.as_ref().is_some_and(ScopedJoinHandle::is_finished) {
            self.finish(session);
        }
    }

    /// The same at the end.
    pub fn finish(&mut self, session: &Session) {
        // A bug in a plan is told by the hook for panics; the run does not depend on it.
        let warning = self.warning.take().and_then(|warning| warning.join().ok().flatten());
        let Some(Warning { message, is_to_help }) = warning else { return };
        session.caution(&message);
        if is_to_help {
            session.talk(&format!("  help: {HELP}; what is finished is kept"));
        }
    }
}

impl Wanted<'_> {
    fn look(self) -> Option<Warning> {
        // What a cache behind the store has is written to this disk, too, whether it is fetched or
        // computed.
        let store = self.store.alone();
        // What keeps it from being known is told by the run itself.
        let plan = plan::build(self.pipeline, &store, self.options).ok()?;
        let disk = DiskPlan::new(&plan, &store).ok()?;
        let (message, is_to_help) = match verdict(disk.total(), store.free_space()) {
            Verdict::Enough => return None,
            Verdict::Tight(message) => (message, false),
            Verdict::AlmostFull(message) => (message, true),
            Verdict::TooSmall(message) => {
                (format!("{message}; the run will probably fill it"), true)
            }
        };
        Some(Warning { message, is_to_help })
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt, path::Path, sync::Arc};

    use super::*;
    use crate::{
        config::{LoadOptions, load_with},
        stages::STAGES,
        store::{Behind, Fingerprint, NewResult, Record, Trace},
    };

    /// A cache behind a store that nobody may ask.
    #[derive(Debug)]
    struct Unasked;

    impl Behind for Unasked {
        fn bring(&self, _: &Store, _: Fingerprint, name: &dyn fmt::Display) -> Option<Record> {
            panic!("asked for `{name}`")
        }

        fn bring_items(&self, _: &Store, _: &[Fingerprint]) {
            panic!("asked for items")
        }

        fn traces(&self, _: Fingerprint, _: Option<Fingerprint>) -> Vec<Trace> {
            panic!("asked for traces")
        }

        fn made(&self, _: NewResult) {}
    }

    #[test]
    fn the_disk_is_looked_at_without_a_question_to_the_remote() {
        let text =
            "[stages.s]\nkind = \"command\"\ncommand = \"echo > $OUT/f\"\noutputs = [\"f\"]\n";
        let read = |_: &Path| Ok(text.to_owned());
        let options = LoadOptions::default();
        let pipeline = load_with(STAGES, Path::new("x.toml"), &options, &read).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap().with_behind(Arc::new(Unasked));
        let options = PlanOptions::default();
        let wanted = Wanted { pipeline: &pipeline, store: &store, options: &options };
        // It would panic.
        wanted.look();
    }

    #[test]
    fn a_disk_is_too_small_where_half_of_the_estimate_does_not_fit() {
        let told = |needed, free| match verdict(needed, free) {
            Verdict::Enough => "enough",
            Verdict::AlmostFull(_) => "almost full",
            Verdict::Tight(_) => "tight",
            Verdict::TooSmall(_) => "too small",
        };
        let free = 100 * ALMOST_FULL;
        let cases = [0, free - ALMOST_FULL, free - ALMOST_FULL + 1, free, free + 1, 2 * free + 2];
        let told_of = cases.map(|needed| told(needed, Some(free)));
        let wanted = ["enough", "enough", "almost full", "almost full", "tight", "too small"];
        assert_eq!(told_of, wanted);
        assert_eq!(told(0, Some(3 << 20)), "almost full");
        assert_eq!(told(1000, None), "enough");
    }
}
