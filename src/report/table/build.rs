//! Which score stands where.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{BASELINE, Block, Entry, Mark, ReferenceNumbers, ResultTable, Row, Score, Stat};
use crate::config::{Cell, Sweep, Table, pipeline::plain};

/// Arranges scores as a table asks.
///
/// Axes varied one at a time give one group of rows each, the others at their baseline; a baseline
/// that is in none of their lists has rows of its own, first. Axes of
/// the grid give the product of their values, also those that the table does not mention: leaving
/// one out would mix its values. `average` joins its values in one entry.
pub fn build(
    table: &Table,
    sweep: &Sweep,
    scores: &[Score],
    reference: Option<&ReferenceNumbers>,
) -> ResultTable {
    let layout = Layout::of(table, sweep);
    let index = index_scores(scores);
    let mut notes = Vec::new();
    let blocks = table
        .values
        .iter()
        .enumerate()
        .map(|(position, (stage, metric))| {
            let cx = BlockContext {
                sweep,
                stage,
                metric,
                index: &index,
                reference,
                main: position == 0,
            };
            cx.build(&layout, &mut notes)
        })
        .collect();
    ResultTable {
        name: table.name.clone(),
        title: table.title.clone(),
        row_axes: layout.row_axes,
        column_axis: table.columns.clone(),
        columns: layout.columns.iter().map(|(label, _)| label.clone()).collect(),
        average: table.average.clone(),
        reference: table.reference.as_ref().map(|reference| reference.source.clone()),
        blocks,
        notes,
    }
}

/// The assignments of axes that rows and columns stand for.
struct Layout {
    row_axes: Vec<String>,
    rows: Vec<RowKey>,
    columns: Vec<(String, Cell)>,
}

struct RowKey {
    group: Option<String>,
    labels: Vec<String>,
    cell: Cell,
}

impl Layout {
    fn of(table: &Table, sweep: &Sweep) -> Self {
        let is_row = |axis: &String| {
            table.columns.as_ref() != Some(axis) && table.average.as_ref() != Some(axis)
        };
        let product: Vec<_> = sweep.grid.iter().filter(|(axis, _)| is_row(axis)).collect();
        let varied: Vec<_> = table
            .rows
            .iter()
            .filter(|axis| is_row(axis))
            .filter_map(|axis| sweep.one_at_a_time.iter().find(|(name, _)| name == axis))
            .collect();

        let mut row_axes: Vec<String> = product.iter().map(|(axis, _)| axis.clone()).collect();
        if !varied.is_empty() {
            row_axes.push("value".to_owned());
        }

        let bases = product_cells(&product);
        let mut rows = Vec::new();
        if varied.is_empty() {
            rows.extend(bases.iter().map(|base| RowKey {
                group: None,
                labels: product.iter().map(|(axis, _)| plain(&base[axis])).collect(),
                cell: with_baseline(base, sweep, None),
            }));
        }
        let labels_of = |base: &Cell, value: String| {
            product.iter().map(|(axis, _)| plain(&base[axis])).chain([value]).collect()
        };
        let shows_baseline =
            |(axis, values): &(String, Vec<Value>)| values.contains(&sweep.baseline[axis]);
        if !varied.is_empty() && !varied.iter().any(|axis| shows_baseline(axis)) {
            rows.extend(bases.iter().map(|base| RowKey {
                group: Some(BASELINE.to_owned()),
                labels: labels_of(base, baseline_label(&varied, sweep)),
                cell: with_baseline(base, sweep, None),
            }));
        }
        for (axis, values) in &varied {
            for base in &bases {
                for value in values {
                    let mut cell = with_baseline(base, sweep, Some(axis));
                    cell.insert(axis.clone(), value.clone());
                    let labels = labels_of(base, plain(value));
                    rows.push(RowKey { group: Some(axis.clone()), labels, cell });
                }
            }
        }

        let columns = table.columns.as_ref().and_then(|axis| {
            let mut axes = sweep.grid.iter().chain(&sweep.one_at_a_time);
            let (_, values) = axes.find(|(name, _)| name == axis)?;
            Some(
                values
                    .iter()
                    .map(|v| (plain(v), Cell::from([(axis.clone(), v.clone())])))
                    .collect(),
            )
        });
        Self {
            row_axes,
            rows,
            columns: columns.unwrap_or_else(|| vec![(String::new(), Cell::new())]),
        }
    }
}

/// `rank=32, modules=qkvo`.
fn baseline_label(varied: &[&(String, Vec<Value>)], sweep: &Sweep) -> String {
    let values = varied.iter().map(|(axis, _)| format!("{axis}={}", plain(&sweep.baseline[axis])));
    values.collect::<Vec<_>>().join(", ")
}

fn product_cells(axes: &[&(String, Vec<Value>)]) -> Vec<Cell> {
    axes.iter().fold(vec![Cell::new()], |cells, (axis, values)| {
        cells
            .iter()
            .flat_map(|cell| {
                values.iter().map(move |value| {
                    let mut cell = cell.clone();
                    cell.insert(axis.clone(), value.clone());
                    cell
                })
            })
            .collect()
    })
}

fn with_baseline(base: &Cell, sweep: &Sweep, except: Option<&str>) -> Cell {
    let mut cell = base.clone();
    for (axis, value) in &sweep.baseline {
        if Some(axis.as_str()) != except {
            cell.entry(axis.clone()).or_insert_with(|| value.clone());
        }
    }
    cell
}

/// Scores by stage and by their cell's canonical text.
type Index<'a> = HashMap<&'a str, HashMap<String, &'a Score>>;

fn index_scores(scores: &[Score]) -> Index<'_> {
    let mut index: Index<'_> = HashMap::new();
    for score in scores {
        index.entry(&score.stage).or_default().insert(cell_key(&score.cell), score);
    }
    index
}

fn cell_key(cell: &Cell) -> String {
    serde_json::to_string(cell).expect("a map with text keys is valid JSON")
}

struct BlockContext<'a> {
    sweep: &'a Sweep,
    stage: &'a str,
    metric: &'a str,
    index: &'a Index<'a>,
    reference: Option<&'a ReferenceNumbers>,
    main: bool,
}

impl BlockContext<'_> {
    fn build(&self, layout: &Layout, notes: &mut Vec<String>) -> Block {
        let mut rows: Vec<Row> = Vec::with_capacity(layout.rows.len());
        for key in &layout.rows {
            let entries = layout
                .columns
                .iter()
                .map(|(_, column)| {
                    let mut wanted = key.cell.clone();
                    wanted.extend(column.clone());
                    self.entry(&wanted, notes)
                })
                .collect();
            rows.push(Row { group: key.group.clone(), labels: key.labels.clone(), entries });
        }
        let lower_is_better = lower_is_better(self.metric);
        for column in 0..layout.columns.len() {
            mark(&mut rows, column, lower_is_better);
        }
        Block { value: format!("{}.{}", self.stage, self.metric), lower_is_better, rows }
    }

    fn entry(&self, wanted: &Cell, notes: &mut Vec<String>) -> Entry {
        let scores = self.scores(wanted);
        let mut found = Vec::new();
        let mut missing = BTreeSet::new();
        for score in &scores {
            match self.value(*score) {
                Ok(value) => found.push(value),
                Err(reason) => {
                    missing.insert(reason);
                }
            }
        }
        if scores.is_empty() {
            missing.insert("excluded from the sweep".to_owned());
        }
        let note = (!missing.is_empty()).then(|| {
            let mut text = missing.into_iter().collect::<Vec<_>>().join("; ");
            if !found.is_empty() {
                text = format!("{} of {} scores, others: {text}", found.len(), scores.len());
            }
            notes.iter().position(|known| *known == text).unwrap_or_else(|| {
                notes.push(text);
                notes.len() - 1
            })
        });
        Entry {
            stat: Stat::of(&found),
            expected: scores.len(),
            mark: None,
            reference: self.reference.and_then(|r| r.find(wanted, self.metric, self.main)),
            note,
        }
    }

    /// This block's number of a score, or why there is none.
    fn value(&self, score: Option<&Score>) -> Result<f64, String> {
        let score = score.ok_or_else(|| format!("no stage `{}` here", self.stage))?;
        let values = score.values.as_ref().map_err(Clone::clone)?;
        let missing = || format!("`{}` gives no `{}`", self.stage, self.metric);
        values.get(self.metric).copied().ok_or_else(missing)
    }

    /// The distinct scores of all cells of the sweep that agree with `wanted`.
    fn scores(&self, wanted: &Cell) -> Vec<Option<&Score>> {
        let Some(stage) = self.index.get(self.stage) else { return vec![None] };
        let axes: Vec<_> =
            stage.values().next().map(|s| s.cell.keys().collect()).unwrap_or_default();
        let no_sweep = [Cell::new()];
        let cells = if self.sweep.cells.is_empty() { &no_sweep[..] } else { &self.sweep.cells };
        let mut keys = Vec::new();
        for cell in cells {
            if wanted.iter().any(|(axis, value)| cell.get(axis).is_some_and(|v| v != value)) {
                continue;
            }
            let reached = cell.iter().filter(|(axis, _)| axes.contains(axis));
            let key = cell_key(&reached.map(|(a, v)| (a.clone(), v.clone())).collect());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.iter().map(|key| stage.get(key).copied()).collect()
    }
}

/// Metrics are better when larger, but for errors and distances.
fn lower_is_better(metric: &str) -> bool {
    const WORDS: [&str; 9] =
        ["mse", "mae", "rmse", "error", "loss", "lpips", "distance", "absrel", "fid"];
    metric == "abs_rel" || metric.split('_').any(|word| WORDS.contains(&word))
}

/// Marks the best and the second number of a column; equal numbers share a mark.
fn mark(rows: &mut [Row], column: usize, lower_is_better: bool) {
    let mean = |row: &Row| row.entries[column].stat.map(|stat| stat.mean);
    let mut means: Vec<f64> = rows.iter().filter_map(mean).collect();
    means.sort_by(f64::total_cmp);
    means.dedup();
    if !lower_is_better {
        means.reverse();
    }
    // A column with one number has no best.
    if means.len() < 2 {
        return;
    }
    for row in rows {
        let entry = &mut row.entries[column];
        entry.mark = match entry.stat.map(|stat| stat.mean) {
            Some(mean) if mean.total_cmp(&means[0]).is_eq() => Some(Mark::Best),
            Some(mean) if mean.total_cmp(&means[1]).is_eq() => Some(Mark::Second),
            _ => None,
        };
    }
}
