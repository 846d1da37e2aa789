//! `pipe cache pin`, `unpin` and `pins`.

use std::fmt::Write as _;

use crate::{
    cli::{
        error::CliError,
        exit,
        session::{PipelineArgs, Session, quoted},
    },
    plan::{self, Freshness, PlanOptions, owner_of},
    report::style::count,
    store::{Fingerprint, Store},
};

/// Keep results whatever `gc` is asked to remove
///
/// With a stage, that stage and what it needs; else all results of the file.
#[derive(Debug, clap::Args)]
pub(super) struct PinArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or a cell of it as in `lora[n=10]`
    stage: Option<String>,
}

/// Let `gc` remove results again
#[derive(Debug, clap::Args)]
pub(super) struct UnpinArgs {
    #[command(flatten)]
    pinned: PinArgs,
}

pub(super) fn pin(args: &PinArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    let found = results(args, store)?;
    for (key, name) in &found {
        store.pin(*key, name)?;
    }
    if found.is_empty() {
        let file = quoted(&args.pipeline.file.display());
        return Err(CliError::Message {
            code: exit::STAGE_FAILED,
            message: "nothing of this is in the cache".to_owned(),
            help: Some(format!("`pipe run {file}` computes it")),
        });
    }
    session.print(&format!("pinned {}\n", count(found.len(), "result")))
}

pub(super) fn unpin(args: &UnpinArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    let mut taken = 0;
    for (key, _) in results(&args.pinned, store)? {
        taken += usize::from(store.unpin(key)?);
    }
    session.print(&format!("unpinned {}\n", count(taken, "result")))
}

pub(super) fn list(store: &Store, session: &Session) -> Result<(), CliError> {
    let mut lines: Vec<_> = store.pins()?.into_iter().map(|(key, name)| (name, key)).collect();
    lines.sort();
    let mut out = String::new();
    for (name, key) in lines {
        let _ = writeln!(out, "{}  {name}", key.short());
    }
    session.print(&out)
}

/// The results in the cache that the arguments mean, with their names.
fn results(args: &PinArgs, store: &Store) -> Result<Vec<(Fingerprint, String)>, CliError> {
    let pipeline = args.pipeline.load()?;
    let options =
        PlanOptions { only: args.stage.iter().cloned().collect(), ..PlanOptions::default() };
    let plan = plan::build(&pipeline, store, &options)?;
    let title = owner_of(&pipeline).title();
    let nodes = plan.nodes.iter().zip(&pipeline.instances).filter(|(node, _)| node.needed);
    let found = nodes.filter_map(|(node, instance)| match &node.freshness {
        Freshness::Fresh(record) => Some((record.fingerprint, format!("{title}: {instance}"))),
        _ => None,
    });
    Ok(found.collect())
}
