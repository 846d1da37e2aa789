//! What a pipeline's stages took, from their records: the paper's Tables 7 to 9 for any pipeline.
//!
//! The first table sums up each stage over its cells. The others have the rows and columns of the
//! pipeline's own tables, with the time of training, the time of sampling and the peaks of memory.
//! A record tells of the stage's last execution, so what was taken from the cache is not in it.
//! Memory is that of the process or the card (`exec/meter`), and wall time includes waiting: notes
//! say so.

mod cells;

use std::collections::{BTreeMap, HashSet};

use super::table::{Block, Entry, ResultTable, Row, Stat};
use crate::{
    config::{Cell, Pipeline, Spread, Table},
    plan::{Freshness, Plan},
    store::Record,
};
use cells::by_cell;

const MEBIBYTE: f64 = 1_048_576.0;

/// What is known of one instance.
struct Taken<'a> {
    stage: &'a str,
    kind: &'a str,
    cell: &'a Cell,
    /// None if it was not run.
    record: Option<&'a Record>,
}

/// The tables of what a plan's finished stages took.
pub fn tables(plan: &Plan<'_>) -> Vec<ResultTable> {
    let nodes = plan.nodes.iter().zip(&plan.pipeline.instances);
    let taken: Vec<_> = nodes
        .map(|(node, instance)| Taken {
            stage: &instance.stage,
            kind: instance.entry.kind,
            cell: &instance.cell,
            record: match &node.freshness {
                Freshness::Fresh(record) => Some(&**record),
                _ => None,
            },
        })
        .collect();
    let mut tables = vec![by_stage(&taken)];
    tables.extend(by_cell(&layouts(plan.pipeline), &plan.pipeline.sweep, &taken));
    tables
}

/// The pipeline's tables, or one of all its axes.
fn layouts(pipeline: &Pipeline) -> Vec<Table> {
    if !pipeline.tables.is_empty() {
        return pipeline.tables.clone();
    }
    let rows = pipeline.sweep.one_at_a_time.iter().map(|(axis, _)| axis.clone()).collect();
    vec![Table {
        name: pipeline.name.clone(),
        title: pipeline.title.clone(),
        values: Vec::new(),
        columns: None,
        rows,
        average: Vec::new(),
        spread: Spread::Sd,
        mark_best: false,
        missing: None,
        reference: None,
    }]
}

/// The columns of the table of stages.
const COLUMNS: [&str; 3] = ["wall s", "device s", "peak MiB"];

/// The sums over the executions of a stage on a device.
#[derive(Default)]
struct Sums {
    runs: usize,
    items: usize,
    /// As in [`COLUMNS`].
    values: [Option<f64>; 3],
}

impl Sums {
    fn add(&mut self, record: &Record) {
        self.runs += 1;
        self.items += record.items_run;
        let peak = record.peak_memory.map(|bytes| bytes as f64 / MEBIBYTE);
        let join = |a: Option<f64>, b: Option<f64>, with: fn(f64, f64) -> f64| match (a, b) {
            (Some(a), Some(b)) => Some(with(a, b)),
            (a, b) => a.or(b),
        };
        let [wall, device, most] = self.values;
        let sum = |a, b| to_nanoseconds(a + b);
        self.values = [
            join(wall, Some(record.wall_secs), sum),
            join(device, record.device_secs, sum),
            join(most, peak, f64::max),
        ];
    }
}

/// A row for each stage and kind of device: cards of one name are one, whichever number they have.
fn by_stage(taken: &[Taken<'_>]) -> ResultTable {
    let mut order: Vec<(&str, &str, &str)> = Vec::new();
    let mut sums: BTreeMap<(&str, &str, &str), Sums> = BTreeMap::new();
    let mut seen = HashSet::new();
    for Taken { stage, kind, record, .. } in taken {
        // Cells, and stages, of equal ingredients share one execution.
        let Some(record) = record.filter(|record| seen.insert(record.fingerprint)) else {
            continue;
        };
        let key = (*stage, *kind, device(record));
        if !sums.contains_key(&key) {
            order.push(key);
        }
        sums.entry(key).or_default().add(record);
    }
    let entry = |value: Option<f64>| {
        let stat = value.and_then(|value| Stat::of(&[value]));
        Entry { note: stat.is_none().then_some(0), stat, expected: 1, ..Entry::default() }
    };
    let rows: Vec<Row> = order
        .iter()
        .map(|key @ (stage, kind, device)| {
            let Sums { runs, items, values } = &sums[key];
            let names = [stage, kind, device].map(|label| (*label).to_owned());
            Row {
                group: None,
                labels: names.into_iter().chain([runs, items].map(usize::to_string)).collect(),
                entries: values.map(entry).to_vec(),
            }
        })
        .collect();
    let is_partial = rows.iter().flat_map(|row| &row.entries).any(|entry| entry.note.is_some());
    let notes = is_partial.then(|| NOT_RECORDED.to_owned()).into_iter();
    ResultTable {
        name: "compute".to_owned(),
        title: Some("What each stage took in all".to_owned()),
        row_axes: ["stage", "kind", "device", "runs", "items"].map(str::to_owned).to_vec(),
        column_axis: None,
        columns: COLUMNS.map(str::to_owned).to_vec(),
        average: None,
        spread: Spread::Sd,
        reference: None,
        blocks: vec![Block {
            value: "sum over runs (the greatest peak)".to_owned(),
            lower_is_better: false,
            rows,
        }],
        notes: notes.chain(whose_peak(taken)).collect(),
    }
}

/// What a record was computed on: the card's name, where that is known.
fn device(record: &Record) -> &str {
    record.card.as_deref().unwrap_or(&record.device)
}

/// Whose memory the peaks are, if there are any.
fn whose_peak(taken: &[Taken<'_>]) -> Option<String> {
    let measured = taken.iter().filter_map(|taken| taken.record);
    let (mut host, mut card) = (false, false);
    for record in measured.filter(|record| record.peak_memory.is_some()) {
        let is_host = record.device == "cpu";
        (host, card) = (host || is_host, card || !is_host);
    }
    let of_host = "of the whole process, what it kept and stages beside included";
    let of_card = "of the whole card, other programs included";
    match (host, card) {
        (true, true) => {
            Some(format!("a peak on the CPU is that {of_host}; on a GPU, that {of_card}"))
        }
        (true, false) => Some(format!("a peak of memory is that {of_host}")),
        (false, true) => Some(format!("a peak of memory is that {of_card}")),
        (false, false) => None,
    }
}

const NOT_RECORDED: &str = "not told by the system, or not recorded by the version that ran it";

/// Seconds as finely as a clock told them: what a sum of decimals adds behind that is no time.
fn to_nanoseconds(secs: f64) -> f64 {
    (secs * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests;
