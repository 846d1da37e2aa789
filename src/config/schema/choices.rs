//! Choices in the forms that editors give exact messages for.

use serde_json::{Map, Value, json};

/// Takes out `null`, which TOML cannot write: an optional key is left out.
pub(super) fn drop_nulls(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Object(object) => {
            object.values_mut().for_each(drop_nulls);
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(variants)) = object.get_mut("anyOf") {
                variants.retain(|variant| *variant != json!({ "type": "null" }));
                if let [_] = variants.as_slice() {
                    let only = object.remove("anyOf").unwrap_or_default();
                    object.insert("allOf".to_owned(), only);
                }
            }
        }
        _ => {}
    }
}

/// Turns choices among names into an `enum` and choices among tagged objects into `if`/`then`.
pub(super) fn simplify(schema: &mut Value) {
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
    // The branch is closed; the tag alone does not decide about other keys.
    object.insert("additionalProperties".to_owned(), Value::Bool(true));
    object.insert("allOf".to_owned(), Value::Array(branches));
}
