//! The errors of a pipeline file as people and programs read them.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde_json::{Value, json};

use super::{
    Place,
    excerpt::Excerpt,
    origin::{Sources, is_argument},
    problem::{Code, Problem},
};
use crate::no_break::Unbroken;

/// All errors of a pipeline file; never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file, as the user named it.
    pub file: String,
    /// The errors in the order of the text.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// All errors one after the other, each with its lines of the file. No path is broken over two
    /// lines.
    pub fn render(&self, theme: GraphicalTheme, width: usize) -> String {
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
        let handler = handler.with_break_words(false);
        let mut text = String::new();
        let mut unbroken = Unbroken::default();
        for error in &self.errors {
            if !text.is_empty() {
                text.push('\n');
            }
            let guarded = Guarded {
                message: unbroken.guard(&error.message),
                help: error.help.as_ref().map(|help| unbroken.guard(help)),
                error,
            };
            handler.render_report(&mut text, &guarded).expect("writing to a string cannot fail");
        }
        unbroken.restore(&text)
    }

    /// The errors for programs.
    pub fn to_json(&self) -> Value {
        self.errors.iter().map(ConfigError::to_json).collect()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.len() {
            1 => write!(f, "`{}` has an error", self.file),
            n => write!(f, "`{}` has {n} errors", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.errors.iter().map(|error| error as &dyn Diagnostic)))
    }
}

/// One error of a pipeline file.
#[derive(Debug)]
pub struct ConfigError {
    /// Its class.
    pub code: Code,
    /// What was wanted and what was found.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Where it is.
    pub place: Option<Place>,
    /// Where it ends.
    pub end: Option<Place>,
    source: Option<Excerpt>,
    labels: Vec<LabeledSpan>,
}

impl ConfigError {
    pub(super) fn new(problem: Problem, sources: &Sources) -> Self {
        let first = problem.labels.first().map(|(origin, _)| *origin);
        let mut help = problem.help;
        let mut labels = Vec::new();
        let mut marks = Vec::new();
        for (origin, label) in problem.labels {
            if first.is_some_and(|first| first.file == origin.file) {
                let mut range = origin.start as usize..origin.end as usize;
                let text = &sources.of(origin).text;
                if range.start >= text.len() {
                    // What is missing at the very end is shown on the last character.
                    let last = text.trim_end().char_indices().next_back();
                    range = last.map_or(0..0, |(at, char)| at..at + char.len_utf8());
                }
                labels.push(label);
                marks.push(range);
            } else {
                let note = format!("{label}: {}", sources.place(origin));
                help = Some(help.map_or(note.clone(), |help| format!("{help}\n{note}")));
            }
        }
        let source = first.map(|origin| {
            let source = sources.of(origin);
            // An argument is shown whole below its name.
            let name = if is_argument(&source.name) { "--set" } else { &source.name };
            Excerpt::new(name, &source.text, &mut marks)
        });
        let labels = labels.into_iter().zip(marks).enumerate();
        let labels = labels.map(|(index, (label, range))| match index {
            0 => LabeledSpan::new_primary_with_span(Some(label), range),
            _ => LabeledSpan::new_with_span(Some(label), range),
        });
        let labels = labels.collect();
        Self {
            code: problem.code,
            message: shortened(match problem.stage {
                Some(stage) => format!("stage `{stage}`: {}", problem.message),
                None => problem.message,
            }),
            help: help.map(shortened),
            place: first.map(|origin| sources.place(origin)),
            end: first.map(|origin| sources.end(origin)),
            source,
            labels,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "help": self.help,
            "file": self.place.as_ref().map(|place| &place.file),
            "line": self.place.as_ref().map(|place| place.line),
            "column": self.place.as_ref().map(|place| place.column),
            "end_line": self.end.as_ref().map(|place| place.line),
            "end_column": self.end.as_ref().map(|place| place.column),
        })
    }
}

/// A text without its middle if it is very long, as one that holds a value of the file may be.
fn shortened(text: String) -> String {
    const ENDS: usize = 300;
    if text.len() <= 3 * ENDS {
        return text;
    }
    let head = text.floor_char_boundary(ENDS);
    let tail = text.ceil_char_boundary(text.len() - ENDS);
    format!("{}…{}", &text[..head], &text[tail..])
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<_>)
    }
}

/// An error with stand-ins for what is not to be broken.
#[derive(Debug)]
struct Guarded<'a> {
    message: String,
    help: Option<String>,
    error: &'a ConfigError,
}

impl fmt::Display for Guarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Guarded<'_> {}

impl Diagnostic for Guarded<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.error.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.error.labels()
    }
}
