//! What `plan` and `run` say of the memory that models take.

use super::{device::Outlook, error::CliError, exit};
use crate::{
    config::Pipeline,
    models::Memory,
    plan::{self, Freshness, MemoryPlan, Plan, PlanOptions},
    report::style::bytes,
    store::Store,
};

/// Stages named when many do not fit.
const MOST_NAMED: usize = 4;

/// A stage that needs more than the device has.
pub(super) struct TooLarge {
    pub message: String,
    pub help: String,
}

/// The stages of a plan that will or may run and do not fit.
pub(super) fn too_large(plan: &Plan<'_>, outlook: &Outlook) -> Vec<TooLarge> {
    let Some(limit) = outlook.memory else { return Vec::new() };
    let memory = MemoryPlan::new(plan.pipeline, outlook.on_host);
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (index, (node, instance)) in plan.nodes.iter().zip(&plan.pipeline.instances).enumerate() {
        if !node.needed || matches!(node.freshness, Freshness::Fresh(_)) {
            continue;
        }
        let Some(needed) = memory.of(index).filter(|needed| needed.total() > limit) else {
            continue;
        };
        if seen.contains(&(&instance.stage, needed)) {
            continue;
        }
        seen.push((&instance.stage, needed));
        let help = memory.help(index);
        found.push(TooLarge {
            message: format!(
                "`{instance}` needs about {} of memory ({}), but the device has {}",
                bytes(needed.total()),
                parts(&needed),
                bytes(limit)
            ),
            help: if help.is_empty() {
                "take a smaller model or smaller clips, or a larger device".to_owned()
            } else {
                help.join("; or ")
            },
        });
    }
    found
}

/// `weights 10.4 GiB, trained 0.9 GiB`.
fn parts(memory: &Memory) -> String {
    let parts = memory.parts().into_iter().filter(|(_, size)| *size > 0);
    parts.map(|(name, size)| format!("{name} {}", bytes(size))).collect::<Vec<_>>().join(", ")
}

/// Refuses, before anything is loaded, what cannot fit the device.
pub(super) fn check(
    pipeline: &Pipeline,
    store: &Store,
    wanted: &PlanOptions,
    outlook: &Outlook,
) -> Result<(), CliError> {
    let Some(limit) = outlook.memory else { return Ok(()) };
    let memory = MemoryPlan::new(pipeline, outlook.on_host);
    let fits = |index| memory.of(index).is_none_or(|needed| needed.total() <= limit);
    if (0..pipeline.instances.len()).all(fits) {
        return Ok(());
    }
    // What is in the cache already need not fit.
    let found = too_large(&plan::build(pipeline, store, wanted)?, outlook);
    if found.is_empty() {
        return Ok(());
    }
    let parts = found.into_iter().take(MOST_NAMED);
    let parts = parts.map(|stage| (stage.message, Some(stage.help))).collect();
    Err(CliError::Messages { code: exit::ENVIRONMENT, parts })
}
