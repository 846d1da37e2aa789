//! Tables for a terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table as Grid, TableStyle};

use super::{Entry, Mark, ResultTable, note_sign};

/// Three rules, as in a printed table.
const RULES: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// A block per value, then the legend.
pub(super) fn text(table: &ResultTable) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", table.title.as_deref().unwrap_or(&table.name));
    for (position, block) in table.blocks.iter().enumerate() {
        if position > 0 {
            out.push('\n');
        }
        if !block.value.is_empty() {
            let _ = writeln!(out, "{}{}", block.value, block.direction());
        }
        let grouped = block.rows.iter().any(|row| row.group.is_some());
        let mut grid = Grid::new();
        grid.force_no_tty()
            .load_style(RULES)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(header(table, grouped));
        let mut last_group = None;
        for row in &block.rows {
            let mut cells = Vec::new();
            if grouped {
                let first = last_group != row.group.as_ref();
                cells.push(row.group.clone().filter(|_| first).unwrap_or_default());
                last_group = row.group.as_ref();
            }
            cells.extend(row.labels.iter().cloned());
            cells.extend(row.entries.iter().map(entry));
            grid.add_row(cells);
        }
        let labels = table.row_axes.len() + usize::from(grouped);
        for column in grid.column_iter_mut().skip(labels) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in grid.lines() {
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out.push_str(&legend(table));
    out
}

fn header(table: &ResultTable, grouped: bool) -> Vec<String> {
    let mut header: Vec<String> = grouped.then(|| "varied".to_owned()).into_iter().collect();
    header.extend(table.row_axes.iter().cloned());
    header.extend(table.columns.iter().map(|value| match &table.column_axis {
        Some(axis) => format!("{axis} = {value}"),
        None => value.clone(),
    }));
    header
}

fn entry(entry: &Entry) -> String {
    let mut text = match entry.stat {
        None => "–".to_owned(),
        Some(stat) => stat.text(),
    };
    match entry.mark {
        Some(Mark::Best) => text.push('*'),
        Some(Mark::Second) => text.push('°'),
        None => {}
    }
    if let Some(note) = entry.note {
        let _ = write!(text, " {}", note_sign(note));
    }
    if let Some(reference) = &entry.reference {
        let _ = write!(text, " [{reference}]");
    }
    text
}

fn legend(table: &ResultTable) -> String {
    let mut parts = table.reading();
    if table.has_mark(Mark::Best) {
        parts.push("* best, ° second of the column".to_owned());
    }
    if let Some(source) = table.reference.as_ref().filter(|_| table.has_references()) {
        parts.push(format!("[ ] {source}"));
    }
    let mut out = String::new();
    if !parts.is_empty() {
        let _ = writeln!(out, "{}", parts.join("; "));
    }
    for (sign, note) in table.signed_notes() {
        let _ = writeln!(out, "{sign} {note}");
    }
    out
}
