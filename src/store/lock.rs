//! Locks between processes and threads. The system drops them when their process dies.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Fingerprint, Store, StoreError};

/// The right to compute one key; given back when dropped.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Still locked here: whoever waits finds the file gone and opens a new one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Keeps `gc` away while a run writes content that no record names yet.
#[derive(Debug)]
pub struct StoreUse {
    _file: File,
}

impl Store {
    /// Takes the lock of a key. If somebody else holds it, `on_wait` is called once, and then the
    /// lock is tried again until it is free or `cancelled` says to stop.
    pub fn lock_key(
        &self,
        key: Fingerprint,
        on_wait: &mut dyn FnMut(),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<KeyLock, StoreError> {
        const FIRST_PAUSE: Duration = Duration::from_millis(2);
        const LONGEST_PAUSE: Duration = Duration::from_millis(200);
        let path = self.root.join("locks").join(key.to_string());
        let mut pause = FIRST_PAUSE;
        let mut waited = false;
        loop {
            let file = lock_file(&path)?;
            match file.try_lock() {
                Ok(()) if still_there(&path, &file) => return Ok(KeyLock { path, _file: file }),
                // Its last owner removed the file between our opening and locking it.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(StoreError::io(&path, e)),
            }
            if !waited {
                waited = true;
                on_wait();
            }
            if cancelled() {
                return Err(StoreError::Cancelled);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Declares that a run uses the store.
    pub fn in_use(&self) -> Result<StoreUse, StoreError> {
        // Says at once that nothing can be written, and not after an hour's work.
        let tmp = self.root.join("tmp");
        super::scratch(&tmp).map_err(|e| StoreError::io(&tmp, e))?;
        let path = self.root.join("locks").join("store");
        let file = lock_file(&path)?;
        file.lock_shared().map_err(|e| StoreError::io(&path, e))?;
        Ok(StoreUse { _file: file })
    }

    /// The same for who only reads and need not be able to write: nothing, where that is so.
    pub fn in_use_to_read(&self) -> Result<Option<StoreUse>, StoreError> {
        if !self.exists {
            return Ok(None);
        }
        match self.in_use() {
            Err(StoreError::NotWritable { .. }) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Takes the store for itself, if no run uses it.
    pub(super) fn exclusive(&self) -> Result<StoreUse, StoreError> {
        let path = self.root.join("locks").join("store");
        let file = lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(StoreUse { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: self.root.clone() }),
            Err(TryLockError::Error(e)) => Err(StoreError::io(&path, e)),
        }
    }
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    fs::OpenOptions::new()
        .create(true)
        .truncate(false)
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

    #[test]
    fn one_at_a_time_holds_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (inside, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut on_wait = || {
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
    fn waiting_ends_when_the_user_interrupts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let _held = store.lock_key(Fingerprint::of(b"k"), &mut || {}, &|| false).unwrap();
        let error = store.lock_key(Fingerprint::of(b"k"), &mut || {}, &|| true).unwrap_err();
        assert!(matches!(error, StoreError::Cancelled));
    }
}
