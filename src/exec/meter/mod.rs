//! What a stage takes while it runs: the time of the device, and memory.
//!
//! A thread looks every few milliseconds, one for all stages of a run. On the CPU, memory is what
//! the whole process holds and time is CPU time. On a GPU, both are what the driver's tool says of
//! the card, which counts other programs on it, too. Stages that run at once share time evenly.

mod card;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::sync::Unpoisoned;
use card::Card;

/// Between two looks at the process.
const INTERVAL: Duration = Duration::from_millis(20);

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

/// Measures the stages of a run, and of several that run one after the other.
pub(super) struct Meter {
    shared: Arc<Shared>,
    /// Looks from time to time, once there was a stage.
    watcher: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    on_host: bool,
    card: Option<Card>,
    state: Mutex<State>,
    /// Told that a stage runs where none did, and of the end.
    news: Condvar,
}

/// What was seen so far.
#[derive(Default)]
struct State {
    /// Those that run now.
    stages: Vec<Running>,
    begun: u64,
    cpu: f64,
    busy: f64,
    /// Whether the watcher looks again by itself.
    is_watched: bool,
    is_over: bool,
}

/// What a stage that runs took so far.
struct Running {
    number: u64,
    cpu: f64,
    device: f64,
    peak: Option<u64>,
    /// The most that the process had held before.
    most: Option<u64>,
}

impl Meter {
    /// A meter for the host, or for the card of this name, if it is known.
    pub fn new(device: &Device, card: Option<&str>) -> Self {
        let on_host = *device == Device::flex();
        Self::with(on_host, card.and_then(Card::watch))
    }

    fn with(on_host: bool, card: Option<Card>) -> Self {
        let (state, news) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { on_host, card, state, news }), watcher: Mutex::default() }
    }

    /// Does something and says what it took.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Usage) {
        self.be_watched();
        let stage = Stage { shared: &self.shared, number: self.shared.begin() };
        let result = work();
        (result, stage.end())
    }

    /// Has a thread look while stages run. Without one, what is between their ends is not seen.
    fn be_watched(&self) {
        let mut watcher = self.watcher.lock().unpoisoned();
        if watcher.is_none() {
            let shared = Arc::clone(&self.shared);
            let watch = move || shared.watch();
            *watcher = std::thread::Builder::new().name("meter".to_owned()).spawn(watch).ok();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.news.notify_all();
        if let Some(watcher) = self.watcher.get_mut().unpoisoned().take() {
            let _ = watcher.join();
        }
    }
}

/// A stage that is measured, also if it ends in a panic.
struct Stage<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Stage<'_> {
    fn end(self) -> Usage {
        self.shared.end(self.number)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let number = self.number;
        self.shared.state().stages.retain(|stage| stage.number != number);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unpoisoned()
    }

    /// Looks again and again while stages run.
    fn watch(&self) {
        let mut state = self.state();
        while !state.is_over {
            state.is_watched = !state.stages.is_empty();
            if state.is_watched {
                let waited = self.news.wait_timeout(state, INTERVAL);
                state = waited.unpoisoned().0;
                if !state.stages.is_empty() {
                    self.look(&mut state);
                }
            } else {
                state = self.news.wait(state).unpoisoned();
            }
        }
    }

    /// Adds what was used since the last look to the stages that run; says what is held now.
    fn look(&self, state: &mut State) -> Memory {
        let (cpu, busy, memory) = (cpu_secs(), self.busy_secs(), self.memory());
        let running = state.stages.len().max(1) as f64;
        for stage in &mut state.stages {
            stage.cpu += (cpu - state.cpu) / running;
            stage.device += (busy - state.busy) / running;
            stage.peak = stage.peak.max(memory.held);
        }
        (state.cpu, state.busy) = (cpu, busy);
        memory
    }

    /// A stage begins.
    fn begin(&self) -> u64 {
        let mut state = self.state();
        let memory = self.look(&mut state);
        state.begun += 1;
        let number = state.begun;
        let Memory { held: peak, most } = memory;
        state.stages.push(Running { number, cpu: 0.0, device: 0.0, peak, most });
        if !state.is_watched {
            self.news.notify_one();
        }
        number
    }

    /// What a stage took, which ends.
    fn end(&self, number: u64) -> Usage {
        let mut state = self.state();
        let memory = self.look(&mut state);
        let Some(place) = state.stages.iter().position(|stage| stage.number == number) else {
            return Usage::default();
        };
        let mut stage = state.stages.swap_remove(place);
        if memory.most > stage.most {
            // The process never held more than now, so the peak was here, perhaps between two
            // looks.
            stage.peak = stage.peak.max(memory.most);
        }
        let device = if self.card.is_some() { stage.device } else { stage.cpu };
        let device_secs = (self.card.is_some() || self.on_host).then_some(device);
        Usage { cpu_secs: stage.cpu, device_secs, peak_memory: stage.peak }
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

#[cfg(test)]
mod tests {
    use std::{hint::black_box, process::Command};

    use super::{card::Seen, *};

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
        let ((), usage) = Meter::with(true, None).measure(|| {
            let mut held = vec![1u8; SIZE];
            std::thread::sleep(5 * INTERVAL);
            black_box(&mut held);
        });
        assert!(usage.peak_memory >= Some(SIZE as u64), "{usage:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn stages_at_once_share_what_the_process_used() {
        let meter = Meter::with(true, None);
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
        assert_eq!(Meter::with(false, None).measure(|| ()).1.device_secs, None);
    }

    #[test]
    fn a_panic_is_passed_on_and_counted_out() {
        let meter = Meter::with(true, None);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            meter.measure(|| panic!("as meant"))
        }));
        assert!(panicked.is_err());
        assert!(meter.shared.state().stages.is_empty());
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
    #[cfg(target_os = "linux")]
    fn stages_at_once_share_a_card() {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tool = Command::new("sleep").arg("60").spawn().unwrap();
        let card = Some(Card { tool, seen: Arc::clone(&seen) });
        let meter = Meter::with(false, card);
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
