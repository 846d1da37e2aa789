//! Published numbers, read from a CSV file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::config::{Cell, pipeline::plain};

/// The rows of a reference file.
///
/// A column per axis, `value`, and optionally `metric`. An empty field stands for any value of its
/// axis. Without `metric` the numbers belong to the table's main value.
#[derive(Clone, Debug, Default)]
pub struct ReferenceNumbers {
    rows: Vec<ReferenceRow>,
}

#[derive(Clone, Debug)]
struct ReferenceRow {
    axes: BTreeMap<String, String>,
    metric: Option<String>,
    value: String,
}

/// Why published numbers could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The file is missing or no CSV.
    #[error("cannot read the reference numbers in `{path}`: {source}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// The file has no column `value`.
    #[error("the reference numbers in `{path}` have no column `value`")]
    NoValueColumn {
        /// The file.
        path: PathBuf,
    },
}

impl ReferenceNumbers {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ReferenceError> {
        let fail = |source| ReferenceError::Csv { path: path.to_owned(), source };
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(fail)?;
        let headers = reader.headers().map_err(fail)?.clone();
        if !headers.iter().any(|header| header == "value") {
            return Err(ReferenceError::NoValueColumn { path: path.to_owned() });
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(fail)?;
            let mut row =
                ReferenceRow { axes: BTreeMap::new(), metric: None, value: String::new() };
            for (header, field) in headers.iter().zip(&record) {
                match header {
                    "value" => field.clone_into(&mut row.value),
                    "metric" => row.metric = Some(field.to_owned()).filter(|name| !name.is_empty()),
                    _ if field.is_empty() => {}
                    axis => {
                        row.axes.insert(axis.to_owned(), field.to_owned());
                    }
                }
            }
            rows.push(row);
        }
        Ok(Self { rows })
    }

    /// The published number of a cell.
    pub(super) fn find(&self, cell: &Cell, metric: &str, main: bool) -> Option<String> {
        let row = self.rows.iter().find(|row| {
            let fits = match &row.metric {
                Some(name) => name == metric,
                None => main,
            };
            fits && row
                .axes
                .iter()
                .all(|(axis, text)| cell.get(axis).is_some_and(|value| plain(value) == *text))
        })?;
        Some(row.value.clone()).filter(|value| !value.is_empty())
    }
}
