//! Stages that are executed again, many at once, each in a scratch store of its thread.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Condvar, Mutex, mpsc::Sender},
    time::Instant,
};

use super::{
    budget::{Budget, Room},
    call::{Call, Caller, Given, narrowed},
    verify::{Difference, SkipReason, Verdict, VerifyOptions},
};
use crate::{
    artifact::{
        Item,
        compare::{Distance, distance},
        crossed_name,
    },
    models::Memory,
    stages::{Progress, StageError},
    store::{Record, SourceReader, Store, StoreError},
    sync::Unpoisoned,
};

/// Stages that wait for a thread, and for memory beside those that are executed.
pub(super) struct MemoryQueue {
    state: Mutex<Waiting>,
    /// A stage ended.
    moved: Condvar,
}

struct Waiting {
    left: BTreeSet<usize>,
    budget: Budget,
}

impl MemoryQueue {
    /// A queue of these instances before a device with this memory.
    pub(super) fn new(chosen: impl IntoIterator<Item = usize>, memory: Option<u64>) -> Self {
        let waiting = Waiting { left: chosen.into_iter().collect(), budget: Budget::new(memory) };
        Self { state: Mutex::new(waiting), moved: Condvar::new() }
    }

    /// The first instance that there is room for, once there is one; nothing once none is left.
    fn next(&self, need: &dyn Fn(usize) -> u64) -> Option<(usize, Option<Room>)> {
        let mut state = self.state.lock().unpoisoned();
        loop {
            if state.left.is_empty() {
                return None;
            }
            let fitting =
                state.left.iter().copied().find(|index| state.budget.has_room(need(*index)));
            if let Some(index) = fitting {
                state.left.remove(&index);
                return Some((index, state.budget.start(index, need(index))));
            }
            state = self.moved.wait(state).unpoisoned();
        }
    }

    fn end(&self, index: usize) {
        self.state.lock().unpoisoned().budget.end(index);
        self.moved.notify_all();
    }

    /// Sends everybody home.
    fn close(&self) {
        self.state.lock().unpoisoned().left.clear();
        self.moved.notify_all();
    }
}

/// What executes stages again.
pub(super) struct Reexecution<'a> {
    pub(super) caller: Caller<'a>,
    /// What the cache holds of each instance.
    pub(super) records: &'a [Option<&'a Record>],
    /// What is to be added where it holds nothing that is whole.
    pub(super) broken: &'a (dyn Fn(usize) -> String + Sync),
    /// What those take that are executed, as far as it is known.
    pub(super) memory: HashMap<usize, Memory>,
    pub(super) options: &'a VerifyOptions,
    pub(super) on_progress: &'a (dyn Fn(&str, Progress) + Sync),
}

/// A stage that was executed, or was not and why; an error if there can be no others.
pub(super) struct Ended {
    pub(super) index: usize,
    pub(super) verdict: Result<Result<Verdict, StageError>, StoreError>,
    pub(super) wall_secs: f64,
}

impl Reexecution<'_> {
    /// Executes stages that wait in the queue, one after the other, until none does.
    pub(super) fn serve(&self, queue: &MemoryQueue, scratch: &Store, ended: &Sender<Ended>) {
        let need = |index: usize| self.memory.get(&index).map_or(0, Memory::total);
        while !self.caller.options.cancel.is_cancelled()
            && let Some((index, room)) = queue.next(&need)
        {
            let start = Instant::now();
            let one = OneStage { execution: self, index, room, scratch };
            // A panic must not leave the others waiting for this stage to end.
            let verdict = self.caller.guarded(index, || one.verdict());
            queue.end(index);
            // Nothing of it is needed any more, and all of it together may be as much as the cache.
            let verdict = scratch.clear().map(|()| verdict);
            let wall_secs = start.elapsed().as_secs_f64();
            // Who wants to know no more has met an error.
            if ended.send(Ended { index, verdict, wall_secs }).is_err() {
                queue.close();
            }
        }
    }
}

/// One stage that is executed again.
struct OneStage<'a> {
    execution: &'a Reexecution<'a>,
    index: usize,
    /// The memory that must be free.
    room: Option<Room>,
    scratch: &'a Store,
}

impl OneStage<'_> {
    fn verdict(&self) -> Result<Verdict, StageError> {
        let Caller { pipeline, store, options, .. } = self.execution.caller;
        let index = self.index;
        let Some(record) = self.execution.records[index] else {
            return Ok(skipped(SkipReason::NotUpToDate, &(self.execution.broken)(index)));
        };
        if pipeline.instances[index].work.command().is_some() && !options.allow_commands {
            return Ok(skipped(SkipReason::Command, ""));
        }
        self.check_fits()?;
        let made = self.execute(record)?;
        let tolerance = self.execution.options.tolerance;
        if self.execution.options.twice {
            let again = self.execute(record)?;
            return compare((&made, self.scratch), (&again, self.scratch), tolerance);
        }
        let before = store.manifest(record.output)?;
        compare((&before.items, store), (&made, self.scratch), tolerance)
    }

    /// Refuses what cannot fit the device, before anything is loaded.
    fn check_fits(&self) -> Result<(), StageError> {
        let caller = &self.execution.caller;
        match (self.execution.memory.get(&self.index), caller.options.memory) {
            (Some(needed), Some(limit)) if needed.total() > limit => {
                Err(caller.too_large(self.index, needed, limit))
            }
            _ => Ok(()),
        }
    }

    /// The items that the stage gives now.
    fn execute(&self, record: &Record) -> Result<Vec<Item>, StageError> {
        let caller = &self.execution.caller;
        caller.make_room(self.index, self.room);
        let given = caller.given(&record.ingredients.inputs)?;
        let crossed = caller.pipeline.instances[self.index].work.crossed_port();
        let Some((port, others)) = crossed.and_then(|port| Some((port, given.get(port)?))) else {
            return self.call(given);
        };
        let mut items = Vec::new();
        for (other, prefix) in others.crossed() {
            for made in self.call(narrowed(&given, port, vec![other.clone()]))? {
                items.push(Item { name: crossed_name(prefix, &made.name), files: made.files });
            }
        }
        Ok(items)
    }

    fn call(&self, given: Given) -> Result<Vec<Item>, StageError> {
        let (caller, index) = (&self.execution.caller, self.index);
        let Caller { pipeline, options, .. } = *caller;
        let instance = &pipeline.instances[index];
        let sources = instance.work.source_root().map(SourceReader::new);
        let sources = sources.as_ref();
        let (trajectory, weights, at) = (None, None, None);
        let call = Call { index, given, sources, trajectory, weights, into: self.scratch, at };
        let name = instance.to_string();
        let progress = |progress: Progress| (self.execution.on_progress)(&name, progress);
        let mut on_item = |_: &Item| options.cancel.check();
        caller.call(call, &progress, &mut on_item).map(|made| made.items)
    }
}

/// Compares two lists of items, each with the store that holds its files.
fn compare(
    (before, before_in): (&[Item], &Store),
    (after, after_in): (&[Item], &Store),
    tolerance: f64,
) -> Result<Verdict, StageError> {
    let different = |message: String| Verdict::Different { distance: None, message, place: None };
    if !before.iter().map(|item| &item.name).eq(after.iter().map(|item| &item.name)) {
        return Ok(different("the items are others".to_owned()));
    }
    let mut farthest: Option<(f64, Difference)> = None;
    for (old, new) in before.iter().zip(after) {
        if !old.files.keys().eq(new.files.keys()) {
            return Ok(different(format!("the files of item `{}` are others", old.name)));
        }
        for ((file, a), b) in old.files.iter().zip(new.files.values()) {
            if a.digest == b.digest {
                continue;
            }
            let place = Difference { item: old.name.clone(), file: file.clone() };
            match distance(file, &before_in.read(a)?, &after_in.read(b)?) {
                Distance::None => {}
                Distance::Form(message) => {
                    return Ok(Verdict::Different { distance: None, message, place: Some(place) });
                }
                Distance::Numbers(far) => {
                    if farthest.as_ref().is_none_or(|(farthest, _)| far > *farthest) {
                        farthest = Some((far, place));
                    }
                }
            }
        }
    }
    Ok(match farthest {
        None => Verdict::Identical,
        Some((distance, place)) if distance <= tolerance => {
            Verdict::WithinTolerance { distance, place }
        }
        Some((distance, place)) => Verdict::Different {
            distance: distance.is_finite().then_some(distance),
            message: "numbers differ".to_owned(),
            place: Some(place),
        },
    })
}

fn skipped(reason: SkipReason, more: &str) -> Verdict {
    let message = match reason {
        SkipReason::NotUpToDate => "not up to date in the cache",
        SkipReason::Command => "runs a shell command, which was not allowed",
    };
    Verdict::Skipped { reason, message: format!("{message}{more}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_wait_for_memory_and_none_waits_for_ever() {
        let need = |index: usize| [60, 60, 30, 300][index];
        let queue = MemoryQueue::new(0..4, Some(100));
        let next = || queue.next(&need).map(|(index, room)| (index, room.map(|room| room.needed)));
        assert_eq!(next(), Some((0, Some(60))));
        assert_eq!(next(), Some((2, Some(90))), "the second does not fit beside the first");
        std::thread::scope(|scope| {
            let waits = scope.spawn(next);
            queue.end(2);
            queue.end(0);
            assert_eq!(waits.join().unwrap(), Some((1, Some(60))));
            let waits = scope.spawn(next);
            queue.end(1);
            assert_eq!(waits.join().unwrap(), Some((3, Some(300))), "alone, whatever it needs");
        });
        assert_eq!(next(), None);
    }
}
