//! A run as a person follows it: one line per finished stage, a summary, and for running stages
//! bars or, where there is no terminal, a line now and then.

mod bars;
mod lines;
mod pulse;

use std::{collections::HashMap, io::Write, time::Instant};

use indicatif::MultiProgress;

use self::{bars::Bars, lines::Lines};
use super::{
    Reporter, story,
    style::{Style, count, duration},
};
use crate::{
    exec::{Outcome, RunEvent, RunSummary},
    plan::Hashing,
    store::StoreError,
};

/// Where a run is told.
pub enum Screen {
    /// Lines only: a file, a pipe, a test.
    Lines(Box<dyn Write + Send>),
    /// Lines above moving bars.
    Bars(MultiProgress),
}

/// Tells a run's events to a person.
pub struct HumanReporter {
    view: View,
    style: Style,
    verbose: bool,
    /// Why each running stage runs.
    why: HashMap<usize, String>,
}

/// How running stages are shown.
enum View {
    Lines(Lines),
    Bars(Bars),
}

impl HumanReporter {
    /// Tells reused stages one by one when `verbose`, else only their number.
    pub fn new(screen: Screen, style: Style, verbose: bool) -> Self {
        let view = match screen {
            Screen::Lines(out) => View::Lines(Lines::new(out, style)),
            Screen::Bars(bars) => View::Bars(Bars::new(bars)),
        };
        Self { view, style, verbose, why: HashMap::new() }
    }

    fn line(&mut self, line: &str) {
        let line = &self.style.shown(line);
        match &self.view {
            View::Lines(lines) => lines.line(line),
            View::Bars(bars) => bars.line(line),
        }
    }

    fn stage_line(&mut self, verb: String, stage: &str, details: &[String]) {
        let mut line = verb;
        for part in std::iter::once(stage).chain(details.iter().map(String::as_str)) {
            if !part.is_empty() {
                line.push_str("  ");
                line.push_str(part);
            }
        }
        self.line(&line);
    }

    fn start(&mut self, index: usize, stage: &str, why: String) {
        match &mut self.view {
            View::Lines(lines) => lines.start(index, stage, Instant::now()),
            View::Bars(bars) => bars.start(index, stage),
        }
        self.why.insert(index, why);
    }

    fn progress(&mut self, index: usize, done: u64, total: u64, message: &str) {
        let message = &self.style.shown(message);
        match &mut self.view {
            View::Lines(lines) => lines.progress(index, done, total, message, Instant::now()),
            View::Bars(bars) => bars.progress(index, done, total, message),
        }
    }

    /// A stage runs no more; gives the reason it ran for.
    fn end(&mut self, index: usize) -> String {
        match &mut self.view {
            View::Lines(lines) => lines.end(index),
            View::Bars(bars) => bars.end(index),
        }
        self.why.remove(&index).unwrap_or_default()
    }

    fn finish(&mut self, summary: &RunSummary) {
        let mut parts = vec![format!("{} ran", count(summary.ran, "stage"))];
        for (n, what) in [
            (summary.reused, "reused"),
            (summary.failed, "failed"),
            (summary.skipped, "not reached"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {what}"));
            }
        }
        let parts = parts.join(", ");
        let (verb, hint) = match summary.outcome {
            Outcome::Done => (self.style.good("done   "), ""),
            Outcome::Interrupted => (
                self.style.warn("stopped"),
                "; what is finished is kept, the same command goes on from here",
            ),
            _ => (self.style.bad("failed "), ""),
        };
        self.line(&format!("{verb}  {parts} in {}{hint}", duration(summary.wall_secs)));
    }
}

impl Reporter for HumanReporter {
    fn on(&mut self, event: &RunEvent) {
        match event {
            RunEvent::RunStarted { pipeline, instances, device } => {
                let line = format!("{pipeline}: {} on {device}", count(*instances, "stage"));
                self.line(&self.style.strong(line));
            }
            RunEvent::StageWaiting { stage, holder, .. } => {
                let verb = self.style.faint("waiting");
                let who = holder.as_deref().unwrap_or("another run");
                let computes = format!("{who} computes it");
                self.stage_line(verb, stage, &[computes]);
            }
            RunEvent::WeightsHashing { stage, model, file, done, total, .. } => {
                let hashing = Hashing { model, file, done: *done, total: *total };
                self.stage_line(self.style.faint("hashing"), stage, &[hashing.to_string()]);
            }
            RunEvent::StageTakenOver { stage, holder, .. } => {
                let details = format!("by {holder}, which is gone; taken over");
                self.stage_line(self.style.warn("left   "), stage, &[details]);
            }
            RunEvent::StageReused { stage, .. } => {
                if self.verbose {
                    self.stage_line(self.style.faint("reused "), stage, &[]);
                }
            }
            RunEvent::CheckpointsDamaged { stage, steps, goes_on_at_step, .. } => {
                let named: Vec<_> = steps.iter().map(ToString::to_string).collect();
                let (its, are) = match steps.len() {
                    1 => ("its checkpoint at step", "is removed"),
                    _ => ("its checkpoints at steps", "are removed"),
                };
                let how = match goes_on_at_step {
                    Some(step) => format!("it goes on from step {step}"),
                    None => "it begins anew".to_owned(),
                };
                let details = format!("{its} {} {are}; {how}", named.join(", "));
                self.stage_line(self.style.warn("damaged"), stage, &[details]);
            }
            RunEvent::StageStarted {
                index,
                stage,
                reasons,
                cause,
                goes_on_at_step,
                steps_total,
                ..
            } => {
                if let Some((step, steps)) = goes_on_at_step.zip(*steps_total) {
                    let verb = self.style.faint("goes on");
                    self.stage_line(verb, stage, &[format!("at step {step} of {steps}")]);
                }
                self.start(*index, stage, story::reasons_after(reasons, cause.as_ref()));
            }
            RunEvent::StageRetried { stage, device, reason, .. } => {
                let details = format!("once more on {device}, because {reason}");
                self.stage_line(self.style.warn("retried"), stage, &[details]);
            }
            RunEvent::DeviceDropped { index, stage, device, reason } => {
                self.end(*index);
                let details = format!("not on {device}, which is left out from now on: {reason}");
                self.stage_line(self.style.warn("waits  "), stage, &[details]);
            }
            RunEvent::StageProgress { index, done, total, message } => {
                self.progress(*index, *done, *total, message);
            }
            RunEvent::StageFinished {
                index,
                stage,
                wall_secs,
                items_run,
                items_total,
                unchanged,
                ..
            } => {
                let why = self.end(*index);
                let some = if items_run < items_total {
                    format!("{items_run} of {items_total} items")
                } else {
                    String::new()
                };
                let same = if *unchanged { "same output as before" } else { "" };
                let details = [why, some, same.to_owned(), duration(*wall_secs)];
                self.stage_line(self.style.good("ran    "), stage, &details);
            }
            RunEvent::StageFailed { index, stage, error, item, help } => {
                self.end(*index);
                let place = item.as_ref().map(|item| format!(", item `{item}`"));
                let message = format!("stage `{stage}`{}: {error}", place.unwrap_or_default());
                self.stage_line(self.style.bad("failed "), stage, &[]);
                let block = self.style.message_block(&message, help.as_deref());
                self.line(block.trim_end_matches('\n'));
            }
            RunEvent::StageSkipped { stage, because, .. } => {
                let details = [format!("because `{because}` failed")];
                self.stage_line(self.style.faint("skipped"), stage, &details);
            }
            RunEvent::RunFinished(summary) => self.finish(summary),
            RunEvent::DamageFound { files, digest, .. } => self.line(&match files {
                1 => format!("{}; it is made again", StoreError::Damaged { digest: *digest }),
                more => format!("{more} files of these results are damaged; they are made again"),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
