//! `pipe check`.

use std::path::PathBuf;

use serde_json::json;

use super::{
    error::CliError,
    exit,
    session::{LayerArgs, Session},
};
use crate::{
    config,
    report::{
        SCHEMA_VERSION,
        style::{WIDTH, count},
    },
};

/// Check pipeline files and say all errors at once; nothing is run
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The pipeline files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    layers: LayerArgs,
    /// Write one document for other programs
    #[arg(long)]
    json: bool,
}

pub(super) fn check(args: &CheckArgs, session: &Session) -> Result<(), CliError> {
    let mut wrong = false;
    let mut documents = Vec::new();
    for file in &args.files {
        let name = file.display();
        match config::load(file, &args.layers.options()) {
            Ok(pipeline) => {
                let stages = pipeline.instances.len();
                session.warn(&pipeline);
                if args.json {
                    documents.push(json!({ "file": file, "errors": [], "stages": stages }));
                } else {
                    session.print(&format!("{name}: fine, {}\n", count(stages, "stage")))?;
                }
            }
            Err(errors) => {
                wrong = true;
                if args.json {
                    documents.push(errors.to_json());
                } else {
                    session.talk(errors.render(session.stderr.theme(), WIDTH).trim_end());
                    session.talk(&format!("{name}: {}", count(errors.errors.len(), "error")));
                }
            }
        }
    }
    if args.json {
        let document = json!({ "schema_version": SCHEMA_VERSION, "files": documents });
        session.print(&format!("{document:#}\n"))?;
    }
    if wrong { Err(CliError::Told(exit::USAGE)) } else { Ok(()) }
}
