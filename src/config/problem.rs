//! What is wrong with a pipeline file while it is read: problems, by origins in its text, and their
//! collection.
//!
//! Once all are found they become `ConfigErrors` (`error.rs`).

use std::collections::HashSet;

use serde::Serialize;

use super::{
    Cell, ConfigError, ConfigErrors,
    alike::Alike,
    origin::{Layer, Origin, Sources},
    sweep::Axes,
    value::{Node, ValueError, ValueProblem},
};

/// The class of an error, for `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A file cannot be read.
    Io,
    /// A text is not TOML.
    Syntax,
    /// A key that nothing reads.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A value of another type.
    WrongType,
    /// A value that cannot be taken.
    BadValue,
    /// A stage kind that does not exist.
    UnknownKind,
    /// A stage that does not exist.
    UnknownStage,
    /// A port that the stage's kind does not have.
    UnknownPort,
    /// A required port without an input.
    MissingInput,
    /// An input of a kind that its port does not take.
    PortKind,
    /// A `${...}` that is not well formed or names nothing.
    Reference,
    /// Something that needs itself.
    Cycle,
    /// A choice without a value for a cell.
    Choice,
    /// A sweep that does not fit together.
    Sweep,
    /// Something that nothing uses.
    Unused,
    /// A profile that does not exist or sets what does not exist.
    Profile,
    /// A `--set` that names nothing.
    Set,
    /// A table that does not fit the stages or the sweep.
    Table,
}

/// One error, before its places are looked up.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub code: Code,
    /// The stage that is told of first; others may be wrong in the same way.
    pub stage: Option<Box<str>>,
    pub message: String,
    pub labels: Vec<(Origin, String)>,
    pub help: Option<String>,
    /// The name that it says is not there.
    absent: Option<Box<str>>,
    /// The values of the axes with which it comes, where other values may have one like it.
    pub cell: Option<Box<Cell>>,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        let labels = Vec::new();
        Self { code, stage: None, message, labels, help: None, absent: None, cell: None }
    }

    /// A value that has to be something else.
    pub fn wrong_type(node: &Node, name: &str, wanted: &str) -> Self {
        let message = format!("`{name}` must be {wanted}, but is {}", node.describe());
        Self::new(Code::WrongType, message).at(node.origin, format!("must be {wanted}"))
    }

    /// Says in which stage it is. One value that many stages take is wrong once, and told of the
    /// first.
    pub fn in_stage(mut self, stage: &str) -> Self {
        self.stage = Some(stage.into());
        self
    }

    /// Says in which cell it is. Of errors that differ in values of the sweep alone, the first is
    /// told.
    pub fn in_cell(mut self, cell: &Cell) -> Self {
        self.cell = Some(Box::new(cell.clone()));
        self
    }

    /// Says that a name is not there, which may be the fault of another mistake.
    pub fn absent(mut self, name: &str) -> Self {
        self.absent = Some(name.into());
        self
    }

    /// Marks a place; the first one mostly counts.
    pub fn at(mut self, origin: Option<Origin>, label: impl Into<String>) -> Self {
        if let Some(origin) = origin
            && self.labels.iter().all(|(other, _)| *other != origin)
        {
            self.labels.push((origin, label.into()));
        }
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// All that it says.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.message, self.help.as_deref().unwrap_or_default())
    }

    /// Suggests the most similar of `names`, or lists them.
    pub fn suggest<'a>(self, name: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let help = match similar(name, &names) {
            Some(best) => format!("did you mean `{best}`?"),
            None if names.is_empty() => return self,
            None if names.len() == 1 => format!("it can only be `{}`", names[0]),
            None if names.len() <= 16 => format!("it can be {}", list(&names)),
            None => format!("it can be {}, ...", list(&names[..16])),
        };
        self.help(help)
    }
}

/// `` `a`, `b` ``.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The one of `names` that `name` is most likely a misspelling of.
pub fn similar<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|other| (strsim::normalized_damerau_levenshtein(name, other), *other))
        .filter(|(score, _)| *score >= 0.55)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// Whether what was found is a number, `true` or `false`.
fn is_plain(found: &str) -> bool {
    found.starts_with("the number ") || ["true", "false"].contains(&found)
}

impl From<&ValueError> for Problem {
    fn from(error: &ValueError) -> Self {
        let (origin, via) = (error.origin(), error.via());
        let problem = match error.problem() {
            ValueProblem::UnknownKey { key, expected } => {
                Self::new(Code::UnknownKey, error.to_string())
                    .at(origin, "nothing reads this")
                    .suggest(key, expected.iter().copied())
            }
            ValueProblem::UnknownVariant { name, expected } => {
                Self::new(Code::BadValue, error.to_string())
                    .at(origin, "not one of the choices")
                    .suggest(name, expected.iter().copied())
            }
            ValueProblem::Missing { key } => Self::new(Code::MissingKey, error.to_string())
                .at(origin, format!("`{key}` is not set here")),
            ValueProblem::Type { found, expected } => {
                let problem = Self::new(Code::WrongType, error.to_string())
                    .at(origin, format!("must be {expected}"));
                let bare = found.strip_prefix("the string \"").and_then(|s| s.strip_suffix('"'));
                match bare {
                    Some(text)
                        if expected.contains("number")
                            && text.parse().is_ok_and(f64::is_finite) =>
                    {
                        problem.help(format!("write it without quotes: {text}"))
                    }
                    _ if origin.is_some_and(|origin| origin.layer == Layer::Set)
                        && is_plain(found)
                        && ["string", "name"].iter().any(|word| expected.contains(word)) =>
                    {
                        problem.help(
                            "for text that looks like a number, keep quotes from the shell: \
                             `--set 'KEY=\"TEXT\"'`",
                        )
                    }
                    _ => problem,
                }
            }
            ValueProblem::Value { expected, .. } => Self::new(Code::BadValue, error.to_string())
                .at(origin, format!("must be {expected}")),
            ValueProblem::Other(_) => {
                Self::new(Code::BadValue, error.to_string()).at(origin, "here")
            }
        };
        problem.at(via, "used here")
    }
}

/// Collects the errors of a pipeline.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    /// What is in the list, and where.
    seen: HashSet<(String, Option<Origin>)>,
    alike: Alike,
    lost: HashSet<String>,
    all_lost: bool,
}

impl Problems {
    pub fn add(&mut self, problem: Problem) {
        let place = problem.labels.first().map(|(origin, _)| *origin);
        if self.seen.insert((problem.message.clone(), place))
            && !self.alike.takes(&problem, self.list.len())
        {
            self.list.push(problem);
        }
    }

    /// Says of the errors so far which of them other values of these axes have as well.
    pub fn tell_alike(&mut self, axes: &Axes) {
        std::mem::take(&mut self.alike).tell(&mut self.list, axes);
    }

    /// Remembers that a name is there but cannot be known, for an error that is reported: that
    /// others do not find it is a consequence.
    pub fn lose(&mut self, name: &str) {
        self.lost.insert(name.to_owned());
    }

    /// The same of all names in a value that nothing reads; of any name where it has none.
    pub fn lose_names_in(&mut self, node: &Node) {
        self.all_lost |= node.as_table().is_none();
        node.walk(&mut Vec::new(), &mut |path, _| {
            self.lost.extend(path.iter().map(ToString::to_string));
        });
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The errors in the order of the text, without those that follow from others.
    pub fn finish(mut self, file: &str, sources: &Sources) -> ConfigErrors {
        let unknown = self.list.iter().any(|problem| problem.code == Code::Reference);
        self.list.retain(|problem| match &problem.absent {
            Some(name) => !self.all_lost && !self.lost.contains(&**name),
            // What a wrong reference meant may be just what seems to be of no use.
            None => problem.code != Code::Unused || !unknown,
        });
        self.list.sort_by_key(|problem| problem.labels.first().map(|(o, _)| (o.file, o.start)));
        let errors =
            self.list.into_iter().map(|problem| ConfigError::new(problem, sources)).collect();
        ConfigErrors { file: file.to_owned(), errors }
    }
}
