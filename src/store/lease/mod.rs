//! Leases: locks for file systems whose own cannot be trusted, as on NFS.
//!
//! A lease is a file that its holder counts up in. Whoever waits looks whether the count goes on,
//! by a clock of its own that never jumps; the times of files, and what other hosts think the time
//! is, decide nothing. A count that stands still for [`Timing::limit`] is that of a dead holder,
//! whose lease is moved away by one rename. If a holder only slept that long, two compute the same:
//! work is wasted, but nothing is wrong, since results are written aside and renamed.

mod holder;
mod uses;
mod watch;

pub use holder::Holder;
pub(super) use uses::Uses;
pub(super) use watch::Watch;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::StoreError;

/// How often a lease is renewed, and when it counts as left behind.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two counts.
    pub beat: Duration,
    /// A count that stands still for this long is that of a dead holder.
    pub limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        // A file server that fails over may be away for half a minute.
        Self { beat: Duration::from_secs(2), limit: Duration::from_mins(1) }
    }
}

/// What stands in a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    holder: Holder,
    /// Tells this lease from all others.
    nonce: String,
}

/// Digits of the count, which stands alone on the first line so that it is renewed in place.
const DIGITS: usize = 20;

/// A lease that is held, renewed by a thread of its own until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    nonce: String,
    end: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
}

impl Lease {
    /// Takes the lease at `path`; `None` if there is one already.
    pub(super) fn take(path: &Path, timing: Timing) -> Result<Option<Self>, StoreError> {
        let failed = |e| StoreError::io(path, e);
        let entry = Entry { holder: Holder::this(), nonce: nonce() };
        let aside = path.with_extension(&entry.nonce);
        let mut file = File::create_new(&aside).map_err(failed)?;
        let text = serde_json::to_string(&entry).expect("an entry is valid JSON");
        let written = write!(file, "{:0DIGITS$}\n{text}\n", 0).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = fs::remove_file(&aside);
            return Err(failed(error));
        }
        // A link, unlike a file made anew, is whole when it appears, and on NFS appears only once.
        let linked = fs::hard_link(&aside, path);
        let is_ours = || read(path).is_some_and(|(_, found)| found.nonce == entry.nonce);
        let is_there = |e: &io::Error| e.kind() == io::ErrorKind::AlreadyExists;
        let placed = match linked {
            Ok(()) => Ok(true),
            // The answer that said so may have been lost, and the question asked again.
            Err(e) if is_there(&e) => Ok(is_ours()),
            // No links here, as on some network drives.
            Err(_) => match rename_new(&aside, path) {
                Ok(()) => Ok(is_ours()),
                Err(e) if is_there(&e) => Ok(is_ours()),
                Err(e) => Err(failed(e)),
            },
        };
        let _ = fs::remove_file(&aside);
        if !placed? {
            return Ok(None);
        }
        let (end, ended) = channel();
        let beats = std::thread::spawn(move || {
            let mut count = 0_u64;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(timing.beat) {
                count += 1;
                // A server that is away for a moment is asked again at the next beat.
                let _ = renew(&mut file, count);
            }
        });
        Ok(Some(Self {
            path: path.to_owned(),
            nonce: entry.nonce,
            end: Some(end),
            beats: Some(beats),
        }))
    }

    /// Stops counting, as a process that sleeps does.
    #[cfg(test)]
    fn freeze(&mut self) {
        drop(self.end.take());
        let _ = self.beats.take().map(JoinHandle::join);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.beats.take().map(JoinHandle::join);
        // Somebody else's, if this process slept too long.
        if read(&self.path).is_some_and(|(_, entry)| entry.nonce == self.nonce) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames a file, but replaces none.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_at_once(from, to) {
        // Unknown to this system, or to this file system: a look beforehand comes close.
        Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => {
            if to.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        renamed => renamed,
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_at_once(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_at_once(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn renew(file: &mut File, count: u64) -> io::Result<()> {
    file.rewind()?;
    file.write_all(format!("{count:0DIGITS$}").as_bytes())?;
    file.sync_data()
}

/// Who holds the lease at `path`, or wanted to; nobody where that cannot be read.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    read(path).map(|(_, entry)| entry.holder)
}

/// Removes a lease that is known to be left behind; says whether it was there.
pub(super) fn remove(path: &Path) -> bool {
    let nonce = read(path).map(|(_, entry)| entry.nonce).unwrap_or_default();
    bury(path, &nonce)
}

/// Moves a lease away that was left behind. Of several who do, one moves it; who finds that another
/// lease came between puts that back.
fn bury(path: &Path, dead: &str) -> bool {
    let nonce_at = |path: &Path| read(path).map(|(_, entry)| entry.nonce).unwrap_or_default();
    let grave = path.with_extension(nonce());
    if nonce_at(path) != dead || fs::rename(path, &grave).is_err() {
        return false;
    }
    let is_dead = nonce_at(&grave) == dead;
    if !is_dead {
        let _ = fs::hard_link(&grave, path);
    }
    let _ = fs::remove_file(&grave);
    is_dead
}

/// The count and the entry of a lease.
fn read(path: &Path) -> Option<(u64, Entry)> {
    let mut text = String::new();
    // Opened anew each time: NFS asks its server when a file is opened.
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    let (count, entry) = text.split_once('\n')?;
    Some((count.parse().ok()?, serde_json::from_str(entry).ok()?))
}

/// A name that no other lease has.
fn nonce() -> String {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let this = Holder::this();
    let count = TAKEN.fetch_add(1, Ordering::Relaxed);
    let text = format!("{} {} {} {} {count}", this.host, this.place, this.pid, this.started);
    // Where the machine tells neither its boot nor its start, the time keeps names apart.
    let time = super::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    super::Digest::of(format!("{text} {}", time.as_nanos()).as_bytes()).short()
}

#[cfg(test)]
mod tests;
