//! The pipeline as the engine sees it: every reference resolved, every stage expanded and parsed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{
    origin::{Origin, Sources, is_argument},
    value::{Data, Filled, Node},
};
use crate::{
    artifact::ArtifactKind,
    stages::{ModelParts, Stage, StageEntry},
};

/// The values of some sweep axes.
pub type Cell = BTreeMap<String, Value>;

/// A resolved pipeline file.
pub struct Pipeline {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// The file and the bases that it extends, as they are named; the file first.
    pub files: Vec<PathBuf>,
    /// `name`.
    pub name: String,
    /// `title`.
    pub title: Option<String>,
    /// `seed`: the default of every stage's `seed`, but for `dataset` and `transform`.
    pub seed: u64,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set`, in the order of the command line.
    pub set: Vec<String>,
    /// All stages, each once per cell of the axes that reach it; inputs come before their users.
    pub instances: Vec<Instance>,
    /// The sweep's axes and cells.
    pub sweep: Sweep,
    /// The result tables.
    pub tables: Vec<Table>,
    /// The file after all merging, with references as they were written.
    pub root: Arc<Node>,
    /// What is not wrong but seldom meant.
    pub warnings: Vec<String>,
    /// Whether images that are here were not decoded when it was loaded, because a stage takes too
    /// many.
    pub undecoded: bool,
    /// Instances that draw data: those whose pairs are asked about, and those learnt from for it,
    /// where the file does not say that both take the same.
    pub asked_and_learnt: BTreeSet<(usize, usize)>,
}

impl Pipeline {
    /// The table `params` of the file, after all merging.
    pub fn params(&self) -> Map<String, Value> {
        match self.root.get("params").map(Node::to_json) {
            Some(Value::Object(params)) => params,
            _ => Map::new(),
        }
    }

    /// The key that gives a parameter of an instance its value, as in `params.data.root`; none
    /// where that is in the sweep.
    pub fn key_of(&self, instance: &Instance, param: &str) -> Option<String> {
        let origin = instance.places.origin(param)?;
        ["params", "stages"].into_iter().find_map(|section| {
            let mut found = None;
            self.root.get(section)?.walk(&mut vec![section.into()], &mut |path, node| {
                if found.is_none() && node.origin == Some(origin) {
                    found = Some(path.join("."));
                }
            });
            found
        })
    }

    /// What the parameters of an instance leave to its model, as that model has it; nothing where
    /// it cannot be read.
    pub fn left_to_model(&self, index: usize) -> Map<String, Value> {
        let on_port = self.on_port_model(index);
        on_port.map(|parts| self.instances[index].work.left_to_model(&parts)).unwrap_or_default()
    }

    /// What is on the port `model` of an instance, if that is known.
    fn on_port_model(&self, index: usize) -> Option<ModelParts> {
        match self.instances[index].inputs.get("model") {
            None => Some(ModelParts::default()),
            Some(input) => self.instances[*input].work.parts(&self.on_port_model(*input)?),
        }
    }
}

/// A stage in one cell of the axes that reach it.
pub struct Instance {
    /// The stage's name in the file.
    pub stage: String,
    /// The values of the axes that its parameters or its inputs use.
    pub cell: Cell,
    /// Its kind.
    pub entry: &'static StageEntry,
    /// Its work.
    pub work: Arc<dyn Stage>,
    /// Its parameters after defaults, which its cells share where they are the same.
    pub params: Arc<Map<String, Value>>,
    /// Port name to index in [`Pipeline::instances`].
    pub inputs: BTreeMap<String, usize>,
    /// Where the parameters were written.
    pub places: Places,
}

impl Instance {
    /// What it gives.
    pub fn output(&self) -> ArtifactKind {
        self.work.output().unwrap_or(self.entry.ports.output)
    }

    /// The version of what it gives.
    pub fn version(&self) -> u32 {
        self.entry.version + self.work.revision()
    }

    /// The input whose items give their size to what the stage makes of them.
    pub fn size_input(&self) -> Option<usize> {
        const PORTS: [&str; 5] = ["pairs", "videos", "latents", "samples", "predictions"];
        PORTS.iter().find_map(|port| self.inputs.get(*port)).copied()
    }
}

impl fmt::Display for Instance {
    /// `lora[n=10, rank=64]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stage)?;
        if self.cell.is_empty() {
            return Ok(());
        }
        let axes: Vec<_> =
            self.cell.iter().map(|(axis, v)| format!("{axis}={}", in_one_line(v))).collect();
        write!(f, "[{}]", axes.join(", "))
    }
}

/// A value as people write it: strings without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The same where a line break, or what else a terminal acts on, is written out.
fn in_one_line(value: &Value) -> String {
    one_line(&plain(value)).into_owned()
}

/// A text with line breaks and the like as they are written in strings.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let written = |char: char| {
        if char.is_control() { char.escape_debug().to_string() } else { char.to_string() }
    };
    Cow::Owned(text.chars().map(written).collect())
}

/// Where the parameters of an instance were written, by path (`rank`, `optimizer.lr`). For
/// `"${rank}"` that is the place of the axis value or param, not of the reference.
#[derive(Clone, Default)]
pub struct Places(Option<(Arc<Node>, Arc<Sources>)>);

impl Places {
    /// The places of these parameters, which come from `sources`.
    pub fn new(params: Arc<Node>, sources: Arc<Sources>) -> Self {
        Self(Some((params, sources)))
    }

    /// Where the value at `path` was written, if it was.
    pub fn get(&self, path: &str) -> Option<Place> {
        let (_, sources) = self.0.as_ref()?;
        Some(sources.place(self.origin(path)?))
    }

    fn origin(&self, path: &str) -> Option<Origin> {
        self.node(path)?.origin
    }

    fn node(&self, path: &str) -> Option<&Node> {
        let (params, _) = self.0.as_ref()?;
        path.split('.').try_fold(&**params, |node, key| match &node.data {
            Data::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => node.get(key),
        })
    }

    /// What references put into the text at `path`, if that is `text`, with the places of the
    /// values.
    pub fn filled(&self, path: &str, text: &str) -> Vec<(&Filled, Option<Place>)> {
        let node = self.node(path).filter(|node| node.as_str() == Some(text));
        let filled = node.and_then(|node| node.filled.as_deref()).unwrap_or_default();
        let place = |origin| self.0.as_ref().map(|(_, sources)| sources.place(origin));
        filled.iter().map(|part| (part, part.origin.and_then(place))).collect()
    }

    /// Where the first value inside the table or list at `path` was written.
    pub fn inside(&self, path: &str) -> Option<Place> {
        let (params, sources) = self.0.as_ref()?;
        let node = path.split('.').try_fold(&**params, |node, key| node.get(key))?;
        let mut first = None;
        node.walk(&mut Vec::new(), &mut |path, node| {
            first = first.or(node.origin.filter(|_| !path.is_empty()));
        });
        first.map(|origin| sources.place(origin))
    }
}

/// Where a value was written.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Place {
    /// The file as the user named it, or `--set KEY=VALUE`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_argument(&self.file) {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The axes of an ablation and the cells they span.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The value of each one-at-a-time axis when another one varies.
    pub baseline: Cell,
    /// Axes varied one at a time around the baseline, with their values in order.
    pub one_at_a_time: Vec<(String, Vec<Value>)>,
    /// Axes varied together, with their values in order.
    pub grid: Vec<(String, Vec<Value>)>,
    /// All cells, each with every axis, after `exclude`.
    pub cells: Vec<Cell>,
}

/// `[tables.<name>]`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Table {
    /// The table's name.
    pub name: String,
    /// Caption.
    pub title: Option<String>,
    /// `(stage, metric)` pairs, the first the main one.
    pub values: Vec<(String, String)>,
    /// The axis of the columns.
    pub columns: Option<String>,
    /// The axes of the rows: one group of rows each if one-at-a-time, else their product.
    pub rows: Vec<String>,
    /// The axes that are averaged.
    pub average: Vec<String>,
    /// How the spread over them is told.
    pub spread: Spread,
    /// Whether the best and the second number of each column are marked.
    pub mark_best: bool,
    /// What a cell without a score counts as beside others.
    pub missing: Option<f64>,
    /// Published numbers to show beside.
    pub reference: Option<Reference>,
}

/// How the spread of averaged scores is told.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// The standard deviation of the scores, as of repeated runs.
    #[default]
    Sd,
    /// The interval of their mean by the bootstrap, as of tasks that are solved or not.
    Bootstrap,
}

/// Published numbers of a table.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Reference {
    /// What the numbers are: `Table 1`.
    pub source: String,
    /// A CSV file with a column per axis and one `value` column, resolved against the pipeline
    /// file.
    pub values: PathBuf,
}
