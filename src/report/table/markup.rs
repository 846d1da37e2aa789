//! Tables for documents.

use std::fmt::Write as _;

use super::{Block, Entry, Mark, ResultTable, Row, note_sign};

/// A caption and a table per value; best bold, second underlined.
pub(super) fn markdown(table: &ResultTable) -> String {
    let mut out = format!("**{}**\n", markdown_text(table.title.as_deref().unwrap_or(&table.name)));
    for block in &table.blocks {
        let grouped = is_grouped(block);
        let header = header(table, grouped);
        let labels = header.len() - table.columns.len();
        out.push('\n');
        if !block.value.is_empty() {
            let _ = writeln!(out, "`{}`{}\n", block.value, block.direction());
        }
        let _ = writeln!(
            out,
            "| {} |",
            header.iter().map(|h| markdown_text(h)).collect::<Vec<_>>().join(" | ")
        );
        let rules = (0..header.len()).map(|column| if column < labels { "---" } else { "---:" });
        let _ = writeln!(out, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        for (row, group) in with_groups(block, grouped) {
            let labels = group.iter().chain(&row.labels).map(|label| markdown_text(label));
            let cells = labels.chain(row.entries.iter().map(markdown_entry));
            let _ = writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
    let mut legend: Vec<_> = table.reading().iter().map(|part| markdown_text(part)).collect();
    if table.has_mark(Mark::Best) {
        legend.push("**best** and <u>second</u> of the column".to_owned());
    }
    if let Some(source) = table.reference.as_ref().filter(|_| table.has_references()) {
        legend.push(format!("in brackets: {}", markdown_text(source)));
    }
    if !legend.is_empty() {
        let _ = writeln!(out, "\n{}.", legend.join("; "));
    }
    for (sign, note) in table.signed_notes() {
        let _ = writeln!(out, "\n{sign} {}", markdown_note(note));
    }
    out
}

fn markdown_entry(entry: &Entry) -> String {
    let text = entry.stat.map_or("–".to_owned(), |stat| stat.text());
    let mut text = match entry.mark {
        Some(Mark::Best) => format!("**{text}**"),
        Some(Mark::Second) => format!("<u>{text}</u>"),
        None => text,
    };
    if let Some(note) = entry.note {
        let _ = write!(text, " {}", note_sign(note));
    }
    if let Some(reference) = &entry.reference {
        let _ = write!(text, " [{}]", markdown_text(reference));
    }
    text
}

/// Escapes what Markdown would take as markup.
fn markdown_text(text: &str) -> String {
    escape(text, |c| {
        matches!(c, '|' | '*' | '_' | '`' | '\\' | '<' | '[').then(|| format!("\\{c}"))
    })
}

/// A `table` environment per value, with the rules of `booktabs`.
pub(super) fn latex(table: &ResultTable) -> String {
    let mut out = String::new();
    for block in &table.blocks {
        let grouped = is_grouped(block);
        let header = header(table, grouped);
        let labels = header.len() - table.columns.len();
        let title = latex_text(table.title.as_deref().unwrap_or(&table.name));
        let columns = "l".repeat(labels) + &"r".repeat(table.columns.len());
        let _ = writeln!(out, "\\begin{{table}}\n\\centering");
        let _ = writeln!(out, "\\caption{{{title}{}}}", latex_caption(table, block));
        let _ = writeln!(out, "\\begin{{tabular}}{{{columns}}}\n\\toprule");
        let header: Vec<_> = header.iter().map(|h| latex_text(h)).collect();
        let _ = writeln!(out, "{} \\\\\n\\midrule", header.join(" & "));
        for (position, (row, group)) in with_groups(block, grouped).enumerate() {
            if position > 0 && group.as_ref().is_some_and(|group| !group.is_empty()) {
                let _ = writeln!(out, "\\midrule");
            }
            let labels = group.iter().chain(&row.labels).map(|label| latex_text(label));
            let cells = labels.chain(row.entries.iter().map(latex_entry));
            let _ = writeln!(out, "{} \\\\", cells.collect::<Vec<_>>().join(" & "));
        }
        let _ = writeln!(out, "\\bottomrule\n\\end{{tabular}}");
        for (sign, note) in table.signed_notes() {
            let _ = writeln!(out, "\n\\footnotesize {sign} {}", latex_note(note));
        }
        let _ = writeln!(out, "\\end{{table}}");
    }
    out
}

/// What follows the title: the value, and how its numbers are to be read.
fn latex_caption(table: &ResultTable, block: &Block) -> String {
    let mut parts = Vec::new();
    if !block.value.is_empty() {
        parts.push(format!("\\texttt{{{}}}{}", latex_text(&block.value), block.direction()));
    }
    parts.extend(table.reading().iter().map(|part| latex_text(part)));
    if let Some(source) = table.reference.as_ref().filter(|_| table.has_references()) {
        parts.push(format!("in brackets: {}", latex_text(source)));
    }
    let between = if block.value.is_empty() { "," } else { "." };
    if parts.is_empty() { String::new() } else { format!("{between} {}.", parts.join(", ")) }
}

fn latex_entry(entry: &Entry) -> String {
    let text = entry.stat.map_or("--".to_owned(), |stat| latex_text(&stat.text()));
    let mut text = match entry.mark {
        Some(Mark::Best) => format!("\\textbf{{{text}}}"),
        Some(Mark::Second) => format!("\\underline{{{text}}}"),
        None => text,
    };
    if let Some(note) = entry.note {
        let _ = write!(text, " {}", note_sign(note));
    }
    if let Some(reference) = &entry.reference {
        let _ = write!(text, " [{}]", latex_text(reference));
    }
    text
}

/// Escapes what LaTeX would take as a command.
fn latex_text(text: &str) -> String {
    escape(text, |c| match c {
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => Some(format!("\\{c}")),
        '\\' => Some("\\textbackslash{}".to_owned()),
        '~' => Some("\\textasciitilde{}".to_owned()),
        '^' => Some("\\textasciicircum{}".to_owned()),
        '±' => Some("$\\pm$".to_owned()),
        '–' => Some("--".to_owned()),
        _ => None,
    })
}

fn markdown_note(note: &str) -> String {
    with_code(note, markdown_text, |code| format!("`{code}`"))
}

fn latex_note(note: &str) -> String {
    with_code(note, latex_text, |code| format!("\\texttt{{{}}}", latex_text(code)))
}

/// A text with what stands between backticks as code, if they come in pairs.
fn with_code(text: &str, plain: impl Fn(&str) -> String, code: impl Fn(&str) -> String) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return plain(text);
    }
    let part = |(i, part): (usize, &&str)| if i % 2 == 0 { plain(part) } else { code(part) };
    parts.iter().enumerate().map(part).collect()
}

fn escape(text: &str, special: impl Fn(char) -> Option<String>) -> String {
    text.chars().map(|c| special(c).unwrap_or_else(|| c.to_string())).collect()
}

fn header(table: &ResultTable, grouped: bool) -> Vec<String> {
    let mut header: Vec<String> = grouped.then(|| "varied".to_owned()).into_iter().collect();
    header.extend(table.row_axes.iter().cloned());
    header.extend(table.columns.iter().map(|value| match &table.column_axis {
        Some(axis) => format!("{axis} = {value}"),
        None if value.is_empty() => "value".to_owned(),
        None => value.clone(),
    }));
    header
}

fn is_grouped(block: &Block) -> bool {
    block.rows.iter().any(|row| row.group.is_some())
}

/// Each row with its group's name, which only the first of the group shows.
fn with_groups(block: &Block, grouped: bool) -> impl Iterator<Item = (&Row, Option<String>)> {
    let mut last = None;
    block.rows.iter().map(move |row| {
        let first = last != row.group.as_ref();
        last = row.group.as_ref();
        let name = row.group.clone().filter(|_| first).unwrap_or_default();
        (row, grouped.then_some(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_notes_are_code_and_all_else_is_text() {
        let note = "at `edges.low_*`, 5 % of <all>";
        assert_eq!(markdown_note(note), "at `edges.low_*`, 5 % of \\<all>");
        assert_eq!(latex_note(note), "at \\texttt{edges.low\\_*}, 5 \\% of <all>");
        // No pairs, no code.
        assert_eq!(markdown_note("a ` b"), "a \\` b");
    }
}
