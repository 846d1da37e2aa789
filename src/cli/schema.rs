//! `pipe schema`.

use std::path::PathBuf;

use super::{error::CliError, session::Session};
use crate::{
    config::schema::{FILE, pipeline_schema, write_schemas},
    report::schemas::{DOCUMENTS, Document},
    stages::STAGES,
};

/// Print the JSON schema of pipeline files, for editors, or of what `pipe` writes
///
/// A file that begins with `#:schema path/to/pipeline.schema.json` gets completion and checks in
/// editors that use Taplo or Tombi.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// Of what: `pipeline` files, what `plan --json`, `verify --json` or `cache verify --json`
    /// prints, an `event` of `run --events`, or a `lock` file
    #[arg(default_value = PIPELINE, value_parser = names())]
    document: String,
    /// Write all of them into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "document")]
    write: Option<PathBuf>,
}

const PIPELINE: &str = "pipeline";

fn names() -> Vec<&'static str> {
    [PIPELINE].into_iter().chain(DOCUMENTS.iter().map(|document| document.name)).collect()
}

pub(super) fn schema(args: &SchemaArgs, session: &Session) -> Result<(), CliError> {
    let Some(folder) = &args.write else {
        let document = DOCUMENTS.iter().find(|document| document.name == args.document);
        let schema = document.map_or_else(|| pipeline_schema(STAGES), Document::schema);
        return session.print(&format!("{schema:#}\n"));
    };
    let failed = |error| CliError::file("write to", folder, &error);
    write_schemas(STAGES, folder).map_err(failed)?;
    let mut files = vec![folder.join(FILE)];
    for document in DOCUMENTS {
        document.write(folder).map_err(failed)?;
        files.push(folder.join(document.file()));
    }
    let lines: Vec<_> = files.iter().map(|file| format!("{}\n", file.display())).collect();
    session.print(&lines.concat())
}
