//! `{ from = 0, to = 399 }`: whole numbers in a row, as the values of an axis.

use std::borrow::Cow;

use super::{
    problem::{Code, Problem, Problems},
    sweep::MAX_CELLS,
    value::{Data, Node, Table},
};

const KEYS: [&str; 3] = ["from", "to", "step"];

/// Whether a value is written as a range.
pub(super) fn is_range(node: &Node) -> bool {
    node.get("from").is_some() && node.get("to").is_some()
}

/// The values that a list or a range at `path` stands for. Those of a range have its place. What is
/// wrong is reported.
pub(super) fn values<'a>(
    node: &'a Node,
    path: &str,
    problems: &mut Problems,
) -> Option<Cow<'a, [Node]>> {
    match &node.data {
        Data::Array(items) => Some(Cow::Borrowed(items)),
        Data::Table(table) => Range { node, table, path }.values(problems).map(Cow::Owned),
        _ => {
            let problem = Problem::wrong_type(node, path, "a list of values");
            problems.add(problem.help("write it in brackets, also where there is one value"));
            None
        }
    }
}

struct Range<'a> {
    node: &'a Node,
    table: &'a Table,
    path: &'a str,
}

impl Range<'_> {
    fn values(&self, problems: &mut Problems) -> Option<Vec<Node>> {
        let before = problems.len();
        let path = self.path;
        for (key, entry) in self.table.iter().filter(|(key, _)| !KEYS.contains(&key.as_str())) {
            let problem = Problem::new(Code::UnknownKey, format!("unknown key `{path}.{key}`"));
            let problem = problem.at(entry.key, "not a key of a range");
            problems.add(problem.suggest(key, KEYS.iter().copied()));
        }
        if problems.len() > before {
            return None;
        }
        let [from, to, step] = KEYS.map(|key| self.number(key, problems));
        if problems.len() > before {
            return None;
        }
        let (from, to) = (from?, to?);
        let step = step.unwrap_or(1);
        if step < 1 || from > to {
            let (key, wrong) = if step < 1 {
                ("step", format!("the step of `{path}` must be 1 or more, but is {step}"))
            } else {
                ("to", format!("the range `{path}` ends at {to}, before it begins at {from}"))
            };
            let origin = self.table[key].node.origin;
            problems.add(Problem::new(Code::Sweep, wrong).at(origin, "counts upwards"));
            return None;
        }
        let count = (to.abs_diff(from) / step.unsigned_abs()).saturating_add(1);
        if count > MAX_CELLS as u64 {
            let message = format!("the range `{path}` has more values than a sweep can have cells");
            let problem = Problem::new(Code::Sweep, message);
            let problem = problem.at(self.node.origin, format!("{count}, more than {MAX_CELLS}"));
            problems.add(problem.help("let it end earlier, or take a greater `step`"));
            return None;
        }
        let value = |index: u64| {
            // Within the range, so neither operation can overflow.
            let number = from.wrapping_add_unsigned(index * step.unsigned_abs());
            Node {
                data: Data::Integer(number),
                origin: self.node.origin,
                via: self.node.via,
                filled: None,
            }
        };
        Some((0..count).map(value).collect())
    }

    /// The number of a key; where there is none, that is reported of all keys but `step`.
    fn number(&self, key: &str, problems: &mut Problems) -> Option<i64> {
        let path = format!("{}.{key}", self.path);
        match self.table.get(key).map(|entry| &entry.node) {
            Some(Node { data: Data::Integer(number), .. }) => return Some(*number),
            Some(node) => problems.add(Problem::wrong_type(node, &path, "a whole number")),
            None if key == "step" => {}
            None => {
                let message = format!("the range `{}` has no `{key}`", self.path);
                let problem = Problem::new(Code::MissingKey, message);
                let problem = problem.at(self.node.origin, "a table of values is a range");
                problems.add(problem.help(
                    "write `{ from = 0, to = 9 }`, both ends included, or a list of values in \
                     brackets",
                ));
            }
        }
        None
    }
}
