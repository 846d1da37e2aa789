//! Tables for other programs, with all digits.

use serde_json::json;

use super::{Mark, ResultTable};
use crate::report::SCHEMA_VERSION;

/// One line per cell and value. Labels are `axis=value` pairs, so that tables of different axes
/// share a header.
pub(super) fn csv(tables: &[ResultTable]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "table",
        "value",
        "varied",
        "row",
        "column",
        "mean",
        "sd",
        "low",
        "high",
        "n",
        "expected",
        "mark",
        "reference",
        "note",
        "images",
    ];
    writer.write_record(header).expect(IN_MEMORY);
    for table in tables {
        let whole = table.whole_notes();
        for block in &table.blocks {
            for row in &block.rows {
                for (column, entry) in table.columns.iter().zip(&row.entries) {
                    let column = match &table.column_axis {
                        Some(axis) => format!("{axis}={column}"),
                        None => column.clone(),
                    };
                    let text =
                        |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
                    let mark = match entry.mark {
                        Some(Mark::Best) => "best",
                        Some(Mark::Second) => "second",
                        None => "",
                    };
                    let own = entry.note.and_then(|note| table.notes.get(note));
                    let whole = whole.iter().copied().filter(|_| entry.stat.is_some());
                    let notes: Vec<&str> =
                        own.map(String::as_str).into_iter().chain(whole).collect();
                    let images = entry.stat.and_then(|stat| stat.images);
                    let interval = entry.stat.and_then(|stat| stat.interval);
                    writer
                        .write_record([
                            &table.name,
                            &block.value,
                            row.group.as_deref().unwrap_or_default(),
                            &table.row_label(row).join(" "),
                            &column,
                            &text(entry.stat.map(|stat| stat.mean)),
                            &text(entry.stat.and_then(|stat| stat.sd)),
                            &text(interval.map(|interval| interval.low)),
                            &text(interval.map(|interval| interval.high)),
                            &entry.stat.map_or(0, |stat| stat.n).to_string(),
                            &entry.expected.to_string(),
                            mark,
                            entry.reference.as_deref().unwrap_or_default(),
                            &notes.join("; "),
                            &images.map(|images| images.to_string()).unwrap_or_default(),
                        ])
                        .expect(IN_MEMORY);
                }
            }
        }
    }
    String::from_utf8(writer.into_inner().expect(IN_MEMORY)).expect("only text was written")
}

const IN_MEMORY: &str = "writing records of one length to memory cannot fail";

/// The tables as they are.
pub(super) fn json(tables: &[ResultTable]) -> String {
    let document = json!({ "schema_version": SCHEMA_VERSION, "tables": tables });
    serde_json::to_string_pretty(&document).expect("tables are valid JSON") + "\n"
}
