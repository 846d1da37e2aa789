//! A plan as one document for other programs.

use schemars::JsonSchema;
use serde::Serialize;

use super::SCHEMA_VERSION;
use crate::{
    config::{Cell, Instance},
    plan::{Cause, DiskPlan, Freshness, Lack, MemoryPlan, Plan, PlanNode, StaleReason},
    store::Digest,
};

/// What `pipe plan --json` prints.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlanDocument {
    /// Version of this form.
    pub schema_version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// The profile.
    pub profile: Option<String>,
    /// Bytes of memory of the device that a run would use, if the system tells.
    pub device_memory: Option<u64>,
    /// Which device of those that a run would use is not here, so that it would be refused; null if
    /// all are.
    pub no_device: Option<String>,
    /// The disk space that a run takes.
    pub disk: DiskNeed,
    /// All stages, inputs before their users.
    pub stages: Vec<PlannedStage>,
}

/// The disk space that a run takes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DiskNeed {
    /// About how many bytes what will or may run adds to the cache, as far as it is known.
    pub bytes: u64,
    /// How many stages will or may run of whose like nothing was ever measured.
    pub unknown: usize,
    /// The bytes that may still be written to the cache's disk, if the system tells.
    pub free: Option<u64>,
    /// Why no cache can be made in the folder that is named for it; null if there is one, or one
    /// can.
    pub no_cache: Option<String>,
}

/// What would happen to one stage in one cell of the sweep.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PlannedStage {
    /// The stage's name in the file.
    pub stage: String,
    /// The values of the axes that reach it.
    pub cell: Cell,
    /// Both, as in `lora[n=10]`.
    pub name: String,
    /// Stage kind.
    pub kind: String,
    /// Whether it runs.
    pub state: State,
    /// Whether it belongs to what was asked for; if not, a run leaves it alone.
    pub needed: bool,
    /// The content of its output, if it is fresh.
    pub digest: Option<Digest>,
    /// Why it must run, if it is stale.
    pub reasons: Option<Vec<StaleReason>>,
    /// The stages that it waits for, if it is pending.
    pub upstream: Option<Vec<String>>,
    /// Where the change begins that it runs or may run for, if not with itself.
    pub cause: Option<Cause>,
    /// What is not there, if it is blocked.
    pub missing: Option<Missing>,
    /// The shell command that it runs.
    pub command: Option<String>,
    /// How many of its items are cached, where that is known.
    pub items_cached: Option<usize>,
    /// How many items it has, where that is known.
    pub items_total: Option<usize>,
    /// The step of the checkpoint that a training goes on from.
    pub goes_on_at_step: Option<u64>,
    /// Seconds that it is expected to take.
    pub estimate_secs: Option<f64>,
    /// About how many bytes it adds to the cache; null if it does not run or was never measured.
    pub disk: Option<u64>,
    /// The memory that its model takes of the device.
    pub memory: Option<MemoryNeed>,
    /// The memory of the machine that it takes beside a GPU: while it loads weights, one tensor
    /// after the other, or after that, whichever is more; null where the device is the CPU.
    pub host_memory: Option<MemoryNeed>,
}

/// Whether a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its output is in the cache.
    Fresh,
    /// It must run.
    Stale,
    /// It runs unless the stages that it waits for give what they gave before.
    Pending,
    /// It cannot run here.
    Blocked,
}

/// Weights or data that are not there.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Missing {
    /// In short.
    pub what: String,
    /// As a sentence.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// The memory that a stage's model takes, in bytes.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct MemoryNeed {
    /// Its weights; beside a GPU, the largest tensor that is loaded; of a merge, what it holds of
    /// adapter files.
    pub weights: u64,
    /// What is trained: values, gradients and the optimizer's state; beside a GPU, a checkpoint
    /// while it is made.
    pub trained: u64,
    /// What a forward pass, and training, keeps.
    pub activations: u64,
    /// Attention's own scratch space.
    pub attention: u64,
    /// Encoded clips that are held all at once.
    pub clips: u64,
    /// All of it.
    pub total: u64,
}

impl PlanDocument {
    /// The document of a plan.
    pub fn new(
        plan: &Plan<'_>,
        memory: &MemoryPlan<'_>,
        device_memory: Option<u64>,
        disk: &DiskPlan,
        free: Option<u64>,
    ) -> Self {
        let nodes = plan.nodes.iter().zip(&plan.pipeline.instances).enumerate();
        let stages = nodes.map(|(index, (node, instance))| {
            let needs = [memory.of(index), memory.beside_gpu(index)];
            let [memory, host_memory] = needs.map(|memory| {
                memory.map(|memory| MemoryNeed {
                    weights: memory.weights,
                    trained: memory.trained,
                    activations: memory.activations,
                    attention: memory.attention,
                    clips: memory.clips,
                    total: memory.total(),
                })
            });
            PlannedStage {
                disk: disk.of(index),
                memory,
                host_memory,
                cause: plan.cause(index),
                ..stage(plan, node, instance)
            }
        });
        Self {
            schema_version: SCHEMA_VERSION,
            pipeline: plan.pipeline.name.clone(),
            profile: plan.pipeline.profile.clone(),
            device_memory,
            no_device: None,
            disk: DiskNeed { bytes: disk.total(), unknown: disk.unknown(), free, no_cache: None },
            stages: stages.collect(),
        }
    }
}

/// All but what a stage takes, and what it may run for.
fn stage(plan: &Plan<'_>, node: &PlanNode, instance: &Instance) -> PlannedStage {
    let (mut digest, mut reasons, mut upstream, mut missing) = (None, None, None, None);
    let state = match &node.freshness {
        Freshness::Fresh(record) => {
            digest = Some(record.output);
            State::Fresh
        }
        Freshness::Stale(all) => {
            reasons = Some(all.clone());
            State::Stale
        }
        Freshness::Pending { upstream: indices } => {
            let names = indices.iter().map(|index| plan.pipeline.instances[*index].to_string());
            upstream = Some(names.collect());
            State::Pending
        }
        Freshness::Blocked(lack) => {
            missing = Some(Missing::of(lack));
            State::Blocked
        }
    };
    PlannedStage {
        stage: instance.stage.clone(),
        cell: instance.cell.clone(),
        name: instance.to_string(),
        kind: instance.entry.kind.to_owned(),
        state,
        needed: node.needed,
        digest,
        reasons,
        upstream,
        cause: None,
        missing,
        command: instance.work.command().map(str::to_owned),
        items_cached: node.items.map(|items| items.cached),
        items_total: node.items.map(|items| items.total),
        goes_on_at_step: node.resumes_at.map(|resume| resume.step),
        estimate_secs: node.estimate_secs,
        disk: None,
        memory: None,
        host_memory: None,
    }
}

impl Missing {
    fn of(lack: &Lack) -> Self {
        Self { what: lack.what(), message: lack.to_string(), help: lack.help() }
    }
}
