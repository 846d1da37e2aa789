//! Stages that another process computes: put aside while there is something else to do.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Instant,
};

use super::Schedule;
use crate::exec::{
    RunEvent,
    job::{Job, Message},
};

impl Schedule<'_> {
    /// Puts aside a job that somebody else computes.
    pub(super) fn defer(&mut self, mut job: Job) {
        self.running.remove(&job.key.lock());
        self.budget.end(job.index);
        self.slots.end(&job);
        self.states[job.index] = super::State::Queued;
        let pause = job.wait.as_mut().map(|wait| wait.key.pause()).unwrap_or_default();
        self.deferred.push((Instant::now() + pause, job));
    }

    /// Queues again what it is time to look at.
    pub(super) fn requeue_due(&mut self) {
        let now = Instant::now();
        for (_, job) in self.deferred.extract_if(.., |(due, _)| *due <= now) {
            self.queue.push(job);
        }
    }

    /// The next message; none when it is time to look again at what others compute.
    pub(super) fn next_message(&self, messages: &Receiver<Message>) -> Option<Message> {
        const LIVE: &str = "threads live as long as the sender of jobs";
        // With all threads at work, nothing could be started.
        let idle = self.running.len() < self.threads;
        let Some(due) = self.deferred.iter().map(|(due, _)| *due).min().filter(|_| idle) else {
            return Some(messages.recv().expect(LIVE));
        };
        match messages.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("{LIVE}"),
        }
    }

    /// Says, where nothing else is left to do, who is waited for.
    pub(super) fn tell_of_waits(&mut self, on_event: &mut dyn FnMut(RunEvent)) {
        for (_, job) in &mut self.deferred {
            let Some(wait) = job.wait.as_mut().filter(|wait| !wait.told) else { continue };
            wait.told = true;
            let (index, holder) = (job.index, wait.holder.clone());
            let stage = self.decider.pipeline.instances[index].to_string();
            on_event(RunEvent::StageWaiting { index, stage, holder });
        }
    }
}
