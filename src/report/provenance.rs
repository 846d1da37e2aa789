//! What an output was made from, so that a number can be read far from its pipeline file.

use serde_json::{Map, Value, json};

use crate::{
    plan::{Freshness, Plan},
    store::Digest,
};

/// Version of the document.
const FORM: u32 = 1;

/// Every stage that an instance's output was made from, and itself: its kind and version, all
/// parameters (`null` is the model's own value), what it was made from and what it gave, by content;
/// where and when it ran. `log` says what an output tells of its making, such as the values that a
/// training found in the model.
///
/// It is no part of the output: two ways to the same bytes are one output in the store.
pub fn of(plan: &Plan<'_>, index: usize, log: &dyn Fn(Digest) -> Option<Value>) -> Value {
    let mut stages = Map::new();
    let mut open = vec![index];
    while let Some(index) = open.pop() {
        let instance = &plan.pipeline.instances[index];
        if stages.contains_key(&instance.to_string()) {
            continue;
        }
        open.extend(instance.inputs.values());
        let inputs: Map<String, Value> = instance
            .inputs
            .iter()
            .map(|(port, input)| (port.clone(), plan.pipeline.instances[*input].to_string().into()))
            .collect();
        let mut stage = json!({
            "kind": instance.entry.kind,
            "version": instance.version(),
            "params": *instance.params,
            "inputs": inputs,
        });
        if let Freshness::Fresh(record) = &plan.nodes[index].freshness {
            stage["output"] = json!(record.output);
            stage["weights"] = json!(record.ingredients.weights);
            stage["outside_files"] = json!(record.ingredients.sources);
            stage["device"] = json!(record.device);
            if let Some(card) = &record.card {
                stage["card"] = json!(card);
            }
            stage["started"] = json!(record.started);
            stage["pipe_version"] = json!(record.pipe_version);
            if let Some(log) = log(record.output) {
                stage["log"] = log;
            }
        }
        stages.insert(instance.to_string(), stage);
    }
    let pipeline = plan.pipeline;
    json!({
        "form": FORM,
        "pipeline": pipeline.name,
        "profile": pipeline.profile,
        "seed": pipeline.seed,
        "stage": pipeline.instances[index].to_string(),
        "stages": stages,
    })
}
