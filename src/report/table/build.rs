//! Which score stands where.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::{
    BASELINE, Block, Entry, Interval, Mark, ReferenceNumbers, ResultTable, Row, Score, Stat,
};
use crate::config::{Cell, Spread, Sweep, Table, pipeline::plain};

/// Arranges scores as a table asks.
///
/// Axes varied one at a time give one group of rows each, the others at their baseline; a baseline
/// that is in none of their lists has rows of its own, first. Axes of
/// the grid give the product of their values, also those that the table does not mention: leaving
/// one out would mix its values. `average` joins the values of its axes in one entry.
pub fn build(
    table: &Table,
    sweep: &Sweep,
    scores: &[Score],
    reference: Option<&ReferenceNumbers>,
) -> ResultTable {
    let layout = Layout::of(table, sweep);
    let axes = layout.axes();
    let mut notes = Vec::new();
    let blocks: Vec<Block> = table
        .values
        .iter()
        .enumerate()
        .map(|(position, (stage, metric))| {
            let cx = BlockContext {
                stage,
                metric,
                scores: Scores::of(stage, scores, sweep, &axes),
                reference,
                main: position == 0,
                table,
            };
            cx.build(&layout, &mut notes)
        })
        .collect();
    notes.extend(few_images(&blocks, table.spread));
    ResultTable {
        name: table.name.clone(),
        title: table.title.clone(),
        row_axes: layout.row_axes,
        column_axis: table.columns.clone(),
        columns: layout.columns.iter().map(|(label, _)| label.clone()).collect(),
        average: (!table.average.is_empty()).then(|| table.average.join(" and ")),
        spread: table.spread,
        reference: table.reference.as_ref().map(|reference| reference.source.clone()),
        blocks,
        notes,
    }
}

/// What to say of intervals over so few images that samples of them are hardly others.
fn few_images(blocks: &[Block], spread: Spread) -> Option<String> {
    const FEW: usize = 5;
    let entries = blocks.iter().flat_map(|block| &block.rows).flat_map(|row| &row.entries);
    let stats = entries.filter_map(|entry| entry.stat);
    let over_images = stats.filter(|stat| stat.interval.is_some() && spread == Spread::Sd);
    let least = over_images.filter_map(|stat| stat.images).filter(|images| *images < FEW).min()?;
    Some(format!("an interval over few images, here {least}, tells little of other images"))
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
        let is_row =
            |axis: &String| table.columns.as_ref() != Some(axis) && !table.average.contains(axis);
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

    /// The axes that rows and columns give a value to, each row the same.
    fn axes(&self) -> BTreeSet<&str> {
        let rows = self.rows.iter().take(1).map(|row| &row.cell);
        let columns = self.columns.iter().take(1).map(|(_, cell)| cell);
        rows.chain(columns).flat_map(Cell::keys).map(String::as_str).collect()
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

/// The scores of a stage, by the values of the axes that rows and columns stand for. All cells of a
/// sweep have the same axes.
struct Scores<'a> {
    axes: Vec<&'a str>,
    /// The distinct scores of all cells of the sweep that have these values; none for a cell
    /// without one. Nothing at all where the stage has no scores.
    by_values: Option<HashMap<String, Vec<Option<&'a Score>>>>,
}

impl<'a> Scores<'a> {
    /// Sorts the scores of a stage by those of `axes` that the sweep has, in one pass over its
    /// cells.
    fn of(stage: &str, scores: &'a [Score], sweep: &Sweep, axes: &BTreeSet<&'a str>) -> Self {
        let no_sweep = [Cell::new()];
        let cells = if sweep.cells.is_empty() { &no_sweep[..] } else { &sweep.cells };
        let axes: Vec<&str> =
            axes.iter().copied().filter(|axis| cells[0].contains_key(*axis)).collect();
        let own: Vec<&Score> = scores.iter().filter(|score| score.stage == stage).collect();
        let Some(first) = own.first() else { return Self { axes, by_values: None } };
        let reached: Vec<&str> = first.cell.keys().map(String::as_str).collect();
        let by_cell: HashMap<String, &Score> =
            own.iter().map(|score| (cell_key(&score.cell, &reached), *score)).collect();
        let mut by_values: HashMap<String, Vec<Option<&Score>>> = HashMap::new();
        let mut seen = HashSet::new();
        for cell in cells {
            let (values, key) = (cell_key(cell, &axes), cell_key(cell, &reached));
            let score = by_cell.get(&key).copied();
            if seen.insert((values.clone(), key)) {
                by_values.entry(values).or_default().push(score);
            }
        }
        Self { axes, by_values: Some(by_values) }
    }

    /// The distinct scores of all cells of the sweep that agree with `wanted`.
    fn find(&self, wanted: &Cell) -> Vec<Option<&'a Score>> {
        let Some(by_values) = &self.by_values else { return vec![None] };
        by_values.get(&cell_key(wanted, &self.axes)).cloned().unwrap_or_default()
    }
}

/// The values of some axes of a cell, as text.
fn cell_key(cell: &Cell, axes: &[&str]) -> String {
    let values: Vec<_> = axes.iter().map(|axis| (axis, cell.get(*axis))).collect();
    serde_json::to_string(&values).expect("text and JSON are valid JSON")
}

/// One score of a metric.
#[derive(Clone, Copy)]
struct Found {
    value: f64,
    interval: Option<Interval>,
    images: Option<usize>,
}

struct BlockContext<'a> {
    stage: &'a str,
    metric: &'a str,
    scores: Scores<'a>,
    reference: Option<&'a ReferenceNumbers>,
    main: bool,
    table: &'a Table,
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
        let columns = if self.table.mark_best { layout.columns.len() } else { 0 };
        for column in 0..columns {
            mark(&mut rows, column, lower_is_better);
        }
        Block { value: format!("{}.{}", self.stage, self.metric), lower_is_better, rows }
    }

    fn entry(&self, wanted: &Cell, notes: &mut Vec<String>) -> Entry {
        let scores = self.scores.find(wanted);
        let mut found = Vec::new();
        let (mut missing, mut remarks) = (BTreeSet::new(), BTreeSet::new());
        for score in &scores {
            match self.value(*score) {
                Ok(value) => {
                    found.push(value);
                    let remark = score.and_then(|score| score.remarks.get(self.metric));
                    remarks.extend(remark.map(String::as_str));
                }
                Err(reason) => {
                    missing.insert(reason);
                }
            }
        }
        if scores.is_empty() {
            missing.insert("excluded from the sweep".to_owned());
        }
        let is_partial = !missing.is_empty() && !found.is_empty();
        let note = (!missing.is_empty() || !remarks.is_empty()).then(|| {
            let mut text = missing.into_iter().collect::<Vec<_>>().join("; ");
            if is_partial {
                let counted = self.table.missing.map(|value| format!(" count as {value}"));
                let counted = counted.unwrap_or_default();
                let (there, all) = (found.len(), scores.len());
                text = format!("{there} of {all} scores, others{counted}: {text}");
            }
            let texts = [text].into_iter().filter(|text| !text.is_empty());
            let text =
                texts.chain(remarks.into_iter().map(str::to_owned)).collect::<Vec<_>>().join("; ");
            notes.iter().position(|known| *known == text).unwrap_or_else(|| {
                notes.push(text);
                notes.len() - 1
            })
        });
        // A cell of which nothing is known stays empty.
        if let Some(value) = self.table.missing.filter(|_| !found.is_empty()) {
            found.resize(scores.len(), Found { value, interval: None, images: None });
        }
        Entry {
            stat: self.stat(&found),
            expected: scores.len(),
            mark: None,
            reference: self.reference.and_then(|r| r.find(wanted, self.metric, self.main)),
            note,
        }
    }

    /// The mean of some scores with its spread: an interval over images of a single one, else as
    /// the table asks.
    fn stat(&self, found: &[Found]) -> Option<Stat> {
        let values: Vec<f64> = found.iter().map(|found| found.value).collect();
        let images = found.iter().filter_map(|found| found.images).reduce(|a, b| a + b);
        let stat = Stat { images, ..Stat::of(&values)? };
        Some(match (self.table.spread, found) {
            (Spread::Bootstrap, _) => {
                Stat { sd: None, interval: Interval::of_mean(&values), ..stat }
            }
            (Spread::Sd, [found]) => Stat { interval: found.interval, ..stat },
            (Spread::Sd, _) => stat,
        })
    }

    /// This block's number of a score and its interval, or why there is none.
    fn value(&self, score: Option<&Score>) -> Result<Found, String> {
        let score = score.ok_or_else(|| format!("no stage `{}` here", self.stage))?;
        let values = score.values.as_ref().map_err(Clone::clone)?;
        let missing = || format!("`{}` gives no `{}`", self.stage, self.metric);
        let value = values.get(self.metric).copied().ok_or_else(missing)?;
        let interval = score.intervals.get(self.metric).copied();
        Ok(Found { value, interval, images: score.images })
    }
}

/// Metrics are better when larger, but for errors and distances.
fn lower_is_better(metric: &str) -> bool {
    const WORDS: [&str; 9] =
        ["mse", "mae", "rmse", "error", "loss", "lpips", "distance", "absrel", "fid"];
    metric.ends_with("abs_rel") || metric.split('_').any(|word| WORDS.contains(&word))
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
