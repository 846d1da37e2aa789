//! What the schema of a stage kind says beyond the types: ranges, paths and a `seed`.

use std::{cell::RefCell, collections::HashMap, path::Path, rc::Rc};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{
    origin::Sources,
    problem::{Code, Problem},
    value::{Data, Node, Table},
};
use crate::{models::source::is_no_path, stages::StageEntry};

/// The kinds that stages name; a schema is made once, when the first stage names its kind.
#[derive(Default)]
pub(super) struct Kinds(RefCell<HashMap<&'static str, Rc<Kind>>>);

impl Kinds {
    /// The kind of a line of the registry.
    pub fn of(&self, entry: &'static StageEntry) -> Rc<Kind> {
        let mut known = self.0.borrow_mut();
        Rc::clone(known.entry(entry.kind).or_insert_with(|| Rc::new(Kind::new(entry))))
    }
}

/// A stage kind with its schema.
pub(super) struct Kind {
    pub entry: &'static StageEntry,
    schema: Value,
    definitions: Map<String, Value>,
}

/// A number outside its range, and the keys that lead to it.
pub(super) struct OutOfRange {
    pub path: Vec<String>,
    pub problem: Problem,
}

impl Kind {
    fn new(entry: &'static StageEntry) -> Self {
        let mut generator = SchemaSettings::draft07().into_generator();
        let schema = (entry.schema)(&mut generator).to_value();
        let definitions = generator.take_definitions(true);
        Self { entry, schema, definitions }
    }

    /// Whether the kind draws random numbers.
    pub fn has_seed(&self) -> bool {
        self.schema["properties"].get("seed").is_some()
    }

    /// The parameters that must be set.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// Makes the paths among the parameters usable from the current folder, and checks numbers
    /// against their ranges.
    pub fn apply(&self, params: &mut Node, sources: &Sources) -> Vec<OutOfRange> {
        let mut walk =
            Walk { definitions: &self.definitions, sources, path: Vec::new(), out: Vec::new() };
        walk.node(&self.schema, params);
        walk.out
    }
}

struct Walk<'a> {
    definitions: &'a Map<String, Value>,
    sources: &'a Sources,
    path: Vec<String>,
    out: Vec<OutOfRange>,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Value, node: &mut Node) {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next())
            && let Some(definition) = self.definitions.get(name)
        {
            self.node(definition, node);
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for variant in schema[key].as_array().into_iter().flatten() {
                if node.as_table().is_none_or(|table| tags_match(variant, table)) {
                    self.node(variant, node);
                }
            }
        }
        self.range(schema, node);
        match &mut node.data {
            Data::String(text) if schema["format"] == "path" => {
                // What must name something and does not stays as it is, and is refused.
                let is_named = schema["pattern"].is_null() || !text.trim().is_empty();
                if let Some(origin) = node.origin
                    && is_named
                    && !is_no_path(text)
                {
                    *text = join(&self.sources.of(origin).folder, text);
                }
            }
            Data::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let schema = match &schema["items"] {
                        Value::Array(each) => each.get(index),
                        one => Some(one),
                    };
                    if let Some(schema) = schema {
                        self.at(&index.to_string(), schema, item);
                    }
                }
            }
            Data::Table(table) => {
                for (key, entry) in table {
                    let property = schema["properties"].get(key);
                    let schema = property.unwrap_or(&schema["additionalProperties"]);
                    self.at(key, schema, &mut entry.node);
                }
            }
            _ => {}
        }
    }

    fn at(&mut self, key: &str, schema: &Value, node: &mut Node) {
        if schema.is_object() {
            self.path.push(key.to_owned());
            self.node(schema, node);
            self.path.pop();
        }
    }

    fn range(&mut self, schema: &Value, node: &Node) {
        let Some(number) = node.as_number() else { return };
        let rules: [Rule; 4] = [
            ("minimum", "at least", |n, limit| n >= limit),
            ("maximum", "at most", |n, limit| n <= limit),
            ("exclusiveMinimum", "more than", |n, limit| n > limit),
            ("exclusiveMaximum", "less than", |n, limit| n < limit),
        ];
        for (key, words, holds) in rules {
            let Some(limit) = schema[key].as_f64() else { continue };
            if holds(number, limit) {
                continue;
            }
            let name = self.path.join(".");
            let found = node.to_json();
            let message = format!("`{name}` must be {words} {limit}, but is {found}");
            let mut problem = Problem::new(Code::BadValue, message)
                .at(node.origin, format!("must be {words} {limit}"))
                .at(node.via, "used here");
            if may_be_absent(schema) {
                problem = problem.help(format!("or leave `{name}` out"));
            }
            if self.out.iter().all(|other| other.path != self.path) {
                self.out.push(OutOfRange { path: self.path.clone(), problem });
            }
        }
    }
}

/// A key of a schema, the words for it, and whether a number keeps it.
type Rule = (&'static str, &'static str, fn(f64, f64) -> bool);

/// Whether a value has a default that is no value of its own, as `count` that takes all.
fn may_be_absent(schema: &Value) -> bool {
    schema["type"].as_array().is_some_and(|types| types.contains(&"null".into()))
}

/// Whether a variant's constant properties are those of the table.
fn tags_match(variant: &Value, table: &Table) -> bool {
    let properties = variant["properties"].as_object();
    properties.into_iter().flatten().all(|(key, schema)| match schema.get("const") {
        Some(wanted) => table.get(key).is_some_and(|entry| entry.node.to_json() == *wanted),
        None => true,
    })
}

/// `path` as it is usable from the current folder when `folder` is where it was written.
pub(super) fn join(folder: &Path, path: &str) -> String {
    folder.join(path).to_string_lossy().into_owned()
}
