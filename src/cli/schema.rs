//! `pipe schema`.

use std::path::PathBuf;

use super::{error::CliError, session::Session};
use crate::{
    config::schema::{FILE, pipeline_schema, write_schemas},
    stages::STAGES,
};

/// Print the JSON schema of pipeline files, for editors
///
/// A file that begins with `#:schema path/to/pipeline.schema.json` gets completion and checks in
/// editors that use Taplo or Tombi.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// Write it as `pipeline.schema.json` into this folder instead
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

pub(super) fn schema(args: &SchemaArgs, session: &Session) -> Result<(), CliError> {
    let Some(folder) = &args.write else {
        return session.print(&format!("{:#}\n", pipeline_schema(STAGES)));
    };
    write_schemas(STAGES, folder).map_err(|error| CliError::file("write to", folder, &error))?;
    session.print(&format!("{}\n", folder.join(FILE).display()))
}
