//! Locks between processes and threads, by those of the file system where it keeps them to its word
//! (the system drops them when their process dies), else by leases. All who use a store must do it
//! alike: `kind`.

mod kind;
mod sweep;

pub use kind::Locks;

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Fingerprint, Store, StoreError,
    lease::{Holder, Lease, Timing, Uses, Watch},
};

/// The right to compute one key; given back when dropped.
#[derive(Debug)]
pub struct KeyLock {
    _held: Held,
    /// Who had it and is gone without giving it back, where that is known.
    left_by: Option<Holder>,
}

impl KeyLock {
    /// Who had it before and is gone without giving it back, as one who was killed.
    pub fn left_by(&self) -> Option<&Holder> {
        self.left_by.as_ref()
    }
}

#[derive(Debug)]
enum Held {
    Flock { _locked: Locked },
    Lease { _lease: Lease },
}

/// A locked file, which goes with its lock.
#[derive(Debug)]
struct Locked {
    path: PathBuf,
    _file: File,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Still locked here: whoever waits finds the file gone and opens a new one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Keeps `gc` away while a run writes content that no record names yet, and runs while `gc` removes
/// what is named by none.
#[derive(Debug)]
pub struct StoreUse {
    _file: Option<File>,
    _lease: Option<Lease>,
}

impl StoreUse {
    fn by_lease(lease: Lease) -> Self {
        Self { _file: None, _lease: Some(lease) }
    }

    fn by_file(file: File) -> Self {
        Self { _file: Some(file), _lease: None }
    }
}

/// A wait for the lock of a key. It learns from look to look whether a holder still lives, so all
/// looks must be its own.
#[derive(Debug)]
pub struct KeyWait {
    path: PathBuf,
    locks: Locks,
    watch: Watch,
    pause: Duration,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// The lock.
    Taken(KeyLock),
    /// Somebody else holds it; who, where that is known.
    Held(Option<Holder>),
}

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

impl KeyWait {
    pub(super) fn new(path: PathBuf, locks: Locks) -> Self {
        Self { path, locks, watch: Watch::default(), pause: FIRST_PAUSE }
    }

    /// Takes the lock, if it is free. One that is given back and taken again all the time is held
    /// by somebody.
    pub fn try_take(&mut self) -> Result<Attempt, StoreError> {
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            let tried = match self.locks {
                Locks::Lease => try_lease(&self.path.with_extension("lease"), &mut self.watch)?,
                Locks::Auto | Locks::Flock => try_flock(&self.path)?,
            };
            return Ok(match tried {
                Tried::Held(held, left_by) => Attempt::Taken(KeyLock { _held: held, left_by }),
                Tried::Again => continue,
                Tried::Taken(holder) => Attempt::Held(holder),
            });
        }
        Ok(Attempt::Held(None))
    }

    /// How long to wait before the next look: longer each time.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl Store {
    /// Goes by the locks that the others use who use the store, which is refused where `wanted` are
    /// others.
    pub fn with_locks(mut self, wanted: Locks) -> Result<Self, StoreError> {
        self.locks = wanted.in_store(&self.root)?;
        Ok(self)
    }

    /// The same for a store that is opened to be changed: if nothing is known of others, from now
    /// on all have to use these.
    pub fn settle_locks(mut self, wanted: Locks) -> Result<Self, StoreError> {
        self.locks = wanted.settled(&self.root)?;
        Ok(self)
    }

    /// A wait for the lock of a key, for who has something else to do meanwhile.
    pub fn key_wait(&self, key: Fingerprint) -> KeyWait {
        KeyWait::new(self.lock_path(key), self.locks)
    }

    /// The file that is locked for a key.
    pub(super) fn lock_path(&self, key: Fingerprint) -> PathBuf {
        self.root.join("locks").join(key.to_string())
    }

    /// Whether processes of other machines may write to the store.
    pub(super) fn is_seen_by_others(&self) -> bool {
        self.locks == Locks::Lease || kind::is_shared(&self.root)
    }

    /// Says at once that nothing can be written, and not after an hour's work.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        super::scratch(&tmp).map(drop).map_err(|e| StoreError::io(&tmp, e))
    }

    /// Declares that a run uses the store. While somebody has it alone this waits, and says so,
    /// until `cancelled` says to stop.
    pub fn in_use(&self, cancelled: &dyn Fn() -> bool) -> Result<StoreUse, StoreError> {
        const PAUSE: Duration = Duration::from_millis(50);
        self.check_writable()?;
        let mut waited = false;
        let mut wait = || {
            if !std::mem::replace(&mut waited, true) {
                tracing::warn!(
                    "Another process cleans up the cache `{}`; waiting until it has ended.",
                    self.root.display()
                );
            }
            if cancelled() {
                return Err(StoreError::Cancelled);
            }
            std::thread::sleep(PAUSE);
            Ok(())
        };
        if self.locks == Locks::Lease {
            return self.uses().join(&mut wait).map(StoreUse::by_lease);
        }
        let path = self.root.join("locks").join("store");
        let file = lock_file(&path)?;
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(StoreUse::by_file(file)),
                Err(TryLockError::WouldBlock) => wait()?,
                Err(TryLockError::Error(e)) => return Err(StoreError::io(&path, e)),
            }
        }
    }

    /// The same for who only reads and need not be able to write: nothing, where that is so.
    pub fn in_use_to_read(
        &self,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<StoreUse>, StoreError> {
        // A cache that was copied may lack what was empty.
        let make = |folder: &str| fs::create_dir_all(self.root.join(folder));
        if !self.exists || ["tmp", "locks"].into_iter().any(|folder| make(folder).is_err()) {
            return Ok(None);
        }
        match self.in_use(cancelled) {
            Err(StoreError::NotWritable { .. } | StoreError::Full { .. }) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Takes the store for itself, if no run uses it, by locks of either kind: an older version, or
    /// who wrote another kind into `locks/mode` by hand, may still use the other one. Holders of
    /// leases who do not answer are waited for, which is said, until it is certain that they are
    /// dead or `cancelled` says to stop.
    pub(super) fn exclusive(&self, cancelled: &dyn Fn() -> bool) -> Result<StoreUse, StoreError> {
        let busy = || StoreError::Busy { path: self.root.clone() };
        let timing = Timing::default();
        let (start, mut told) = (Instant::now(), false);
        let mut wait = |holder: &Holder| {
            // Who lives has counted by then.
            if start.elapsed() > 2 * timing.beat && !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "{holder} used the cache `{}` and does not answer; waiting, {} s at most, until it is \
                     certain that it has ended.",
                    self.root.display(),
                    timing.limit.as_secs(),
                );
            }
            if cancelled() { Err(StoreError::Cancelled) } else { Ok(()) }
        };
        let lease = match self.uses().alone(&mut wait) {
            // Room is made on a full disk, too; those who use the same locks are kept away all the
            // same.
            Err(StoreError::Full { .. }) if self.locks != Locks::Lease => None,
            taken => Some(taken?.ok_or_else(busy)?),
        };
        let path = self.root.join("locks").join("store");
        let file = lock_file(&path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(busy()),
            // Where there are no such locks, nobody holds one.
            Err(TryLockError::Error(e)) if self.locks != Locks::Lease => {
                Err(StoreError::io(&path, e))
            }
            _ => Ok(StoreUse { _file: Some(file), _lease: lease }),
        }
    }

    fn uses(&self) -> Uses {
        Uses::new(self.root.join("locks"), Timing::default())
    }
}

/// What came of an attempt.
enum Tried {
    /// It is held, and was left by somebody.
    Held(Held, Option<Holder>),
    /// It was given back just now.
    Again,
    Taken(Option<Holder>),
}

fn try_lease(path: &Path, watch: &mut Watch) -> Result<Tried, StoreError> {
    if let Some(holder) = watch.look(path, Timing::default()) {
        return Ok(Tried::Taken(Some(holder)));
    }
    let lease = Lease::take(path, Timing::default())?;
    let held = |lease| Tried::Held(Held::Lease { _lease: lease }, watch.left_by());
    Ok(lease.map_or(Tried::Again, held))
}

fn try_flock(path: &Path) -> Result<Tried, StoreError> {
    let mut file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) if still_there(path, &file) => {
            // Who gives it back removes the file.
            let left_by = read_holder(&mut file);
            // For those who will wait; without it they wait all the same. One who was killed may
            // have left more than is written now.
            let _ = file.rewind().and_then(|()| file.set_len(0));
            let _ = serde_json::to_writer(&mut file, &Holder::this());
            let locked = Locked { path: path.to_owned(), _file: file };
            Ok(Tried::Held(Held::Flock { _locked: locked }, left_by))
        }
        // Its last owner removed the file between our opening and locking it.
        Ok(()) => Ok(Tried::Again),
        Err(TryLockError::WouldBlock) => Ok(Tried::Taken(read_holder(&mut file))),
        Err(TryLockError::Error(e)) => Err(StoreError::io(path, e)),
    }
}

/// Who wrote into a file that he has its lock.
fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| StoreError::io(path, e))
}

#[cfg(unix)]
fn still_there(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(locked)) => named.dev() == locked.dev() && named.ino() == locked.ino(),
        _ => false,
    }
}

/// Elsewhere an open file cannot be removed, so it is always there.
#[cfg(not(unix))]
fn still_there(_path: &Path, _file: &File) -> bool {
    true
}

#[cfg(test)]
mod tests;
