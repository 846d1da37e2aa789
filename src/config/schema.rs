//! The JSON schema of pipeline files, in the form that gives exact messages in editors.
//!
//! A choice among objects is written as `if`/`then` by its tag, and a choice among names as one
//! `enum`, since editors answer a failed `oneOf` with no more than "matches none". Wherever a
//! value may be a reference, a string with `${` is let through before the value's own schema.

use std::{io, path::Path};

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::tables::Written;
use crate::stages::{Port, StageEntry};

/// The file that [`write_schemas`] writes.
pub const FILE: &str = "pipeline.schema.json";

/// The schema of a pipeline file with these stage kinds.
pub fn pipeline_schema(registry: &[StageEntry]) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let stages: Vec<_> = registry.iter().map(|entry| stage(entry, &mut generator)).collect();
    let table = generator.subschema_for::<Written>().to_value();
    let mut definitions = generator.take_definitions(true);
    definitions.values_mut().for_each(simplify);
    definitions.values_mut().for_each(allow_references);

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
    for (entry, stage) in registry.iter().zip(stages) {
        definitions.insert(format!("stage_{}", entry.kind), stage);
    }
    definitions.insert(
        "stage".to_owned(),
        json!({
            "description": "A step of the pipeline.",
            "type": "object",
            "properties": { "kind": { "description": "What the stage does.", "enum": kinds } },
            "required": ["kind"],
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
            "additionalProperties": { "type": "object" },
        });
        properties.insert(key.to_owned(), tables);
    }
    json!({
        "description": "Params by name, and sections, that this profile overrides.",
        "type": "object",
        "properties": properties,
    })
}

fn sweep() -> Value {
    let lists = json!({ "type": "array", "minItems": 1 });
    json!({
        "description": "The axes of the ablation.",
        "type": "object",
        "properties": {
            "baseline": {
                "description": "The value of each axis while another one is varied.",
                "type": "object",
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
                "items": { "type": "object", "minProperties": 1 },
            },
        },
        "additionalProperties": false,
    })
}

fn stage(entry: &StageEntry, generator: &mut SchemaGenerator) -> Value {
    let mut schema = (entry.schema)(generator).to_value();
    simplify(&mut schema);
    allow_references(&mut schema);
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

/// Turns choices among names into an `enum` and choices among tagged objects into `if`/`then`.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Object(object) => {
            object.values_mut().for_each(simplify);
            if let Some(Value::Array(variants)) = object.get("oneOf").cloned() {
                if let Some((names, docs)) = names(&variants) {
                    object.remove("oneOf");
                    object.insert("type".to_owned(), json!("string"));
                    object.insert("enum".to_owned(), json!(names));
                    object.insert("x-taplo".to_owned(), json!({ "docs": { "enumValues": docs } }));
                } else if let Some(tag) = tag(&variants) {
                    object.remove("oneOf");
                    by_tag(object, &tag, variants);
                }
            }
        }
        _ => {}
    }
}

/// The names of a choice and their descriptions, if all variants are names.
fn names(variants: &[Value]) -> Option<(Vec<Value>, Vec<Value>)> {
    let mut names = Vec::new();
    let mut docs = Vec::new();
    for variant in variants {
        let doc = variant.get("description").cloned().unwrap_or(Value::Null);
        let more = match (variant.get("const"), variant.get("enum")) {
            (Some(name), _) => vec![name.clone()],
            (None, Some(Value::Array(names))) => names.clone(),
            _ => return None,
        };
        docs.extend(more.iter().map(|_| doc.clone()));
        names.extend(more);
    }
    names.iter().all(Value::is_string).then_some((names, docs))
}

/// The property that is a constant in every variant.
fn tag(variants: &[Value]) -> Option<String> {
    let has = |variant: &Value, key: &str| variant["properties"][key].get("const").is_some();
    let keys = variants.first()?["properties"].as_object()?.keys();
    keys.into_iter().find(|key| variants.iter().all(|variant| has(variant, key))).cloned()
}

fn by_tag(object: &mut Map<String, Value>, tag: &str, variants: Vec<Value>) {
    let tags: Vec<_> =
        variants.iter().map(|variant| variant["properties"][tag]["const"].clone()).collect();
    let branches: Vec<_> = variants
        .into_iter()
        .zip(&tags)
        .map(|(mut variant, name)| {
            if let Some(variant) = variant.as_object_mut() {
                variant.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            json!({
                "if": { "properties": { tag: { "const": name } }, "required": [tag] },
                "then": variant,
            })
        })
        .collect();
    object.insert("type".to_owned(), json!("object"));
    object.insert("properties".to_owned(), json!({ tag: { "enum": tags } }));
    object.insert("required".to_owned(), json!([tag]));
    object.insert("allOf".to_owned(), Value::Array(branches));
}

/// Lets each property and each item also be a string with a reference in it.
fn allow_references(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(allow_references),
        Value::Object(object) => {
            object.values_mut().for_each(allow_references);
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                properties.values_mut().for_each(wrap);
            }
            match object.get_mut("items") {
                Some(Value::Array(items)) => items.iter_mut().for_each(wrap),
                Some(item) => wrap(item),
                None => {}
            }
        }
        _ => {}
    }
}

fn wrap(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let plain_string = object.get("type") == Some(&json!("string")) && !object.contains_key("enum");
    if plain_string || object.contains_key("const") || object.contains_key("else") {
        return;
    }
    let mut outer = Map::new();
    for key in ["title", "description", "default"] {
        if let Some(value) = object.remove(key) {
            outer.insert(key.to_owned(), value);
        }
    }
    outer.insert("if".to_owned(), json!({ "type": "string", "pattern": "\\$\\{" }));
    outer.insert("then".to_owned(), Value::Bool(true));
    outer.insert("else".to_owned(), Value::Object(std::mem::take(object)));
    *schema = Value::Object(outer);
}
