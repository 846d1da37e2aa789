//! Result tables: scores of cells, arranged by `[tables.<name>]`.
//!
//! [`build`] is a pure function from the sweep, the scores and the published numbers to a
//! [`ResultTable`]; the files beside this one render it.

mod build;
mod data;
mod markup;
mod reference;
mod text;

pub use build::build;
pub use reference::{ReferenceError, ReferenceNumbers};

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::Serialize;

use crate::{
    config::{Cell, Spread},
    metrics::bootstrap::Bootstrap,
};

/// How tables are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal
    #[default]
    Text,
    /// For a README or a pull request
    Markdown,
    /// One line per cell, for other programs
    Csv,
    /// One document, for other programs
    Json,
    /// For a paper; needs the package `booktabs`
    Latex,
}

/// The group of rows of which nothing is varied.
const BASELINE: &str = "baseline";

/// What is known of one metric stage in one cell.
#[derive(Clone, Debug)]
pub struct Score {
    /// The stage's name.
    pub stage: String,
    /// The axes that reach it.
    pub cell: Cell,
    /// Its metrics by name, or why there are none.
    pub values: Result<BTreeMap<String, f64>, String>,
    /// The intervals of those that have one.
    pub intervals: BTreeMap<String, Interval>,
    /// How many images were scored.
    pub images: Option<usize>,
    /// What is to be known of single metrics, by name.
    pub remarks: BTreeMap<String, String>,
}

/// A table with numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultTable {
    /// The table's name in the file.
    pub name: String,
    /// Its caption.
    pub title: Option<String>,
    /// The axes that label the rows that are a product, then `value` where one is varied at a time.
    pub row_axes: Vec<String>,
    /// The axis of the columns.
    pub column_axis: Option<String>,
    /// The columns' values; without a column axis their names, one empty text where there is one
    /// column.
    pub columns: Vec<String>,
    /// The axes that are averaged, as one text.
    pub average: Option<String>,
    /// How the spread over them is told.
    pub spread: Spread,
    /// What the published numbers are.
    pub reference: Option<String>,
    /// One block per value of the table, the main one first.
    pub blocks: Vec<Block>,
    /// Why cells are empty or partial, by [`Entry::note`]; those that no entry names concern the
    /// whole table.
    pub notes: Vec<String>,
}

impl ResultTable {
    /// Whether any cell has a number of our own.
    pub fn has_values(&self) -> bool {
        self.entries().any(|entry| entry.stat.is_some())
    }

    /// How the numbers are to be read: what they are means over, and what stands in parentheses.
    fn reading(&self) -> Vec<String> {
        let stats = || self.entries().filter_map(|entry| entry.stat);
        let averaged = self.average.as_deref().filter(|_| stats().any(|stat| stat.n > 1));
        let numbers = || stats().map(|stat| stat.n);
        let scores = match (numbers().min(), numbers().max()) {
            (Some(least), Some(most)) if least < most => format!("{least} to {most} scores"),
            (_, most) => format!("{} scores", most.unwrap_or_default()),
        };
        let mean = averaged.map(|axes| match self.spread {
            Spread::Sd => format!("mean ± sd over {axes} ({scores})"),
            Spread::Bootstrap => format!("mean over {axes} ({scores})"),
        });
        let mut levels = stats().filter_map(|stat| Some(stat.interval?.level));
        let interval = levels.next().map(|level| {
            let over = averaged.filter(|_| self.spread == Spread::Bootstrap).unwrap_or("images");
            let is_one = levels.all(|other| other.total_cmp(&level).is_eq());
            in_parentheses(is_one.then_some(level), over)
        });
        mean.into_iter().chain(interval).collect()
    }

    /// The notes as they stand below the table, each with its sign or, of the whole table, with
    /// `note:`.
    fn signed_notes(&self) -> impl Iterator<Item = (Cow<'static, str>, &str)> {
        let named = self.named_notes();
        self.notes.iter().enumerate().map(move |(index, note)| {
            let sign =
                if named.contains(&index) { note_sign(index).into() } else { "note:".into() };
            (sign, note.as_str())
        })
    }

    /// The notes of the whole table.
    fn whole_notes(&self) -> Vec<&str> {
        let named = self.named_notes();
        let notes = self.notes.iter().enumerate().filter(|(index, _)| !named.contains(index));
        notes.map(|(_, note)| note.as_str()).collect()
    }

    fn named_notes(&self) -> BTreeSet<usize> {
        self.entries().filter_map(|entry| entry.note).collect()
    }

    /// What a row stands for: `["rank=32"]`.
    pub fn row_label(&self, row: &Row) -> Vec<String> {
        let last = self.row_axes.len().saturating_sub(1);
        let names = self.row_axes.iter().enumerate().map(|(position, axis)| match &row.group {
            Some(group) if position == last => group,
            _ => axis,
        });
        names
            .zip(&row.labels)
            .map(|(axis, value)| match axis.as_str() {
                BASELINE => value.clone(),
                axis => format!("{axis}={value}"),
            })
            .collect()
    }

    /// The table as people read it: values that are one number each stand below each other.
    fn gathered(&self) -> Cow<'_, Self> {
        let is_number = |block: &Block| match &block.rows[..] {
            [row] => row.labels.is_empty() && row.entries.len() == 1,
            _ => false,
        };
        if self.blocks.len() < 2 || self.column_axis.is_some() || !self.blocks.iter().all(is_number)
        {
            return Cow::Borrowed(self);
        }
        let row = |block: &Block| Row {
            labels: vec![format!("{}{}", block.value, block.direction())],
            ..block.rows[0].clone()
        };
        let rows = self.blocks.iter().map(row).collect();
        let blocks = vec![Block { value: String::new(), lower_is_better: false, rows }];
        Cow::Owned(Self { row_axes: vec!["score".to_owned()], blocks, ..self.clone() })
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.blocks.iter().flat_map(|block| &block.rows).flat_map(|row| &row.entries)
    }

    fn has_mark(&self, mark: Mark) -> bool {
        self.entries().any(|entry| entry.mark == Some(mark))
    }

    fn has_references(&self) -> bool {
        self.entries().any(|entry| entry.reference.is_some())
    }
}

/// All cells of one metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Block {
    /// `score.f1`; empty where the rows are of different values.
    pub value: String,
    /// Whether a smaller number is better.
    pub lower_is_better: bool,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Block {
    fn direction(&self) -> &'static str {
        if self.lower_is_better { " (lower is better)" } else { "" }
    }
}

/// One row of a block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The axis varied in this row's group, or `baseline`, if rows are grouped.
    pub group: Option<String>,
    /// One label per row axis.
    pub labels: Vec<String>,
    /// One entry per column.
    pub entries: Vec<Entry>,
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    /// Our number.
    pub stat: Option<Stat>,
    /// How many scores the number should be made of.
    pub expected: usize,
    /// Its place in the column.
    pub mark: Option<Mark>,
    /// The published number, as published.
    pub reference: Option<String>,
    /// Index into [`ResultTable::notes`] of why something is missing.
    pub note: Option<usize>,
}

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The share of samples within.
    pub level: f64,
}

impl Interval {
    /// An interval; none without width, which is what samples of equal values give and says nothing
    /// of other values.
    pub fn of(low: f64, high: f64, level: f64) -> Option<Self> {
        (low < high).then_some(Self { low, high, level })
    }

    /// That of the mean of some scores.
    fn of_mean(scores: &[f64]) -> Option<Self> {
        let rule = Bootstrap::default();
        let [low, high] = rule.of_mean(scores)?;
        Self::of(low, high, rule.level)
    }
}

impl std::fmt::Display for Interval {
    /// `44.1–54.0`; with `to` where a minus would look like the dash.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dash = if self.low < 0.0 { " to " } else { "–" };
        write!(f, "{}{dash}{}", rough(self.low), rough(self.high))
    }
}

/// A mean and its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stat {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation, from two scores on.
    pub sd: Option<f64>,
    /// Number of scores.
    pub n: usize,
    /// The interval: of one score over its images, or of a mean where the table asks for it.
    pub interval: Option<Interval>,
    /// The images of all these scores, those of several scores counted for each.
    pub images: Option<usize>,
}

impl Stat {
    /// Mean and sample standard deviation of some scores.
    pub fn of(scores: &[f64]) -> Option<Self> {
        let n = scores.len();
        if n == 0 {
            return None;
        }
        let mean = scores.iter().sum::<f64>() / n as f64;
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Self { mean, sd, n, interval: None, images: None })
    }

    /// The number and its spread: `49.20 ± 2.100` or `49.20 (44.1–54.0)`.
    fn text(&self) -> String {
        let mean = number(self.mean);
        match (self.interval, self.sd) {
            (Some(interval), _) => format!("{mean} ({interval})"),
            (None, Some(sd)) => format!("{mean} ± {}", number(sd)),
            (None, None) => mean,
        }
    }
}

/// A number's place among those of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The best.
    Best,
    /// The next.
    Second,
}

/// Writes tables in a format.
pub fn render(tables: &[ResultTable], format: Format) -> String {
    match format {
        Format::Csv => data::csv(tables),
        Format::Json => data::json(tables),
        Format::Text => join(tables.iter().map(|table| text::text(&table.gathered()))),
        Format::Markdown => join(tables.iter().map(|table| markup::markdown(&table.gathered()))),
        Format::Latex => join(tables.iter().map(|table| markup::latex(&table.gathered()))),
    }
}

fn join(tables: impl Iterator<Item = String>) -> String {
    tables.collect::<Vec<_>>().join("\n")
}

/// A number with three digits after the point, or four figures when it is large.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.1}"),
        medium if medium >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What stands in parentheses: intervals of one level, or of several.
pub(crate) fn in_parentheses(level: Option<f64>, over: &str) -> String {
    let percent = level.map(|level| format!("{} % ", (level * 1e4).round() / 100.0));
    format!("in parentheses: {}interval, bootstrap over {over}", percent.unwrap_or_default())
}

/// The end of an interval, in about three figures.
fn rough(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `(a)`, `(b)`, ... for a note.
fn note_sign(note: usize) -> String {
    let letter = char::from(b'a' + (note % 26) as u8);
    if note < 26 { format!("({letter})") } else { format!("({letter}{})", note / 26) }
}

#[cfg(test)]
mod tests;
