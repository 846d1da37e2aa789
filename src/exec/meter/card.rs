//! What the driver's tool says of a card.

use crate::sync::Unpoisoned;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Between two looks at a card.
const INTERVAL_MS: u32 = 100;

/// A GPU as its driver's tool sees it; burn does not tell.
pub(super) struct Card {
    pub tool: Child,
    pub seen: Arc<Mutex<Seen>>,
}

/// What the tool has said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub memory: Option<u64>,
    pub busy_secs: f64,
}

impl Card {
    /// Watches a card until it is dropped; none where there is no tool.
    pub fn watch(name: &str) -> Option<Self> {
        let mut tool = Command::new("nvidia-smi")
            .args(["--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits"])
            .args(["-i", name, "-lms", &INTERVAL_MS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let lines = BufReader::new(tool.stdout.take()?).lines();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut last = Instant::now();
            for line in lines.map_while(Result::ok) {
                // On a loaded machine lines come later than asked for.
                let now = Instant::now();
                shared.lock().unpoisoned().add(&line, now - last);
                last = now;
            }
        });
        Some(Self { tool, seen })
    }

    pub fn memory(&self) -> Option<u64> {
        self.seen.lock().unpoisoned().memory
    }

    pub fn busy_secs(&self) -> f64 {
        self.seen.lock().unpoisoned().busy_secs
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

impl Seen {
    /// Adds a line of the tool: MiB in use, and the percent of the time since the line before in
    /// which a kernel ran.
    pub fn add(&mut self, line: &str, since: Duration) {
        let mut fields = line.split(',').map(|field| field.trim().parse::<u64>().ok());
        let (memory, percent) = (fields.next().flatten(), fields.next().flatten());
        self.memory = memory.map(|mebibytes| mebibytes << 20).or(self.memory);
        let percent = percent.unwrap_or(0).min(100) as f64;
        self.busy_secs += percent / 100.0 * since.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tool_add_up() {
        let mut seen = Seen::default();
        // The second one comes late.
        for (line, millis) in
            [("1024, 50", 100), ("2048, 100", 300), ("[N/A], [N/A]", 100), ("", 100)]
        {
            seen.add(line, Duration::from_millis(millis));
        }
        assert_eq!(seen.memory, Some(2 << 30));
        assert!((seen.busy_secs - 0.35).abs() < 1e-9, "{seen:?}");
    }
}
