//! `pipe export`.

mod adapter;
pub(super) mod files;
mod model;
pub(super) mod pictures;
mod replaced;
mod ro_crate;
mod whole;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    error::CliError,
    exit,
    session::{PipelineArgs, Session, quoted},
};
use crate::{
    artifact::{ArtifactKind, FileNames, file_name},
    config::{Instance, pipeline::plain},
    models::ModelRef,
    plan::{self, Plan, PlanError, PlanOptions},
    provenance::ro_crate::Given,
    report::{doubts, results::Outputs, style::count},
    store::{Transfer, write_aside},
};

/// Write an artifact as ordinary files: PNG, GIF, safetensors, JSON, CSV
///
/// Frames become a contact sheet (input, target, prediction), a PNG and a GIF per item. Of several
/// checkpoints, each has a sheet of its own, named by its step: `sheet.step_300.png`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or a cell of it as in `lora[n=10]`
    #[arg(required_unless_present = "ro_crate")]
    stage: Option<String>,
    /// The folder to write to
    #[arg(long, value_name = "DIR", required_unless_present = "ro_crate")]
    to: Option<PathBuf>,
    /// For an adapter: the program whose files it becomes, diffusers if none is named
    #[arg(long, value_name = "PROGRAM", conflicts_with = "ro_crate")]
    format: Option<adapter::Program>,
    /// For an adapter that ComfyUI is to load and that does not tell it itself: the family of its
    /// model
    #[arg(long, value_name = "FAMILY", requires = "format")]
    family: Option<adapter::Family>,
    /// For parts of a model, such as a merged transformer: write a whole folder for diffusers, with
    /// the other parts of the model that the stage names
    #[arg(long, conflicts_with = "ro_crate")]
    whole: bool,
    /// With `--whole`: take the other parts from this model
    #[arg(long, value_name = "MODEL", requires = "whole")]
    base: Option<String>,
    /// With `--whole`: link to that model's files, which then must stay, instead of copying them
    #[arg(long, requires = "whole")]
    link: bool,
    /// Write the pipeline, all its results and what each was made from into this folder instead, as
    /// a Workflow Run RO-Crate
    #[arg(long = "crate", value_name = "DIR", conflicts_with_all = ["stage", "to"])]
    ro_crate: Option<PathBuf>,
    /// For a crate: the licence of what is in it, by its address
    #[arg(long, value_name = "URL", requires = "ro_crate", value_parser = address)]
    license: Option<String>,
    /// For a crate: who ran the pipeline
    #[arg(long, value_name = "NAME", requires = "ro_crate")]
    author: Option<String>,
}

pub(super) fn export(args: &ExportArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    if let Some(folder) = &args.ro_crate {
        let given = Given { license: args.license.clone(), author: args.author.clone() };
        return ro_crate::export(&pipeline, folder, &given, &args.pipeline.command("run"), session);
    }
    let (Some(stage), Some(to)) = (&args.stage, &args.to) else {
        return Err(CliError::usage("name a stage, and a folder with `--to`"));
    };
    let chosen = plan::select(&pipeline, stage).map_err(PlanError::from)?;
    check(args, to, &pipeline.instances[chosen[0]])?;
    let store = session.store()?;
    let _use = store.in_use_to_read(&|| false)?;
    let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
    let outputs = Outputs::of_plan(&plan);

    let first = &pipeline.instances[chosen[0]];
    let notes = match first.output() {
        ArtifactKind::Metrics => doubts::notes(&pipeline, &first.stage, &outputs, &store)?,
        _ => Vec::new(),
    };
    let (moved, replaced, beside) = (RefCell::default(), RefCell::default(), RefCell::default());
    let exporter = files::Exporter {
        pipeline: &pipeline,
        plan: &plan,
        outputs: &outputs,
        store: &store,
        program: args.format.unwrap_or_default(),
        family: args.family,
        transfers: &moved,
        notes: &notes,
        replaced: &replaced,
        whole: args
            .whole
            .then(|| whole::Whole { base: args.base.clone().map(ModelRef), link: args.link }),
        beside: &beside,
    };
    let exported = export_cells(&exporter, chosen, to, session);
    // Also of an export that did not come to its end.
    for path in replaced.take() {
        session.talk(&format!("replaced `{}`, which was another one", path.display()));
    }
    let (missing, mut code) = exported?;
    for text in beside.take() {
        session.talk(&text);
    }
    if !moved.borrow().is_empty() {
        session.talk(&transfers(&moved.borrow()));
    }
    if !missing.is_empty() {
        let run = args.pipeline.command("run");
        code = code.max(not_there(&plan, &missing, &run).report(session));
    }
    if code == exit::DONE { Ok(()) } else { Err(CliError::Told(code)) }
}

/// Refuses what cannot be exported so; `first` is the first of what is to be.
fn check(args: &ExportArgs, to: &Path, first: &Instance) -> Result<(), CliError> {
    if to.exists() && !to.is_dir() {
        let message = format!("`{}` is a file, but the export is a folder", to.display());
        return Err(CliError::usage(message).with_help("name another folder with `--to DIR`"));
    }
    if args.format.is_some() && first.output() != ArtifactKind::LoraAdapter {
        let (stage, kind) = (&first.stage, first.output());
        let message = format!("`--format` is for adapters, but `{stage}` gives {kind}");
        return Err(CliError::usage(message).with_help("leave it out"));
    }
    if args.whole && first.output() != ArtifactKind::Model {
        let (stage, kind) = (&first.stage, first.output());
        let message = format!("`--whole` is for parts of models, but `{stage}` gives {kind}");
        return Err(CliError::usage(message).with_help("leave it out"));
    }
    Ok(())
}

/// Exports cells of a stage, each into a folder of its own if it has several; gives those that are
/// not in the cache, and the exit code of what is damaged.
fn export_cells(
    exporter: &files::Exporter<'_>,
    chosen: Vec<usize>,
    to: &Path,
    session: &Session,
) -> Result<(Vec<usize>, u8), CliError> {
    let instances = &exporter.pipeline.instances;
    let stage = &instances[chosen[0]].stage;
    let several = instances.iter().filter(|instance| instance.stage == *stage).count() > 1;
    let (mut missing, mut code) = (Vec::new(), exit::DONE);
    let mut names = FileNames::default();
    for index in chosen {
        let instance = &instances[index];
        let Some(digest) = exporter.outputs.digest(index) else {
            missing.push(index);
            continue;
        };
        let folder =
            if several { to.join(names.free(&cell_name(instance))) } else { to.to_owned() };
        make_folder(&folder, "--to")?;
        match exporter.export(index, digest, &folder) {
            // Other cells may be whole.
            Err(error @ CliError::Damaged(_)) if several => {
                session.talk(&format!("`{instance}` cannot be exported:"));
                code = code.max(error.report(session));
                continue;
            }
            exported => exported?,
        }
        // The files are what was asked for, whether or not somebody reads their list.
        CliError::unless_unread(session.print(&format!("{}\n", folder.display())))?;
    }
    Ok((missing, code))
}

/// What to say of cells that are not in the cache; `run` is the command that runs the pipeline.
pub(super) fn not_there(plan: &Plan<'_>, missing: &[usize], run: &str) -> CliError {
    let Some(&index) = missing.first() else { return CliError::Told(exit::DONE) };
    let (first, broken) = (&plan.pipeline.instances[index], plan.damage_note(index));
    let more = match missing.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let command = format!("{run} --only {}", quoted(first));
    CliError::Message {
        code: exit::STAGE_FAILED,
        message: format!("not in the cache: `{first}`{more}{broken}"),
        help: Some(format!("`{command}` computes it")),
    }
}

/// What a crate takes as a licence.
fn address(text: &str) -> Result<String, String> {
    let is_web = |url: url::Url| url.has_host() && matches!(url.scheme(), "http" | "https");
    if url::Url::parse(text).is_ok_and(is_web) {
        return Ok(text.to_owned());
    }
    Err("must be an address, such as https://spdx.org/licenses/CC-BY-4.0".to_owned())
}

/// `6 files taken unchanged from the cache, as copies`, or `by reflink`, where they take no space
/// until they are changed. All else that is written was made of such files.
fn transfers(counts: &BTreeMap<Transfer, usize>) -> String {
    let text = counts.iter().map(|(how, number)| {
        let how = match how {
            Transfer::Reflink => "by reflink",
            Transfer::Copy if *number == 1 => "as a copy",
            Transfer::Copy => "as copies",
        };
        format!("{} taken unchanged from the cache, {how}", count(*number, "file"))
    });
    text.collect::<Vec<_>>().join("; ")
}

/// The cell as a file name: `n=10_rank=32`; the stage's name where there is no cell.
fn cell_name(instance: &Instance) -> String {
    let axes: Vec<_> =
        instance.cell.iter().map(|(axis, value)| format!("{axis}={}", plain(value))).collect();
    let name = if axes.is_empty() { instance.stage.clone() } else { axes.join("_") };
    file_name(&name)
}

/// Makes the folder that `option` names, where the files are to be written.
fn make_folder(folder: &Path, option: &str) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).map_err(|error| {
        let message = format!("cannot make the folder `{}`: {error}", folder.display());
        CliError::environment(message)
            .with_help(format!("name a folder that can be made, or is there, with `{option} DIR`"))
    })
}

/// Writes a file, in one step, and the folders above it.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    write_aside(path, bytes).map_err(|error| CliError::file("write", path, &error))
}
