//! The columns of a table, from CSV or Parquet.

use std::path::Path;

use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row as Record},
    schema::types::Type,
};
use serde::Deserialize;

use super::{FORM, Row};
use crate::data::{DataError, guard::guarded};

/// The columns that are read, the first of which must be there.
const COLUMNS: [&str; 4] = ["input", "target", "name", "split"];

/// What the library finds by a panic.
const DAMAGED: &str = "no Parquet file that can be read: it is damaged";

/// The rows of a file; Parquet is known by its ending `.parquet`.
pub(super) fn read(file: &str, bytes: Vec<u8>) -> Result<Vec<Row>, DataError> {
    let ending = Path::new(file).extension();
    let rows = if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) {
        guarded(|| from_parquet(bytes)).unwrap_or_else(|| Err(DAMAGED.to_owned()))
    } else {
        from_csv(&bytes)
    };
    rows.map_err(|text| DataError::failed(format!("`{file}`: {text}")).with_help(FORM))
}

#[derive(Deserialize)]
struct Line {
    input: String,
    target: Option<String>,
    name: Option<String>,
    split: Option<String>,
}

fn from_csv(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let headers = reader.headers().map_err(|error| error.to_string())?.clone();
    not_misspelt(&headers.iter().collect::<Vec<_>>())?;
    let rows = reader.records().map(|record| {
        let record = record.map_err(|error| error.to_string())?;
        let number = record.position().map_or(0, |place| line_of(bytes, place));
        let line: Line = record.deserialize(Some(&headers)).map_err(|error| error.to_string())?;
        let Line { input, target, name, split } = line;
        Ok(Row::new(format!("line {number}"), [Some(input), target, name, split]))
    });
    rows.collect()
}

/// The line of a record, counted from 1; the place before it may be that of empty lines.
fn line_of(bytes: &[u8], place: &csv::Position) -> u64 {
    let rest = bytes.get(place.byte() as usize..).unwrap_or_default();
    let empty = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    place.line() + empty.filter(|byte| **byte == b'\n').count() as u64
}

/// Refuses a column that nothing would read but whose name is that of one that is read, save for
/// case, spaces or one letter: rows for tests would be learnt from.
fn not_misspelt(names: &[&str]) -> Result<(), String> {
    for name in names.iter().filter(|name| !COLUMNS.contains(name)) {
        let plain = name.trim().to_lowercase();
        let meant = COLUMNS.into_iter().find(|column| strsim::osa_distance(&plain, column) <= 1);
        let Some(meant) = meant.filter(|column| !names.contains(column)) else {
            continue;
        };
        return Err(format!(
            "the column `{name}` is not read, and there is no `{meant}`, which it may be meant for: call it \
             `{meant}`, or something less like it"
        ));
    }
    Ok(())
}

fn from_parquet(bytes: Vec<u8>) -> Result<Vec<Row>, String> {
    let wrong = |error: ParquetError| format!("no Parquet file that can be read: {error}");
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(wrong)?;
    let schema = reader.metadata().file_metadata().schema();
    // Other columns, pictures perhaps, are not even decompressed.
    let fields = schema.get_fields().iter().filter(|field| COLUMNS.contains(&field.name()));
    let columns: Vec<_> = fields.cloned().collect();
    not_misspelt(&schema.get_fields().iter().map(|field| field.name()).collect::<Vec<_>>())?;
    if !columns.iter().any(|column| column.name() == COLUMNS[0]) {
        return Err("there is no column `input`".to_owned());
    }
    let wanted = Type::group_type_builder(schema.name()).with_fields(columns).build();
    let records = reader.get_row_iter(Some(wanted.map_err(wrong)?)).map_err(wrong)?;
    records.zip(1..).map(|(record, number)| row(record.map_err(wrong)?, number)).collect()
}

fn row(record: Record, number: usize) -> Result<Row, String> {
    let place = format!("row {number}");
    let mut cells = [const { None }; 4];
    for (column, field) in record.into_columns() {
        let Some(at) = COLUMNS.iter().position(|name| *name == column) else { continue };
        cells[at] = match field {
            Field::Str(text) => Some(text),
            Field::Null => None,
            // Text of writers that do not say so.
            Field::Bytes(bytes) => Some(
                String::from_utf8(bytes.data().to_vec())
                    .map_err(|_| format!("`{column}` of {place} is no text"))?,
            ),
            other => return Err(format!("`{column}` of {place} is `{other}`, not text")),
        };
    }
    Ok(Row::new(place, cells))
}

impl Row {
    /// Cells in the order of [`COLUMNS`].
    fn new(place: String, cells: [Option<String>; 4]) -> Self {
        let [input, target, name, split] = cells.map(|cell| cell.filter(|text| !text.is_empty()));
        Self { place, input, target, name, split }
    }
}
