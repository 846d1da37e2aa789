//! `pipe run`: the whole program on one screen.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    device, disk,
    error::CliError,
    exit,
    export::pictures,
    fetch,
    link::Shared,
    memory,
    session::{LayerArgs, Session, open_store},
    signals::Stop,
};
use crate::{
    config::{self, Code, LoadOptions, Pipeline},
    exec::{ExecOptions, Executor, Outcome, RunEvent},
    plan::{self, Lock, PlanOptions},
    report::{
        Reporter,
        human::HumanReporter,
        json::JsonReporter,
        results::{Outputs, ResultsError, tables, tables_of_ours},
        style::{count, duration},
        table::{Format, render},
    },
    store::{Digest, Store},
};

/// Bring the results of pipelines up to date
///
/// Computes what is not in the cache, prints a line per finished stage and then the tables. Of several
/// files, one without the profile runs with its own values, and says so.
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
    /// After a failure, go on with what does not depend on it, and with other files
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
    // What is wrong with any file is told before the first one runs.
    let pipelines = load(args, session)?;
    let settings = session.settings()?;
    let store = open_store(&settings)?;
    let remote = session.remote()?;
    let (device, device_name) = device::open(&settings.device)?;
    let stop = Stop::on_signal();
    let outlook = device::outlook(&device_name);
    let events = args.events.as_deref().map(create_events).transpose()?;
    let shared = remote.map(|remote| Shared::new(remote, &store, &stop)).transpose()?;
    let store = match &shared {
        Some(shared) => shared.behind(store),
        None => store,
    };
    let jobs = settings.jobs.map_or_else(|| device::default_jobs(&device_name), NonZeroUsize::get);
    let options = ExecOptions {
        jobs,
        memory: outlook.memory,
        card: outlook.card.clone(),
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
        [pipeline] => runner.run(pipeline),
        several => runner.run_all(several),
    };
    if let Some(shared) = shared {
        shared.finish(session);
    }
    if let (Some(events), Some(path)) = (runner.events, &args.events) {
        events.finish().map_err(|error| CliError::file("write the events to", path, &error))?;
    }
    result
}

/// Reads all files.
fn load(args: &RunArgs, session: &Session) -> Result<Vec<Pipeline>, CliError> {
    let options = args.layers.options();
    let [file] = &args.files[..] else {
        if !(args.only.is_empty() && args.force.is_empty()) {
            return Err(CliError::usage("`--only` and `--force` name stages of one file")
                .with_help("run that file alone"));
        }
        return args
            .files
            .iter()
            .map(|file| load_one_of_several(file, &options, session))
            .collect();
    };
    Ok(vec![config::load(file, &options)?])
}

/// A file with the profile, or, if it has no such profile, with its own values.
fn load_one_of_several(
    file: &Path,
    options: &LoadOptions,
    session: &Session,
) -> Result<Pipeline, CliError> {
    let errors = match config::load(file, options) {
        Err(errors) => errors,
        pipeline => return Ok(pipeline?),
    };
    let (Some(profile), true) =
        (&options.profile, errors.errors.iter().any(|error| error.code == Code::Profile))
    else {
        return Err(errors.into());
    };
    let pipeline = config::load(file, &LoadOptions { profile: None, ..options.clone() })?;
    session.talk(&format!(
        "{}: there is no profile `{profile}`, so it runs with the values of the file itself",
        file.display()
    ));
    Ok(pipeline)
}

/// What runs pipelines one after the other.
struct Runner<'a> {
    args: &'a RunArgs,
    session: &'a Session,
    store: &'a Store,
    /// Keeps models loaded from one pipeline to the next.
    executor: Executor<'a>,
    outlook: device::Outlook,
    stop: &'a Stop,
    events: Option<EventFile>,
}

impl Runner<'_> {
    /// Runs several pipelines; the first failure ends it, unless it is to keep going.
    fn run_all(&mut self, pipelines: &[Pipeline]) -> Result<(), CliError> {
        let start = Instant::now();
        let mut failed: Vec<(String, u8)> = Vec::new();
        let mut ran = 0;
        for pipeline in pipelines {
            ran += 1;
            let Err(error) = self.run(pipeline) else { continue };
            failed.push((pipeline.path.display().to_string(), error.report(self.session)));
            if !self.args.keep_going || self.stop.flag.is_cancelled() {
                break;
            }
        }
        let time = duration(start.elapsed().as_secs_f64());
        let files = count(pipelines.len(), "pipeline");
        let Some((_, code)) = failed.first() else {
            self.session.talk(&format!("{files} up to date in {time}"));
            return Ok(());
        };
        let names: Vec<_> = failed.iter().map(|(name, _)| format!("`{name}`")).collect();
        let left = match pipelines.len() - ran {
            0 => String::new(),
            left => format!(", {left} not reached"),
        };
        let names = names.join(", ");
        self.session.talk(&format!("{} of {files} failed in {time}{left}: {names}", failed.len()));
        Err(CliError::Told(*code))
    }

    fn run(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        let (args, session, store) = (self.args, self.session, self.store);
        session.warn(pipeline);
        let locked = if args.locked { locked_outputs(pipeline, store)? } else { BTreeMap::new() };
        let wanted = PlanOptions { force: args.force.clone(), only: args.only.clone() };
        fetch::models(pipeline, &wanted, session, &self.stop.flag)?;
        memory::check(pipeline, store, &wanted, &self.outlook)?;
        self.executor.lock_to(locked);

        let verbose = session.global.verbose > 0;
        let mut human = HumanReporter::new(session.screen(), session.stderr, verbose);
        let mut outputs = Outputs::none(pipeline.instances.len());
        let mut space = disk::Watch::new(pipeline, store, &wanted);
        let summary = self.executor.execute(pipeline, &mut |event| {
            if matches!(event, RunEvent::StageStarted { .. }) {
                space.look(session, &self.stop.flag);
            }
            human.on(&event);
            outputs.on(&event);
            if let Some(events) = &mut self.events {
                events.on(&event);
            }
        })?;
        space.finish()?;
        // Before the tables, which may meet a full disk where they are written to.
        let is_to_lock = args.lock && summary.outcome == Outcome::Done;
        let lock = is_to_lock.then(|| write_lock(pipeline, store)).transpose()?;
        if args.only.is_empty() && summary.outcome != Outcome::Interrupted {
            CliError::unless_unread(show_results(pipeline, &outputs, store, session))?;
        }
        if let Some(lock) = lock {
            session.talk(&format!("locked in {}", lock.display()));
        }
        match summary.outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(CliError::Told(exit::STAGE_FAILED)),
            Outcome::Environment => Err(CliError::Told(exit::ENVIRONMENT)),
            Outcome::Bug => Err(CliError::Told(exit::BUG)),
            Outcome::Interrupted => Err(CliError::Told(self.stop.exit_code())),
        }
    }
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

/// Writes the lock and says where.
fn write_lock(pipeline: &Pipeline, store: &Store) -> Result<PathBuf, CliError> {
    let path = Lock::path_of(pipeline);
    Lock::of_plan(&plan::build(pipeline, store, &PlanOptions::default())?)?.write(&path)?;
    Ok(path)
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
