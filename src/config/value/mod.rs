//! A tree of values that know where they were written.

mod de;
mod error;
mod text;

pub(super) use error::owned;
pub use error::{ValueError, ValueProblem};
pub use text::{Syntax, parse_document, parse_value};

use std::{borrow::Cow, ops::Range};

use indexmap::IndexMap;
use serde_json::Value;

use super::origin::{Layer, Origin};

/// A value with its place in a file.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub data: Data,
    /// Where it was written; none for values that no file holds.
    pub origin: Option<Origin>,
    /// The `"${...}"` that fetched it from there.
    pub via: Option<Origin>,
    /// What references put into a text that holds more than them.
    pub filled: Option<Box<[Filled]>>,
}

/// A value that a reference put into a text.
#[derive(Clone, Debug)]
pub struct Filled {
    /// `params.rank`, or the axis.
    pub name: String,
    /// Where it stands in the text.
    pub range: Range<usize>,
    /// Where the value was written.
    pub origin: Option<Origin>,
}

/// The value of a [`Node`].
#[derive(Clone, Debug)]
pub enum Data {
    /// Nothing; TOML cannot write it.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A whole number beyond `i64`.
    Unsigned(u64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Vec<Node>),
    /// A table in the order of the file.
    Table(Table),
}

/// The entries of a table by key.
pub type Table = IndexMap<String, Entry>;

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where the key was written.
    pub key: Option<Origin>,
    /// The value.
    pub node: Node,
}

impl Node {
    /// A value that no file holds.
    pub fn new(data: Data) -> Self {
        Self { data, origin: None, via: None, filled: None }
    }

    /// An empty table.
    pub fn table() -> Self {
        Self::new(Data::Table(Table::new()))
    }

    /// The entries, if it is a table.
    pub fn as_table(&self) -> Option<&Table> {
        if let Data::Table(table) = &self.data { Some(table) } else { None }
    }

    /// The entries, if it is a table.
    pub fn as_table_mut(&mut self) -> Option<&mut Table> {
        if let Data::Table(table) = &mut self.data { Some(table) } else { None }
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Data::String(text) = &self.data { Some(text) } else { None }
    }

    /// The items, if it is a list.
    pub fn as_array(&self) -> Option<&[Node]> {
        if let Data::Array(items) = &self.data { Some(items) } else { None }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self.data {
            Data::Integer(n) => Some(n as f64),
            Data::Unsigned(n) => Some(n as f64),
            Data::Float(n) => Some(n),
            _ => None,
        }
    }

    /// The value of `key`, if it is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_table()?.get(key).map(|entry| &entry.node)
    }

    /// What it is, with its value when that is short: `the number 3`, `a list`.
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Null => "nothing".to_owned(),
            Data::Bool(b) => b.to_string(),
            Data::Integer(n) => format!("the number {n}"),
            Data::Unsigned(n) => format!("the number {n}"),
            Data::Float(n) => format!("the number {n:?}"),
            Data::String(s) => format!("the string {s:?}"),
            Data::Array(_) => "a list".to_owned(),
            Data::Table(_) => "a table".to_owned(),
        }
    }

    /// The value without places.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(b) => (*b).into(),
            Data::Integer(n) => (*n).into(),
            Data::Unsigned(n) => (*n).into(),
            Data::Float(n) => (*n).into(),
            Data::String(s) => s.clone().into(),
            Data::Array(items) => items.iter().map(Node::to_json).collect(),
            Data::Table(table) => Value::Object(
                table.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect(),
            ),
        }
    }

    /// Calls `visit` with this node and every node below it, and the path to each.
    pub fn walk<'a>(
        &'a self,
        path: &mut Vec<Cow<'a, str>>,
        visit: &mut dyn FnMut(&[Cow<'a, str>], &'a Node),
    ) {
        visit(path, self);
        match &self.data {
            Data::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string().into());
                    item.walk(path, visit);
                    path.pop();
                }
            }
            Data::Table(table) => {
                for (key, entry) in table {
                    path.push(key.into());
                    entry.node.walk(path, visit);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// Says that this node and all below were written by `layer`.
    pub fn set_layer(&mut self, layer: Layer) {
        if let Some(origin) = &mut self.origin {
            origin.layer = layer;
        }
        match &mut self.data {
            Data::Array(items) => items.iter_mut().for_each(|item| item.set_layer(layer)),
            Data::Table(table) => {
                for entry in table.values_mut() {
                    if let Some(key) = &mut entry.key {
                        key.layer = layer;
                    }
                    entry.node.set_layer(layer);
                }
            }
            _ => {}
        }
    }

    /// Takes out the value at `path`; false if there is none.
    pub fn remove(&mut self, path: &[String]) -> bool {
        let [key, rest @ ..] = path else { return false };
        match &mut self.data {
            Data::Table(table) if rest.is_empty() => table.shift_remove(key).is_some(),
            Data::Table(table) => table.get_mut(key).is_some_and(|entry| entry.node.remove(rest)),
            Data::Array(items) => {
                let item = key.parse().ok().and_then(|index: usize| items.get_mut(index));
                item.is_some_and(|item| item.remove(rest))
            }
            _ => false,
        }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self::new(match value {
            Value::Null => Data::Null,
            Value::Bool(b) => Data::Bool(b),
            Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Data::Integer(n),
                (None, Some(n)) => Data::Unsigned(n),
                (None, None) => Data::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(s) => Data::String(s),
            Value::Array(items) => Data::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(map) => Data::Table(
                map.into_iter()
                    .map(|(key, value)| (key, Entry { key: None, node: value.into() }))
                    .collect(),
            ),
        })
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::new(Data::String(text.to_owned()))
    }
}
