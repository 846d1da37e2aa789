//! `pipe run`: the whole program on one screen.

mod events;
mod load;
mod read_only;
mod results;
mod runner;
mod slots;

use std::{num::NonZeroUsize, path::PathBuf};

use super::{
    device::{self, Chosen},
    error::CliError,
    exit,
    export::pictures,
    link::Shared,
    load::Loaded,
    session::{LayerArgs, Session, open_or_look, open_remote},
    signals::Stop,
};
use crate::{
    exec::{ExecOptions, Executor, Talk},
    plan::PlanOptions,
    store::StoreError,
};
use events::EventFile;
use load::load;
use runner::Runner;
use slots::slots;

/// Bring the results of pipelines up to date
///
/// Computes what is not in the cache, prints a line per finished stage and then the tables.
///
/// Of several files, all are read first: with an error in one of them none runs, unless with
/// `--keep-going`. One without the profile runs with its own values, and says so.
///
/// A training leaves a checkpoint where it is interrupted, and each time it has made `save_every` steps
/// (100 unless set, of `pretrain` 200), from which it goes on: `kill -9` loses the steps since the last.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct RunArgs {
    /// The pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    layers: LayerArgs,
    /// Only this stage, or cell, and what it needs; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Run this stage, or cell, even if it is cached; may be given several times
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// After a failure, go on with what does not depend on it, and with other files, also where one
    /// of them has errors
    #[arg(long)]
    keep_going: bool,
    /// Write events to a file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Let `command` stages run shell commands
    #[arg(long)]
    allow_commands: bool,
    /// Afterwards write what everything was made from, and what it gave, to `<pipeline>.lock`
    #[arg(long, conflicts_with_all = ["only", "locked"])]
    lock: bool,
    /// Refuse to deviate from `<pipeline>.lock`
    #[arg(long)]
    locked: bool,
}

impl RunArgs {
    fn wanted(&self) -> PlanOptions {
        PlanOptions { force: self.force.clone(), only: self.only.clone() }
    }
}

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<(), CliError> {
    // What is wrong with any file is told before the first one runs.
    let Loaded { pipelines, wrong } = load(args, session)?;
    let settings = session.settings()?;
    let store = session.told_by(open_or_look(&settings)?);
    let remote = open_remote(&settings)?;
    let chosen = device::open(&settings)?;
    let stop = Stop::on_signal();
    let store = stop.heard_by(store);
    let outlook = device::outlook(&chosen)?;
    let slots = slots(&chosen, &outlook, &settings, session)?;
    let events = args.events.as_deref().map(|path| EventFile::create(path, &args.files));
    let events = events.transpose()?;
    // What cannot be kept here is not fetched.
    let is_read_only = matches!(store.check_writable(), Err(StoreError::NotWritable { .. }));
    let remote = remote.filter(|_| !is_read_only);
    let shared = remote.map(|remote| Shared::new(remote, &store, &stop)).transpose()?;
    let store = match &shared {
        Some(shared) => shared.behind(store),
        None => store,
    };
    let jobs = settings.jobs.map_or_else(|| device::default_jobs(&chosen), NonZeroUsize::get);
    let Chosen { device, name: device_name, seats } = chosen;
    let options = ExecOptions {
        jobs,
        // Stages of several cards do not share their memory.
        memory: outlook.memory.filter(|_| outlook.on_host || seats.is_empty()),
        card: outlook.card().filter(|_| seats.is_empty()),
        card_name: outlook.card_name(),
        slots,
        talk: Talk::to(session.talker()),
        keep_going: args.keep_going,
        force: args.force.clone(),
        only: args.only.clone(),
        allow_commands: args.allow_commands,
        cancel: stop.flag.clone(),
        ..ExecOptions::new(device, &device_name)
    };
    let executor = Executor::new(&store, options);
    let mut runner =
        Runner { args, session, store: &store, executor, outlook, stop: &stop, events };
    let result = match &pipelines[..] {
        [pipeline] if wrong.is_empty() => runner.bring(pipeline),
        several => runner.bring_all(several, wrong),
    };
    if let Some(shared) = shared {
        shared.finish(session);
    }
    let written = runner.events.map_or(Ok(()), EventFile::finish);
    match (result, written) {
        (Err(error), Err(unwritten)) => {
            unwritten.report(session);
            Err(error)
        }
        (result, written) => result.and(written),
    }
}
