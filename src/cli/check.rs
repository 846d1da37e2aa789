//! `pipe check`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    error::CliError,
    exit,
    session::{LayerArgs, Session},
};
use crate::{
    config::{self, Instance, LoadOptions, Pipeline},
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
/// them are decoded. Not looked into are the images of stages that take more, and the weights of
/// models; the last line says so. Data and weights that are not there are told, but are no error: a
/// file can be checked on another machine.
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
        let options = LoadOptions { look_at_data: true, ..args.layers.options() };
        match config::load(file, &options) {
            Ok(pipeline) => {
                let stages = pipeline.instances.len();
                session.warn(&pipeline);
                let lacks = plan::lacks(&pipeline);
                if args.json {
                    let lacks: Vec<_> = lacks.iter().map(lack_json).collect();
                    documents.push(
                        json!({ "file": file, "errors": [], "stages": stages, "lacks": lacks }),
                    );
                } else {
                    for lacking in &lacks {
                        session.caution(&notice(lacking));
                    }
                    let (stages, unseen) = (count(stages, "stage"), unseen(&pipeline));
                    session.print(&format!("{name}: fine, {stages}{unseen}\n"))?;
                }
            }
            Err(errors) => {
                wrong = true;
                if args.json {
                    documents.push(
                        json!({ "file": file, "errors": errors.to_json(), "stages": null, "lacks": [] }),
                    );
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

/// What of a pipeline was not looked into, for the end of a line.
fn unseen(pipeline: &Pipeline) -> String {
    let instances = || pipeline.instances.iter();
    let is_large = |instance: &&Instance| {
        let decoded = instance.params.get("count").and_then(Value::as_u64);
        let on_disk = instance.work.task().is_some() && instance.work.source_root().is_some();
        on_disk && decoded.is_none_or(|count| count > MOST_DECODED as u64)
    };
    let images = instances().any(|instance| is_large(&instance));
    let images = images.then(|| format!("images where a stage takes more than {MOST_DECODED}"));
    let models = instances().filter_map(|instance| instance.work.weights());
    let weights = models.map(|(model, _)| &model.0).find(|name| !name.starts_with("builtin:"));
    let weights = weights.map(|name| format!("weights (`{name}`)"));
    let unseen: Vec<String> = images.into_iter().chain(weights).collect();
    if unseen.is_empty() {
        return String::new();
    }
    format!("; not looked into: {}", unseen.join(", "))
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
