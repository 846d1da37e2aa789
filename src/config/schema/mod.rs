//! The JSON schema of pipeline files, in the form that gives exact messages in editors.
//!
//! A choice among objects is written as `if`/`then` by its tag, and a choice among names as one
//! `enum`, since editors answer a failed `oneOf` with no more than "matches none". Wherever a value
//! may be a reference, a string with `${` is let through before the value's own schema. Tables with
//! keys of the user's own say so, since some editors take silence for a closed table. What the
//! editors' tools then say was tried with Taplo 0.9 and Tombi 1.9. Draft 7 ignores all that stands
//! beside a `$ref`, so nothing does.

mod choices;
mod descriptions;
mod references;

use std::{collections::BTreeSet, io, path::Path};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use self::{
    choices::{drop_nulls, simplify},
    references::allow_references,
};
use super::{
    sweep::{MAX_CELLS, SANE_CELLS},
    tables::Written,
};
use crate::stages::{Port, StageEntry};
pub(crate) use descriptions::let_flow;

/// The file that [`write_schemas`] writes.
pub const FILE: &str = "pipeline.schema.json";

/// The schema of a pipeline file with these stage kinds.
pub fn pipeline_schema(registry: &[StageEntry]) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut stages: Vec<_> =
        registry.iter().map(|entry| (entry.schema)(&mut generator).to_value()).collect();
    let table = generator.subschema_for::<Written>().to_value();
    let mut definitions = generator.take_definitions(true);
    for schema in &mut stages {
        inline(schema, &definitions);
    }
    for schema in definitions.values_mut().chain(&mut stages) {
        drop_nulls(schema);
        simplify(schema);
    }
    let known = definitions.clone();
    for schema in definitions.values_mut().chain(&mut stages) {
        allow_references(schema, &known);
    }

    let stages: Vec<_> =
        registry.iter().zip(stages).map(|(entry, schema)| stage(entry, schema)).collect();
    definitions.extend(any_stage(registry, &stages));
    for (entry, (values, _)) in registry.iter().zip(stages) {
        definitions.insert(format!("stage_{}", entry.kind), values);
    }
    definitions.insert("sweep".to_owned(), sweep());
    let sections = json!({
        "title": { "description": "What the experiment is about, in one line.", "type": "string" },
        "seed": {
            "description": "The default of every stage's `seed`, but for `dataset` and `transform`.",
            "type": "integer",
            "minimum": 0,
        },
        "sweep": { "$ref": "#/definitions/sweep" },
        "stages": {
            "description": "The stages by name.",
            "type": "object",
            "additionalProperties": true,
        },
        "tables": {
            "description": "The result tables by name.",
            "type": "object",
            "additionalProperties": table,
        },
    });
    let mut properties = sections.as_object().cloned().unwrap_or_default();
    definitions.insert("profile".to_owned(), profile(&properties));
    properties.extend(own_sections());
    keep_what_is_used(&mut definitions);
    let stages = |name: &str| {
        let of = json!({ "additionalProperties": { "$ref": format!("#/definitions/{name}") } });
        json!({ "properties": { "stages": of }, "additionalProperties": true })
    };
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A pipeline of pipe",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        // The file that is laid under may hold the rest of a stage.
        "if": { "properties": { "extends": {} }, "required": ["extends"] },
        "then": stages("stage_over"),
        "else": stages("stage"),
        "definitions": definitions,
    });
    let_flow(&mut schema);
    schema
}

/// Puts what a kind's schema refers to in its place: beside a `$ref`, draft 7 reads no other rule,
/// and a closed table cannot be opened for the kind and the inputs.
fn inline(schema: &mut Value, definitions: &Map<String, Value>) {
    while let Some(name) = schema.get("$ref").and_then(Value::as_str)
        && let Some(Value::Object(target)) =
            definitions.get(name.rsplit('/').next().unwrap_or_default())
        && let Some(object) = schema.as_object_mut()
    {
        object.remove("$ref");
        for (key, rule) in target {
            object.entry(key.clone()).or_insert_with(|| rule.clone());
        }
    }
}

/// Takes out definitions that nothing refers to, such as those that were put in place.
fn keep_what_is_used(definitions: &mut Map<String, Value>) {
    let roots = ["stage", "stage_over", "sweep", "profile", "Written"];
    let mut used: BTreeSet<String> = roots.map(str::to_owned).into();
    let mut ahead: Vec<String> = used.iter().cloned().collect();
    while let Some(name) = ahead.pop() {
        let text = definitions.get(&name).map(Value::to_string).unwrap_or_default();
        for rest in text.split("\"#/definitions/").skip(1) {
            let name = rest.split('"').next().unwrap_or_default().to_owned();
            if used.insert(name.clone()) {
                ahead.push(name);
            }
        }
    }
    definitions.retain(|name, _| used.contains(name));
}

/// Writes the schemas below `folder`.
pub fn write_schemas(registry: &[StageEntry], folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut text = serde_json::to_string_pretty(&pipeline_schema(registry))?;
    text.push('\n');
    std::fs::write(folder.join(FILE), text)
}

fn own_sections() -> Map<String, Value> {
    let sections = json!({
        "name": { "description": "A short name; the file's own if left out.", "type": "string" },
        "extends": {
            "description": "A file that this one is laid over, relative to this one.",
            "type": "string",
        },
        "params": {
            "description": "Values by name; `${name}` stands for one and keeps its type. A table with `by` is a choice: one value per value of that axis.",
            "type": "object",
            "additionalProperties": true,
        },
        "profiles": {
            "description": "Overrides by name, chosen with `--profile`.",
            "type": "object",
            "additionalProperties": { "$ref": "#/definitions/profile" },
        },
    });
    sections.as_object().cloned().unwrap_or_default()
}

/// A profile has the sections, whose stages may be incomplete, and any param.
fn profile(sections: &Map<String, Value>) -> Value {
    let mut properties = sections.clone();
    let stage = json!({ "$ref": "#/definitions/stage_over" });
    let table = json!({ "type": "object", "additionalProperties": true });
    for (key, description, of) in
        [("stages", "Parameters of stages.", stage), ("tables", "Keys of tables.", table)]
    {
        let tables = json!({
            "description": description,
            "type": "object",
            "additionalProperties": of,
        });
        properties.insert(key.to_owned(), tables);
    }
    json!({
        "description": "Params by name, and sections, that this profile overrides.",
        "type": "object",
        "properties": properties,
        "additionalProperties": true,
    })
}

fn sweep() -> Value {
    let lists = json!({
        "description": "The values in a list, or whole numbers in a row as `{ from = 0, to = 9 }`.",
        "type": ["array", "object"],
        "minItems": 1,
        "properties": {
            "from": { "description": "The first.", "type": "integer" },
            "to": { "description": "The last, where `step` meets it.", "type": "integer" },
            "step": { "description": "From one to the next.", "type": "integer", "minimum": 1, "default": 1 },
        },
        "required": ["from", "to"],
        "additionalProperties": false,
    });
    json!({
        "description": "The axes of the ablation.",
        "type": "object",
        "properties": {
            "baseline": {
                "description": "The value of each axis while another one is varied.",
                "type": "object",
                "additionalProperties": true,
            },
            "one_at_a_time": {
                "description": "Axes varied one at a time around the baseline.",
                "type": "object",
                "additionalProperties": lists,
            },
            "grid": {
                "description": "Axes of which every combination is run.",
                "type": "object",
                "additionalProperties": lists,
            },
            "exclude": {
                "description": "Cells left out: those that have one of the values on each axis named.",
                "type": "array",
                "items": { "type": "object", "minProperties": 1, "additionalProperties": true },
            },
            "max_cells": {
                "description": "How many cells are meant at most, before `exclude`.",
                "type": "integer",
                "default": SANE_CELLS,
                "minimum": 1,
                "maximum": MAX_CELLS,
            },
        },
        "additionalProperties": false,
    })
}

/// The parameters of a kind, with its name and its ports; and which of them must be there.
fn stage(entry: &StageEntry, mut schema: Value) -> (Value, Value) {
    let mut must = json!({ "required": ["kind"], "additionalProperties": true });
    let Some(object) = schema.as_object_mut() else { return (schema, must) };
    object.remove("$schema");
    object.insert("type".to_owned(), json!("object"));
    object.insert("additionalProperties".to_owned(), Value::Bool(false));
    let required = object.remove("required");
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("kind".to_owned(), json!({ "const": entry.kind }));
        if !entry.ports.inputs.is_empty() {
            properties.insert("inputs".to_owned(), inputs(entry.ports.inputs));
        }
    }
    let mut keys = vec![json!("kind")];
    let ports = entry.ports.inputs.iter().filter(|port| port.required);
    let ports: Vec<_> = ports.map(|port| port.name).collect();
    if !ports.is_empty() {
        keys.push(json!("inputs"));
        let ports = json!({ "required": ports, "additionalProperties": true });
        must["properties"] = json!({ "inputs": ports });
    }
    if let Some(Value::Array(more)) = required {
        keys.extend(more);
    }
    must["required"] = Value::Array(keys);
    (schema, must)
}

/// A stage of any kind: `stage`, which must be whole, and `stage_over`, of a file that extends
/// another and may hold the rest of it there.
fn any_stage(registry: &[StageEntry], stages: &[(Value, Value)]) -> Map<String, Value> {
    let kinds: Vec<_> = registry.iter().map(|entry| entry.kind).collect();
    let of_kind =
        |kind: &str| json!({ "properties": { "kind": { "const": kind } }, "required": ["kind"] });
    let values = |entry: &StageEntry| {
        let values = format!("#/definitions/stage_{}", entry.kind);
        json!({ "if": of_kind(entry.kind), "then": { "$ref": values } })
    };
    let must = |(entry, (_, must)): (&StageEntry, &(Value, Value))| json!({ "if": of_kind(entry.kind), "then": must });
    let values: Vec<_> = registry.iter().map(values).collect();
    let kind = json!({ "description": "What the stage does.", "enum": kinds });
    let mut keys: Map<String, Value> = stages
        .iter()
        .filter_map(|(values, _)| values["properties"].as_object())
        .flat_map(|properties| properties.keys().map(|key| (key.clone(), json!({}))))
        .collect();
    keys.insert("kind".to_owned(), kind.clone());
    let over = json!({
        "description": "A step of the pipeline, or what differs from that of the file below.",
        "type": "object",
        "properties": keys,
        "additionalProperties": false,
        "allOf": values,
    });
    let all: Vec<_> = values.into_iter().chain(registry.iter().zip(stages).map(must)).collect();
    let whole = json!({
        "description": "A step of the pipeline.",
        "type": "object",
        "properties": { "kind": kind },
        "required": ["kind"],
        "additionalProperties": true,
        "allOf": all,
    });
    [("stage".to_owned(), whole), ("stage_over".to_owned(), over)].into_iter().collect()
}

fn inputs(ports: &[Port]) -> Value {
    let port = |port: &Port| {
        let kinds: Vec<_> = port.kinds.iter().map(|kind| kind.name()).collect();
        let description = format!("The stage that gives {}.", kinds.join(" or "));
        (port.name.to_owned(), json!({ "description": description, "type": "string" }))
    };
    json!({
        "description": "The stage on each input.",
        "type": "object",
        "properties": ports.iter().map(port).collect::<Map<_, _>>(),
        "additionalProperties": false,
    })
}
