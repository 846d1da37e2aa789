//! TOML text to a tree of values.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

use super::{Data, Entry, Node, Table};
use crate::config::origin::{Layer, Origin};

/// A text that is not TOML, or TOML that a pipeline cannot hold.
#[derive(Clone, Debug)]
pub struct Syntax {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub origin: Origin,
    /// What to do, where the message does not tell.
    pub help: Option<&'static str>,
    /// Whether text without its quotes may be meant.
    pub may_be_text: bool,
}

/// Parses a whole file; on errors, all that the parser finds.
pub fn parse_document(text: &str, file: u32, layer: Layer) -> Result<Node, Vec<Syntax>> {
    let mut reader = Reader { file, layer, offset: 0, errors: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    let span = table.span();
    finish(text, errors, reader.table(table.into_inner(), span), reader)
}

/// Parses one value that starts at `offset` of `file`.
pub fn parse_value(
    text: &str,
    offset: usize,
    file: u32,
    layer: Layer,
) -> Result<Node, Vec<Syntax>> {
    let mut reader = Reader { file, layer, offset, errors: Vec::new() };
    let (value, errors) = DeValue::parse_recoverable(text);
    finish(text, errors, reader.node(value), reader)
}

fn finish(
    text: &str,
    errors: Vec<Error>,
    node: Node,
    mut reader: Reader,
) -> Result<Node, Vec<Syntax>> {
    if !errors.is_empty() {
        // What the parser made of a broken text is not worth judging.
        reader.errors.clear();
    }
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        match key_without_value(text, span.start) {
            Some(key) => {
                let help = "write one after `=`, or take the key out";
                reader.error(format!("`{key}` has no value"), span, Some(help));
            }
            None => reader.error(error.message().to_owned(), span, None),
        }
    }
    if reader.errors.is_empty() { Ok(node) } else { Err(reader.errors) }
}

/// The key before `at`, if nothing stands between its `=` and the end of its line or table.
fn key_without_value(text: &str, at: usize) -> Option<&str> {
    let (before, after) = (text.get(..at)?, text.get(at..)?);
    let after = after.trim_start_matches([' ', '\t']);
    if !(after.is_empty() || after.starts_with(['\n', '\r', '#', '}', ','])) {
        return None;
    }
    let key = before.trim_end_matches([' ', '\t']).strip_suffix('=')?.trim_end();
    let start = key.rfind(['\n', '{', ',', ' ', '\t']).map_or(0, |at| at + 1);
    Some(&key[start..]).filter(|key| !key.is_empty())
}

struct Reader {
    file: u32,
    layer: Layer,
    offset: usize,
    errors: Vec<Syntax>,
}

impl Reader {
    fn origin(&self, span: Range<usize>) -> Origin {
        let at = |byte: usize| u32::try_from(self.offset + byte).unwrap_or(u32::MAX);
        Origin { file: self.file, start: at(span.start), end: at(span.end), layer: self.layer }
    }

    fn error(&mut self, message: String, span: Range<usize>, help: Option<&'static str>) {
        let origin = self.origin(span);
        self.errors.push(Syntax { message, origin, help, may_be_text: true });
    }

    /// A number that no value can hold.
    fn number(&mut self, message: &str, span: Range<usize>, help: &'static str) -> Data {
        let (message, origin) = (message.to_owned(), self.origin(span));
        self.errors.push(Syntax { message, origin, help: Some(help), may_be_text: false });
        Data::Null
    }

    fn table(&mut self, table: DeTable<'_>, span: Range<usize>) -> Node {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries: Table = entries
            .into_iter()
            .map(|(key, value)| {
                let origin = self.origin(key.span());
                (key.into_inner().into_owned(), Entry { key: Some(origin), node: self.node(value) })
            })
            .collect();
        Node {
            data: Data::Table(entries),
            origin: Some(self.origin(span)),
            via: None,
            filled: None,
        }
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let data = match value.into_inner() {
            DeValue::String(text) => Data::String(text.into_owned()),
            DeValue::Integer(number) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(n) if i64::try_from(n).is_ok() => Data::Integer(n as i64),
                    Ok(n) if u64::try_from(n).is_ok() => Data::Unsigned(n as u64),
                    _ => self.number(
                        "the number does not fit in 64 bits",
                        span.clone(),
                        "whole numbers go from -9223372036854775808 to 18446744073709551615",
                    ),
                }
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(n) if n.is_finite() => Data::Float(n),
                _ => {
                    self.number("the number must be finite", span.clone(), "write a number that is")
                }
            },
            DeValue::Boolean(b) => Data::Bool(b),
            DeValue::Datetime(_) => {
                let message = "a pipeline has no dates".to_owned();
                self.error(message, span.clone(), Some("put it in quotes if it is text"));
                Data::Null
            }
            DeValue::Array(items) => {
                Data::Array(items.into_iter().map(|item| self.node(item)).collect())
            }
            DeValue::Table(table) => return self.table(table, span),
        };
        Node { data, origin: Some(self.origin(span)), via: None, filled: None }
    }
}
