//! What a stage takes while it runs: the time of the device, and memory.
//!
//! A thread looks every few milliseconds. On the CPU, memory is what the whole process holds and
//! time is CPU time. On a GPU, both are what the driver's tool says of the card, which counts other
//! programs on it, too. Stages that run at once share time evenly.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Between two looks at the process.
const INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks at a card.
const CARD_INTERVAL_MS: u32 = 100;

/// What one stage took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Usage {
    /// CPU seconds; 0 where the system does not tell.
    pub cpu_secs: f64,
    /// Seconds in which the device worked, as far as the system tells.
    pub device_secs: Option<f64>,
    /// The most bytes held on the device at once.
    pub peak_memory: Option<u64>,
}

impl Usage {
    /// Adds what was taken afterwards.
    pub fn add(&mut self, later: Self) {
        self.cpu_secs += later.cpu_secs;
        self.device_secs = match (self.device_secs, later.device_secs) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        self.peak_memory = self.peak_memory.max(later.peak_memory);
    }
}

/// Measures the stages of a run.
pub(super) struct Meter {
    /// Stages that run now.
    running: AtomicUsize,
    on_host: bool,
    card: Option<Card>,
}

/// Counts a stage that runs, also if it ends in a panic.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meter {
    /// A meter for the host, or for the card of this name, if it is known.
    pub fn new(on_host: bool, card: Option<&str>) -> Self {
        Self { running: AtomicUsize::new(0), on_host, card: card.and_then(Card::watch) }
    }

    /// Does something and says what it took.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Usage) {
        let _running = Running::one_more(&self.running);
        std::thread::scope(|scope| {
            // Dropped at the end, or by a panic of the work: either way the sampler ends.
            let (stop, stopped) = mpsc::channel::<()>();
            let sampler = scope.spawn(move || self.sample(&stopped));
            let result = work();
            drop(stop);
            (result, sampler.join().unwrap_or_default())
        })
    }

    fn sample(&self, stopped: &Receiver<()>) -> Usage {
        let (mut cpu, mut share) = (cpu_secs(), 0.0);
        let (mut busy, mut device) = (self.busy_secs(), 0.0);
        let before = self.memory();
        let mut peak = before.held;
        let last = loop {
            let ended = stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout);
            let running = self.running.load(Ordering::Relaxed).max(1) as f64;
            let (now, busy_now) = (cpu_secs(), self.busy_secs());
            share += (now - cpu) / running;
            device += (busy_now - busy) / running;
            (cpu, busy) = (now, busy_now);
            let last = self.memory();
            peak = peak.max(last.held);
            if ended {
                break last;
            }
        };
        if last.most > before.most {
            // The process never held more than now, so the peak was here, perhaps between two looks.
            peak = peak.max(last.most);
        }
        let device_secs =
            if self.card.is_some() { Some(device) } else { self.on_host.then_some(share) };
        Usage { cpu_secs: share, device_secs, peak_memory: peak }
    }

    /// Seconds in which the card worked so far; 0 without one.
    fn busy_secs(&self) -> f64 {
        self.card.as_ref().map_or(0.0, Card::busy_secs)
    }

    fn memory(&self) -> Memory {
        match &self.card {
            Some(card) => Memory { held: card.memory(), most: None },
            None if self.on_host => Memory::of_process(),
            None => Memory::default(),
        }
    }
}

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    held: Option<u64>,
    /// The most that this process ever held, where that is known.
    most: Option<u64>,
}

impl Memory {
    /// Both from one reading: `/proc/self/status` is made anew for each.
    fn of_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Self { held: bytes("VmRSS:"), most: bytes("VmHWM:") }
    }
}

/// CPU seconds of this process so far: user and system time in `/proc/self/stat`, in hundredths.
fn cpu_secs() -> f64 {
    const TICKS_PER_SEC: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may hold spaces; user and system
    // time are the 14th and 15th.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SEC
}

/// A GPU as its driver's tool sees it; burn does not tell.
struct Card {
    tool: Child,
    seen: Arc<Mutex<Seen>>,
}

/// What the tool has said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    memory: Option<u64>,
    busy_secs: f64,
}

impl Card {
    /// Watches a card until it is dropped; none where there is no tool.
    fn watch(name: &str) -> Option<Self> {
        let mut tool = Command::new("nvidia-smi")
            .args(["--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits"])
            .args(["-i", name, "-lms", &CARD_INTERVAL_MS.to_string()])
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
                shared.lock().expect("no panic while held").add(&line, now - last);
                last = now;
            }
        });
        Some(Self { tool, seen })
    }

    fn memory(&self) -> Option<u64> {
        self.seen.lock().expect("no panic while held").memory
    }

    fn busy_secs(&self) -> f64 {
        self.seen.lock().expect("no panic while held").busy_secs
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
    /// Adds a line of the tool: MiB in use, and the percent of the time since the line before in which a
    /// kernel ran.
    fn add(&mut self, line: &str, since: Duration) {
        let mut fields = line.split(',').map(|field| field.trim().parse::<u64>().ok());
        let (memory, percent) = (fields.next().flatten(), fields.next().flatten());
        self.memory = memory.map(|mebibytes| mebibytes << 20).or(self.memory);
        let percent = percent.unwrap_or(0).min(100) as f64;
        self.busy_secs += percent / 100.0 * since.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Works until the process has used so many more CPU seconds.
    fn work_for(secs: f64) {
        let start = cpu_secs();
        while cpu_secs() - start < secs {
            black_box((0..100_000u64).map(black_box).sum::<u64>());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_held_is_seen() {
        const SIZE: usize = 200 << 20;
        let ((), usage) = Meter::new(true, None).measure(|| {
            let mut held = vec![1u8; SIZE];
            std::thread::sleep(5 * INTERVAL);
            black_box(&mut held);
        });
        assert!(usage.peak_memory >= Some(SIZE as u64), "{usage:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn stages_at_once_share_what_the_process_used() {
        let meter = Meter::new(true, None);
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| meter.measure(|| work_for(0.5)).1);
            let ((), mine) = meter.measure(|| work_for(0.5));
            (other.join().unwrap(), mine)
        });
        // Other tests of this process run beside it, so there is no upper bound.
        for usage in [one, two] {
            assert!(usage.cpu_secs > 0.1, "{usage:?}");
            assert_eq!(usage.device_secs, Some(usage.cpu_secs));
        }
        assert_eq!(Meter::new(false, None).measure(|| ()).1.device_secs, None);
    }

    #[test]
    fn a_panic_is_passed_on_and_counted_out() {
        let meter = Meter::new(true, None);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            meter.measure(|| panic!("as meant"))
        }));
        assert!(panicked.is_err());
        assert_eq!(meter.running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_several_calls_took_is_one_sum_and_one_peak() {
        let call =
            |cpu_secs, device_secs, peak_memory| Usage { cpu_secs, device_secs, peak_memory };
        let mut usage = Usage::default();
        usage.add(call(0.5, None, Some(7)));
        assert_eq!(usage, call(0.5, None, Some(7)));
        usage.add(call(0.25, Some(2.0), Some(3)));
        usage.add(call(0.25, Some(1.0), None));
        assert_eq!(usage, call(1.0, Some(3.0), Some(7)));
    }

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

    #[test]
    #[cfg(target_os = "linux")]
    fn stages_at_once_share_a_card() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tool = Command::new("sleep").arg("60").spawn().unwrap();
        let card = Some(Card { tool, seen: Arc::clone(&seen) });
        let meter = Meter { running: AtomicUsize::new(0), on_host: false, card };
        let began = std::sync::Barrier::new(2);
        let work = || {
            let busy = || {
                began.wait();
                std::thread::sleep(5 * INTERVAL);
                if began.wait().is_leader() {
                    seen.lock().unwrap().add("1, 100", Duration::from_secs(2));
                }
                began.wait();
                std::thread::sleep(5 * INTERVAL);
                began.wait();
            };
            meter.measure(busy).1.device_secs.unwrap()
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(work);
            (work(), other.join().unwrap())
        });
        // Both were there when the card worked.
        assert!((one - 1.0).abs() < 1e-9 && (two - 1.0).abs() < 1e-9, "{one} {two}");
    }
}
