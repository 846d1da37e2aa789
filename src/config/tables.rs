//! `[tables.<name>]`: which results stand where.

use std::path::{Path, PathBuf};

use super::{
    Instance, ReadFile, Reference, Spread, Table,
    kinds::join,
    origin::{Origin, Sources},
    problem::{Code, Problem, Problems},
    stages::Definition,
    sweep::Axes,
    value::{Entry, Node, ValueError},
};
use crate::artifact::ArtifactKind;

/// A table as it is written.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// The caption.
    title: Option<String>,
    /// The number shown, as `stage.metric`.
    value: Option<String>,
    /// Several numbers shown beside each other, the main one first, each as `stage.metric`.
    #[serde(default)]
    values: Vec<String>,
    /// The axis of the columns.
    columns: Option<String>,
    /// The axes of the rows: a group of rows each if varied one at a time, else their product.
    #[serde(default)]
    rows: OneOrMany,
    /// The axes that are averaged, such as repeated runs.
    #[serde(default)]
    average: OneOrMany,
    /// How the spread over the averaged axes is shown: `sd` as mean ± standard deviation,
    /// `bootstrap` as the 95 % interval of the mean, for scores that are 0 or 100 each.
    #[serde(default)]
    spread: Spread,
    /// Whether the best and the second number of each column are marked; `false` where rows do not
    /// compete, such as those of different tasks.
    #[serde(default = "yes")]
    mark_best: bool,
    /// What a cell of the sweep without a score, because it failed or was not run, counts as in a
    /// mean over cells, where any has one: 0 for tasks that are solved or not. Without it, the mean
    /// is over those there are. Either way a note at the number says how many there are.
    missing: Option<f64>,
    /// Published numbers to show beside.
    reference: Option<WrittenReference>,
}

fn yes() -> bool {
    true
}

/// Published numbers.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenReference {
    /// What the numbers are, such as `Table 1`.
    source: String,
    /// A CSV file with a column per axis and one named `value`.
    #[schemars(extend("format" = "path"))]
    values: String,
}

/// A name, or a list of names.
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the variants are the schema; reading gives a list at once")]
enum NameOrNames {
    /// One name.
    One(String),
    /// Several names.
    Many(Vec<String>),
}

#[derive(Default, schemars::JsonSchema)]
#[schemars(with = "NameOrNames")]
struct OneOrMany(Vec<String>);

impl<'de> serde::Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![name.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<OneOrMany, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(OneOrMany(names))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

pub(super) struct Reader<'a> {
    pub axes: &'a Axes,
    pub definitions: &'a [Definition<'a>],
    pub sources: &'a Sources,
    /// Reads the published numbers.
    pub file: ReadFile<'a>,
}

impl Reader<'_> {
    /// Reads all tables.
    pub fn read(&self, section: Option<&Node>, problems: &mut Problems) -> Vec<Table> {
        let Some(section) = section else { return Vec::new() };
        let Some(tables) = section.as_table() else {
            problems.add(Problem::wrong_type(section, "tables", "a table"));
            return Vec::new();
        };
        tables.iter().filter_map(|(name, entry)| self.table(name, entry, problems)).collect()
    }

    fn table(&self, name: &str, entry: &Entry, problems: &mut Problems) -> Option<Table> {
        let node = parsable(&entry.node, problems);
        let written: Written = match serde::Deserialize::deserialize(&node) {
            Ok(written) => written,
            Err(error) => {
                let error: ValueError = error;
                problems.add(Problem::from(&error.located(&node)));
                return None;
            }
        };
        let mut values = Vec::new();
        match (&written.value, written.values.is_empty()) {
            (Some(_), false) => {
                let message = format!("table `{name}` has both `value` and `values`");
                let problem = Problem::new(Code::Table, message);
                let key = |key: &str| node.as_table().and_then(|table| table.get(key)?.key);
                problems.add(problem.at(key("values"), "here").at(key("value"), "and here"));
            }
            (None, true) => {
                let message = format!("table `{name}` has no `value`");
                let problem = Problem::new(Code::Table, message).at(entry.key, "shows nothing");
                problems.add(problem.help("add `value = \"stage.metric\"`"));
            }
            (Some(value), true) => values.extend(self.value(value, node.get("value"), problems)),
            (None, false) => {
                let nodes = node.get("values").and_then(Node::as_array).unwrap_or_default();
                for (value, node) in written.values.iter().zip(nodes) {
                    values.extend(self.value(value, Some(node), problems));
                }
            }
        }
        self.axes(&written, &node, problems);
        if written.spread == Spread::Bootstrap && written.average.0.is_empty() {
            let message = format!("`spread` of table `{name}` does nothing without `average`");
            let origin = node.get("spread").and_then(|node| node.origin);
            let problem = Problem::new(Code::Unused, message).at(origin, "nothing is averaged");
            problems.add(problem.help("name the axes that are averaged, or take it out"));
        }
        Self::check_missing(name, &written, &node, problems);
        let reference = written.reference.map(|reference| {
            let origin = node.get("reference").and_then(|node| node.get("values")?.origin);
            let path = match origin {
                Some(origin) => join(&self.sources.of(origin).folder, &reference.values),
                None => reference.values,
            };
            self.check_reference(Path::new(&path), origin, problems);
            Reference { source: reference.source, values: PathBuf::from(path) }
        });
        Some(Table {
            name: name.to_owned(),
            title: written.title,
            values,
            columns: written.columns,
            rows: written.rows.0,
            average: written.average.0,
            spread: written.spread,
            mark_best: written.mark_best,
            missing: written.missing,
            reference,
        })
    }

    /// Refuses a `missing` that nothing can be missing beside.
    fn check_missing(name: &str, written: &Written, node: &Node, problems: &mut Problems) {
        if written.missing.is_none() || !written.average.0.is_empty() {
            return;
        }
        let message = format!("`missing` of table `{name}` does nothing without `average`");
        let origin = node.get("missing").and_then(|node| node.origin);
        let problem = Problem::new(Code::Unused, message).at(origin, "nothing is averaged");
        problems.add(problem.help("name the axes that are averaged, or take it out"));
    }

    /// Reads the published numbers once, so that what is wrong with them is told before any work.
    fn check_reference(&self, path: &Path, origin: Option<Origin>, problems: &mut Problems) {
        let name = path.display();
        let text = match (self.file)(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read the reference numbers in `{name}`: {error}");
                problems.add(Problem::new(Code::Io, message).at(origin, "named here"));
                return;
            }
        };
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let has_value = reader.headers().map(|headers| headers.iter().any(|h| h.trim() == "value"));
        let message = match has_value
            .and_then(|found| reader.records().find_map(Result::err).map_or(Ok(found), Err))
        {
            Ok(true) => return,
            Ok(false) => format!("the reference numbers in `{name}` have no column `value`"),
            Err(error) => format!("the reference numbers in `{name}` are no CSV: {error}"),
        };
        let problem = Problem::new(Code::Table, message).at(origin, "named here");
        problems.add(problem.help("it must be a CSV with a column per axis and one named `value`"));
    }

    fn value(
        &self,
        value: &str,
        node: Option<&Node>,
        problems: &mut Problems,
    ) -> Option<(String, String)> {
        let origin = node.and_then(|node| node.origin);
        let Some((stage, metric)) = value.split_once('.') else {
            let problem = Problem::new(Code::Table, format!("`{value}` names no metric"));
            problems.add(problem.at(origin, "must be `stage.metric`"));
            return None;
        };
        let Some(definition) = self.definitions.iter().find(|other| other.name == stage) else {
            let problem = Problem::new(Code::UnknownStage, format!("there is no stage `{stage}`"));
            let names = self.definitions.iter().map(|definition| definition.name);
            let problem = problem.absent(stage).at(origin, "unknown stage");
            problems.add(problem.suggest(stage, names));
            return None;
        };
        if let Some(kind) = &definition.kind
            && kind.entry.ports.output != ArtifactKind::Metrics
        {
            let message =
                format!("a table shows metrics, but `{stage}` gives {}", kind.entry.ports.output);
            let label = format!("a stage of kind `{}`", kind.entry.kind);
            problems.add(Problem::new(Code::PortKind, message).at(origin, label));
            return None;
        }
        Some((stage.to_owned(), metric.to_owned()))
    }

    fn axes(&self, written: &Written, node: &Node, problems: &mut Problems) {
        let named = (written.columns.iter().map(|name| (name, node.get("columns"))))
            .chain(with_nodes(&written.rows, node.get("rows")))
            .chain(with_nodes(&written.average, node.get("average")));
        let mut seen: Vec<&str> = Vec::new();
        for (name, node) in named {
            let origin = node.and_then(|node| node.origin);
            if self.axes.position(name).is_none() {
                let problem = Problem::new(Code::Table, format!("there is no sweep axis `{name}`"));
                let problem = problem.absent(name).at(origin, "unknown axis");
                problems.add(problem.suggest(name, self.axes.names()));
            } else if seen.contains(&name.as_str()) {
                let message = format!("the axis `{name}` has two roles in one table");
                problems.add(Problem::new(Code::Table, message).at(origin, "here again"));
            }
            seen.push(name);
        }
    }
}

/// Names with the node of each.
fn with_nodes<'a>(
    names: &'a OneOrMany,
    node: Option<&'a Node>,
) -> impl Iterator<Item = (&'a String, Option<&'a Node>)> {
    let one = move |index: usize| node.and_then(|node| node.as_array()?.get(index)).or(node);
    names.0.iter().enumerate().map(move |(index, name)| (name, one(index)))
}

/// Checks the metrics that tables name against those that the stages' parameters give.
pub(super) fn check_metrics(
    section: Option<&Node>,
    instances: &[Instance],
    problems: &mut Problems,
) {
    let tables = section.and_then(Node::as_table).into_iter().flatten();
    let values = tables.flat_map(|(_, entry)| {
        let many = entry.node.get("values").and_then(Node::as_array).unwrap_or_default();
        entry.node.get("value").into_iter().chain(many)
    });
    for node in values {
        let Some((stage, metric)) = node.as_str().and_then(|value| value.split_once('.')) else {
            continue;
        };
        let of_stage = instances.iter().filter(|instance| instance.stage == stage);
        let known: Vec<_> = of_stage.map(|instance| instance.work.metrics()).collect();
        // A stage in error has no instance, and one that does not say its metrics gives any.
        if known.iter().any(|names| names.is_empty() || names.contains(&metric)) || known.is_empty()
        {
            continue;
        }
        let mut names: Vec<&str> = Vec::new();
        for name in known.into_iter().flatten() {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let problem = Problem::new(Code::Table, format!("stage `{stage}` gives no `{metric}`"));
        problems.add(problem.at(node.origin, "no such metric").suggest(metric, names));
    }
}

/// The table without its bad keys, which are reported.
fn parsable(node: &Node, problems: &mut Problems) -> Node {
    let mut node = node.clone();
    while let Err(error) = <Written as serde::Deserialize>::deserialize(&node) {
        let error: ValueError = error;
        let error = error.located(&node);
        problems.add(Problem::from(&error));
        if !node.remove(error.path()) {
            break;
        }
    }
    node
}
