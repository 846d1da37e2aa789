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
    session::{LayerArgs, Session, open_or_look},
    signals::Stop,
};
use crate::{
    config::{self, Code, ConfigErrors, LoadOptions, Pipeline},
    exec::{ExecError, ExecOptions, Executor, Outcome, RunEvent},
    plan::{self, Freshness, Lock, PlanOptions},
    report::{
        Reporter,
        human::HumanReporter,
        json::JsonReporter,
        results::{Outputs, ResultsError, tables, tables_of_ours},
        style::{count, duration},
        table::{Format, render},
    },
    store::{Digest, Store, StoreError},
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
    let store = open_or_look(&settings)?;
    let remote = session.remote()?;
    let (device, device_name) = device::open(&settings.device)?;
    let stop = Stop::on_signal();
    let outlook = device::outlook(&device_name)?;
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
    let written = match (runner.events, &args.events) {
        (Some(events), Some(path)) => {
            let finished = events.finish().map(drop);
            finished.map_err(|error| CliError::file("write the events to", path, &error))
        }
        _ => Ok(()),
    };
    match (result, written) {
        (Err(error), Err(unwritten)) => {
            unwritten.report(session);
            Err(error)
        }
        (result, written) => result.and(written),
    }
}

/// Reads all files.
fn load(args: &RunArgs, session: &Session) -> Result<Vec<Pipeline>, CliError> {
    let options = args.layers.options();
    let [file] = &args.files[..] else {
        if !(args.only.is_empty() && args.force.is_empty()) {
            return Err(CliError::usage("`--only` and `--force` name stages of one file")
                .with_help("run that file alone"));
        }
        return load_several(&args.files, &options, session);
    };
    Ok(vec![config::load(file, &options)?])
}

/// Reads several files, each with the profile, or, where it has no such profile and another file has,
/// with its own values.
fn load_several(
    files: &[PathBuf],
    options: &LoadOptions,
    session: &Session,
) -> Result<Vec<Pipeline>, CliError> {
    let lacks_profile = |errors: &ConfigErrors| {
        options.profile.is_some() && errors.errors.iter().any(|error| error.code == Code::Profile)
    };
    let mut loaded: Vec<_> = files.iter().map(|file| config::load(file, options)).collect();
    if loaded.iter().any(|found| !found.as_ref().is_err_and(lacks_profile)) {
        for (file, found) in files.iter().zip(&mut loaded) {
            if found.as_ref().is_err_and(lacks_profile) {
                *found = config::load(file, &LoadOptions { profile: None, ..options.clone() });
                session.talk(&format!(
                    "{}: there is no profile `{}`, so it runs with the values of the file itself",
                    file.display(),
                    options.profile.as_deref().unwrap_or_default()
                ));
            }
        }
    }
    let (pipelines, wrong): (Vec<_>, Vec<_>) = loaded.into_iter().partition(Result::is_ok);
    for errors in wrong.into_iter().filter_map(Result::err) {
        CliError::Config(errors).report(session);
    }
    if pipelines.len() < files.len() {
        return Err(CliError::Told(exit::USAGE));
    }
    Ok(pipelines.into_iter().flatten().collect())
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
        // The greatest, so that an interruption or a bug is not hidden by a failure.
        let Some(code) = failed.iter().map(|(_, code)| *code).max() else {
            self.session.talk(&format!("{files} up to date in {time}"));
            return Ok(());
        };
        let names: Vec<_> = failed.iter().map(|(name, _)| format!("`{name}`")).collect();
        let left = match pipelines.len() - ran {
            0 => String::new(),
            left => format!("; {left} not reached"),
        };
        let how = if self.stop.flag.is_cancelled() { "failed or interrupted" } else { "failed" };
        let (names, failed) = (names.join(", "), failed.len());
        self.session.talk(&format!("{how}: {names} ({failed} of {files}, in {time}){left}"));
        Err(CliError::Told(code))
    }

    /// Runs a pipeline; once more, if what no stage had to read was damaged.
    fn run(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        match self.run_once(pipeline) {
            Err(CliError::Damaged(digest)) if self.store.evict(digest).is_ok() => {
                let what = StoreError::Damaged { digest };
                self.session.talk(&format!("{what}; it was removed, and is made again"));
                self.run_once(pipeline)
            }
            result => result,
        }
    }

    fn run_once(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        let (args, session, store) = (self.args, self.session, self.store);
        session.warn(pipeline);
        let locked = if args.locked { locked_outputs(pipeline, store)? } else { BTreeMap::new() };
        let wanted = PlanOptions { force: args.force.clone(), only: args.only.clone() };
        let refuse = || Ok(self.executor.refuse_commands(pipeline)?);
        fetch::models(pipeline, &wanted, session, self.stop, refuse)?;
        memory::check(pipeline, store, &wanted, &self.outlook)?;
        self.executor.lock_to(locked);

        let verbose = session.global.verbose > 0;
        let mut human = HumanReporter::new(session.screen(), session.stderr, verbose);
        let mut outputs = Outputs::none(pipeline.instances.len());
        let mut space = disk::Watch::new(pipeline, store, &wanted);
        let executed = self.executor.execute(pipeline, &mut |event| {
            if matches!(event, RunEvent::StageStarted { .. }) {
                space.look(session);
            }
            human.on(&event);
            outputs.on(&event);
            if let Some(events) = &mut self.events {
                events.on(&event);
            }
        });
        let summary = match executed {
            Err(ExecError::Store(error @ StoreError::NotWritable { .. })) => {
                return self.show_fresh(pipeline, &wanted, error);
            }
            executed => executed?,
        };
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
            Outcome::Deviated => Err(CliError::Told(exit::DIFFERENT)),
            Outcome::Bug => Err(CliError::Told(exit::BUG)),
            Outcome::Interrupted => Err(CliError::Told(self.stop.exit_code())),
        }
    }

    /// The results from a cache that cannot be written, if all are up to date.
    fn show_fresh(
        &self,
        pipeline: &Pipeline,
        wanted: &PlanOptions,
        error: StoreError,
    ) -> Result<(), CliError> {
        let plan = plan::build(pipeline, self.store, wanted)?;
        let mut needed = plan.nodes.iter().filter(|node| node.needed);
        if self.args.lock || !needed.all(|node| matches!(node.freshness, Freshness::Fresh(_))) {
            return Err(error.into());
        }
        self.session.talk("all is up to date, which cannot be noted: the cache cannot be written");
        if !self.args.only.is_empty() {
            return Ok(());
        }
        let tables = tables(pipeline, &Outputs::of_plan(&plan), self.store)?;
        CliError::unless_unread(self.session.print(&render(&tables, Format::Text)))
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
