//! What a panic means: a bug of ours, or a device that was full or is lost.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use burn::tensor::Device;

use super::{Outcome, call::Caller};
use crate::{
    device::DeviceFailure, models::Memory, plan::MemoryPlan, stages::StageError, store::Digest,
};

/// What to do about a bug of ours.
const REPORT: &str = "this is a bug in pipe; please report it with this file";

/// What to do about damage that no stage of the run can make good.
const VERIFY: &str = "`pipe cache verify` removes what is damaged, and `pipe run` makes it again";

/// What to do about weights that somebody replaces.
const AGAIN: &str = "do it again once they stay as they are";

/// The failure of a stage, as it is told.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What it makes of the run.
    pub(super) outcome: Outcome,
    pub(super) error: String,
    /// The item at fault.
    pub(super) item: Option<String>,
    pub(super) help: Option<String>,
}

impl Failure {
    pub(super) fn of(error: &StageError) -> Self {
        let (outcome, item, help) = match error {
            StageError::Failed { item, help, .. } => (Outcome::Failed, item.clone(), help.clone()),
            StageError::Environment { help, .. } => (Outcome::Environment, None, help.clone()),
            StageError::Store(error) => {
                (Outcome::Environment, None, error.help().map(str::to_owned))
            }
            StageError::Bug(_) => (Outcome::Bug, None, Some(REPORT.to_owned())),
            StageError::Cancelled => (Outcome::Interrupted, None, None),
            StageError::Outdated => (Outcome::Environment, None, Some(AGAIN.to_owned())),
            StageError::Damaged { .. } => (Outcome::Environment, None, Some(VERIFY.to_owned())),
        };
        Self { outcome, error: error.to_string(), item, help }
    }

    /// An output that is locked came out otherwise.
    pub(super) fn deviates(locked: Digest, output: Digest) -> Self {
        let help =
            "`pipe verify` says how far they are apart; `pipe run --lock` accepts the new one";
        Self {
            outcome: Outcome::Deviated,
            error: format!("its output is {}, but {} is locked", output.short(), locked.short()),
            item: None,
            help: Some(help.to_owned()),
        }
    }
}

impl Caller<'_> {
    /// A panic as the failure of the stage it happened in.
    pub(super) fn panicked(&self, index: usize, panic: &(dyn Any + Send)) -> StageError {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        self.device_failed(index, text)
            .unwrap_or_else(|| StageError::Bug(format!("the stage panicked: {text}")))
    }

    /// Waits for the device, so that what fails there fails the stage that asked for it.
    pub(super) fn settle(&self, index: usize) -> Result<(), StageError> {
        self.options.device.sync().map_err(|error| {
            let text = error.to_string();
            self.device_failed(index, &text)
                .unwrap_or_else(|| StageError::environment(format!("the device failed: {text}")))
        })
    }

    /// The failure of the stage, if the text is that of a device. A full device is emptied.
    fn device_failed(&self, index: usize, text: &str) -> Option<StageError> {
        Some(match DeviceFailure::of(text)? {
            DeviceFailure::OutOfMemory => {
                self.empty_device();
                self.out_of_memory(index)
            }
            DeviceFailure::Lost => {
                let reason = text.lines().skip_while(|line| !line.starts_with("Caused by")).nth(1);
                let reason = reason.map_or_else(String::new, |line| format!(": {}", line.trim()));
                StageError::environment(format!("the device is lost to this process{reason}"))
                    .with_help("run again; what is done stays done")
            }
        })
    }

    /// Says what was planned and what would need less.
    fn out_of_memory(&self, index: usize) -> StageError {
        let plan = MemoryPlan::new(self.pipeline, self.options.device == Device::flex());
        let planned = plan.of(index).map_or_else(
            || "how much it needs was not known beforehand".to_owned(),
            |memory| format!("it was planned to need {}", told(&memory)),
        );
        let mut help = plan.help(index);
        help.push("run fewer stages at once (`--jobs 1`)".to_owned());
        help.push("see that no other program uses the device".to_owned());
        StageError::environment(format!("the device ran out of memory; {planned}"))
            .with_help(help.join("; or "))
    }

    /// What does not fit the device as it was planned.
    pub(super) fn too_large(&self, index: usize, needed: &Memory, limit: u64) -> StageError {
        let plan = MemoryPlan::new(self.pipeline, self.options.device == Device::flex());
        let help = match plan.help(index) {
            help if help.is_empty() => "verify it on a larger device".to_owned(),
            help => {
                format!("verify it on a larger device; a run could also: {}", help.join("; or "))
            }
        };
        let has = limit as f64 / f64::from(1 << 30);
        let planned = told(needed);
        StageError::environment(format!("needs about {planned}, but the device has {has:.1} GiB"))
            .with_help(help)
    }

    /// Frees what no running stage holds. The device may fail once more at what was queued.
    fn empty_device(&self) {
        let device = &self.options.device;
        self.models.clear();
        let freed = catch_unwind(AssertUnwindSafe(|| {
            // The failure itself is told already.
            let _ = device.sync();
            device.memory_cleanup();
        }));
        if freed.is_err() {
            tracing::warn!("the device could not be emptied");
        }
    }
}

/// `16.2 GiB (weights 10.4, trained 1.0, activations 3.8, attention 1.0)`.
fn told(memory: &Memory) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let parts = memory.parts().map(|(name, bytes)| format!("{name} {:.1}", gib(bytes)));
    format!("{:.1} GiB ({})", gib(memory.total()), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_told_in_gigabytes() {
        let memory = Memory { weights: 3 << 30, trained: 1 << 29, ..Memory::default() };
        let wanted = "3.5 GiB (weights 3.0, trained 0.5, activations 0.0, attention 0.0)";
        assert_eq!(told(&memory), wanted);
    }
}
