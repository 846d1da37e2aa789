//! Why a value could not be read.

use std::{borrow::Cow, fmt};

use serde::de::{Expected, Unexpected};

use super::Node;
use crate::config::origin::Origin;

/// Why a value could not be read, and where it stands.
#[derive(Clone, Debug)]
pub struct ValueError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    problem: ValueProblem,
    path: Vec<String>,
    origin: Option<Origin>,
    via: Option<Origin>,
    located: bool,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueProblem {
    /// A table has a key that nothing reads.
    UnknownKey {
        /// The key.
        key: String,
        /// The keys it may have.
        expected: Vec<&'static str>,
    },
    /// A name is not one of the choices.
    UnknownVariant {
        /// The name.
        name: String,
        /// The choices.
        expected: Vec<&'static str>,
    },
    /// A table lacks a key.
    Missing {
        /// The key.
        key: &'static str,
    },
    /// The value has another type.
    Type {
        /// What was found.
        found: String,
        /// What was wanted.
        expected: String,
    },
    /// The value has the right type but is not one that can be taken.
    Value {
        /// What was found.
        found: String,
        /// What was wanted.
        expected: String,
    },
    /// Anything else.
    Other(String),
}

impl ValueError {
    pub(super) fn new(problem: ValueProblem) -> Self {
        let inner = Inner { problem, path: Vec::new(), origin: None, via: None, located: false };
        Self(Box::new(inner))
    }

    /// What is wrong.
    pub fn problem(&self) -> &ValueProblem {
        &self.0.problem
    }

    /// The keys that lead to the bad value, for an unknown key up to that key.
    pub fn path(&self) -> &[String] {
        &self.0.path
    }

    /// Where the bad value (or the unknown key) was written.
    pub fn origin(&self) -> Option<Origin> {
        self.0.origin
    }

    /// The reference that fetched the bad value.
    pub fn via(&self) -> Option<Origin> {
        self.0.via
    }

    /// Says that the error came from reading `node`, unless a deeper place is known.
    #[must_use]
    pub fn located(mut self, node: &Node) -> Self {
        if self.0.located {
            return self;
        }
        self.0.located = true;
        (self.0.origin, self.0.via) = (node.origin, node.via);
        if let Some((path, origin, via)) = self.search(node) {
            (self.0.path, self.0.origin, self.0.via) = (path, origin, via);
        }
        self
    }

    /// Finds the culprit below `node` after serde has read it into a buffer without places, as it
    /// does for tagged enums: the unknown key, or the only value that looks like the bad one.
    fn search(&self, node: &Node) -> Option<(Vec<String>, Option<Origin>, Option<Origin>)> {
        let mut hits = Vec::new();
        match &self.0.problem {
            ValueProblem::UnknownKey { key, .. } => {
                node.walk(&mut Vec::new(), &mut |path, node| {
                    if let Some(entry) = node.as_table().and_then(|table| table.get(key)) {
                        let mut path = owned(path);
                        path.push(key.clone());
                        hits.push((path, entry.key, None));
                    }
                });
                (!hits.is_empty()).then(|| hits.swap_remove(0))
            }
            ValueProblem::Type { found, .. } | ValueProblem::Value { found, .. } => {
                node.walk(&mut Vec::new(), &mut |path, node| {
                    if node.describe() == *found {
                        hits.push((owned(path), node.origin, node.via));
                    }
                });
                if hits.len() == 1 { hits.pop() } else { None }
            }
            ValueProblem::UnknownVariant { name, .. } => {
                node.walk(&mut Vec::new(), &mut |path, node| {
                    if node.as_str() == Some(name) {
                        hits.push((owned(path), node.origin, node.via));
                    }
                });
                if hits.len() == 1 { hits.pop() } else { None }
            }
            _ => None,
        }
    }

    /// Says that the error is about the key itself, written at `origin`.
    pub(super) fn at_key(mut self, origin: Option<Origin>) -> Self {
        (self.0.origin, self.0.located) = (origin, true);
        self
    }

    /// Says that the value stands under `key`.
    pub(super) fn under(mut self, key: &str) -> Self {
        self.0.path.insert(0, key.to_owned());
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.path.join(".");
        let name = if path.is_empty() { "the value".to_owned() } else { format!("`{path}`") };
        match &self.0.problem {
            ValueProblem::UnknownKey { key, .. } => write!(f, "unknown key `{key}`"),
            ValueProblem::UnknownVariant { name: found, .. } => {
                write!(f, "{name} has no choice `{found}`")
            }
            ValueProblem::Missing { key } => write!(f, "missing key `{key}`"),
            ValueProblem::Type { found, expected } | ValueProblem::Value { found, expected } => {
                write!(f, "{name} must be {expected}, but is {found}")
            }
            ValueProblem::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ValueError {}

/// A path as it outlives the walk.
pub(in crate::config) fn owned(path: &[Cow<'_, str>]) -> Vec<String> {
    path.iter().map(|key| key.clone().into_owned()).collect()
}

/// The type names of serde in the words of a pipeline file.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, zero or more".to_owned(),
        "a nonzero usize" => "a whole number, one or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "string or map" => "a string or a table".to_owned(),
        other => {
            if other.starts_with("struct ") || other.contains("enum ") {
                "a table".to_owned()
            } else if let Some(length) = other.strip_prefix("an array of length ") {
                format!("a list of {length} values")
            } else if let Some(length) = other.strip_prefix("a tuple of size ") {
                format!("a list of {length} values")
            } else {
                other.to_owned()
            }
        }
    }
}

fn describe(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Float(n) => format!("the number {n:?}"),
        Unexpected::Str(s) => format!("the string {s:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::UnitVariant => "a name alone".to_owned(),
        other => other.to_string(),
    }
}

impl serde::de::Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ValueProblem::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = in_words(&expected.to_string());
        Self::new(ValueProblem::Type { found: describe(&found), expected })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = in_words(&expected.to_string());
        Self::new(ValueProblem::Value { found: describe(&found), expected })
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let found = format!("a list of {length}");
        Self::new(ValueProblem::Value { found, expected: in_words(&expected.to_string()) })
    }

    fn unknown_variant(name: &str, expected: &'static [&'static str]) -> Self {
        let expected = expected.to_vec();
        Self::new(ValueProblem::UnknownVariant { name: name.to_owned(), expected })
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        let expected = expected.to_vec();
        Self::new(ValueProblem::UnknownKey { key: key.to_owned(), expected })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(ValueProblem::Missing { key })
    }
}
