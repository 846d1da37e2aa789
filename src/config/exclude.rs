//! `sweep.exclude`: cells that are left out.

use serde_json::Value;

use super::{
    origin::{Origin, Sources},
    problem::{Code, Problem, Problems},
    range,
    sweep::{Axes, Axis},
    value::{Node, Table},
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
            .all(|(axis, values)| is_one_of(&axes[*axis].json[cell[*axis] as usize], values))
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
            values.iter().all(|value| !is_one_of(value, &axis.json)).then_some((axis, values))
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
        let Some(table) = item.as_table() else {
            let wanted = "a table of axes with their values";
            problems.add(Problem::wrong_type(item, "sweep.exclude", wanted));
            continue;
        };
        if table.is_empty() {
            let message = "an entry of `sweep.exclude` names no axis";
            let problem = Problem::new(Code::Sweep, message).at(item.origin, "must name one");
            problems.add(problem.help("write `{ <axis> = ... }`, or take the entry out"));
        }
        let mut rule = Vec::new();
        for (name, entry) in table {
            let Some(axis) = axes.position(name) else {
                let problem = Problem::new(Code::Sweep, format!("there is no axis `{name}`"));
                let problem = problem.absent(name).at(entry.key, "unknown axis");
                problems.add(problem.suggest(name, axes.names()));
                continue;
            };
            let values = values(&entry.node, &axes.list[axis], problems);
            if values.is_empty() {
                let message = format!("an entry of `sweep.exclude` has no values of `{name}`");
                let problem = Problem::new(Code::Sweep, message);
                let problem = problem.at(entry.node.origin, "must have at least one");
                problems.add(problem.help("list those to leave out, or take the axis out"));
            }
            rule.push((axis, values));
        }
        rules.push(Rule { axes: rule, origin: item.origin });
    }
    rules
}

/// The values that are meant: where the axis itself takes lists or tables, one may be one of its
/// values.
fn values(node: &Node, axis: &Axis, problems: &mut Problems) -> Vec<Value> {
    let whole = node.to_json();
    if range::is_range(node) && !is_one_of(&whole, &axis.json) {
        let path = format!("sweep.exclude.{}", axis.name);
        let numbers = range::values(node, &path, problems).unwrap_or_default();
        return numbers.iter().map(Node::to_json).collect();
    }
    let Value::Array(items) = &whole else { return vec![whole] };
    let is_one = |item: &Value| item.is_array() || is_one_of(item, &axis.json);
    let takes_lists = axis.json.iter().any(Value::is_array);
    let is_meant_whole = takes_lists && !items.is_empty() && !items.iter().any(is_one);
    if is_one_of(&whole, &axis.json) || is_meant_whole {
        return vec![whole];
    }
    items.clone()
}

fn is_one_of(value: &Value, values: &[Value]) -> bool {
    values.iter().any(|other| is_same(value, other))
}

/// Whether two values are one; `1` and `1.0` are.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => {
            x.as_f64() == y.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        _ => a == b,
    }
}
