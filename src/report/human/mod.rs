//! A run as a person follows it: one line per finished stage, bars for running ones, a summary.

use std::{collections::HashMap, io::Write, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{
    Reporter, story,
    style::{Style, count, duration},
};
use crate::exec::{Outcome, RunEvent, RunSummary};

/// Where lines and bars go.
pub enum Screen {
    /// Lines only: a file, a pipe, a test.
    Lines(Box<dyn Write>),
    /// Lines above moving bars.
    Bars(MultiProgress),
}

/// Tells a run's events to a person.
pub struct HumanReporter {
    screen: Screen,
    style: Style,
    verbose: bool,
    running: HashMap<usize, Running>,
}

struct Running {
    why: String,
    bar: ProgressBar,
}

impl HumanReporter {
    /// Tells reused stages one by one when `verbose`, else only their number.
    pub fn new(screen: Screen, style: Style, verbose: bool) -> Self {
        Self { screen, style, verbose, running: HashMap::new() }
    }

    fn line(&mut self, line: &str) {
        // A closed stderr must not end a run: the work goes on, only the talk is lost.
        let _ = match &mut self.screen {
            Screen::Lines(out) => writeln!(out, "{line}"),
            Screen::Bars(bars) => bars.println(line),
        };
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
        let bar = match &self.screen {
            Screen::Lines(_) => ProgressBar::hidden(),
            Screen::Bars(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(
                    ProgressStyle::with_template("{spinner} {prefix}  {wide_msg} {elapsed}")
                        .expect("a valid template"),
                );
                bar.set_prefix(stage.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            }
        };
        self.running.insert(index, Running { why, bar });
    }

    fn progress(&mut self, index: usize, done: u64, total: u64, message: &str) {
        let Some(running) = self.running.get(&index) else { return };
        let bar = &running.bar;
        if bar.length() != Some(total) {
            bar.set_length(total);
            bar.set_style(
                ProgressStyle::with_template(
                    "{spinner} {prefix}  {bar:24} {pos}/{len} {wide_msg} {eta}",
                )
                .expect("a valid template"),
            );
        }
        bar.set_position(done);
        bar.set_message(message.to_owned());
    }

    /// Ends a stage's bar and gives the reason it ran for.
    fn end(&mut self, index: usize) -> String {
        let Some(running) = self.running.remove(&index) else { return String::new() };
        running.bar.finish_and_clear();
        running.why
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
            Outcome::Failed | Outcome::Environment | Outcome::Bug => {
                (self.style.bad("failed "), "")
            }
            Outcome::Interrupted => (
                self.style.warn("stopped"),
                "; what is finished is kept, the same command goes on from here",
            ),
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
            RunEvent::StageReused { stage, .. } => {
                if self.verbose {
                    self.stage_line(self.style.faint("reused "), stage, &[]);
                }
            }
            RunEvent::StageStarted { index, stage, reasons, goes_on, .. } => {
                if let Some((step, steps)) = goes_on {
                    let verb = self.style.faint("goes on");
                    self.stage_line(verb, stage, &[format!("at step {step} of {steps}")]);
                }
                self.start(*index, stage, story::reasons(reasons));
            }
            RunEvent::StageProgress { index, done, total, message } => {
                self.progress(*index, *done, *total, message);
            }
            RunEvent::StageFinished { index, stage, wall_secs, items, unchanged, .. } => {
                let why = self.end(*index);
                let (run, all) = *items;
                let some = if run < all { format!("{run} of {all} items") } else { String::new() };
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
        }
    }
}

#[cfg(test)]
mod tests;
