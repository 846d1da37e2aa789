//! Errors that differ in the cell of the sweep alone: told once, with how many more there are.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    Cell,
    origin::Origin,
    pipeline::plain,
    problem::Problem,
    sweep::{Axes, Axis},
};

/// Values of an axis up to which they are written out; of more, only a range is.
const MOST_VALUES: usize = 20;

/// The errors so far that name values of axes.
#[derive(Default)]
pub(super) struct Alike(HashMap<Pattern, Group>);

/// What errors have in common that are the same but for values of axes.
#[derive(PartialEq, Eq, Hash)]
struct Pattern {
    text: String,
    places: Vec<Origin>,
}

/// Errors that are the same but for the values of these axes.
struct Group {
    /// The place of the first in the list of all.
    first: usize,
    axes: Vec<String>,
    values: Vec<Vec<Value>>,
}

impl Alike {
    /// Whether an error is like one before it but for values of axes, and so counted with that;
    /// `place` is where in the list it would come.
    pub fn takes(&mut self, problem: &Problem, place: usize) -> bool {
        let Some(cell) = &problem.cell else { return false };
        let (axes, text) = without_values(cell, &problem.text());
        if axes.is_empty() {
            return false;
        }
        let values = axes.iter().map(|axis| cell[axis].clone()).collect();
        let places = problem.labels.iter().map(|(origin, _)| *origin).collect();
        let group = self.0.entry(Pattern { text, places });
        let group = group.or_insert_with(|| Group { first: place, axes, values: Vec::new() });
        group.values.push(values);
        group.first != place
    }

    /// Says of each error that stands for others how many these are, and how to leave their cells
    /// out.
    pub fn tell(self, list: &mut [Problem], axes: &Axes) {
        let wrong = self.wrong_values();
        for Group { first, axes: names, values } in self.0.values() {
            let (Some(problem), more @ 1..) = (list.get_mut(*first), values.len() - 1) else {
                continue;
            };
            let named: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            let others = match more {
                1 => "another value".to_owned(),
                more => format!("{more} other values"),
            };
            let told = format!(" (and so with {others} of {})", named.join(" and "));
            problem.message.push_str(&told);
            let [name] = &names[..] else { continue };
            let Some(rest) = axes.grid_axis(name).and_then(|axis| rest(axis, &wrong[name])) else {
                continue;
            };
            let advice = format!("without them: `--set 'sweep.grid.{name}={rest}'`");
            let help = problem.help.take().map(|help| help + "\n").unwrap_or_default();
            problem.help = Some(help + &advice);
        }
    }

    /// The values of each axis that are wrong by themselves.
    fn wrong_values(&self) -> HashMap<String, HashSet<String>> {
        let mut wrong: HashMap<String, HashSet<String>> = HashMap::new();
        for group in self.0.values() {
            if let [name] = &group.axes[..] {
                let values = group.values.iter().flatten().map(Value::to_string);
                wrong.entry(name.clone()).or_default().extend(values);
            }
        }
        wrong
    }
}

/// A text in which each value of a cell that it names gave way to its axis, once, and which axes
/// these are.
fn without_values(cell: &Cell, text: &str) -> (Vec<String>, String) {
    let (mut axes, mut text) = (Vec::new(), text.to_owned());
    for (axis, value) in cell {
        let value = plain(value);
        let is_part = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
        let at = text.match_indices(&value).map(|(at, _)| at).find(|at| {
            let (before, after) = (&text[..*at], &text[at + value.len()..]);
            !value.is_empty()
                && !is_part(before.chars().next_back())
                && !is_part(after.chars().next())
        });
        if let Some(at) = at {
            text.replace_range(at..at + value.len(), &format!("${{{axis}}}"));
            axes.push(axis.clone());
        }
    }
    (axes, text)
}

/// The values of an axis that are not wrong, as `--set` takes them; none where there are none, or
/// they cannot be written in a line.
fn rest(axis: &Axis, wrong: &HashSet<String>) -> Option<String> {
    let values = axis.json.iter();
    let kept: Vec<&Value> = values.filter(|value| !wrong.contains(&value.to_string())).collect();
    let (first, last) = (kept.first()?, kept.last()?);
    let is_plain = |value: &&Value| value.is_number() || value.is_string() || value.is_boolean();
    if let (Some(first), Some(last)) = (first.as_i64(), last.as_i64())
        && kept.len() > 3
        && (first..=last).map(Some).eq(kept.iter().map(|value| value.as_i64()))
    {
        return Some(format!("{{ from = {first}, to = {last} }}"));
    }
    // JSON's numbers and strings are TOML's, too.
    let list: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let list = format!("[{}]", list.join(", "));
    let is_short = kept.len() <= MOST_VALUES && !list.contains('\'');
    (is_short && kept.iter().all(is_plain)).then_some(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::LoadOptions, *};

    const TASK: &str = r#"{"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[1]], "output": [[2]]}]}"#;

    const FILE: &str = r#"
[params]
data = { source = "arc", root = "arc", set = "evaluation", task = "${task}" }

[sweep]
grid = { task = { from = 0, to = 399 } }

[stages.examples]
kind   = "dataset"
source = "${data}"
task   = "arc"
split  = "train"
size   = [16, 16]

[stages.questions]
kind   = "dataset"
source = "${data}"
task   = "arc"
split  = "test"
size   = [16, 16]
"#;

    /// The errors of the file with so many tasks there, of which the third is broken, and what
    /// helps.
    fn told(tasks: usize, set: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let set_of_tasks = folder.path().join("arc/data/evaluation");
        std::fs::create_dir_all(&set_of_tasks).unwrap();
        for task in 0..tasks {
            let text = if task == 2 { "{}" } else { TASK };
            std::fs::write(set_of_tasks.join(format!("t{task}.json")), text).unwrap();
        }
        let file = folder.path().join("arc.toml");
        std::fs::write(&file, FILE).unwrap();
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        let options = LoadOptions { set, look_at_files: true, ..LoadOptions::default() };
        let errors = super::super::load(&file, &options).err().map(|errors| errors.errors);
        let errors = errors.unwrap_or_default().into_iter();
        let texts =
            errors.map(|error| format!("{}\n{}\n", error.message, error.help.unwrap_or_default()));
        texts.collect()
    }

    #[test]
    fn an_error_of_many_cells_is_told_once_with_the_cells_that_have_none() {
        insta::assert_snapshot!(told(6, &[]), @"
        stage `examples`: `data/evaluation/t2.json` is not an ARC task: missing field `train` at line 1 column 2
        a task has `train` and `test`, lists of pairs of an `input` and an `output` grid of colours 0 to 9, as in the public data
        stage `examples`: `data/evaluation` has no task number 6; it holds 6 tasks, such as `t0` (and so with 393 other values of `task`)
        name the file without `.json`, or count from 0 in the order of names
        without them: `--set 'sweep.grid.task=[0, 1, 3, 4, 5]'`
        ");
        assert_eq!(told(6, &["sweep.grid.task=[0, 1, 3, 4, 5]"]), "");
        assert_eq!(told(2, &["sweep.grid.task={ from = 0, to = 1 }"]), "");
        let two = told(2, &["sweep.grid.task=[\"t0\", \"tx\", \"ty\"]"]);
        insta::assert_snapshot!(two, @r#"
        stage `examples`: `data/evaluation` has no task `tx`; it holds 2 tasks, such as `t0` (and so with another value of `task`)
        name the file without `.json`, or count from 0 in the order of names
        without them: `--set 'sweep.grid.task=["t0"]'`
        "#);
    }

    #[test]
    fn values_are_taken_out_of_a_text_as_whole_words() {
        let cell: Cell = [("n".to_owned(), json!(10)), ("task".to_owned(), json!("a1"))].into();
        let (axes, text) = without_values(&cell, "`x/a1.json` has 100 of 10, not 10");
        insta::assert_snapshot!(text, @"`x/${task}.json` has 100 of ${n}, not 10");
        assert_eq!(axes, ["n", "task"]);
        assert_eq!(without_values(&cell, "100 a12").0, [""; 0]);
    }
}
