//! `pipe run`: the whole program on one screen.

mod load;
mod results;

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufWriter,
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
    session::{LayerArgs, Session, open_or_look, open_remote},
    signals::Stop,
};
use crate::{
    config::Pipeline,
    exec::{ExecError, ExecOptions, Executor, Outcome, RunEvent},
    plan::PlanOptions,
    report::{
        Reporter,
        human::HumanReporter,
        json::JsonReporter,
        leaks::same_pictures,
        results::Outputs,
        style::{count, duration},
    },
    store::{Store, StoreError},
};
use load::{Loaded, load};
use results::{locked_outputs, show_fresh, show_results, write_lock};

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
    let store = open_or_look(&settings)?;
    let remote = open_remote(&settings)?;
    let (device, device_name) = device::open(&settings.device)?;
    let stop = Stop::on_signal();
    let outlook = device::outlook(&device_name)?;
    let events = args.events.as_deref().map(EventFile::create).transpose()?;
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
        [pipeline] if wrong.is_empty() => runner.run(pipeline),
        several => runner.run_all(several, wrong),
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
    /// Runs several pipelines; the first failure ends it, unless it is to keep going. Those that
    /// failed before, with their exit codes, are told with the others.
    fn run_all(
        &mut self,
        pipelines: &[Pipeline],
        mut failed: Vec<(String, u8)>,
    ) -> Result<(), CliError> {
        let start = Instant::now();
        let all = pipelines.len() + failed.len();
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
        let files = count(all, "pipeline");
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

    /// Runs a pipeline; again, for as long as something is damaged that no stage had to read. Each time
    /// all results are checked, and what was made again and is damaged once more is an error.
    fn run(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        loop {
            let digest = match self.run_once(pipeline) {
                Err(CliError::Damaged(digest)) => digest,
                result => return result,
            };
            let dropped = usize::from(self.store.drop_if_damaged(digest)?)
                + self.executor.drop_damaged(pipeline)?;
            if dropped == 0 {
                return Err(CliError::Damaged(digest));
            }
            self.session.talk(&match dropped {
                1 => format!("{}; it is made again", StoreError::Damaged { digest }),
                more => format!("{more} files of these results are damaged; they are made again"),
            });
        }
    }

    fn run_once(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        let (args, session, store) = (self.args, self.session, self.store);
        session.warn(pipeline);
        let locked = if args.locked { locked_outputs(pipeline, store)? } else { BTreeMap::new() };
        let wanted = args.wanted();
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
                events.reporter.on(&event);
            }
        });
        let summary = match executed {
            Err(ExecError::Store(error @ StoreError::NotWritable { .. })) => {
                return show_fresh(pipeline, args, error, store, session);
            }
            executed => executed?,
        };
        // Before the tables, which may meet a full disk where they are written to.
        let is_to_lock = args.lock && summary.outcome == Outcome::Done;
        let lock = is_to_lock.then(|| write_lock(pipeline, store)).transpose()?;
        for warning in same_pictures(pipeline, &outputs, store)? {
            session.caution(&warning);
        }
        if args.only.is_empty() && summary.outcome != Outcome::Interrupted {
            CliError::unless_unread(show_results(pipeline, &outputs, store, session))?;
        }
        if let Some(lock) = lock {
            session.talk(&format!("locked in {}", lock.display()));
        }
        match summary.outcome {
            Outcome::Done => Ok(()),
            outcome => Err(CliError::Told(self.stop.code_of(outcome))),
        }
    }
}

/// The file of `--events`.
struct EventFile {
    path: PathBuf,
    reporter: JsonReporter<BufWriter<File>>,
}

impl EventFile {
    fn create(path: &Path) -> Result<Self, CliError> {
        let reporter = JsonReporter::create(path);
        let reporter = reporter.map_err(|error| CliError::file("create", path, &error))?;
        Ok(Self { path: path.to_owned(), reporter })
    }

    fn finish(self) -> Result<(), CliError> {
        let Self { path, reporter } = self;
        let finished = reporter.finish().map(drop);
        finished.map_err(|error| CliError::file("write the events to", &path, &error))
    }
}
