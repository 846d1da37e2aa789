//! Everything an observer can learn of a run.

use serde::Serialize;

use crate::{
    plan::{Cause, Hashing, StaleReason},
    store::Digest,
};

/// What happens during a run, in order. Serialised as NDJSON by `--events`.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The run begins.
    RunStarted {
        /// Pipeline name.
        pipeline: String,
        /// Instances in all.
        instances: usize,
        /// Device name.
        device: String,
    },
    /// Another process, or another stage of this one, computes this key; this run waits for it.
    StageWaiting {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Which process that is, where it is known: `process 4711 on node3`; `another stage here`
        /// if it is this one.
        holder: Option<String>,
    },
    /// Weights of which no earlier run has kept the hash are read for it, before the stage can be
    /// looked up. Told before each file, where the files of a model are a gibibyte or more.
    WeightsHashing {
        /// Index of the first instance that needs them.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// The model, as the pipeline file names it.
        model: String,
        /// The file that comes next:
        /// `transformer/diffusion_pytorch_model-00001-of-00003.safetensors`.
        file: String,
        /// Bytes that are hashed.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A process that computed this key is gone without having ended it, so this run does. What it
    /// left, finished items and checkpoints, is kept.
    StageTakenOver {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Which process that was: `process 4711 on node3`.
        holder: String,
    },
    /// The output was in the store.
    StageReused {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Content.
        digest: Digest,
    },
    /// The states that a training would have gone on from are damaged and were removed. Told before
    /// work begins.
    CheckpointsDamaged {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Their steps.
        steps: Vec<u64>,
        /// The step that it goes on from instead; null if it begins anew.
        goes_on_at_step: Option<u64>,
    },
    /// Work begins.
    StageStarted {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Stage kind.
        kind: &'static str,
        /// Why.
        reasons: Vec<StaleReason>,
        /// Where the change of an input began, in this run or in an earlier one.
        cause: Option<Cause>,
        /// How many of its items are cached; null if it makes its output as a whole.
        items_cached: Option<usize>,
        /// How many items it has; null if it makes its output as a whole.
        items_total: Option<usize>,
        /// The step of the checkpoint that a training goes on from; null if it begins anew, or
        /// trains nothing.
        goes_on_at_step: Option<u64>,
        /// How many steps the training has that goes on; null for all else.
        steps_total: Option<u64>,
    },
    /// How far it is.
    StageProgress {
        /// Index of the instance.
        index: usize,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// A figure worth seeing.
        message: String,
    },
    /// The process of a device died, or its device did, while it computed a stage. That is computed
    /// once more, in a new process; of what it made, finished items and checkpoints are kept.
    StageRetried {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// The device.
        device: String,
        /// Why: `its worker (process 4711) was killed by signal 9 (SIGKILL)`.
        reason: String,
    },
    /// The process of a device cannot compute. Nothing is given to it any more in this run, and the
    /// stage waits for another device.
    DeviceDropped {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// The device.
        device: String,
        /// Why: `the driver of the GPUs failed: CUDA_ERROR_UNKNOWN`.
        reason: String,
    },
    /// Work ended, the output is in the store.
    StageFinished {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Content.
        digest: Digest,
        /// Wall seconds.
        wall_secs: f64,
        /// How many items it computed.
        items_run: usize,
        /// How many items its output has.
        items_total: usize,
        /// Whether the new content equals the old, so that what follows need not run.
        unchanged: bool,
    },
    /// Work ended in an error.
    StageFailed {
        /// Index of the instance.
        index: usize,
        /// `lora[n=10]`.
        stage: String,
        /// Cause.
        error: String,
        /// Item at fault.
        item: Option<String>,
        /// What to do.
        help: Option<String>,
    },
    /// Not run, because an input failed.
    StageSkipped {
        /// Index of the instance.
        index: usize,
        /// `score[n=10]`.
        stage: String,
        /// The stage that failed.
        because: String,
    },
    /// The run ends.
    RunFinished(RunSummary),
    /// After a run, when its results were to be shown, or before its first, files of these results
    /// turned out damaged and were removed. Another run of the same pipeline begins, from
    /// `run_started` to `run_finished`, which makes them again; its results count. This event is
    /// told by who has pipelines run, not by a run.
    DamageFound {
        /// Pipeline name.
        pipeline: String,
        /// How many files.
        files: usize,
        /// The content that was asked for and is damaged.
        digest: Digest,
    },
}

impl RunEvent {
    pub(super) fn hashing(index: usize, stage: String, hashing: Hashing<'_>) -> Self {
        let Hashing { model, file, done, total } = hashing;
        let (model, file) = (model.to_owned(), file.to_owned());
        Self::WeightsHashing { index, stage, model, file, done, total }
    }
}

/// How a run ended, from good to bad: a run ends as the worst of its stages.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything is up to date.
    #[default]
    Done,
    /// The machine lacks something: exit code 3.
    Environment,
    /// A stage failed: exit code 1.
    Failed,
    /// An output is not the one that is locked: exit code 4.
    Deviated,
    /// A stage failed by a bug of ours: exit code 101.
    Bug,
    /// The user interrupted: exit code 130, or another by the signal.
    Interrupted,
}

/// The counts of a run.
#[derive(Clone, Debug, Default, Serialize, schemars::JsonSchema)]
pub struct RunSummary {
    /// How it ended.
    pub outcome: Outcome,
    /// Instances whose output was in the store.
    pub reused: usize,
    /// Instances that ran.
    pub ran: usize,
    /// Instances that failed.
    pub failed: usize,
    /// Instances skipped or not reached.
    pub skipped: usize,
    /// Wall seconds.
    pub wall_secs: f64,
}
