//! Names that no line of text can show.

use super::{
    error::{Code, Problem, Problems},
    origin::Origin,
    value::{Node, Table},
};

/// Sections whose keys are names.
const NAMED: [&str; 4] = ["params", "stages", "tables", "profiles"];
/// Parts of the sweep whose keys are names.
const AXES: [&str; 3] = ["baseline", "one_at_a_time", "grid"];

/// A terminal would act on a control character in a name or a title, and no line could show it.
pub(super) fn check(root: &Node, problems: &mut Problems) {
    for key in ["name", "title"] {
        if let Some(node) = root.get(key)
            && let Some(text) = node.as_str()
        {
            check_one(&format!("`{key}`"), text, node.origin, problems);
        }
    }
    let sweep = root.get("sweep");
    let sections = NAMED.iter().map(|section| root.get(section));
    let sections = sections.chain(AXES.iter().map(|part| sweep?.get(part)));
    for (name, entry) in sections.flatten().filter_map(Node::as_table).flat_map(Table::iter) {
        check_one("a name", name, entry.key, problems);
    }
}

fn check_one(what: &str, text: &str, origin: Option<Origin>, problems: &mut Problems) {
    if text.contains(char::is_control) {
        let message = format!("{what} cannot have control characters, but is {text:?}");
        let problem = Problem::new(Code::BadValue, message).at(origin, "has control characters");
        problems.add(problem.help("take them out"));
    }
}
