//! What `plan` and `run` say of the memory that models take.

use super::{device::Outlook, error::CliError, exit};
use crate::{
    config::Pipeline,
    models::Memory,
    plan::{self, Freshness, MemoryPlan, Plan, PlanOptions, TooLarge},
    report::style::count,
    store::Store,
};

/// Stages named when many do not fit.
const MOST_NAMED: usize = 4;

/// The stages of a plan that will or may run and do not fit.
pub(super) fn too_large(plan: &Plan<'_>, outlook: &Outlook) -> Vec<TooLarge> {
    let memory = MemoryPlan::new(plan.pipeline, outlook.on_host);
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (index, (node, instance)) in plan.nodes.iter().zip(&plan.pipeline.instances).enumerate() {
        if !node.needed || matches!(node.freshness, Freshness::Fresh(_)) {
            continue;
        }
        let Some(excess) = excess(&memory, outlook, index) else { continue };
        let (Excess::Device(needed, _) | Excess::Machine(needed, _)) = excess;
        if seen.contains(&(&instance.stage, needed)) {
            continue;
        }
        seen.push((&instance.stage, needed));
        let TooLarge { message, help } = match excess {
            Excess::Device(needed, has) => memory.too_large(index, &needed, has),
            Excess::Machine(needed, has) => memory.too_large_beside_gpu(index, &needed, has),
        };
        found.push(TooLarge { message: format!("`{instance}` {message}"), help });
    }
    found
}

/// What an instance needs that is more than there is, and how much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excess {
    /// Of the device.
    Device(Memory, u64),
    /// Of the machine beside a GPU.
    Machine(Memory, u64),
}

fn excess(memory: &MemoryPlan<'_>, outlook: &Outlook, index: usize) -> Option<Excess> {
    let of_device = memory.of(index).zip(outlook.memory);
    let of_host = memory.beside_gpu(index).zip(outlook.host_memory);
    let is_more = |(needed, has): &(Memory, u64)| needed.total() > *has;
    let of_device = of_device.filter(is_more).map(|(needed, has)| Excess::Device(needed, has));
    of_device.or_else(|| of_host.filter(is_more).map(|(needed, has)| Excess::Machine(needed, has)))
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
    let more = found.len().saturating_sub(MOST_NAMED);
    let parts = found.into_iter().take(MOST_NAMED);
    let mut parts: Vec<_> = parts.map(|stage| (stage.message, Some(stage.help))).collect();
    if more > 0 {
        let need = if more == 1 { "needs" } else { "need" };
        let message = format!("{} {need} more than there is, too", count(more, "other stage"));
        parts.push((message, Some("`pipe plan` names all".to_owned())));
    }
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
            let outlook = Outlook { on_host, memory, host_memory, cards: Vec::new() };
            let plan = MemoryPlan::new(&pipeline, on_host);
            let whose = |excess| match excess {
                Excess::Device(..) => "device",
                Excess::Machine(..) => "machine",
            };
            let found = [0, 1].map(|index| excess(&plan, &outlook, index).map(whose));
            assert_eq!(found, [None, wanted]);
        }
    }
}
