//! The pipeline as the engine sees it: every reference resolved, every stage expanded and parsed.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::stages::{Stage, StageEntry};

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
    /// `seed`: the default of every stage's `seed`.
    pub seed: u64,
    /// `--profile`.
    pub profile: Option<String>,
    /// All stages, each once per cell of the axes that reach it; inputs come before their users.
    pub instances: Vec<Instance>,
    /// The sweep's axes and cells.
    pub sweep: Sweep,
    /// The result tables.
    pub tables: Vec<Table>,
    /// The file after all merging, for `pipe show`.
    pub resolved: Value,
    /// What is not wrong but seldom meant.
    pub warnings: Vec<String>,
}

impl Pipeline {
    /// The key to set, as in `params.data.root`, for another path in place of `path`, which a stage
    /// got from the file.
    pub fn key_of_path(&self, path: &Path) -> Option<String> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let is_it = |text: &str| !text.is_empty() && folder.join(text) == path;
        ["params", "stages"]
            .iter()
            .find_map(|section| find(&self.resolved[*section], section, &is_it))
    }
}

/// The dotted path to the first text that fits.
fn find(value: &Value, at: &str, fits: &dyn Fn(&str) -> bool) -> Option<String> {
    match value {
        Value::String(text) => fits(text).then(|| at.to_owned()),
        Value::Object(map) => {
            map.iter().find_map(|(key, value)| find(value, &format!("{at}.{key}"), fits))
        }
        _ => None,
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
    /// Its parameters after defaults.
    pub params: Map<String, Value>,
    /// Port name to index in [`Pipeline::instances`].
    pub inputs: BTreeMap<String, usize>,
    /// Where each parameter's value was written, by path (`rank`, `optimizer.lr`). For `"${rank}"`
    /// that is the place of the axis value or param, not of the reference.
    pub places: BTreeMap<String, Place>,
}

impl fmt::Display for Instance {
    /// `lora[n=10, rank=64]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stage)?;
        if self.cell.is_empty() {
            return Ok(());
        }
        let axes: Vec<_> =
            self.cell.iter().map(|(axis, v)| format!("{axis}={}", plain(v))).collect();
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

/// Where a value was written.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Place {
    /// The file as the user named it, or `--set`.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// The axis that is averaged, shown as mean ± sd.
    pub average: Option<String>,
    /// Published numbers to show beside.
    pub reference: Option<Reference>,
}

/// Published numbers of a table.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Reference {
    /// What the numbers are: `Table 1`.
    pub source: String,
    /// A CSV file with a column per axis and one `value` column, resolved against the pipeline file.
    pub values: PathBuf,
}
