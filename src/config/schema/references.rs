//! References: every value may also be a string with `${` in it.
//!
//! A property's own schema stands in a condition of the table around it, not in one of the value:
//! Tombi evaluates `if` for tables only. Where a value may have one of several types, there is a
//! condition for each type, since no editor says which variant of an `anyOf` was nearly met.

use serde_json::{Map, Value, json};

/// Lets each property and each item also be a string with a reference in it.
pub(super) fn allow_references(schema: &mut Value, definitions: &Map<String, Value>) {
    match schema {
        Value::Array(items) => {
            for item in items {
                allow_references(item, definitions);
            }
        }
        Value::Object(object) => {
            for value in object.values_mut() {
                allow_references(value, definitions);
            }
            let mut conditions = Vec::new();
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                for (name, property) in properties {
                    conditions.extend(take_conditions(name, property, definitions));
                }
            }
            if !conditions.is_empty() {
                let all = object.entry("allOf").or_insert_with(|| json!([]));
                all.as_array_mut().expect("`allOf` is a list").extend(conditions);
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

fn reference() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

/// Whether a reference is let through without more.
fn is_open(schema: &Map<String, Value>) -> bool {
    let plain_string = schema.get("type") == Some(&json!("string")) && !schema.contains_key("enum");
    plain_string || schema.contains_key("const") || schema.contains_key("else")
}

/// Leaves of a property what it says to people, and returns what it asks for as conditions.
fn take_conditions(
    name: &str,
    property: &mut Value,
    definitions: &Map<String, Value>,
) -> Vec<Value> {
    let Some(object) = property.as_object_mut().filter(|object| !is_open(object)) else {
        return Vec::new();
    };
    let mut shown = texts(object);
    let own = unwrapped(Value::Object(std::mem::take(object)));
    let variants = by_type(&own, definitions).unwrap_or_default();
    if variants.iter().any(|(kind, _)| kind == "object") {
        // The condition closes the table; Tombi would take silence here for that.
        shown.insert("additionalProperties".to_owned(), Value::Bool(true));
    }
    let holds = |value: Value| json!({ "properties": { name: value }, "required": [name] });
    let then =
        |value: &Value| json!({ "properties": { name: value }, "additionalProperties": true });
    let conditions = if variants.len() > 1 {
        let types: Vec<_> = variants.iter().map(|(kind, _)| kind.as_str()).collect();
        let types: Vec<_> =
            types.iter().copied().chain((!types.contains(&"string")).then_some("string")).collect();
        shown.insert("type".to_owned(), json!(types));
        let condition = |(kind, variant): &(String, Value)| {
            let test = if kind == "string" {
                json!({ "type": kind, "not": reference() })
            } else {
                json!({ "type": kind })
            };
            json!({ "if": holds(test), "then": then(variant) })
        };
        variants.iter().map(condition).collect()
    } else {
        vec![json!({ "if": holds(reference()), "else": then(&own) })]
    };
    *object = shown;
    conditions
}

/// An `allOf` of one schema and nothing else is that schema.
fn unwrapped(mut schema: Value) -> Value {
    match schema.as_object_mut() {
        Some(object) if object.len() == 1 => match object.get_mut("allOf") {
            Some(Value::Array(all)) if all.len() == 1 => all.remove(0),
            _ => schema,
        },
        _ => schema,
    }
}

/// Takes out what is for people.
fn texts(object: &mut Map<String, Value>) -> Map<String, Value> {
    let keys = ["title", "description", "default"];
    keys.into_iter().filter_map(|key| object.remove_entry(key)).collect()
}

/// The variants of a choice by the one type that each has; none if two have the same.
fn by_type(schema: &Value, definitions: &Map<String, Value>) -> Option<Vec<(String, Value)>> {
    let mut found: Vec<(String, Value)> = Vec::new();
    for variant in variants(schema, definitions) {
        let kind = type_of(&variant, definitions)?;
        if found.iter().any(|(known, _)| *known == kind) {
            return None;
        }
        found.push((kind, variant));
    }
    Some(found)
}

/// A choice taken apart, through the definitions it is made of.
fn variants(schema: &Value, definitions: &Map<String, Value>) -> Vec<Value> {
    if let Some(Value::Array(choices)) = schema.get("anyOf") {
        return choices.iter().flat_map(|choice| variants(choice, definitions)).collect();
    }
    match target(schema, definitions) {
        Some(target)
            if target.get("anyOf").is_some() || self::target(target, definitions).is_some() =>
        {
            variants(target, definitions)
        }
        _ => vec![schema.clone()],
    }
}

/// What a schema refers to, if it is no more than a reference.
fn target<'a>(schema: &'a Value, definitions: &'a Map<String, Value>) -> Option<&'a Value> {
    if let Some(Value::Array(all)) = schema.get("allOf")
        && let [only] = all.as_slice()
        && schema.get("properties").is_none()
    {
        return Some(only);
    }
    definitions.get(schema.get("$ref")?.as_str()?.rsplit('/').next()?)
}

fn type_of(schema: &Value, definitions: &Map<String, Value>) -> Option<String> {
    match schema.get("type").and_then(Value::as_str) {
        Some(kind) => Some(kind.to_owned()),
        None => type_of(target(schema, definitions)?, definitions),
    }
}

/// Lets an item of a list also be a reference.
fn wrap(schema: &mut Value) {
    let Some(object) = schema.as_object_mut().filter(|object| !is_open(object)) else { return };
    let mut outer = texts(object);
    outer.insert("if".to_owned(), reference());
    outer.insert("then".to_owned(), Value::Bool(true));
    outer.insert("else".to_owned(), Value::Object(std::mem::take(object)));
    *schema = Value::Object(outer);
}
