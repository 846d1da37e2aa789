//! What an output was made from, so that a number can be read far from its pipeline file.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    config::pipeline::one_line,
    plan::{Freshness, Plan},
    store::{Digest, Record},
};

/// Version of the document.
const FORM: u32 = 1;

/// What an output tells of its making, such as the values that a training found in the model.
pub type Log<'a> = &'a dyn Fn(Digest) -> Option<Value>;

/// Every stage that an instance's output was made from, and itself: its kind and version, all
/// parameters (`null` is the model's own value, which `left_to_model` gives), what it was made from
/// and what it gave, by content; the commit of a model of a hub; where and when it ran. `log` is of
/// what an output tells.
///
/// It is no part of the output: two ways to the same bytes are one output in the store.
pub fn of(plan: &Plan<'_>, index: usize, log: Log<'_>) -> Value {
    let pipeline = plan.pipeline;
    let mut stages = Map::new();
    for index in behind(plan, index) {
        let instance = &pipeline.instances[index];
        let inputs: Map<String, Value> = instance
            .inputs
            .iter()
            .map(|(port, input)| (port.clone(), pipeline.instances[*input].to_string().into()))
            .collect();
        let mut stage = json!({
            "kind": instance.entry.kind,
            "version": instance.version(),
            "params": *instance.params,
            "inputs": inputs,
        });
        let left_to_model = pipeline.left_to_model(index);
        if !left_to_model.is_empty() {
            stage["left_to_model"] = left_to_model.into();
        }
        if let Some(commit) = commit(plan, index) {
            stage["commit"] = commit.into();
        }
        if let Some(record) = made(plan, index) {
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
    json!({
        "form": FORM,
        "pipeline": pipeline.name,
        "profile": pipeline.profile,
        "seed": pipeline.seed,
        "stage": pipeline.instances[index].to_string(),
        "stages": stages,
    })
}

/// The parameters of any stage that a score is shown with (docs/method.md, E.6). The list of images
/// is in the `settings` of the scores.
const TOLD: [&str; 13] = [
    "model",
    "like",
    "files",
    "size",
    "method",
    "frames",
    "prompt",
    "rank",
    "steps",
    "sampler",
    "guidance_scale",
    "image_latent_scale",
    "seed",
];

/// The same in short, for people: a line for each stage that has one of `TOLD`, in the order of the
/// data.
pub fn lines(plan: &Plan<'_>, index: usize, log: Log<'_>) -> Vec<String> {
    let behind = behind(plan, index);
    let name = |index: usize| {
        let instance = &plan.pipeline.instances[index];
        let is_of = |other: &&usize| plan.pipeline.instances[**other].stage == instance.stage;
        // Mostly one cell of a stage is behind a score, which is told already.
        let is_alone = behind.iter().filter(is_of).count() == 1;
        if is_alone { instance.stage.clone() } else { instance.to_string() }
    };
    let line = |index: usize| {
        let told = told(plan, index, log);
        // A seed alone says nothing.
        let says = told.iter().any(|(name, _)| *name != "seed");
        let told: Vec<_> = told.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        says.then(|| format!("{}: {}", name(index), one_line(&told.join(", "))))
    };
    behind.iter().filter_map(|index| line(*index)).collect()
}

/// What is told of one stage.
fn told(plan: &Plan<'_>, index: usize, log: Log<'_>) -> Vec<(&'static str, String)> {
    let instance = &plan.pipeline.instances[index];
    let idle: Vec<_> = instance.work.idle_params().iter().map(|idle| idle.param).collect();
    let record = made(plan, index);
    // What a training found in its model stands in its log, as a sampling's in the configuration.
    let log = record.and_then(|record| log(record.output)).unwrap_or_default();
    let left_to_model = plan.pipeline.left_to_model(index);
    let value = |name: &str| {
        let of_log = || log.get(name).filter(|_| name == "image_latent_scale");
        let found = left_to_model.get(name).or_else(of_log);
        found.or_else(|| instance.params.get(name)).filter(|value| !value.is_null())
    };
    let mut told = Vec::new();
    for name in TOLD.into_iter().filter(|name| !idle.contains(name)) {
        told.extend(value(name).map(|value| (name, value.to_string())));
        if name == "like" {
            told.extend(commit(plan, index).map(|commit| ("commit", commit)));
            let weights = record.and_then(|record| record.ingredients.weights);
            told.extend(weights.map(|weights| ("weights", weights.short())));
        }
    }
    if let (Some(record), true) = (record, !log.is_null()) {
        told.push(("digest", record.output.short()));
    }
    told
}

/// An instance and all that its output is made from, inputs before their users.
fn behind(plan: &Plan<'_>, index: usize) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![index]);
    while let Some(index) = open.pop() {
        if found.insert(index) {
            open.extend(plan.pipeline.instances[index].inputs.values());
        }
    }
    found
}

/// The record of an instance's output, if that is in the cache.
fn made<'a>(plan: &'a Plan<'_>, index: usize) -> Option<&'a Record> {
    match &plan.nodes[index].freshness {
        Freshness::Fresh(record) => Some(record),
        _ => None,
    }
}

/// The commit of the model that an instance reads from a hub's cache.
fn commit(plan: &Plan<'_>, index: usize) -> Option<String> {
    let model = plan.pipeline.instances[index].work.model()?;
    model.resolve().ok()?.commit()
}
