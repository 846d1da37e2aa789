//! Colour, which is never the only carrier of meaning, and blocks for errors.

use std::{borrow::Cow, fmt};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, MietteDiagnostic};

use crate::no_break::Unbroken;

/// How text for people looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Whether to use ANSI colours.
    pub color: bool,
}

impl Style {
    /// Bold green.
    pub fn good(self, text: impl fmt::Display) -> String {
        self.paint("1;32", text)
    }

    /// Bold red.
    pub fn bad(self, text: impl fmt::Display) -> String {
        self.paint("1;31", text)
    }

    /// Bold yellow.
    pub fn warn(self, text: impl fmt::Display) -> String {
        self.paint("1;33", text)
    }

    /// Bold.
    pub fn strong(self, text: impl fmt::Display) -> String {
        self.paint("1", text)
    }

    /// Dim.
    pub fn faint(self, text: impl fmt::Display) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// A text of which no terminal does more than show it, break lines and change colours: what
    /// names of files and values of a pipeline may hold besides is written out, as `\u{1b}`.
    pub fn shown(self, text: &str) -> Cow<'_, str> {
        let acts = |char: char| char.is_control() && char != '\n' && char != '\t';
        if !text.contains(acts) {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            let paint = if self.color { paint_at(rest) } else { 0 };
            let taken = paint.max(char.len_utf8());
            if paint == 0 && acts(char) {
                out.extend(char.escape_debug());
            } else {
                out.push_str(&rest[..taken]);
            }
            rest = &rest[taken..];
        }
        Cow::Owned(out)
    }

    /// The theme of error blocks.
    pub fn theme(self) -> GraphicalTheme {
        if self.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() }
    }

    /// An error with its causes, its lines of the file and its help.
    pub fn block(self, error: &dyn Diagnostic) -> String {
        let mut text = String::new();
        GraphicalReportHandler::new_themed(self.theme())
            .with_width(WIDTH)
            .with_break_words(false)
            .with_links(false)
            .render_report(&mut text, error)
            .expect("writing to a string cannot fail");
        text
    }

    /// An error that has only a message and perhaps a help. No path in it is broken over two lines.
    pub fn message_block(self, message: &str, help: Option<&str>) -> String {
        let mut unbroken = Unbroken::default();
        let error = MietteDiagnostic::new(unbroken.guard(message));
        let block = self.block(&match help {
            Some(help) => error.with_help(unbroken.guard(help)),
            None => error,
        });
        unbroken.restore(&block)
    }
}

/// The length of the sequence at the start of a text that changes colours; 0 if there is none.
fn paint_at(text: &str) -> usize {
    let Some(codes) = text.strip_prefix("\x1b[") else { return 0 };
    let end = codes.find(|char: char| !char.is_ascii_digit() && char != ';');
    match end {
        Some(end) if codes[end..].starts_with('m') => "\x1b[".len() + end + 1,
        _ => 0,
    }
}

/// Columns of error blocks.
pub const WIDTH: usize = 100;

/// Seconds as people say them: `0.42 s`, `12.3 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(secs: f64) -> String {
    let whole = secs.round() as u64;
    match secs {
        s if s < 0.9995 => format!("{s:.2} s"),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1 stage`, `2 stages`.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_over_at_their_unit() {
        let cases = [(0.004, "0.00 s"), (0.42, "0.42 s"), (12.34, "12.3 s"), (59.96, "1 min 00 s")];
        for (secs, text) in cases {
            assert_eq!(duration(secs), text);
        }
        assert_eq!(duration(3599.6), "1 h 00 min");
        assert_eq!(duration(7800.0), "2 h 10 min");
    }

    #[test]
    fn what_a_terminal_would_act_on_is_written_out() {
        let [plain, coloured] = [false, true].map(|color| Style { color });
        let text = "a\tb\nc\x1b[2J\x07\r\u{9b}1m\x7f é";
        let shown = "a\tb\nc\\u{1b}[2J\\u{7}\\r\\u{9b}1m\\u{7f} é";
        assert_eq!(plain.shown(text), shown);
        assert_eq!(coloured.shown(text), shown);
        let own = coloured.good("ran") + "\x1b[";
        assert_eq!(coloured.shown(&own), coloured.good("ran") + "\\u{1b}[");
        assert_eq!(plain.shown(&own), "\\u{1b}[1;32mran\\u{1b}[0m\\u{1b}[");
        assert!(matches!(plain.shown("clips[n=1]"), Cow::Borrowed(_)));
    }

    #[test]
    fn paths_are_never_broken() {
        let long = format!("/data/{}my results/of-a-run.json", "a-folder/".repeat(12));
        let message = format!("cannot write `{long}`, which is a place of one-of-a-kind interest");
        let help = format!("`pipe run a-b.toml --cache {long}` or see {}", long.replace(' ', "_"));
        for color in [false, true] {
            let block = Style { color }.message_block(&message, Some(&help));
            assert!(block.contains(&format!("`{long}`")), "{block}");
            assert!(block.contains(&format!("`pipe run a-b.toml --cache {long}`")), "{block}");
            assert!(block.contains(&long.replace(' ', "_")), "{block}");
            assert!(block.lines().count() > 3, "the rest is wrapped: {block}");
        }
    }

    #[test]
    fn without_colour_there_are_no_escapes() {
        let style = Style { color: false };
        let block = style.message_block("disk full", Some("free some space"));
        assert!(!(style.good("ran") + &block).contains('\x1b'));
        insta::assert_snapshot!(block, @"
        × disk full
        help: free some space
        ");
    }
}
