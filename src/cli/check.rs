//! `pipe check`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    error::CliError,
    exit,
    session::{LayerArgs, Session},
};
use crate::{
    config::{self, ConfigErrors, LoadOptions, Pipeline, ToRun},
    plan::{self, Lacking},
    report::{
        SCHEMA_VERSION,
        style::{WIDTH, count},
    },
    stages::MOST_DECODED,
};

/// Check pipeline files and say all errors at once; nothing is run
///
/// Data that is there must hold what is asked of it, and the images of a stage that takes up to 30 of
/// them are decoded. Of models and adapters that are there, configurations and the headers of weights are
/// read: all tensors must be there, in the shapes that the configuration asks for. Not looked into are the
/// images of stages that take more, and the values of weights; the last line says so. Data and weights that
/// are not there are told, but are no error: a file can be checked on another machine.
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
        let options =
            LoadOptions { look_at_files: true, to_run: ToRun::All, ..args.layers.options() };
        match config::load(file, &options) {
            Ok(pipeline) => {
                let stages = pipeline.instances.len();
                session.warn(&pipeline);
                let (lacks, unseen) = (plan::lacks(&pipeline), unseen(&pipeline));
                if args.json {
                    let lacks: Vec<_> = lacks.iter().map(lack_json).collect();
                    documents.push(json!({
                        "file": file, "errors": [], "stages": stages, "lacks": lacks,
                        "warnings": pipeline.warnings, "not_looked_into": unseen,
                    }));
                } else {
                    for lacking in &lacks {
                        session.caution(&notice(lacking));
                    }
                    let unseen = match &unseen[..] {
                        [] => String::new(),
                        unseen => format!("; not looked into: {}", unseen.join(", ")),
                    };
                    session
                        .print(&format!("{name}: fine, {}{unseen}\n", count(stages, "stage")))?;
                }
            }
            Err(errors) => {
                wrong = true;
                if args.json {
                    documents.push(wrong_file(file, &errors));
                } else {
                    session.talk(errors.render(session.stderr.theme(), WIDTH).trim_end());
                    session.talk(&format!("{name}: {}", count(errors.errors.len(), "error")));
                }
            }
        }
    }
    if args.json {
        session.print(&checked(&documents))?;
    }
    if wrong { Err(CliError::Told(exit::USAGE)) } else { Ok(()) }
}

/// What is said of a file with errors, to programs.
fn wrong_file(file: &Path, errors: &ConfigErrors) -> Value {
    json!({
        "file": file, "errors": errors.to_json(), "stages": null, "lacks": [], "warnings": [],
        "not_looked_into": [],
    })
}

fn checked(files: &[Value]) -> String {
    format!("{:#}\n", json!({ "schema_version": SCHEMA_VERSION, "files": files }))
}

/// The document of `pipe check --json` for a file with errors: what other commands with `--json` say of it.
pub(super) fn document_of_errors(file: &Path, errors: &ConfigErrors) -> String {
    checked(&[wrong_file(file, errors)])
}

/// What of a pipeline was not looked into.
fn unseen(pipeline: &Pipeline) -> Vec<String> {
    let images =
        pipeline.undecoded.then(|| format!("images where a stage takes more than {MOST_DECODED}"));
    let models = pipeline.instances.iter().filter_map(|instance| instance.work.weights());
    let weights = models.map(|(model, _)| model).find(|model| !model.is_builtin());
    let weights = weights.map(|model| {
        let what = if model.is_elsewhere() { "weights" } else { "values of weights" };
        format!("{what} (`{}`)", model.0)
    });
    images.into_iter().chain(weights).collect()
}

/// What is not on this machine, with its place.
fn notice(lacking: &Lacking) -> String {
    let help = lacking.lack.help().map(|help| format!("\n  help: {help}")).unwrap_or_default();
    lacking.message() + &help
}

fn lack_json(lacking: &Lacking) -> Value {
    let Lacking { lack, stages, place } = lacking;
    json!({ "message": lack.to_string(), "help": lack.help(), "stages": stages, "place": place })
}
