//! The JSON schema of pipeline files, in the form that gives exact messages in editors.
//!
//! A choice among objects is written as `if`/`then` by its tag, and a choice among names as one
//! `enum`, since editors answer a failed `oneOf` with no more than "matches none". Wherever a
//! value may be a reference, a string with `${` is let through before the value's own schema. Tables
//! with keys of the user's own say so, since some editors take silence for a closed table. What
//! the editors' tools then say was tried with Taplo 0.9 and Tombi 1.9.

mod choices;
mod references;

use std::{io, path::Path};

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

/// The file that [`write_schemas`] writes.
pub const FILE: &str = "pipeline.schema.json";

/// The schema of a pipeline file with these stage kinds.
pub fn pipeline_schema(registry: &[StageEntry]) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut stages: Vec<_> =
        registry.iter().map(|entry| (entry.schema)(&mut generator).to_value()).collect();
    let table = generator.subschema_for::<Written>().to_value();
    let mut definitions = generator.take_definitions(true);
    for schema in definitions.values_mut().chain(&mut stages) {
        drop_nulls(schema);
        simplify(schema);
    }
    let known = definitions.clone();
    for schema in definitions.values_mut().chain(&mut stages) {
        allow_references(schema, &known);
    }

    let kinds: Vec<_> = registry.iter().map(|entry| entry.kind).collect();
    let branches: Vec<_> = registry
        .iter()
        .map(|entry| {
            json!({
                "if": { "properties": { "kind": { "const": entry.kind } }, "required": ["kind"] },
                "then": { "$ref": format!("#/definitions/stage_{}", entry.kind) },
            })
        })
        .collect();
    for (entry, schema) in registry.iter().zip(stages) {
        definitions.insert(format!("stage_{}", entry.kind), stage(entry, schema));
    }
    definitions.insert(
        "stage".to_owned(),
        json!({
            "description": "A step of the pipeline.",
            "type": "object",
            "properties": { "kind": { "description": "What the stage does.", "enum": kinds } },
            "required": ["kind"],
            "additionalProperties": true,
            "allOf": branches,
        }),
    );
    definitions.insert("sweep".to_owned(), sweep());
    let sections = json!({
        "title": { "description": "What the experiment is about, in one line.", "type": "string" },
        "seed": {
            "description": "The default of every stage's `seed`.",
            "type": "integer",
            "minimum": 0,
        },
        "sweep": { "$ref": "#/definitions/sweep" },
        "stages": {
            "description": "The stages by name.",
            "type": "object",
            "additionalProperties": { "$ref": "#/definitions/stage" },
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
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A pipeline of pipe",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "definitions": definitions,
    })
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
    for (key, description) in [("stages", "Parameters of stages."), ("tables", "Keys of tables.")] {
        let tables = json!({
            "description": description,
            "type": "object",
            "additionalProperties": { "type": "object", "additionalProperties": true },
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

/// The parameters of a kind, with its name and its ports.
fn stage(entry: &StageEntry, mut schema: Value) -> Value {
    let Some(object) = schema.as_object_mut() else { return schema };
    object.remove("$schema");
    object.insert("additionalProperties".to_owned(), Value::Bool(false));
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("kind".to_owned(), json!({ "const": entry.kind }));
        if !entry.ports.inputs.is_empty() {
            properties.insert("inputs".to_owned(), inputs(entry.ports.inputs));
        }
    }
    let mut required = vec![json!("kind")];
    if entry.ports.inputs.iter().any(|port| port.required) {
        required.push(json!("inputs"));
    }
    if let Some(Value::Array(more)) = object.get("required") {
        required.extend(more.iter().cloned());
    }
    object.insert("required".to_owned(), Value::Array(required));
    schema
}

fn inputs(ports: &[Port]) -> Value {
    let port = |port: &Port| {
        let kinds: Vec<_> = port.kinds.iter().map(|kind| kind.name()).collect();
        let description = format!("The stage that gives {}.", kinds.join(" or "));
        (port.name.to_owned(), json!({ "description": description, "type": "string" }))
    };
    let required: Vec<_> =
        ports.iter().filter(|port| port.required).map(|port| port.name).collect();
    json!({
        "description": "The stage on each input.",
        "type": "object",
        "properties": ports.iter().map(port).collect::<Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    })
}
