//! Parameters that a file sets and that do nothing.

use std::collections::HashSet;

use super::{
    origin::{Layer, Origin},
    problem::{Code, Problem, Problems},
    references::has_reference,
    stages::Definition,
    value::Node,
};
use crate::stages::IdleParam;

/// Reports parameters that the file sets and that do nothing, unless what makes them so changes
/// from cell to cell or was set for this run only.
pub(super) fn check_idle(definition: &Definition<'_>, idle: &[IdleParam], problems: &mut Problems) {
    let mut reported = HashSet::new();
    for IdleParam { param, by, serves } in idle {
        let Some(key) = key_of(&definition.table, param) else { continue };
        let decider = nearest(&definition.table, by);
        if decider.is_some_and(is_variable) || !reported.insert(param) {
            continue;
        }
        problems.add(
            Problem::new(Code::Unused, format!("`{param}` does nothing here"))
                .in_stage(definition.name)
                .at(Some(key), "changes nothing")
                .help(format!("take it out; it is read where {serves}")),
        );
    }
}

/// Whether a value can be another one in another run or cell of the same file.
fn is_variable(node: &Node) -> bool {
    let mut variable = false;
    node.walk(&mut Vec::new(), &mut |_, node| {
        let passing = node.origin.is_some_and(|origin| origin.layer > Layer::File);
        variable |= passing || node.as_str().is_some_and(has_reference);
    });
    variable
}

/// The value of a path, or of as much of it as the file writes out: `source = "${data}"` for
/// `source.source`. None if a default stands there.
fn nearest<'a>(params: &'a Node, path: &str) -> Option<&'a Node> {
    let mut node = params;
    for key in path.split('.') {
        if node.as_table().is_none() {
            break;
        }
        node = node.get(key)?;
    }
    Some(node)
}

fn find<'a>(params: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(params, |node, key| node.get(key))
}

/// Where the key of a parameter is written, if it is.
fn key_of(params: &Node, path: &str) -> Option<Origin> {
    let (above, key) =
        path.rsplit_once('.').map_or((None, path), |(above, key)| (Some(above), key));
    let table = above.map_or(Some(params), |above| find(params, above))?.as_table()?;
    let entry = table.get(key)?;
    entry.key.or(entry.node.origin)
}
