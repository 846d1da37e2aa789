//! `pipe run`: the whole program on one screen.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    cache::remote::warn_of_differing,
    device,
    error::CliError,
    exit,
    export::pictures,
    fetch, memory,
    session::{PipelineArgs, Session, open_store},
    signals::Stop,
};
use crate::{
    config::Pipeline,
    exec::{ExecOptions, Executor, Outcome},
    plan::{self, Lock, PlanOptions},
    remote::{Link, LinkReport, Remote},
    report::{
        Reporter,
        human::HumanReporter,
        json::JsonReporter,
        results::{Outputs, ResultsError, tables, tables_of_ours},
        style::{bytes, count},
        table::{Format, render},
    },
    store::{Digest, Store},
};

/// Bring the results of a pipeline up to date
///
/// Computes what is not in the cache, prints a line per finished stage and then the tables.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only this stage, or cell, and what it needs; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,
    /// Run this stage, or cell, even if it is cached; may be given several times
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// After a failure, go on with what does not depend on it
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

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pipeline.load()?;
    session.warn(&pipeline);
    let settings = session.settings()?;
    let store = open_store(&settings)?;
    let remote = session.remote()?;
    let locked = if args.locked { locked_outputs(&pipeline, &store)? } else { BTreeMap::new() };
    let (device, device_name) = device::open(&settings.device)?;

    let stop = Stop::on_signal();
    let wanted = PlanOptions { force: args.force.clone(), only: args.only.clone() };
    fetch::models(&pipeline, &wanted, session, &stop.flag)?;

    memory::check(&pipeline, &store, &wanted, &device::outlook(&device_name))?;

    let remote_name = remote.as_ref().map(ToString::to_string).unwrap_or_default();
    let link = remote.map(|remote| behind(remote, &store, &stop)).transpose()?;
    let store = match &link {
        Some(link) => store.with_behind(Arc::clone(link) as _),
        None => store,
    };

    let mut events = args.events.as_deref().map(create_events).transpose()?;
    let verbose = session.global.verbose > 0;
    let mut human = HumanReporter::new(session.screen(), session.stderr, verbose);
    let mut outputs = Outputs::none(pipeline.instances.len());

    let options = ExecOptions {
        jobs: settings.jobs.map_or_else(|| device::default_jobs(&device_name), NonZeroUsize::get),
        keep_going: args.keep_going,
        force: args.force.clone(),
        only: args.only.clone(),
        allow_commands: args.allow_commands,
        locked,
        cancel: stop.flag.clone(),
        ..ExecOptions::new(device, &device_name)
    };
    let summary = Executor::new(&store, options).execute(&pipeline, &mut |event| {
        human.on(&event);
        outputs.on(&event);
        if let Some(events) = &mut events {
            events.on(&event);
        }
    })?;

    if let Some(link) = link {
        tell_of_remote(&link.finish(), &remote_name, session);
    }
    if let (Some(events), Some(path)) = (events, &args.events) {
        events.finish().map_err(|error| CliError::file("write the events to", path, &error))?;
    }
    if args.only.is_empty() && summary.outcome != Outcome::Interrupted {
        show_results(&pipeline, &outputs, &store, session)?;
    }
    match summary.outcome {
        Outcome::Done if args.lock => write_lock(&pipeline, &store, session),
        Outcome::Done => Ok(()),
        Outcome::Failed => Err(CliError::Told(exit::STAGE_FAILED)),
        Outcome::Environment => Err(CliError::Told(exit::ENVIRONMENT)),
        Outcome::Bug => Err(CliError::Told(exit::BUG)),
        Outcome::Interrupted => Err(CliError::Told(stop.exit_code())),
    }
}

/// A remote behind the store, left when the run is stopped.
fn behind(remote: Remote, store: &Store, stop: &Stop) -> Result<Arc<Link>, CliError> {
    let flag = stop.flag.clone();
    Ok(Arc::new(Link::new(remote, store.root(), move || flag.is_cancelled())?))
}

/// What the remote gave and got; that it got less is no failure of the run.
fn tell_of_remote(report: &LinkReport, remote: &str, session: &Session) {
    let (results, sent) = (report.brought.len(), report.sent.results.len());
    if results + report.items > 0 {
        let items = match report.items {
            0 => String::new(),
            items => format!(" and {}", count(items, "item")),
        };
        let results = count(results, "result");
        session.talk(&format!("fetched {results}{items}, {} from {remote}", bytes(report.bytes)));
    }
    if sent > 0 {
        let (results, bytes) = (count(sent, "result"), bytes(report.sent.bytes));
        session.talk(&format!("sent {results}, {bytes} to {remote}"));
    }
    if report.sent.failed > 0 {
        let results = count(report.sent.failed, "result");
        let why = report.sent.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        session.talk(&format!(
            "{}: {results} not sent to {remote}{why}; `pipe cache push` sends what is missing",
            session.stderr.warn("warning")
        ));
    }
    warn_of_differing(&report.sent, remote, session);
}

/// What the lock says that a run must give; a pipeline that deviates from the lock is refused.
fn locked_outputs(
    pipeline: &Pipeline,
    store: &Store,
) -> Result<BTreeMap<String, Digest>, CliError> {
    let path = Lock::path_of(pipeline);
    let lock = Lock::read(&path)?;
    let deviations = lock.deviations(pipeline, store)?;
    if deviations.is_empty() {
        return Ok(lock.outputs());
    }
    let parts = deviations.iter().map(|deviation| (deviation.to_string(), None));
    let help = "run without --locked to go on, and with --lock to lock what comes of it";
    let last = (format!("this deviates from `{}`", path.display()), Some(help.to_owned()));
    Err(CliError::Messages { code: exit::DIFFERENT, parts: parts.chain([last]).collect() })
}

fn write_lock(pipeline: &Pipeline, store: &Store, session: &Session) -> Result<(), CliError> {
    let path = Lock::path_of(pipeline);
    Lock::of_plan(&plan::build(pipeline, store, &PlanOptions::default())?)?.write(&path)?;
    session.talk(&format!("locked in {}", path.display()));
    Ok(())
}

fn show_results(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
    session: &Session,
) -> Result<(), CliError> {
    let (tables, failed) = match tables(pipeline, outputs, store) {
        // They were right when the run began; what it computed is shown all the same.
        Err(error @ ResultsError::Reference(_)) => {
            (tables_of_ours(pipeline, outputs, store)?, Some(error))
        }
        tables => (tables?, None),
    };
    session.print(&render(&tables, Format::Text))?;
    if let Some(folder) = pictures::write(pipeline, outputs, store)? {
        session.talk(&format!("pictures (input, target, prediction): {}", folder.display()));
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

type EventFile = JsonReporter<std::io::BufWriter<std::fs::File>>;

fn create_events(path: &Path) -> Result<EventFile, CliError> {
    JsonReporter::create(path).map_err(|error| CliError::file("create", path, &error))
}
