//! Locks between processes and threads, by those of the file system where it keeps them to its word
//! (the system drops them when their process dies), else by leases.

mod kind;
mod sweep;

pub use kind::Locks;

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Fingerprint, Store, StoreError,
    lease::{Holder, Lease, Timing, Uses, Watch},
};

/// The right to compute one key; given back when dropped.
#[derive(Debug)]
pub struct KeyLock {
    _held: Held,
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

/// Keeps `gc` away while a run writes content that no record names yet.
#[derive(Debug)]
pub struct StoreUse {
    _held: Use,
}

#[derive(Debug)]
enum Use {
    Flock { _file: File },
    Lease { _lease: Lease },
}

impl StoreUse {
    fn by_lease(lease: Lease) -> Self {
        Self { _held: Use::Lease { _lease: lease } }
    }

    fn by_file(file: File) -> Self {
        Self { _held: Use::Flock { _file: file } }
    }
}

/// A wait for the lock of a key. It learns from look to look whether a holder still lives, so all looks
/// must be its own.
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
    /// Takes the lock, if it is free.
    pub fn try_take(&mut self) -> Result<Attempt, StoreError> {
        loop {
            let tried = match self.locks {
                Locks::Lease => try_lease(&self.path.with_extension("lease"), &mut self.watch)?,
                Locks::Auto | Locks::Flock => try_flock(&self.path)?,
            };
            return Ok(match tried {
                Tried::Held(held) => Attempt::Taken(KeyLock { _held: held }),
                Tried::Again => continue,
                Tried::Taken(holder) => Attempt::Held(holder),
            });
        }
    }

    /// How long to wait before the next look: longer each time.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl Store {
    /// Chooses by what processes keep out of each other's way.
    #[must_use]
    pub fn with_locks(mut self, locks: Locks) -> Self {
        self.locks = locks.of(&self.root);
        self
    }

    /// A wait for the lock of a key, for who has something else to do meanwhile.
    pub fn key_wait(&self, key: Fingerprint) -> KeyWait {
        let path = self.root.join("locks").join(key.to_string());
        KeyWait { path, locks: self.locks, watch: Watch::default(), pause: FIRST_PAUSE }
    }

    /// Says at once that nothing can be written, and not after an hour's work.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        super::scratch(&tmp).map(drop).map_err(|e| StoreError::io(&tmp, e))
    }

    /// Declares that a run uses the store. While somebody has it alone this waits, and says so, until
    /// `cancelled` says to stop.
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
        if !self.exists {
            return Ok(None);
        }
        match self.in_use(cancelled) {
            Err(StoreError::NotWritable { .. }) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Takes the store for itself, if no run uses it.
    pub(super) fn exclusive(&self) -> Result<StoreUse, StoreError> {
        let busy = || StoreError::Busy { path: self.root.clone() };
        if self.locks == Locks::Lease {
            return self.uses().alone_now()?.map(StoreUse::by_lease).ok_or_else(busy);
        }
        let path = self.root.join("locks").join("store");
        let file = lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(StoreUse::by_file(file)),
            Err(TryLockError::WouldBlock) => Err(busy()),
            Err(TryLockError::Error(e)) => Err(StoreError::io(&path, e)),
        }
    }

    fn uses(&self) -> Uses {
        Uses::new(self.root.join("locks"), Timing::default())
    }
}

/// What came of an attempt.
enum Tried {
    Held(Held),
    /// It was given back just now.
    Again,
    Taken(Option<Holder>),
}

fn try_lease(path: &Path, watch: &mut Watch) -> Result<Tried, StoreError> {
    if let Some(holder) = watch.look(path, Timing::default()) {
        return Ok(Tried::Taken(Some(holder)));
    }
    let lease = Lease::take(path, Timing::default())?;
    Ok(lease.map_or(Tried::Again, |lease| Tried::Held(Held::Lease { _lease: lease })))
}

fn try_flock(path: &Path) -> Result<Tried, StoreError> {
    let mut file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) if still_there(path, &file) => {
            // For those who will wait; without it they wait all the same. One who was killed may have left
            // more than is written now.
            let _ = file.set_len(0);
            let _ = serde_json::to_writer(&mut file, &Holder::this());
            Ok(Tried::Held(Held::Flock { _locked: Locked { path: path.to_owned(), _file: file } }))
        }
        // Its last owner removed the file between our opening and locking it.
        Ok(()) => Ok(Tried::Again),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
            Ok(Tried::Taken(read.ok().and_then(|_| serde_json::from_str(&text).ok())))
        }
        Err(TryLockError::Error(e)) => Err(StoreError::io(path, e)),
    }
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    impl Store {
        /// Takes the lock of a key. If somebody else holds it, `on_wait` is called once with whom, where
        /// that is known; then the lock is tried again until it is free or `cancelled` says to stop.
        fn lock_key(
            &self,
            key: Fingerprint,
            on_wait: &mut dyn FnMut(Option<&Holder>),
            cancelled: &dyn Fn() -> bool,
        ) -> Result<KeyLock, StoreError> {
            let mut wait = self.key_wait(key);
            let mut waited = false;
            loop {
                let holder = match wait.try_take()? {
                    Attempt::Taken(lock) => return Ok(lock),
                    Attempt::Held(holder) => holder,
                };
                if !waited {
                    waited = true;
                    on_wait(holder.as_ref());
                }
                if cancelled() {
                    return Err(StoreError::Cancelled);
                }
                std::thread::sleep(wait.pause());
            }
        }
    }

    #[test]
    fn one_at_a_time_holds_a_key() {
        for locks in [Locks::Flock, Locks::Lease] {
            one_at_a_time(locks);
        }
    }

    fn one_at_a_time(locks: Locks) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().with_locks(locks);
        let (inside, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut on_wait = |_: Option<&Holder>| {
                        waits.fetch_add(1, Ordering::SeqCst);
                    };
                    let lock =
                        store.lock_key(Fingerprint::of(b"k"), &mut on_wait, &|| false).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(lock);
                });
            }
        });
        assert!(waits.into_inner() <= 8);
        assert_eq!(fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
    }

    #[test]
    fn waiting_is_told_for_whom_and_ends_when_the_user_interrupts() {
        for locks in [Locks::Flock, Locks::Lease] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap().with_locks(locks);
            let key = Fingerprint::of(b"k");
            let _held = store.lock_key(key, &mut |_| {}, &|| false).unwrap();
            let mut whom = None;
            let error =
                store.lock_key(key, &mut |holder| whom = holder.cloned(), &|| true).unwrap_err();
            assert!(matches!(error, StoreError::Cancelled));
            assert_eq!(whom.map(|holder| holder.pid), Some(std::process::id()));
        }
    }

    #[test]
    fn a_run_keeps_gc_away() {
        for locks in [Locks::Flock, Locks::Lease] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap().with_locks(locks);
            let held = store.in_use(&|| false).unwrap();
            assert!(matches!(store.exclusive(), Err(StoreError::Busy { .. })));
            drop(held);
            store.exclusive().unwrap();
        }
    }

    #[test]
    fn a_run_waits_for_gc_until_it_ends_or_the_user_interrupts() {
        for locks in [Locks::Flock, Locks::Lease] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap().with_locks(locks);
            let alone = store.exclusive().unwrap();
            let asked = AtomicUsize::new(0);
            let third = || asked.fetch_add(1, Ordering::SeqCst) == 2;
            assert!(matches!(store.in_use(&third), Err(StoreError::Cancelled)));
            assert_eq!(asked.load(Ordering::SeqCst), 3);
            std::thread::scope(|scope| {
                let run = scope.spawn(|| store.in_use(&|| false).map(drop));
                std::thread::sleep(Duration::from_millis(100));
                assert!(!run.is_finished());
                drop(alone);
                run.join().unwrap().unwrap();
            });
        }
    }

    #[test]
    fn a_longer_name_of_a_killed_holder_does_not_show_through() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().with_locks(Locks::Flock);
        let key = Fingerprint::of(b"k");
        let path = dir.path().join("locks").join(key.to_string());
        let mut left = serde_json::to_value(Holder::this()).unwrap();
        left["host"] = "a-long-name.".repeat(20).into();
        fs::write(path, left.to_string()).unwrap();
        let _held = store.lock_key(key, &mut |_| {}, &|| false).unwrap();
        let mut whom = None;
        let waited = store.lock_key(key, &mut |holder| whom = holder.cloned(), &|| true);
        assert!(waited.is_err());
        assert_eq!(whom, Some(Holder::this()));
    }

    #[test]
    fn a_disk_of_this_machine_is_locked_by_its_file_system() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Locks::Auto.of(dir.path()), Locks::Flock);
        assert_eq!(Locks::Lease.of(dir.path()), Locks::Lease);
    }
}
