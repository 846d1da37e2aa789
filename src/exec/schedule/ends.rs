//! What the end of a stage means for the others: done, damaged, failed, or not reached.

use super::{JobOutput, Schedule, State};
use crate::{
    exec::{
        Outcome, RunEvent, RunSummary,
        failure::Failure,
        job::{Finished, Job, stage_error},
    },
    plan::PlanError,
    stages::StageError,
    store::{Digest, Record},
};

impl Schedule<'_> {
    /// What came of a job.
    pub(super) fn ended(
        &mut self,
        job: &Job,
        result: Result<Finished, StageError>,
        on_event: &mut dyn FnMut(RunEvent),
    ) {
        let index = job.index;
        self.running.remove(&job.key.lock());
        self.budget.end(index);
        self.slots.end(job);
        let output = if result.is_ok() { JobOutput::Made } else { JobOutput::Missing };
        if job.forced && output == JobOutput::Made {
            self.forced.insert(job.key.direct);
        }
        match result {
            Err(StageError::Cancelled) => {
                self.states[index] = State::Waiting;
                self.outcome = Outcome::Interrupted;
            }
            Err(StageError::Outdated) => {
                let stage = self.decider.pipeline.instances[index].to_string();
                tracing::warn!(
                    "The weights of `{stage}` changed while they were used; it is decided anew."
                );
                self.decider.forget_weights();
                self.states[index] = State::Waiting;
                self.wake(index);
            }
            // A device that is out of order would otherwise be the one that is always free.
            Err(StageError::NoWorker { message, .. })
                if let Some(slot) = job.slot.filter(|slot| self.slots.retire(*slot)) =>
            {
                let stage = self.decider.pipeline.instances[index].to_string();
                let device = self.options.slots[slot].name.clone();
                self.states[index] = State::Waiting;
                self.wake(index);
                on_event(RunEvent::DeviceDropped { index, stage, device, reason: message });
            }
            // What it made of the old inputs stays in the store under their key.
            _ if self.redecide_if_outdated(job, output) => {}
            Ok(finished) => self.succeeded(job, &finished, on_event),
            Err(error) => {
                if let Err(error) = self.repaired(index, error) {
                    self.failed.insert(job.key.direct, index);
                    self.fail(index, Failure::of(&error), on_event);
                }
            }
        }
        // What waited for this lock may be fresh now.
        for index in self.queue.take_locked(job.key.lock()) {
            self.states[index] = State::Waiting;
            self.wake(index);
        }
    }

    fn succeeded(&mut self, job: &Job, finished: &Finished, on_event: &mut dyn FnMut(RunEvent)) {
        let index = job.index;
        if let Err(deviation) = self.check_lock(index, &finished.record) {
            self.failed.insert(job.key.direct, index);
            self.fail(index, deviation, on_event);
        } else if let Err(error) = self.finish(job, finished, on_event) {
            self.fail(index, Failure::of(&stage_error(error)), on_event);
        }
    }

    fn finish(
        &mut self,
        job: &Job,
        finished: &Finished,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<(), PlanError> {
        let index = job.index;
        let stage = self.decider.pipeline.instances[index].to_string();
        let output = finished.record.output;
        let unchanged = job.before == Some(output);
        self.decider.note(index, finished.record.fingerprint)?;
        self.done(index, output, finished.ran);
        on_event(if finished.ran {
            let Record { wall_secs, items_run, items_total, .. } = finished.record;
            RunEvent::StageFinished {
                index,
                stage,
                digest: output,
                wall_secs,
                items_run,
                items_total,
                unchanged,
            }
        } else {
            RunEvent::StageReused { index, stage, digest: output }
        });
        Ok(())
    }

    /// A locked output must come out as it was locked, and be made from the same.
    pub(super) fn check_lock(&self, index: usize, record: &Record) -> Result<(), Failure> {
        if self.options.locked.is_empty() {
            return Ok(());
        }
        let name = self.decider.pipeline.instances[index].to_string();
        let locked = self.options.locked.get(&name);
        let deviation = locked.and_then(|locked| locked.deviation(record));
        deviation.map_or(Ok(()), |deviation| Err(Failure::deviates(deviation)))
    }

    /// The output is known: those who wait for it may be decided. If it was made again and came
    /// out otherwise, what was made from the old one is decided again too.
    pub(super) fn done(&mut self, index: usize, output: Digest, ran: bool) {
        self.ran[index] |= ran;
        self.states[index] = State::Done { output };
        let differs = self.before.remove(&index).is_some_and(|before| before != output);
        for user in self.graph.users(index) {
            if let State::Done { output } = self.states[user]
                && differs
            {
                self.before.insert(user, output);
                self.states[user] = State::Waiting;
            }
            self.wake(user);
        }
    }

    /// Where damaged content is why a stage failed, drops all that is damaged in its inputs and has
    /// their producers make it again; gives any other failure back.
    pub(super) fn repaired(&mut self, index: usize, error: StageError) -> Result<(), StageError> {
        let StageError::Damaged { digest } = error else { return Err(error) };
        let mut producers = Vec::new();
        for input in self.graph.inputs(index) {
            // The others are being made again already.
            if let State::Done { output } = self.states[input]
                && self.store.drop_damaged(output)? > 0
            {
                producers.push((input, output));
            }
        }
        // Made again between the stage's look and this one; what no input holds, nobody can make.
        if producers.is_empty() && !self.retried.insert((index, digest)) {
            return Err(error);
        }
        self.states[index] = State::Waiting;
        for (producer, output) in producers {
            self.before.insert(producer, output);
            self.states[producer] = State::Waiting;
            self.wake(producer);
        }
        self.wake(index);
        Ok(())
    }

    pub(super) fn fail(
        &mut self,
        index: usize,
        failure: Failure,
        on_event: &mut dyn FnMut(RunEvent),
    ) {
        let stage = self.decider.pipeline.instances[index].to_string();
        let Failure { outcome, error, item, help } = failure;
        self.outcome = self.outcome.max(outcome);
        self.states[index] = State::Failed;
        on_event(RunEvent::StageFailed { index, stage: stage.clone(), error, item, help });
        self.skip_dependants(index, &stage, on_event);
    }

    pub(super) fn skip_dependants(
        &mut self,
        index: usize,
        because: &str,
        on_event: &mut dyn FnMut(RunEvent),
    ) {
        for dependant in self.graph.descendants(index) {
            if matches!(self.states[dependant], State::Waiting | State::LookedUp) {
                self.skip(dependant, because, on_event);
            }
        }
    }

    pub(super) fn skip(&mut self, index: usize, because: &str, on_event: &mut dyn FnMut(RunEvent)) {
        self.states[index] = State::Skipped;
        self.ready.remove(&index);
        let stage = self.decider.pipeline.instances[index].to_string();
        on_event(RunEvent::StageSkipped { index, stage, because: because.to_owned() });
    }

    /// Whether nothing new may start.
    pub(super) fn is_stopped(&self) -> bool {
        let failed = !matches!(self.outcome, Outcome::Done | Outcome::Interrupted);
        self.options.cancel.is_cancelled() || failed && !self.options.keep_going
    }

    pub(super) fn summary(&self) -> RunSummary {
        let count = |is: fn(&State) -> bool| self.states.iter().filter(|state| is(state)).count();
        let done = count(|state| matches!(state, State::Done { .. }));
        let ran = (self.states.iter().zip(&self.ran))
            .filter(|(state, ran)| **ran && matches!(state, State::Done { .. }))
            .count();
        let mut summary = RunSummary {
            outcome: self.outcome,
            reused: done - ran,
            ran,
            failed: count(|state| *state == State::Failed),
            skipped: count(|state| {
                matches!(state, State::Skipped | State::Waiting | State::LookedUp | State::Queued)
            }),
            wall_secs: 0.0,
        };
        if self.options.cancel.is_cancelled() && summary.failed + summary.skipped > 0 {
            summary.outcome = Outcome::Interrupted;
        }
        summary
    }
}
