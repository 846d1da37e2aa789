//! One `--set`: what its key names, and its value laid on the file.

use std::path::Path;

use super::{
    layers::{add_syntax, overlay, overlay_keeping_keys},
    origin::{Layer, Origin, Sources},
    problem::{Code, Problem, Problems, list, similar},
    value::{Data, Entry, Node, Table, parse_value},
};

/// Sections of a file that a key may begin with.
const SECTIONS: [&str; 4] = ["params", "stages", "sweep", "tables"];
/// Values of a file that a key may be.
const VALUES: [&str; 3] = ["seed", "title", "name"];
/// Keys of a file that decide what it is made of, before any `--set` is laid on it; what to do
/// instead.
const IN_FILES: [(&str, &str); 2] = [
    (
        "extends",
        "write it at the top of the file, or write a file of your own that extends this one",
    ),
    (
        "profiles",
        "choose a profile with `--profile NAME`, and set the values themselves with `--set`",
    ),
];

/// What a `--set` is laid on.
pub(super) struct Target<'a> {
    pub root: &'a mut Node,
    /// The pipeline file.
    pub file: &'a Path,
}

impl Target<'_> {
    /// Lays one `--set` on the file.
    pub fn apply(&mut self, text: &str, sources: &mut Sources, problems: &mut Problems) {
        let file = sources.add_argument(text);
        let whole = Origin { file, start: 0, end: text.len() as u32, layer: Layer::Set };
        let (left, right) = match self.divide(text, whole) {
            Ok(parts) => parts,
            Err(problem) => return problems.add(problem),
        };
        let key = Origin { end: left.len() as u32, ..whole };
        let mut path: Vec<String> = left.split('.').map(|part| part.trim().to_owned()).collect();
        let trimmed = right.trim();
        if let Err(problem) = self.complete(&mut path, (left, trimmed), key) {
            return problems.add(problem.at(Some(key), "unknown"));
        }
        let offset = left.len() + 1 + (right.len() - right.trim_start().len());
        let mut node = match parse_value(trimmed, offset, file, Layer::Set) {
            Ok(_) | Err(_) if is_name_like_a_number(trimmed) => Node::from(trimmed),
            Ok(node) => node,
            // A shell takes quotes away, so text that is no TOML value is a string.
            Err(errors)
                if errors.iter().all(|error| error.may_be_text)
                    && !trimmed.starts_with(['"', '\'', '[', '{']) =>
            {
                Node::from(trimmed)
            }
            Err(errors) => return add_syntax(problems, errors),
        };
        node.origin =
            Some(Origin { start: offset as u32, end: (offset + trimmed.len()) as u32, ..whole });
        self.lay(&path, node, key);
    }

    /// Key and value.
    fn divide<'t>(&self, text: &'t str, whole: Origin) -> Result<(&'t str, &'t str), Problem> {
        if let Some(problem) = self.names_a_cell(text) {
            return Err(problem.at(Some(whole), "one cell"));
        }
        let Some((left, right)) = text.split_once('=') else {
            let problem = Problem::new(Code::Set, format!("`--set {text}` has no `=`"));
            return Err(problem
                .at(Some(whole), "must be `key=value`")
                .help("write it as `--set stage.key=value` or `--set params.name=value`"));
        };
        if left.split('.').any(|part| part.trim().is_empty()) {
            let key = Origin { end: left.len() as u32, ..whole };
            let problem = Problem::new(Code::Set, format!("`{left}` is not a key"));
            let problem = problem.at(Some(key), "has an empty part");
            return Err(problem.help("write it as `stage.key` or `params.name`"));
        }
        if right.trim().is_empty() {
            let problem = Problem::new(Code::Set, format!("`--set {text}` gives no value"));
            return Err(problem
                .at(Some(whole), "nothing after `=`")
                .help("for an empty text write `\"\"`, in quotes that the shell keeps"));
        }
        Ok((left, right))
    }

    /// What to say of `lora[n=1].steps=3`.
    fn names_a_cell(&self, text: &str) -> Option<Problem> {
        let (stage, rest) = text.split_once('[')?;
        let (cell, rest) = rest.split_once(']')?;
        if !self.names("stages").contains(&stage.trim()) {
            return None;
        }
        let axis = cell.split('=').next().unwrap_or_default().trim();
        let message = format!("`--set` sets a key of all cells of `{stage}`, not of one");
        Some(Problem::new(Code::Set, message).help(format!(
            "write `--set {stage}{rest}`; for a value that depends on the cell, refer to a param \
             such as `{{ by = \"{axis}\", ... }}`; `--only '{stage}[{cell}]'` runs one cell"
        )))
    }

    fn names(&self, section: &str) -> Vec<&str> {
        let table = self.root.get(section).and_then(Node::as_table);
        table.iter().flat_map(|table| table.keys().map(String::as_str)).collect()
    }

    /// Completes a key: `lora.rank` to `stages.lora.rank`, `size` to `params.size`.
    fn complete(
        &self,
        path: &mut Vec<String>,
        (left, right): (&str, &str),
        key: Origin,
    ) -> Result<(), Problem> {
        let first = path[0].as_str();
        let is_long = path.len() > 1;
        match first {
            "sweep" | "tables" if is_long => return Ok(()),
            "params" | "stages" if is_long => return self.check_name(first, &path[1]),
            _ if VALUES.contains(&first) && !is_long => return Ok(()),
            _ => {}
        }
        let (stages, params) = (self.names("stages"), self.names("params"));
        if is_long && stages.contains(&first) {
            path.insert(0, "stages".to_owned());
        } else if params.contains(&first) {
            path.insert(0, "params".to_owned());
        } else if stages.contains(&first) {
            return Err(self.is_stage(first, right).at(Some(key), "a stage"));
        } else if let Some(section) = self.axis_section(first).filter(|_| !is_long) {
            let message = format!("`{first}` is an axis of the sweep, not a param");
            let problem = Problem::new(Code::Set, message).at(Some(key), "an axis");
            return Err(problem.help(axis_help(section, first, right)));
        } else if let Some((_, help)) = IN_FILES.iter().find(|(section, _)| *section == first) {
            let message = format!("`--set` cannot set `{first}`");
            let problem = Problem::new(Code::Set, message).at(Some(key), "read in files only");
            return Err(problem.help(*help));
        } else {
            return Err(self.unknown(left, first, &stages, &params));
        }
        Ok(())
    }

    fn check_name(&self, section: &str, name: &str) -> Result<(), Problem> {
        let known = self.names(section);
        if known.contains(&name) {
            return Ok(());
        }
        let (what, file) = (section.trim_end_matches('s'), self.file.display());
        let message = format!("`--set` names the {what} `{name}`, which is not in `{file}`");
        Err(Problem::new(Code::Set, message).suggest(name, known))
    }

    fn is_stage(&self, stage: &str, value: &str) -> Problem {
        let message = format!("`{stage}` is a stage, so `--set` must name one of its keys");
        let table = self.root.get("stages").and_then(|stages| stages.get(stage)?.as_table());
        let keys: Vec<&str> =
            table.iter().flat_map(|table| table.keys()).map(String::as_str).collect();
        Problem::new(Code::Set, message)
            .help(format!("write `--set {stage}.KEY={value}`; the file sets {}", list(&keys)))
    }

    fn unknown(&self, left: &str, first: &str, stages: &[&str], params: &[&str]) -> Problem {
        let file = self.file.display();
        let message = format!("`--set {left}` names neither a stage nor a param of `{file}`");
        let problem = Problem::new(Code::Set, message);
        let (is_long, rest) = (left.contains('.'), left.trim().strip_prefix(first));
        let others = if is_long { &SECTIONS[..] } else { &VALUES };
        match similar(first, &[stages, params, others].concat()) {
            Some(best) => {
                problem.help(format!("did you mean `{best}{}`?", rest.unwrap_or_default()))
            }
            None => problem.suggest(first, if is_long { stages } else { params }.iter().copied()),
        }
    }

    /// The part of the sweep that an axis is in.
    fn axis_section(&self, name: &str) -> Option<&'static str> {
        let sweep = self.root.get("sweep")?;
        let mut sections = ["grid", "one_at_a_time", "baseline"].into_iter();
        sections.find(|section| sweep.get(section).and_then(|axes| axes.get(name)).is_some())
    }

    /// Lays a value on the file; of a table in a param or the sweep, the other keys stay.
    fn lay(&mut self, path: &[String], mut node: Node, key: Origin) {
        let (first, rest) = path.split_first().expect("a key has at least one part");
        for part in rest.iter().rev() {
            let table = Table::from_iter([(part.clone(), Entry { key: Some(key), node })]);
            node = Node { data: Data::Table(table), origin: None, via: None, filled: None };
        }
        if rest.len() > 1 && matches!(first.as_str(), "params" | "sweep") {
            let section = self.root.as_table_mut().and_then(|root| root.get_mut(first));
            let old = section.and_then(|entry| entry.node.as_table_mut()?.get_mut(&rest[0]));
            if let (Some(old), Data::Table(table)) = (old, &mut node.data) {
                let inner = table.shift_remove(&rest[0]).expect("it was put there above");
                overlay(&mut old.node, inner.node, &mut Vec::new());
                return;
            }
        }
        let over = Table::from_iter([(first.clone(), Entry { key: Some(key), node })]);
        overlay_keeping_keys(self.root, over);
    }
}

/// Whether a text is TOML's form of a number, but a name for people: `5117e062`, a task of ARC.
/// Nobody writes an exponent with leading zeros to three digits without its sign, nor one beyond
/// all numbers.
fn is_name_like_a_number(text: &str) -> bool {
    let is_digits = |part: &str| part.len() > 1 && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((digits, exponent)) = text.split_once(['e', 'E']) else { return false };
    let is_padded = exponent.len() > 2 && exponent.starts_with('0');
    let is_endless = || text.parse().is_ok_and(f64::is_infinite);
    is_digits(digits) && is_digits(exponent) && (is_padded || is_endless())
}

/// How an axis gets a value, as it was written for something else.
pub(super) fn axis_help(section: &str, name: &str, value: &str) -> String {
    let list = match parse_value(value, 0, 0, Layer::Set) {
        Ok(node) if node.as_array().is_some() => value.to_owned(),
        Ok(_) => format!("[{value}]"),
        Err(_) => format!("[{value:?}]"),
    };
    match section {
        "grid" => format!("`--set 'sweep.grid.{name}={list}'` sets its values"),
        "baseline" => format!("`--set sweep.baseline.{name}={value}` sets it"),
        _ => format!(
            "`--set sweep.baseline.{name}={value}` sets its baseline, and `--set \
             'sweep.one_at_a_time.{name}={list}'` the values it is varied over"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_numbers_are_told_from_numbers() {
        for name in ["5117e062", "855e0971", "17e999999", "1234E567"] {
            assert!(is_name_like_a_number(name), "{name}");
        }
        for number in ["1e5", "10e05", "2e-3", "1.5e10", "1e+005", "12345e67", "50846271", "0x1e05"]
        {
            assert!(!is_name_like_a_number(number), "{number}");
        }
    }
}
