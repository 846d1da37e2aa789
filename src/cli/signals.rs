//! Signals that ask a run to stop.

use std::sync::{
    Arc,
    atomic::{AtomicI32, Ordering},
};
#[cfg(unix)]
use std::time::{Duration, Instant};

use super::{error::CliError, exit};
use crate::{
    exec::{ExecError, Outcome},
    plan::PlanError,
    stages::CancelFlag,
    store::{Store, StoreError, StoreUse},
};

/// Set by the first signal that asks the program to stop; the second ends it at once.
#[derive(Default)]
pub(super) struct Stop {
    /// What the run looks at.
    pub flag: CancelFlag,
    signal: Arc<AtomicI32>,
}

impl Stop {
    /// Listens to Ctrl-C, SIGTERM and SIGHUP from now on.
    pub fn on_signal() -> Self {
        let stop = Self::default();
        if let Err(error) = listen(&stop) {
            tracing::warn!("signals end the program at once: {error}");
        }
        stop
    }

    /// A store that hears of it while it hashes outside files.
    pub fn heard_by(&self, store: Store) -> Store {
        let flag = self.flag.clone();
        store.stopped_by(move || flag.is_cancelled())
    }

    /// The exit code of a run that was stopped: 128 and the signal's number, as shells have it.
    pub fn exit_code(&self) -> u8 {
        match u8::try_from(self.signal.load(Ordering::Relaxed)) {
            Ok(signal) if signal > 0 => 128 + signal,
            _ => exit::INTERRUPTED,
        }
    }

    /// Declares that this uses the store; who is stopped while waiting for that has nothing more to
    /// say.
    pub fn in_use(&self, store: &Store) -> Result<StoreUse, CliError> {
        store.in_use(&|| self.flag.is_cancelled()).map_err(|error| self.told(error))
    }

    /// The same for who only reads it.
    pub fn in_use_to_read(&self, store: &Store) -> Result<Option<StoreUse>, CliError> {
        store.in_use_to_read(&|| self.flag.is_cancelled()).map_err(|error| self.told(error))
    }

    /// The error of what may have been stopped, which has nothing more to say then.
    pub fn told(&self, error: StoreError) -> CliError {
        match error {
            StoreError::Cancelled => CliError::Told(self.exit_code()),
            error => error.into(),
        }
    }

    /// The error of a run that did not start.
    pub fn error_of(&self, error: ExecError) -> CliError {
        match error {
            ExecError::Store(StoreError::Cancelled)
            | ExecError::Plan(PlanError::Store(StoreError::Cancelled)) => {
                CliError::Told(self.exit_code())
            }
            error => error.into(),
        }
    }

    /// An error, which has the exit code of the signal if that is all there is to it.
    pub fn named(&self, error: CliError) -> CliError {
        match error {
            CliError::Told(exit::INTERRUPTED) => CliError::Told(self.exit_code()),
            error => error,
        }
    }

    /// The exit code of what came to this end.
    pub fn code_of(&self, outcome: Outcome) -> u8 {
        match outcome {
            Outcome::Done => exit::DONE,
            Outcome::Failed => exit::STAGE_FAILED,
            Outcome::Environment => exit::ENVIRONMENT,
            Outcome::Deviated => exit::DIFFERENT,
            Outcome::Bug => exit::BUG,
            Outcome::Interrupted => self.exit_code(),
        }
    }
}

/// Has this process, which computes for another one, do nothing at a signal: both may get it, and
/// the other one says what it means.
#[cfg(unix)]
pub(super) fn leave_to_parent() {
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))) {
            tracing::warn!("signals end the process at once: {error}");
        }
    }
}

#[cfg(not(unix))]
pub(super) fn leave_to_parent() {}

/// Signals so close to each other are one wish: a process and its group may both get what one
/// program sends, as `timeout` does.
#[cfg(unix)]
const ONE_WISH: Duration = Duration::from_millis(200);

#[cfg(unix)]
fn listen(stop: &Stop) -> std::io::Result<()> {
    use std::io::Write;

    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        iterator::Signals,
    };

    // A shell without job control starts jobs in the background with Ctrl-C ignored, and `nohup`
    // has SIGHUP ignored: neither is meant for this program then.
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let wanted = [SIGINT, SIGTERM, SIGHUP];
    let wanted = wanted.into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted)?;
    let (flag, last) = (stop.flag.clone(), Arc::clone(&stop.signal));
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            last.store(signal, Ordering::Relaxed);
            match first {
                Some(first) if first.elapsed() < ONE_WISH => continue,
                Some(_) => std::process::exit(128 + signal),
                None => first = Some(Instant::now()),
            }
            flag.cancel();
            let text = "stopping at the next safe point; again to stop at once";
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn listen(_: &Stop) -> std::io::Result<()> {
    Err(std::io::Error::other("they are not caught on this system"))
}

/// The signals that this program was started with ignored, as bits, from `/proc/self/status`.
#[cfg(unix)]
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_eq!(ignored("Name:\tpipe\nSigIgn:\t0000000000000006\nSigCgt:\t1\n"), 6);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn the_exit_code_names_the_signal() {
        let stop = Stop::default();
        assert_eq!(stop.exit_code(), 130);
        stop.signal.store(15, Ordering::Relaxed);
        assert_eq!(stop.exit_code(), 143);
    }
}
