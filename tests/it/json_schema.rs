//! Checks documents against JSON schemas of draft 7, as far as ours use it.
//!
//! The crates that do all of it would change features of shared dependencies, so that `cargo run`
//! and `cargo test` no longer share a build. A keyword that is not known here fails the test, and
//! so does a rule beside a `$ref`, which draft 7 ignores. `tests/interop/schema.py` asks a
//! validator of others.

use serde_json::Value;

/// All ways in which a value breaks its schema, each with its place.
pub fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { root: schema, found: &mut found }.check(schema, value, "");
    found
}

/// Keywords that say something to people and ask for nothing.
const ANNOTATIONS: [&str; 7] =
    ["$schema", "title", "description", "format", "default", "definitions", "x-taplo"];

struct Checker<'a> {
    root: &'a Value,
    found: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        let Value::Object(keywords) = schema else {
            return self.require(schema == &Value::Bool(true), at, "nothing is allowed here");
        };
        let is_rule = |key: &&String| !ANNOTATIONS.contains(&key.as_str()) && *key != "$ref";
        let beside = keywords.keys().find(is_rule).filter(|_| keywords.contains_key("$ref"));
        assert_eq!(beside, None, "nobody reads it beside a `$ref`: {schema}");
        for (keyword, rule) in keywords {
            self.keyword(keyword, rule, (schema, value), at);
        }
    }

    fn keyword(
        &mut self,
        keyword: &str,
        rule: &Value,
        (schema, value): (&Value, &Value),
        at: &str,
    ) {
        match keyword {
            annotation if ANNOTATIONS.contains(&annotation) => {}
            // Read with their `if`.
            "then" | "else" => {}
            "if" => {
                let branch = if self.fits(rule, value, at) { "then" } else { "else" };
                self.check(schema.get(branch).unwrap_or(&Value::Bool(true)), value, at);
            }
            "not" => self.require(!self.fits(rule, value, at), at, &format!("fits {rule}")),
            "type" => self.require(has_type(rule, value), at, &format!("is not {rule}")),
            "const" => self.require(rule == value, at, &format!("is not {rule}")),
            "enum" => self.require(list(rule).contains(value), at, &format!("is none of {rule}")),
            "minimum" => {
                let fits = value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap());
                self.require(fits, at, &format!("is less than {rule}"));
            }
            "maximum" => {
                let fits = value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap());
                self.require(fits, at, &format!("is more than {rule}"));
            }
            "minProperties" => {
                let length = value.as_object().map(serde_json::Map::len);
                let fits = length.is_none_or(|length| length as u64 >= rule.as_u64().unwrap());
                self.require(fits, at, &format!("has less than {rule} keys"));
            }
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                let fits = value.as_str().is_none_or(|text| pattern.is_match(text));
                self.require(fits, at, &format!("does not match {rule}"));
            }
            "minItems" | "maxItems" => {
                let (length, limit) = (value.as_array().map(Vec::len), rule.as_u64().unwrap());
                let fits = length.is_none_or(|length| match keyword {
                    "minItems" => length as u64 >= limit,
                    _ => length as u64 <= limit,
                });
                self.require(fits, at, &format!("breaks {keyword} {rule}"));
            }
            "required" => {
                for key in list(rule).iter().filter(|_| value.is_object()) {
                    self.require(
                        value.get(key.as_str().unwrap()).is_some(),
                        at,
                        &format!("lacks {key}"),
                    );
                }
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(inner) = value.get(key) {
                        self.check(rule, inner, &format!("{at}/{key}"));
                    }
                }
            }
            "additionalProperties" => {
                let known = |key: &String| schema["properties"].get(key).is_some();
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if !known(key) {
                        self.check(rule, inner, &format!("{at}/{key}"));
                    }
                }
            }
            "items" => self.items(rule, value, at),
            "$ref" => {
                let target =
                    self.root.pointer(rule.as_str().unwrap().trim_start_matches('#')).unwrap();
                self.check(target, value, at);
            }
            "allOf" => list(rule).iter().for_each(|rule| self.check(rule, value, at)),
            "anyOf" | "oneOf" => self.choice(keyword, rule, value, at),
            _ => panic!("the keyword `{keyword}` is not known to this test"),
        }
    }

    fn items(&mut self, rule: &Value, value: &Value, at: &str) {
        for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
            let rule = match rule {
                Value::Array(rules) => rules.get(index).unwrap_or(&Value::Bool(true)),
                rule => rule,
            };
            self.check(rule, inner, &format!("{at}/{index}"));
        }
    }

    fn choice(&mut self, keyword: &str, rule: &Value, value: &Value, at: &str) {
        let all = list(rule).iter().map(|rule| {
            let mut found = Vec::new();
            Checker { root: self.root, found: &mut found }.check(rule, value, at);
            found
        });
        let all: Vec<_> = all.collect();
        let fitting = all.iter().filter(|found| found.is_empty()).count();
        let fits = if keyword == "oneOf" { fitting == 1 } else { fitting > 0 };
        self.require(fits, at, &format!("fits {fitting} of {keyword}: {all:?}"));
    }

    fn fits(&self, rule: &Value, value: &Value, at: &str) -> bool {
        let mut found = Vec::new();
        Checker { root: self.root, found: &mut found }.check(rule, value, at);
        found.is_empty()
    }

    fn require(&mut self, holds: bool, at: &str, message: &str) {
        if !holds {
            self.found.push(format!("{at}: {message}"));
        }
    }
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().unwrap()
}

fn has_type(rule: &Value, value: &Value) -> bool {
    match rule {
        Value::Array(types) => types.iter().any(|rule| has_type(rule, value)),
        rule => match rule.as_str().unwrap() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("the type `{other}` is not known to this test"),
        },
    }
}

#[test]
fn what_breaks_a_schema_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["a", "b"],
        "additionalProperties": false,
        "properties": {
            "a": { "$ref": "#/definitions/A" },
            "b": { "items": [{ "type": "integer" }, { "minimum": 2 }], "maxItems": 2 },
            "c": { "oneOf": [{ "const": 1 }, { "type": "string", "pattern": "^x" }] },
        },
        "definitions": { "A": { "type": ["null", "boolean"] } },
    });
    let good = serde_json::json!({ "a": null, "b": [1, 2], "c": "xy" });
    assert_eq!(violations(&schema, &good), [""; 0]);
    let bad = serde_json::json!({ "a": "", "b": [1.5, 1, 0], "c": 2, "d": 0 });
    let places: Vec<_> = violations(&schema, &bad).into_iter().collect();
    for place in ["/a", "/b/0", "/b/1", "/b:", "/c", "/d"] {
        assert!(places.iter().any(|found| found.starts_with(place)), "{place}: {places:?}");
    }
    assert_eq!(violations(&schema, &serde_json::json!({})).len(), 2);
}

#[test]
fn a_condition_chooses_what_else_is_asked_for() {
    let schema = serde_json::json!({
        "if": { "required": ["a"] },
        "then": { "properties": { "a": { "maximum": 2, "not": { "const": 1 } } } },
        "else": { "minProperties": 1 },
    });
    for (value, count) in [
        (serde_json::json!({ "a": 2 }), 0),
        (serde_json::json!({ "a": 1 }), 1),
        (serde_json::json!({ "a": 3 }), 1),
        (serde_json::json!({ "b": 3 }), 0),
        (serde_json::json!({}), 1),
    ] {
        assert_eq!(violations(&schema, &value).len(), count, "{value}");
    }
}

#[test]
#[should_panic = "nobody reads it beside a `$ref`"]
fn a_rule_beside_a_reference_is_found() {
    let schema = serde_json::json!({
        "$ref": "#/definitions/A",
        "properties": {},
        "definitions": { "A": {} },
    });
    violations(&schema, &serde_json::json!({}));
}
