//! `pipe export`.

mod adapter;
mod files;
pub(super) mod pictures;
mod ro_crate;

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
    config::{Instance, pipeline::plain},
    plan::{self, PlanError, PlanOptions},
    provenance::ro_crate::Given,
    report::{results::Outputs, style::count},
    store::Transfer,
};

/// Write an artifact as ordinary files: PNG, GIF, safetensors, JSON, CSV
///
/// Frames become a contact sheet (input, target, prediction), a PNG and a GIF per item.
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
    /// For an adapter: the program whose files it becomes
    #[arg(long, value_name = "PROGRAM", default_value = "diffusers")]
    format: adapter::Program,
    /// Write the pipeline, all its results and what each was made from into this folder instead, as a
    /// Workflow Run RO-Crate
    #[arg(long = "crate", value_name = "DIR", conflicts_with_all = ["stage", "to"])]
    ro_crate: Option<PathBuf>,
    /// For a crate: the licence of what is in it
    #[arg(long, value_name = "URL", requires = "ro_crate")]
    license: Option<String>,
    /// For a crate: who ran the pipeline
    #[arg(long, value_name = "NAME", requires = "ro_crate")]
    author: Option<String>,
}

pub(super) fn export(args: &ExportArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    if let Some(folder) = &args.ro_crate {
        let given = Given { license: args.license.clone(), author: args.author.clone() };
        return ro_crate::export(&pipeline, folder, &given, session);
    }
    let (Some(stage), Some(to)) = (&args.stage, &args.to) else {
        return Err(CliError::usage("name a stage, and a folder with `--to`"));
    };
    if to.exists() && !to.is_dir() {
        let message = format!("`{}` is a file, but the export is a folder", to.display());
        return Err(CliError::usage(message).with_help("name another folder with `--to DIR`"));
    }
    let chosen = plan::select(&pipeline, stage).map_err(PlanError::from)?;
    let store = session.store()?;
    let plan = plan::build(&pipeline, &store, &PlanOptions::default())?;
    let outputs = Outputs::of_plan(&plan);

    let several =
        pipeline.instances.iter().filter(|i| i.stage == pipeline.instances[chosen[0]].stage);
    let several = several.count() > 1;
    let mut missing = Vec::new();
    let moved = RefCell::default();
    for index in chosen {
        let instance = &pipeline.instances[index];
        let Some(digest) = outputs.digest(index) else {
            missing.push(instance.to_string());
            continue;
        };
        let folder = if several { to.join(cell_name(instance)) } else { to.clone() };
        let exporter = files::Exporter {
            pipeline: &pipeline,
            plan: &plan,
            outputs: &outputs,
            store: &store,
            program: args.format,
            transfers: &moved,
        };
        exporter.export(index, digest, &folder)?;
        // The files are what was asked for, whether or not somebody reads their list.
        CliError::unless_unread(session.print(&format!("{}\n", folder.display())))?;
    }
    if !moved.borrow().is_empty() {
        session.talk(&transfers(&moved.borrow()));
    }
    let Some(first) = missing.first() else { return Ok(()) };
    let more = match missing.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let (file, stage) = (quoted(&args.pipeline.file.display()), quoted(first));
    Err(CliError::Message {
        code: exit::STAGE_FAILED,
        message: format!("not in the cache: `{first}`{more}"),
        help: Some(format!("`pipe run {file} --only {stage}` computes it")),
    })
}

/// `6 files copied`, or `6 files by reflink`, which take no space until they are changed.
fn transfers(counts: &BTreeMap<Transfer, usize>) -> String {
    let text = counts.iter().map(|(how, number)| match how {
        Transfer::Reflink => format!("{} by reflink", count(*number, "file")),
        Transfer::Copy => format!("{} copied", count(*number, "file")),
    });
    text.collect::<Vec<_>>().join(", ") + " from the cache"
}

/// The cell as a file name: `n=10_rank=32`; the stage's name where there is no cell.
fn cell_name(instance: &Instance) -> String {
    let axes: Vec<_> =
        instance.cell.iter().map(|(axis, value)| format!("{axis}={}", plain(value))).collect();
    let name = if axes.is_empty() { instance.stage.clone() } else { axes.join("_") };
    file_name(&name)
}

/// A name without what file systems and shells take as special.
fn file_name(name: &str) -> String {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '=' | '+');
    let name: String = name.chars().map(|c| if fine(c) { c } else { '_' }).collect();
    // Neither hidden nor a parent folder.
    if name.starts_with('.') { format!("_{name}") } else { name }
}

/// Writes a file and the folders above it.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let fail = |error| CliError::file("write", path, &error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    std::fs::write(path, bytes).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(file_name("n=10_steps=[1, 2]"), "n=10_steps=_1__2_");
    }
}
