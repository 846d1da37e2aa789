//! Whether an instance must run: its inputs are known, its key is looked up.

use std::collections::BTreeMap;

use super::{JobOutput, Schedule, State};
use crate::{
    exec::{
        Outcome, RunEvent,
        failure::Failure,
        job::{Job, stage_error},
        lookups::Lookup,
    },
    plan::{Found, PlanError, StaleReason},
    stages::StageError,
    store::{Digest, Fingerprint, Record},
};

impl Schedule<'_> {
    pub(super) fn decide_ready(&mut self, on_event: &mut dyn FnMut(RunEvent)) {
        while !self.is_stopped()
            && let Some(index) = self.ready.pop_first()
        {
            let decided = self.decide(index, on_event);
            self.decided(index, decided, on_event);
        }
    }

    /// An instance that could not be decided fails, unless that can be repaired.
    fn decided(
        &mut self,
        index: usize,
        decided: Result<(), PlanError>,
        on_event: &mut dyn FnMut(RunEvent),
    ) {
        let Err(error) = decided else { return };
        let error = stage_error(error);
        if matches!(error, StageError::Cancelled) {
            self.states[index] = State::Waiting;
            self.outcome = Outcome::Interrupted;
            return;
        }
        if let Err(error) = self.repaired(index, error) {
            self.fail(index, Failure::of(&error), on_event);
        }
    }

    /// Looks the key up: fresh is done, stale is queued.
    fn decide(
        &mut self,
        index: usize,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        let Some(inputs) = self.inputs(index) else { return Ok(()) };
        let fresh = self.fresh.get_mut(index).and_then(Option::take);
        if let Some(record) = fresh.filter(|record| record.ingredients.inputs == inputs) {
            return self.reuse(index, &record, record.fingerprint, on_event);
        }
        self.decider.hash_weights(index, &inputs, &mut |hashing| {
            let stage = self.decider.pipeline.instances[index].to_string();
            on_event(RunEvent::hashing(index, stage, hashing));
        });
        let key = self.decider.key(index, inputs)?;
        if let Some(first) = self.failed.get(&key.direct) {
            let because = self.decider.pipeline.instances[*first].to_string();
            self.skip(index, &because, on_event);
            self.skip_dependants(index, &because, on_event);
            return Ok(());
        }
        let forced = self.selection.forced[index] && !self.forced.contains(&key.direct);
        if self.store.behind().is_none()
            && let Some(found) = self.decider.find_soon(index, &key)?
        {
            return self.settle(Lookup { index, key, forced }, found, on_event);
        }
        self.states[index] = State::LookedUp;
        self.looking += 1;
        self.lookups.send(Lookup { index, key, forced }).expect("who looks up outlives the walk");
        Ok(())
    }

    /// What came of a look-up, unless its inputs have become others meanwhile.
    pub(super) fn looked(
        &mut self,
        lookup: Lookup,
        found: Result<Found, PlanError>,
        on_event: &mut dyn FnMut(RunEvent),
    ) {
        self.looking -= 1;
        let index = lookup.index;
        if self.states[index] != State::LookedUp {
            return;
        }
        self.states[index] = State::Waiting;
        if self.inputs(index).as_ref() != Some(&lookup.key.ingredients.inputs) {
            return self.wake(index);
        }
        let settled = found.and_then(|found| self.settle(lookup, found, on_event));
        self.decided(index, settled, on_event);
    }

    /// Fresh: done. Stale: queued.
    fn settle(
        &mut self,
        Lookup { index, key, forced }: Lookup,
        found: Found,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        match found {
            Found::Whole(record) if !forced => self.reuse(index, &record, key.direct, on_event),
            found => {
                let reasons = if forced {
                    vec![StaleReason::Forced]
                } else {
                    self.decider.reasons(index, &key, &found)
                };
                self.states[index] = State::Queued;
                let need = self.memory.of(index).map_or(0, |memory| memory.total());
                let cause = self.causes.runs(self.decider, index, &reasons);
                let before = self.decider.last(index).map(|last| last.output);
                let (room, slot, wait) = (None, None, None);
                self.queue.push(Job {
                    index,
                    key,
                    reasons,
                    cause,
                    forced,
                    before,
                    need,
                    room,
                    slot,
                    wait,
                });
                Ok(())
            }
        }
    }

    /// The content of an instance's inputs, once all are known.
    fn inputs(&self, index: usize) -> Option<BTreeMap<String, Digest>> {
        let inputs = &self.decider.pipeline.instances[index].inputs;
        let content = |(port, input): (&String, &usize)| match self.states[*input] {
            State::Done { output } => Some((port.clone(), output)),
            _ => None,
        };
        inputs.iter().map(content).collect()
    }

    /// Decides a job anew, and says so, if its inputs were made again since, because they were
    /// damaged, and came out otherwise; what is missing cannot be made while they are missing,
    /// either.
    pub(super) fn redecide_if_outdated(&mut self, job: &Job, of_job: JobOutput) -> bool {
        let outdated = match self.inputs(job.index) {
            Some(inputs) => inputs != job.key.ingredients.inputs,
            None => of_job == JobOutput::Missing,
        };
        if outdated {
            self.states[job.index] = State::Waiting;
            self.wake(job.index);
        }
        outdated
    }

    /// Takes what the store holds.
    fn reuse(
        &mut self,
        index: usize,
        record: &Record,
        key: Fingerprint,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        if let Err(deviation) = self.check_lock(index, record) {
            self.failed.insert(key, index);
            self.fail(index, deviation, on_event);
            return Ok(());
        }
        self.decider.note(index, record.fingerprint)?;
        self.done(index, record.output, false);
        let stage = self.decider.pipeline.instances[index].to_string();
        on_event(RunEvent::StageReused { index, stage, digest: record.output });
        Ok(())
    }
}
