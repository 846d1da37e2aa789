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
    let memory = MemoryPlan::new(plan.pipeline, outlook.on_host);
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (index, (node, instance)) in plan.nodes.iter().zip(&plan.pipeline.instances).enumerate() {
        if !node.needed || matches!(node.freshness, Freshness::Fresh(_)) {
            continue;
        }
        let Some((needed, limit, whose)) = excess(&memory, outlook, index) else { continue };
        if seen.contains(&(&instance.stage, needed)) {
            continue;
        }
        seen.push((&instance.stage, needed));
        let help = memory.help(index);
        found.push(TooLarge {
            message: format!(
                "`{instance}` needs about {} of memory ({}), but the {whose} has {}",
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

/// What an instance needs, if that is more than there is, with how much that is and of what.
fn excess(
    memory: &MemoryPlan<'_>,
    outlook: &Outlook,
    index: usize,
) -> Option<(Memory, u64, &'static str)> {
    let of_device = memory.of(index).zip(outlook.memory).map(|(n, has)| (n, has, "device"));
    let of_host = memory.beside_gpu(index).zip(outlook.host_memory);
    let of_host = of_host.map(|(needed, has)| (needed, has, "machine"));
    [of_device, of_host].into_iter().flatten().find(|(needed, has, _)| needed.total() > *has)
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
    let memory = MemoryPlan::new(pipeline, outlook.on_host);
    if (0..pipeline.instances.len()).all(|index| excess(&memory, outlook, index).is_none()) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{LoadOptions, load_with},
        stages::STAGES,
    };

    #[test]
    fn what_a_stage_takes_beside_a_gpu_is_compared_with_the_machine() {
        let text = "[stages.read]\nkind = \"lora_merge\"\nroot = \"x\"\nfiles = [\"a.safetensors\"]\n\
                    [stages.whole]\nkind = \"lora_merge\"\ninputs = { first = \"read\" }\n\
                    model = \"builtin:tiny\"\n";
        let read = |_: &Path| Ok(text.to_owned());
        let options = LoadOptions::default();
        let pipeline = load_with(STAGES, Path::new("x.toml"), &options, &read).unwrap();
        let (little, much) = (Some(1), Some(u64::MAX));
        for (on_host, memory, host_memory, wanted) in [
            (false, little, much, None),
            (false, much, little, Some("machine")),
            (false, None, None, None),
            (true, little, little, Some("device")),
            (true, much, much, None),
        ] {
            let outlook = Outlook { on_host, memory, host_memory, card: None };
            let plan = MemoryPlan::new(&pipeline, on_host);
            let found = [0, 1].map(|index| excess(&plan, &outlook, index).map(|(.., whose)| whose));
            assert_eq!(found, [None, wanted]);
        }
    }
}
