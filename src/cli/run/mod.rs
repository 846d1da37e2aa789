//! `pipe run`: the whole program on one screen.
//!
//! What is wrong with any file is told before the first one runs. Then each pipeline is prepared
//! (refused, if it cannot be run to its end, and its models fetched), executed and reported. There
//! is no step that plans: whether a stage must run depends on what those above it give, so the
//! executor decides each when its inputs are known (`exec/schedule/`), as `pipe plan` does as far
//! as it can (`plan::build`).

mod args;
mod events;
mod load;
mod machine;
mod read_only;
mod results;
mod runner;
mod slots;

pub(super) use args::RunArgs;

use super::{
    error::CliError,
    exit,
    export::pictures,
    link::Shared,
    session::{Session, open_or_look, open_remote},
    signals::Stop,
};
use crate::{config::Pipeline, exec::Executor, store::StoreError};
use events::EventFile;
use load::load;
use machine::Machine;
use runner::Runner;

pub(super) fn run(args: &RunArgs, session: &Session) -> Result<(), CliError> {
    let loaded = load(args, session)?;
    let settings = session.settings()?;
    let store = session.told_by(open_or_look(&settings)?);
    let remote = open_remote(&settings)?;
    let machine = Machine::open(&settings, session)?;
    let stop = Stop::on_signal();
    let events = EventFile::of(args)?;
    let (store, shared) = Shared::behind(stop.heard_by(store), remote, &stop)?;
    let executor = Executor::new(&store, machine.exec_options(args, session, &stop));

    let outlook = &machine.outlook;
    let mut runner =
        Runner { args, session, store: &store, executor, outlook, stop: &stop, events };
    let result = runner.run_all(loaded);
    if let Some(shared) = shared {
        shared.finish(session);
    }
    runner.finish(result)
}

impl Runner<'_> {
    /// Brings a pipeline up to date, and shows its results.
    fn run(&mut self, pipeline: &Pipeline) -> Result<(), CliError> {
        self.session.warn(pipeline);
        if let Err(error @ StoreError::NotWritable { .. }) = self.store.check_writable() {
            return self.repairing_damage(pipeline, |runner| {
                read_only::show(pipeline, runner.args, &error, runner.store, runner.session)
            });
        }
        let prepared = self.repairing_damage(pipeline, |runner| runner.prepare(pipeline));
        prepared.map_err(|error| self.stop.named(error))?;
        self.repairing_damage(pipeline, |runner| {
            let executed = runner.execute(pipeline)?;
            runner.report(pipeline, executed)
        })
    }
}
