//! Lines above moving bars.

use std::{collections::HashMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A bar per running stage.
pub(super) struct Bars {
    all: MultiProgress,
    running: HashMap<usize, ProgressBar>,
}

impl Bars {
    pub(super) fn new(all: MultiProgress) -> Self {
        Self { all, running: HashMap::new() }
    }

    pub(super) fn line(&self, line: &str) {
        // A closed stderr must not end a run: the work goes on, only the talk is lost.
        let _ = self.all.println(line);
    }

    pub(super) fn start(&mut self, index: usize, stage: &str) {
        let bar = self.all.add(ProgressBar::new_spinner());
        bar.set_style(
            ProgressStyle::with_template("{spinner} {prefix}  {wide_msg} {elapsed}")
                .expect("a valid template"),
        );
        bar.set_prefix(stage.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.running.insert(index, bar);
    }

    pub(super) fn progress(&mut self, index: usize, done: u64, total: u64, message: &str) {
        let Some(bar) = self.running.get(&index) else { return };
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

    pub(super) fn end(&mut self, index: usize) {
        if let Some(bar) = self.running.remove(&index) {
            bar.finish_and_clear();
        }
    }
}
