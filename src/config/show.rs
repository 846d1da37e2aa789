//! The merged file, and who wrote each of its values.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{
    ConfigErrors, Layer, LoadOptions, Place, ReadFile, layers, origin::Sources, problem::Problems,
    value::Node,
};

/// A value of the merged file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaf {
    /// `stages.lora.rank`, with keys quoted that TOML wants quoted.
    pub path: String,
    /// The value, with references as they were written.
    pub value: Value,
    /// Where it was written.
    pub place: Place,
    /// The layer that won.
    pub layer: Layer,
}

/// A pipeline file after merging, before references are resolved.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The whole, without profiles.
    pub resolved: Value,
    /// Each value that is not a table, in the order of the file.
    pub values: Vec<Leaf>,
}

/// Merges the layers of a file; it need not be right in any other way.
pub fn show(path: &Path, options: &LoadOptions, read: ReadFile<'_>) -> Result<Shown, ConfigErrors> {
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    match layers::merge(path, options, read, &mut sources, &mut problems) {
        Some(merged) if problems.is_empty() => {
            let values = leaves(&merged.root, &sources);
            Ok(Shown { resolved: resolved(&merged.root), values })
        }
        _ => Err(problems.finish(&path.display().to_string(), &sources)),
    }
}

/// The merged file as JSON; the profiles have had their say.
pub(super) fn resolved(root: &Node) -> Value {
    let mut value = root.to_json();
    if let Some(map) = value.as_object_mut() {
        map.remove("profiles");
    }
    value
}

/// A key as TOML has it in a path with dots.
fn dotted(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_bare) {
        return key.to_owned();
    }
    toml::Value::from(key).to_string()
}

fn leaves(root: &Node, sources: &Sources) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    add_leaves(root, &mut Vec::new(), sources, &mut leaves);
    leaves
}

fn add_leaves(node: &Node, path: &mut Vec<String>, sources: &Sources, leaves: &mut Vec<Leaf>) {
    if let Some(table) = node.as_table() {
        for (key, entry) in table {
            if path.is_empty() && key == "profiles" {
                continue;
            }
            path.push(dotted(key));
            add_leaves(&entry.node, path, sources, leaves);
            path.pop();
        }
    } else if let Some(origin) = node.origin {
        leaves.push(Leaf {
            path: path.join("."),
            value: node.to_json(),
            place: sources.place(origin),
            layer: origin.layer,
        });
    }
}
