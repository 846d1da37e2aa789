//! What `plan` and `run` say of the disk space that results take.

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

/// Looks once, when the first stage runs, whether the disk will do. A run that has nothing to do pays
/// nothing for it.
///
/// It is warned, not refused: this is an estimate, and what is finished when a disk is full is kept.
pub(super) struct Watch<'a> {
    pub pipeline: &'a Pipeline,
    pub store: &'a Store,
    pub wanted: &'a PlanOptions,
    looked: bool,
}

impl<'a> Watch<'a> {
    pub fn new(pipeline: &'a Pipeline, store: &'a Store, wanted: &'a PlanOptions) -> Self {
        Self { pipeline, store, wanted, looked: false }
    }

    /// At the first stage, warns of a disk that may be too small, or will probably be filled.
    pub fn look(&mut self, session: &Session) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        // What keeps it from being known is told by the run itself.
        let Ok(plan) = plan::build(self.pipeline, self.store, self.wanted) else { return };
        let Ok(disk) = DiskPlan::new(&plan, self.store) else { return };
        let message = match verdict(disk.total(), self.store.free_space()) {
            Verdict::Enough => return,
            Verdict::Tight(message) => return session.caution(&message),
            Verdict::AlmostFull(message) => message,
            Verdict::TooSmall(message) => format!("{message}; the run will probably fill it"),
        };
        session.caution(&message);
        session.talk(&format!("  help: {HELP}; what is finished is kept"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
