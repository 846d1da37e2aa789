//! How far running stages are, as lines now and then, where there are no bars: in a file, a log of
//! a batch system, a pipe.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::report::style::duration;

/// The time between two lines of one stage.
const EVERY: Duration = Duration::from_secs(30);

/// The stages that run, by instance.
#[derive(Default)]
pub(super) struct Pulses(BTreeMap<usize, Pulse>);

/// One running stage.
struct Pulse {
    stage: String,
    started: Instant,
    told: Instant,
    /// Where it was when it was first heard of; not at 0 if it goes on from a checkpoint.
    first: Option<Mark>,
    last: Option<Mark>,
    total: u64,
    message: String,
}

/// Units done at a time.
#[derive(Clone, Copy)]
struct Mark {
    done: u64,
    at: Instant,
}

impl Pulses {
    pub(super) fn start(&mut self, index: usize, stage: &str, now: Instant) {
        let pulse = Pulse {
            stage: stage.to_owned(),
            started: now,
            told: now,
            first: None,
            last: None,
            total: 0,
            message: String::new(),
        };
        self.0.insert(index, pulse);
    }

    pub(super) fn progress(
        &mut self,
        index: usize,
        done: u64,
        total: u64,
        message: &str,
        now: Instant,
    ) {
        let Some(pulse) = self.0.get_mut(&index) else { return };
        let mark = Mark { done, at: now };
        // Another total, or a step back, is another piece of work with a rate of its own.
        let goes_on = pulse.total == total && pulse.last.is_some_and(|last| last.done <= done);
        if !goes_on {
            pulse.first = Some(mark);
        }
        pulse.last = Some(mark);
        pulse.total = total;
        message.clone_into(&mut pulse.message);
    }

    pub(super) fn end(&mut self, index: usize) {
        self.0.remove(&index);
    }

    /// The stages of which nothing was said for a while, each with what there is to say.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for pulse in self.0.values_mut().filter(|pulse| now.duration_since(pulse.told) >= EVERY) {
            pulse.told = now;
            lines.push((pulse.stage.clone(), pulse.line(now)));
        }
        lines
    }
}

impl Pulse {
    /// `120 of 400, step, loss 0.113, 1.2 s each, 2 min 31 s so far, about 5 min 36 s left`.
    fn line(&self, now: Instant) -> String {
        let mut parts = Vec::new();
        if let Some(last) = self.last.filter(|_| self.total > 1) {
            parts.push(format!("{} of {}", last.done, self.total));
        }
        if !self.message.is_empty() {
            parts.push(self.message.clone());
        }
        let each = self.secs_each();
        parts.extend(each.map(|secs| match secs {
            secs if secs < 0.1 => format!("{:.0} per second", 1.0 / secs),
            secs => format!("{} each", duration(secs)),
        }));
        parts.push(format!("{} so far", duration(now.duration_since(self.started).as_secs_f64())));
        parts.push(match each.zip(self.last) {
            Some((secs, last)) => {
                let left = self.total.saturating_sub(last.done) as f64 * secs;
                let since = now.duration_since(last.at).as_secs_f64();
                format!("about {} left", duration((left - since).max(0.0)))
            }
            None => "time left not known".to_owned(),
        });
        parts.join(", ")
    }

    /// Seconds per unit at the rate seen in this run.
    fn secs_each(&self) -> Option<f64> {
        let (first, last) = self.first.zip(self.last)?;
        let secs = last.at.duration_since(first.at).as_secs_f64();
        (last.done > first.done && secs > 0.0).then(|| secs / (last.done - first.done) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pulses: &mut Pulses, now: Instant) -> String {
        let lines = pulses.due(now).into_iter().map(|(stage, line)| format!("{stage}  {line}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_long_stage_says_how_far_it_is_at_most_every_half_minute() {
        let start = Instant::now();
        let at = |secs: f64| start + Duration::from_secs_f64(secs);
        let mut pulses = Pulses::default();
        pulses.start(4, "lora[n=10]", start);
        let mut said = Vec::new();
        // One step in 1.25 seconds, from step 100 on: the stage goes on from a checkpoint.
        for step in 0..=60_u32 {
            let now = at(3.0 + f64::from(step) * 1.25);
            pulses.progress(4, 100 + u64::from(step), 400, "step, loss 0.113", now);
            let lines = lines(&mut pulses, now);
            if !lines.is_empty() {
                said.push(lines);
            }
        }
        insta::assert_snapshot!(said.join("\n"), @r"
        lora[n=10]  122 of 400, step, loss 0.113, 1.2 s each, 30.5 s so far, about 5 min 48 s left
        lora[n=10]  146 of 400, step, loss 0.113, 1.2 s each, 1 min 01 s so far, about 5 min 18 s left
        ");
        pulses.end(4);
        assert_eq!(lines(&mut pulses, at(600.0)), "");
    }

    #[test]
    fn a_stage_that_tells_nothing_is_seen_to_live() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut pulses = Pulses::default();
        pulses.start(0, "figures", start);
        pulses.start(1, "caption", start);
        pulses.progress(1, 0, 1, "command", at(1));
        pulses.start(2, "clips", start);
        pulses.progress(2, 0, 900, "clips", at(1));
        pulses.progress(2, 300, 900, "clips", at(11));
        assert_eq!(lines(&mut pulses, at(29)), "");
        insta::assert_snapshot!(lines(&mut pulses, at(30)), @r"
        figures  30.0 s so far, time left not known
        caption  command, 30.0 s so far, time left not known
        clips  300 of 900, clips, 30 per second, 30.0 s so far, about 1.0 s left
        ");
    }

    #[test]
    fn a_second_part_has_a_rate_of_its_own() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut pulses = Pulses::default();
        pulses.start(0, "pretrain", start);
        pulses.progress(0, 0, 100, "vae", at(0));
        pulses.progress(0, 100, 100, "vae", at(10));
        pulses.progress(0, 0, 50, "transformer", at(10));
        pulses.progress(0, 5, 50, "transformer", at(30));
        insta::assert_snapshot!(
            lines(&mut pulses, at(30)),
            @"pretrain  5 of 50, transformer, 4.0 s each, 30.0 s so far, about 3 min 00 s left"
        );
    }
}
