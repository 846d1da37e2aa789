//! Which process holds a lock.

use std::{fs, sync::OnceLock};

use serde::{Deserialize, Serialize};

use crate::store::Digest;

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// Number of the process there.
    pub pid: u32,
    /// Which boot of which machine, and which numbering of its processes; empty if not known.
    pub(super) place: String,
    /// When the process started, in ticks since the boot.
    pub(super) started: u64,
}

impl Holder {
    /// This process; what does not change as long as it runs is read once.
    pub fn this() -> Self {
        static THIS: OnceLock<Holder> = OnceLock::new();
        THIS.get_or_init(Self::read).clone()
    }

    fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let boot = read("/proc/sys/kernel/random/boot_id");
        let numbering = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let host = read("/proc/sys/kernel/hostname");
        Self {
            host: if host.is_empty() { "an unnamed host".to_owned() } else { host },
            pid: std::process::id(),
            place: if boot.is_empty() { boot } else { format!("{boot} {}", numbering.display()) },
            started: started(std::process::id()).unwrap_or(0),
        }
    }

    /// Who it is, in words: `process 4711 on node3`, or another stage of this process.
    pub fn told(&self) -> String {
        if *self == Self::this() { "another stage here".to_owned() } else { self.to_string() }
    }

    /// What tells the process from others of its machine and of most other machines, for the name
    /// of a file: `4711-123456-0f3c22d10b7a`.
    pub(in super::super) fn mark(&self) -> String {
        format!("{}-{}-{}", self.pid, self.started, place_mark(&self.place))
    }

    /// The process of a mark, if it is or was one of this machine.
    pub(in super::super) fn of_mark(mark: &str) -> Option<Self> {
        let [pid, started, place] = mark.split('-').collect::<Vec<_>>().try_into().ok()?;
        let (pid, started, this) = (pid.parse().ok()?, started.parse().ok()?, Self::this());
        (place_mark(&this.place) == place).then_some(Self { pid, started, ..this })
    }

    /// Somebody of whom nothing is known.
    pub(super) fn unknown() -> Self {
        Self { host: "an unknown host".into(), pid: 0, place: String::new(), started: 0 }
    }

    /// Whether the process is gone for certain; of other machines that cannot be said.
    pub(in super::super) fn is_gone(&self) -> bool {
        !self.place.is_empty()
            && self.place == Self::this().place
            && (self.is_gone_by(started(self.pid), || is_absent(self.pid)) || has_ended(self.pid))
    }

    /// The same by when the process of this number started. That is not to be seen of those of
    /// other users where `/proc` hides them (`hidepid`).
    fn is_gone_by(&self, started: Option<u64>, is_absent: impl FnOnce() -> bool) -> bool {
        match started {
            Some(started) => self.started != 0 && started != self.started,
            None => is_absent(),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

fn place_mark(place: &str) -> String {
    Digest::of(place.as_bytes()).short()
}

/// When a process of this machine started: field 22 of its `stat`.
fn started(pid: u32) -> Option<u64> {
    field(pid, 22)?.parse().ok()
}

/// Whether a process has ended and only its parent has not asked how.
fn has_ended(pid: u32) -> bool {
    field(pid, 3).is_some_and(|state| state == "Z" || state == "X")
}

/// A field of a process's `stat`, from the third on: the second is a name in parentheses that may
/// hold spaces.
fn field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(number - 3).map(str::to_owned)
}

/// Whether the system says that there is no process of this number; what `/proc` hides, it tells
/// of.
#[cfg(unix)]
fn is_absent(pid: u32) -> bool {
    use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
    i32::try_from(pid)
        .is_ok_and(|pid| pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

#[cfg(not(unix))]
fn is_absent(_pid: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_hidden_is_not_gone() {
        let this = Holder::this();
        assert!(!this.is_gone());
        assert!(!this.is_gone_by(Some(this.started), || true));
        assert!(this.is_gone_by(Some(this.started + 1), || false), "another of its number");
        assert!(!this.is_gone_by(None, || false), "hidden, and there");
        assert!(this.is_gone_by(None, || true));
        let unknown_start = Holder { started: 0, ..this };
        assert!(!unknown_start.is_gone_by(Some(7), || true));
    }

    #[test]
    fn a_process_is_known_by_its_mark_on_its_own_machine_alone() {
        let this = Holder::this();
        assert_eq!(Holder::of_mark(&this.mark()), Some(this.clone()));
        let elsewhere = Holder { place: "elsewhere".to_owned(), ..this };
        assert_eq!(Holder::of_mark(&elsewhere.mark()), None);
        for none in ["", "Ab12cd", "1-2", "1-2-3-4", "x-2-0f3c22d10b7a"] {
            assert_eq!(Holder::of_mark(none), None);
        }
    }

    #[test]
    fn this_process_is_told_as_another_stage_of_it() {
        let other = Holder { pid: 7, host: "node3".into(), ..Holder::this() };
        assert_eq!(other.told(), "process 7 on node3");
        assert_eq!(Holder::this().told(), "another stage here");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_ended_is_gone_before_its_parent_asked() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let started = started(child.id()).unwrap();
        let holder = Holder { pid: child.id(), started, ..Holder::this() };
        assert!(!holder.is_gone());
        child.kill().unwrap();
        let since = std::time::Instant::now();
        while !holder.is_gone() {
            assert!(since.elapsed().as_secs() < 20, "it has ended");
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn the_system_knows_which_processes_there_are() {
        assert!(!is_absent(std::process::id()) && !is_absent(1));
        assert!(!is_absent(0) && !is_absent(u32::MAX), "no numbers of processes");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(is_absent(child.id()));
    }
}
