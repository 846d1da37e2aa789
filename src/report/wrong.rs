//! What commands with `--json` print of a pipeline file with errors.

use schemars::JsonSchema;
use serde::Serialize;

/// What `pipe check --json` prints of a file with errors, and with it the other commands that have
/// `--json`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WrongDocument {
    /// Version of this form.
    pub schema_version: u32,
    /// The files; of other commands than `check`, the one that was named.
    pub files: Vec<WrongFile>,
}

/// A file with errors.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WrongFile {
    /// The file, as it was named.
    pub file: String,
    /// What is wrong.
    pub errors: Vec<FileError>,
    /// How many stages it has: not known.
    pub stages: (),
    /// What is not on this machine: not looked for.
    pub lacks: Vec<String>,
    /// What is seldom meant: not looked for.
    pub warnings: Vec<String>,
    /// What was not looked into: not told.
    pub not_looked_into: Vec<String>,
}

/// An error of a pipeline file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FileError {
    /// Of which kind.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The file it is in, which may be one that is included.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// The line where it ends.
    pub end_line: Option<usize>,
    /// The column behind its end.
    pub end_column: Option<usize>,
}

/// A document, or what is printed in its place where the pipeline file has errors.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OrWrong<T> {
    /// The document.
    Document(T),
    /// What is wrong: exit code 2.
    Wrong(WrongDocument),
}
