//! What a panic means: a bug of ours, or a device that was full or is lost.

use std::any::Any;

use super::{Outcome, call::Caller};
use crate::{
    device::{DeviceFailure, text_of},
    models::Memory,
    plan::{MemoryPlan, TooLarge},
    stages::StageError,
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
            StageError::Environment { help, .. } | StageError::NoWorker { help, .. } => {
                (Outcome::Environment, None, help.clone())
            }
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

    /// What is locked came out otherwise, or was made from something else.
    pub(super) fn deviates((error, help): (String, &str)) -> Self {
        Self { outcome: Outcome::Deviated, error, item: None, help: Some(help.to_owned()) }
    }
}

impl Caller<'_> {
    /// A panic as the failure of the stage it happened in.
    pub(super) fn panicked(&self, index: usize, panic: &(dyn Any + Send)) -> StageError {
        self.panicked_with(index, text_of(panic))
    }

    /// The same of a panic in a worker, which had this text.
    pub(super) fn panicked_with(&self, index: usize, text: &str) -> StageError {
        self.device_failed(index, text)
            .unwrap_or_else(|| StageError::Bug(format!("the stage panicked: {text}")))
    }

    /// What a device says that failed after the stage had asked it for all.
    pub(super) fn unsettled(&self, index: usize, text: &str) -> StageError {
        self.device_failed(index, text)
            .unwrap_or_else(|| StageError::environment(format!("the device failed: {text}")))
    }

    /// The failure of the stage, if the text is that of a device. A full device is emptied.
    fn device_failed(&self, index: usize, text: &str) -> Option<StageError> {
        let failure = DeviceFailure::of(text)?;
        let message = failure.message(text);
        Some(match failure {
            DeviceFailure::OutOfMemory => {
                self.local_runner().empty_device();
                self.out_of_memory(index, &message)
            }
            DeviceFailure::Lost => StageError::environment(message).with_help(failure.help()),
        })
    }

    /// Says what was planned and what would need less.
    fn out_of_memory(&self, index: usize, message: &str) -> StageError {
        let plan = MemoryPlan::new(self.pipeline, self.options.is_on_host());
        let planned = plan.of(index).map_or_else(
            || "how much it needs was not known beforehand".to_owned(),
            |memory| format!("it was planned to need {memory}"),
        );
        let mut help = plan.advice(index).map(|advice| advice.list()).unwrap_or_default();
        help.push("run fewer stages at once (`--jobs 1`)".to_owned());
        help.push("see that no other program uses the device".to_owned());
        StageError::environment(format!("{message}; {planned}")).with_help(help.join("; or "))
    }

    /// What does not fit the device as it was planned.
    pub(super) fn too_large(&self, index: usize, needed: &Memory, limit: u64) -> StageError {
        let plan = MemoryPlan::new(self.pipeline, self.options.is_on_host());
        let TooLarge { message, help } = plan.too_large(index, needed, limit);
        StageError::environment(message)
            .with_help(format!("verify it on a larger device; for a run: {help}"))
    }
}
