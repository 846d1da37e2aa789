//! A pipeline and all its results as a Workflow Run RO-Crate.

use std::path::Path;

use super::{CliError, Session, make_folder, transfers};
use crate::{
    config::Pipeline,
    plan::{self, Lock, PlanOptions},
    provenance::{
        Facts,
        ro_crate::{Attachment, CrateError, Given, write},
    },
    report::{
        results::{Outputs, tables},
        table::{Format, render},
    },
};

/// Writes the crate, and says where its metadata is. `run` is the command that computes what is
/// missing.
pub(super) fn export(
    pipeline: &Pipeline,
    folder: &Path,
    given: &Given,
    run: &str,
    session: &Session,
) -> Result<(), CliError> {
    let store = session.store()?;
    let _use = store.in_use_to_read(&|| false)?;
    let plan = plan::build(pipeline, &store, &PlanOptions::default())?;
    let facts = Facts::gather(&plan).map_err(|error| CliError::of_facts(&error, run))?;
    let lock = Lock::of_plan(&plan)?;
    let mut attachments = vec![Attachment {
        path: "results/pipeline.lock".to_owned(),
        description: "the lock file: keys, digests and versions of all stages",
        format: "application/json",
        bytes: format!("{:#}\n", serde_json::json!(lock)).into_bytes(),
    }];
    let found = tables(pipeline, &Outputs::of_plan(&plan), &store)?;
    if !found.is_empty() {
        for (path, format, media) in [
            ("results/tables.json", Format::Json, "application/json"),
            ("results/tables.md", Format::Markdown, "text/markdown"),
        ] {
            attachments.push(Attachment {
                path: path.to_owned(),
                description: "the result tables",
                format: media,
                bytes: render(&found, format).into_bytes(),
            });
        }
    }
    make_folder(folder, "--crate")?;
    let written = write(&facts, &store, folder, given, &attachments).map_err(of_crate)?;
    session.talk(&transfers(&written.transfers));
    session.print(&format!("{}\n", folder.join("ro-crate-metadata.json").display()))
}

fn of_crate(error: CrateError) -> CliError {
    match error {
        CrateError::Store(error) => error.into(),
        CrateError::NotEmpty { .. } => CliError::usage(error.to_string()).with_help(
            "name a folder that is empty or absent: a crate describes all that is in it",
        ),
        CrateError::Io { .. } => CliError::environment(error.to_string()),
    }
}
