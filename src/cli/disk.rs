//! What `plan` and `run` say of the disk space that results take.

use super::session::Session;
use crate::{
    config::Pipeline,
    plan::{self, DiskPlan, PlanOptions},
    report::style::{bytes, count},
    store::Store,
};

/// What to do about a disk that is too small.
const HELP: &str = "free space with `pipe cache gc`, or name another disk with `--cache DIR`; `--only \
                    STAGE` runs a part";

/// The line of a plan; empty where nothing is known.
pub(super) fn line(disk: &DiskPlan, free: Option<u64>) -> String {
    let (needed, unknown) = (disk.total(), disk.unknown());
    if needed == 0 {
        return String::new();
    }
    let unknown = match unknown {
        0 => String::new(),
        _ => format!(", and {} never measured", count(unknown, "stage")),
    };
    let left = free.map(|free| format!("; {} are free", bytes(free))).unwrap_or_default();
    let line = format!("disk: at most about {}{unknown}{left}\n", bytes(needed));
    match verdict(needed, free) {
        Verdict::Enough => line,
        Verdict::Tight(_) | Verdict::TooSmall(_) => {
            format!("{line}too little disk space\n  help: {HELP}\n")
        }
    }
}

/// Whether what a run writes fits the disk.
enum Verdict {
    Enough,
    /// Perhaps not.
    Tight(String),
    /// Not even half of what is expected fits.
    TooSmall(String),
}

fn verdict(needed: u64, free: Option<u64>) -> Verdict {
    let Some(free) = free.filter(|free| needed > *free) else { return Verdict::Enough };
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
        match verdict(disk.total(), self.store.free_space()) {
            Verdict::Enough => {}
            Verdict::Tight(message) => session.caution(&message),
            Verdict::TooSmall(message) => {
                session.caution(&format!("{message}; the run will probably fill it"));
                session.talk(&format!("  help: {HELP}; what is finished is kept"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_too_small_where_half_of_the_estimate_does_not_fit() {
        let told = |needed, free| match verdict(needed, free) {
            Verdict::Enough => "enough",
            Verdict::Tight(_) => "tight",
            Verdict::TooSmall(_) => "too small",
        };
        let cases = [(100, Some(100)), (101, Some(100)), (202, Some(100)), (1000, None)];
        let told = cases.map(|(needed, free)| told(needed, free));
        assert_eq!(told, ["enough", "tight", "too small", "enough"]);
    }
}
