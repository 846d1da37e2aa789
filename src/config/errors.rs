//! All errors of a pipeline file, as people and programs read them.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde_json::Value;

use super::ConfigError;
use crate::unbroken::Unbroken;

/// All errors of a pipeline file; never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file, as the user named it.
    pub file: String,
    /// The errors in the order of the text.
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// All errors one after the other, each with its lines of the file. No path is broken over two lines.
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
