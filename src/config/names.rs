//! Names that no line of text can show, or that look like more than one name.

use super::{
    origin::Origin,
    problem::{Code, Problem, Problems},
    value::Node,
};

/// Sections whose keys are names, and whether `--set` and references take them as parts of a path.
const NAMED: [(&str, bool); 4] =
    [("params", true), ("stages", true), ("tables", true), ("profiles", false)];
/// Parts of the sweep whose keys are names.
const AXES: [&str; 3] = ["baseline", "one_at_a_time", "grid"];
/// What stands between the parts of a path and around those of a cell.
const RESERVED: [char; 5] = ['.', '[', ']', '=', '/'];

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
    let axes = AXES.iter().map(|part| (true, sweep.and_then(|sweep| sweep.get(part))));
    let sections = NAMED.iter().map(|(section, is_part)| (*is_part, root.get(section)));
    for (is_part, section) in sections.chain(axes) {
        for (name, entry) in section.and_then(Node::as_table).into_iter().flatten() {
            check_one("a name", name, entry.key, problems);
            if is_part {
                check_part(name, entry.key, problems);
            }
        }
    }
}

/// Whether a name can be a part of a path.
pub(super) fn is_part(name: &str) -> bool {
    !name.trim().is_empty() && !name.contains(RESERVED)
}

/// `--set` could not reach such a name, and `lora[n=1]` would not be told from a cell.
fn check_part(name: &str, origin: Option<Origin>, problems: &mut Problems) {
    if is_part(name) {
        return;
    }
    let message = if name.trim().is_empty() {
        format!("a name cannot be empty, but is {name:?}")
    } else {
        let reserved = RESERVED.map(|sign| format!("`{sign}`")).join(", ");
        format!("a name cannot have one of {reserved}, but is {name:?}")
    };
    let problem = Problem::new(Code::BadValue, message).at(origin, "not a name");
    problems.add(problem.help("use letters, digits, `_` and `-`"));
}

fn check_one(what: &str, text: &str, origin: Option<Origin>, problems: &mut Problems) {
    if text.contains(char::is_control) {
        let message = format!("{what} cannot have control characters, but is {text:?}");
        let problem = Problem::new(Code::BadValue, message).at(origin, "has control characters");
        problems.add(problem.help("take them out"));
    }
}
