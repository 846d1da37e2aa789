//! Which process holds a lock.

use std::fs;

use serde::{Deserialize, Serialize};

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
    /// This process.
    pub fn this() -> Self {
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

    /// Somebody of whom nothing is known.
    pub(super) fn unknown() -> Self {
        Self { host: "an unknown host".into(), pid: 0, place: String::new(), started: 0 }
    }

    /// Whether the process is gone for certain; of other machines that cannot be said.
    pub(super) fn is_gone(&self) -> bool {
        let here = Self::this();
        !self.place.is_empty()
            && self.place == here.place
            && started(self.pid) != Some(self.started)
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// When a process of this machine started: field 22 of its `stat`, where the second is a name in
/// parentheses that may hold spaces.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}
