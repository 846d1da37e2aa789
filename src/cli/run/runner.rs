//! The steps of a run, of one pipeline after the other.

use std::{collections::BTreeMap, time::Instant};

use super::{
    RunArgs,
    events::EventFile,
    results::{locked_outputs, show_results, write_lock},
};
use crate::{
    cli::{
        device::Outlook, disk, error::CliError, fetch, load::Loaded, memory, session::Session,
        signals::Stop,
    },
    config::{self, LoadOptions, Pipeline},
    exec::{Executor, Outcome, RunEvent},
    plan::Lock,
    report::{
        Reporter, doubts,
        human::HumanReporter,
        results::Outputs,
        style::{count, duration},
    },
    store::Store,
};

/// What runs pipelines one after the other.
pub(super) struct Runner<'a> {
    pub args: &'a RunArgs,
    pub session: &'a Session,
    pub store: &'a Store,
    /// Keeps models loaded from one pipeline to the next.
    pub executor: Executor<'a>,
    pub outlook: &'a Outlook,
    pub stop: &'a Stop,
    pub events: Option<EventFile>,
}

/// What came of executing a pipeline.
pub(super) struct Executed<'p> {
    outcome: Outcome,
    outputs: Outputs,
    doubts: doubts::Watch<'p>,
}

impl Runner<'_> {
    /// Runs several pipelines; the first failure ends it, unless it is to keep going. Those with
    /// errors, which do not run, are told with those that fail.
    pub fn run_all(&mut self, Loaded { pipelines, wrong }: Loaded) -> Result<(), CliError> {
        if let ([pipeline], []) = (&pipelines[..], &wrong[..]) {
            return self.run(pipeline);
        }
        let start = Instant::now();
        let all = pipelines.len() + wrong.len();
        let (mut ran, mut failed) = (0, wrong);
        for pipeline in &pipelines {
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

    /// Does something; again, for as long as it meets damage that no stage had to read. Each time
    /// all results are checked, and what was made again and is damaged once more is an error.
    pub fn repairing_damage(
        &mut self,
        pipeline: &Pipeline,
        act: impl Fn(&mut Self) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        loop {
            let digest = match act(self) {
                Err(CliError::Damaged(digest)) => digest,
                result => return result,
            };
            let dropped = usize::from(self.store.drop_if_damaged(digest)?)
                + self.executor.drop_damaged(pipeline)?;
            if dropped == 0 {
                return Err(CliError::Damaged(digest));
            }
            let (pipeline, files) = (pipeline.name.clone(), dropped);
            let event = RunEvent::DamageFound { pipeline, files, digest };
            self.human().on(&event);
            if let Some(events) = &mut self.events {
                events.reporter.on(&event);
            }
        }
    }

    /// Refuses what cannot be run to its end, and fetches what it needs.
    pub fn prepare(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        let (args, wanted) = (self.args, self.args.plan_options());
        if args.lock {
            Lock::check_place(pipeline)?;
        }
        let locked =
            if args.locked { locked_outputs(pipeline, self.store)? } else { BTreeMap::new() };
        let refuse = || Ok(self.executor.refuse_commands(pipeline)?);
        let fits = || memory::check(pipeline, self.store, &wanted, self.outlook);
        let settle = || self.warn_of_new_findings(pipeline).and_then(|()| fits());
        fetch::models(pipeline, &wanted, self.session, self.stop, refuse, settle)?;
        fits()?;
        self.executor.lock_to(locked);
        Ok(())
    }

    /// Says what shows of a pipeline only now that the configurations of its models are here.
    fn warn_of_new_findings(&self, pipeline: &Pipeline) -> Result<(), CliError> {
        let options = LoadOptions {
            profile: pipeline.profile.clone(),
            set: pipeline.set.clone(),
            ..LoadOptions::default()
        };
        let now = config::load(&pipeline.path, &options)?;
        let news = now.warnings.iter().filter(|text| !pipeline.warnings.contains(text));
        news.for_each(|text| self.session.caution(text));
        Ok(())
    }

    /// Has the pipeline executed, and tells people and programs what happens.
    pub fn execute<'p>(&mut self, pipeline: &'p Pipeline) -> Result<Executed<'p>, CliError> {
        let (session, store, wanted) = (self.session, self.store, self.args.plan_options());
        let mut human = self.human();
        let mut outputs = Outputs::none(pipeline.instances.len());
        let mut doubts = doubts::Watch::new(pipeline);
        let space = disk::Wanted { pipeline, store, options: &wanted };
        let executed = std::thread::scope(|scope| {
            let mut space = disk::Watch::new(scope, space);
            let executed = self.executor.execute(pipeline, &mut |event| {
                if matches!(event, RunEvent::StageStarted { .. }) {
                    space.begin(session);
                }
                space.tell(session);
                human.on(&event);
                outputs.on(&event);
                if let RunEvent::StageReused { index, .. } | RunEvent::StageFinished { index, .. } =
                    &event
                {
                    let raised = doubts.on(*index, &outputs, store);
                    for doubt in &raised {
                        session.caution(&doubt.warning);
                    }
                }
                if let Some(events) = &mut self.events {
                    events.reporter.on(&event);
                }
            });
            space.finish(session);
            executed
        });
        let summary = executed.map_err(|error| self.stop.error_of(error))?;
        Ok(Executed { outcome: summary.outcome, outputs, doubts })
    }

    /// Writes the lock, shows the results, and says how it ended.
    pub fn report(&self, pipeline: &Pipeline, executed: Executed<'_>) -> Result<(), CliError> {
        let Executed { outcome, outputs, mut doubts } = executed;
        let (args, session, store) = (self.args, self.session, self.store);
        // Before the tables, which may meet a full disk where they are written to.
        let is_to_lock = args.lock && outcome == Outcome::Done;
        let lock = is_to_lock.then(|| write_lock(pipeline, store)).transpose()?;
        for doubt in doubts.finish(&outputs, store)? {
            session.caution(&doubt.warning);
        }
        if args.only.is_empty() && outcome != Outcome::Interrupted {
            CliError::unless_unread(show_results(pipeline, &outputs, store, session))?;
        }
        if let Some(lock) = lock {
            session.talk(&format!("locked in {}", lock.display()));
        }
        match outcome {
            Outcome::Done => Ok(()),
            outcome => Err(CliError::Told(self.stop.code_of(outcome))),
        }
    }

    /// Ends the file of events; what is wrong with that is told after what went wrong before.
    pub fn finish(self, result: Result<(), CliError>) -> Result<(), CliError> {
        let written = self.events.map_or(Ok(()), EventFile::finish);
        match (result, written) {
            (Err(error), Err(unwritten)) => {
                unwritten.report(self.session);
                Err(error)
            }
            (result, written) => result.and(written),
        }
    }

    /// Who tells a run to a person.
    fn human(&self) -> HumanReporter {
        let verbose = self.session.global.verbose > 0;
        HumanReporter::new(self.session.screen(), self.session.stderr, verbose)
    }
}
