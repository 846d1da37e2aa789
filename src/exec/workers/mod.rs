//! Worker processes: one for each of several devices, with its own models.
//!
//! The run itself stays in one process: it decides, locks, records and tells. A stage that computes
//! on the device is called in the worker of a free slot (`call`), which reads the inputs from the
//! store, puts the items into it and says which (`serve`, `protocol`). So a worker decides nothing
//! and locks nothing, and one that dies takes nothing with it but the call: that is made once more,
//! in a new process. A worker ends when its standard input does, or else, if somebody has stopped
//! it, by the shell that ends commands (`CommandGuard`): none outlives the run, however that ends.

mod call;
mod process;
mod protocol;
mod serve;
mod slot;
#[cfg(test)]
mod tests;

pub(super) use call::SlotContext;
pub use serve::{Fitting, serve, unfit};
pub use slot::{Launch, Slot, Talk};

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{stages::CommandGuard, sync::Unpoisoned};
use process::Process;

/// The workers of a run, of which each is started when its slot has something to do for the first
/// time.
pub(super) struct Workers {
    slots: Vec<Mutex<Option<Process>>>,
    guard: Arc<CommandGuard>,
}

impl Workers {
    /// As many as there are slots; none is started.
    pub(super) fn new(slots: usize, guard: Arc<CommandGuard>) -> Self {
        Self { slots: std::iter::repeat_with(Mutex::default).take(slots).collect(), guard }
    }

    /// Starts the worker of a slot.
    fn start(&self, slot: &Slot, talk: &Talk) -> io::Result<Process> {
        Process::start(slot, talk, Arc::clone(&self.guard))
    }

    /// Has all end.
    fn dismiss(&mut self) {
        let started = self.slots.iter_mut().filter_map(|slot| slot.get_mut().unpoisoned().as_mut());
        started.for_each(Process::dismiss);
    }

    /// The worker of a slot, for as long as nobody else asks for it: the schedule gives a slot to
    /// one stage at a time.
    fn of(&self, slot: usize) -> MutexGuard<'_, Option<Process>> {
        self.slots[slot].lock().unpoisoned()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All at once: then each is waited for.
        self.dismiss();
    }
}
