//! What a run computes on: a device, or several with a process each.

use std::num::NonZeroUsize;

use super::{RunArgs, slots::slots};
use crate::{
    cli::{
        device::{self, Chosen, Outlook},
        error::CliError,
        session::Session,
        signals::Stop,
    },
    config::settings::Settings,
    exec::{ExecOptions, Slot, Talk},
};

/// The devices of a run, and how many stages run on them at once.
pub(super) struct Machine {
    chosen: Chosen,
    pub outlook: Outlook,
    slots: Vec<Slot>,
    jobs: usize,
}

impl Machine {
    /// Opens the device that the settings ask for; processes start when they have something to do.
    pub fn open(settings: &Settings, session: &Session) -> Result<Self, CliError> {
        let chosen = device::open(settings)?;
        let outlook = device::outlook(&chosen)?;
        let slots = slots(&chosen, &outlook, settings, session)?;
        let jobs = settings.jobs.map_or_else(|| device::default_jobs(&chosen), NonZeroUsize::get);
        Ok(Self { chosen, outlook, slots, jobs })
    }

    /// How pipelines are run here.
    pub fn exec_options(&self, args: &RunArgs, session: &Session, stop: &Stop) -> ExecOptions {
        let Self { chosen, outlook, slots, jobs } = self;
        // Stages of several cards do not share their memory.
        let is_one_device = slots.is_empty();
        ExecOptions {
            jobs: *jobs,
            memory: outlook.memory.filter(|_| outlook.on_host || is_one_device),
            card: outlook.card().filter(|_| is_one_device),
            card_name: outlook.card_name(),
            slots: slots.clone(),
            talk: Talk::to(session.talker()),
            keep_going: args.keep_going,
            force: args.force.clone(),
            only: args.only.clone(),
            allow_commands: args.allow_commands,
            cancel: stop.flag.clone(),
            ..ExecOptions::new(chosen.device.clone(), &chosen.name)
        }
    }
}
