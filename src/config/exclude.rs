//! `sweep.exclude`: cells that are left out.

use serde_json::Value;

use super::{
    error::{Code, Problem, Problems},
    origin::{Origin, Sources},
    sweep::{Axes, Axis},
    value::{Data, Node, Table},
};

/// Values of an axis that a warning lists.
const MOST_VALUES: usize = 8;

/// Cells that are left out: those that have one of the values on each axis.
pub(super) struct Rule {
    axes: Vec<(usize, Vec<Value>)>,
    origin: Option<Origin>,
}

impl Rule {
    /// Whether it leaves a cell out.
    pub fn matches(&self, axes: &[Axis], cell: &[u32]) -> bool {
        self.axes
            .iter()
            .all(|(axis, values)| values.contains(&axes[*axis].json[cell[*axis] as usize]))
    }

    /// What to say if it leaves out none of the cells, which must all be there.
    pub fn idle(&self, axes: &Axes, sources: &Sources) -> Option<String> {
        if axes.cells.iter().any(|cell| self.matches(&axes.list, cell)) {
            return None;
        }
        let place = self.origin.map(|origin| format!(" ({})", sources.place(origin)));
        let place = place.unwrap_or_default();
        let absent = self.axes.iter().find_map(|(axis, values)| {
            let axis = &axes.list[*axis];
            values.iter().all(|value| !axis.json.contains(value)).then_some((axis, values))
        });
        let (why, help) = match absent {
            Some((axis, values)) => {
                (format!("no `{}` is {}", axis.name, or(values)), taken_by(axis))
            }
            None => (
                "each value is there, but no cell has them together".to_owned(),
                "of axes varied one at a time, one at most differs from the baseline".to_owned(),
            ),
        };
        Some(format!(
            "an entry of `sweep.exclude` matches no cell{place}: {why}\n  help: take it out, or \
             correct it: {help}"
        ))
    }
}

/// `1 or 2`.
fn or(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ")
}

/// The values that an axis takes.
fn taken_by(axis: &Axis) -> String {
    let mut values: Vec<_> = axis.json.iter().take(MOST_VALUES).map(Value::to_string).collect();
    if axis.json.len() > MOST_VALUES {
        values.push("...".to_owned());
    }
    format!("`{}` takes {}", axis.name, values.join(", "))
}

/// Reads the rules, whose axes must be there; their values need not be.
pub(super) fn read(axes: &Axes, table: &Table, problems: &mut Problems) -> Vec<Rule> {
    let Some(entry) = table.get("exclude") else { return Vec::new() };
    let Some(items) = entry.node.as_array() else {
        problems.add(Problem::wrong_type(&entry.node, "sweep.exclude", "a list of tables"));
        return Vec::new();
    };
    let mut rules = Vec::new();
    for item in items {
        let Some(table) = item.as_table().filter(|table| !table.is_empty()) else {
            problems.add(Problem::wrong_type(
                item,
                "sweep.exclude",
                "a table of axes with their values",
            ));
            continue;
        };
        let mut rule = Vec::new();
        for (name, entry) in table {
            let Some(axis) = axes.position(name) else {
                let problem = Problem::new(Code::Sweep, format!("there is no axis `{name}`"));
                let problem = problem.absent(name).at(entry.key, "unknown axis");
                problems.add(problem.suggest(name, axes.names()));
                continue;
            };
            let values = match &entry.node.data {
                Data::Array(items) => items.iter().map(Node::to_json).collect(),
                _ => vec![entry.node.to_json()],
            };
            rule.push((axis, values));
        }
        rules.push(Rule { axes: rule, origin: item.origin });
    }
    rules
}
