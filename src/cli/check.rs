//! `pipe check`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    error::CliError,
    exit, load,
    session::{LayerArgs, Session},
};
use crate::{
    config::{ConfigErrors, LoadOptions, Pipeline, ToRun},
    plan::{self, Lack, Lacking},
    report::{
        SCHEMA_VERSION,
        style::{WIDTH, count},
    },
    stages::MOST_DECODED,
};

/// Check pipeline files and say all errors at once; nothing is run
///
/// Data that is there must hold what is asked of it, and the images of a stage that takes up to 30
/// of them are decoded. Of models and adapters that are there, configurations and the headers of
/// weights are read: all tensors must be there, in the shapes that the configuration asks for. Not
/// looked into are the images of stages that take more, and the values of weights; the last line
/// says so. Data and weights that are not there are told, but are no error: a file can be checked
/// on another machine. What several files lack is told once. Of several files, one without the
/// profile is checked with its own values, and that is said.
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
    let options = LoadOptions { look_at_files: true, to_run: ToRun::All, ..args.layers.options() };
    let mut findings = Findings::default();
    for read in load::each(&args.files, &options) {
        read.tell_profile("the values of the file itself are checked", session);
        match read.found {
            Ok(pipeline) => fine(read.file, &pipeline, args.json, &mut findings, session)?,
            Err(errors) => {
                findings.any_wrong = true;
                if args.json {
                    findings.documents.push(wrong_file(read.file, &errors));
                } else {
                    session.talk(errors.render(session.stderr.theme(), WIDTH).trim_end());
                    let errors = count(errors.errors.len(), "error");
                    session.talk(&format!("{}: {errors}", read.file.display()));
                }
            }
        }
    }
    if args.json {
        session.print(&checked(&findings.documents))?;
    }
    if findings.any_wrong { Err(CliError::Told(exit::USAGE)) } else { Ok(()) }
}

/// What was found in the files so far.
#[derive(Default)]
struct Findings {
    any_wrong: bool,
    documents: Vec<Value>,
    /// What is not on this machine.
    lacks: Vec<Lack>,
}

/// Says that a file has no errors, and what is to be known of it.
fn fine(
    file: &Path,
    pipeline: &Pipeline,
    json: bool,
    findings: &mut Findings,
    session: &Session,
) -> Result<(), CliError> {
    let stages = pipeline.instances.len();
    session.warn(pipeline);
    let (lacks, unseen) = (plan::lacks(pipeline), unseen(pipeline));
    if json {
        let lacks: Vec<_> = lacks.iter().map(lack_json).collect();
        findings.documents.push(json!({
            "file": file, "errors": [], "stages": stages, "lacks": lacks,
            "warnings": pipeline.warnings, "not_looked_into": unseen,
        }));
        return Ok(());
    }
    let mut parts = vec![count(stages, "stage")];
    for lacking in lacks {
        if findings.lacks.contains(&lacking.lack) {
            parts.push(format!("lacks {}, too", lacking.lack.what()));
        } else {
            session.caution(&notice(&lacking));
            findings.lacks.push(lacking.lack);
        }
    }
    if !unseen.is_empty() {
        parts.push(format!("not looked into: {}", unseen.join(", ")));
    }
    session.print(&format!("{}: fine, {}\n", file.display(), parts.join("; ")))
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

/// The document of `pipe check --json` for a file with errors: what other commands with `--json`
/// say of it.
pub(super) fn document_of_errors(file: &Path, errors: &ConfigErrors) -> String {
    checked(&[wrong_file(file, errors)])
}

/// What of a pipeline was not looked into.
fn unseen(pipeline: &Pipeline) -> Vec<String> {
    let images =
        pipeline.undecoded.then(|| format!("images where a stage takes more than {MOST_DECODED}"));
    let mut models = pipeline.instances.iter().filter_map(|instance| instance.work.model());
    let weights = models.find(|model| !model.is_builtin());
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
