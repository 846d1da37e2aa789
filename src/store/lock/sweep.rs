//! Files that processes left in `locks/` when they were killed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    super::{Fingerprint, Store, StoreError, lease},
    Holder, Locks, still_there,
};

/// What a file in `locks/` is, by its name.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The file by which the store is used, which is never removed: who opens it does not look
    /// whether it is still there.
    Store,
    /// That of a key, locked by the file system.
    Key,
    /// A lease on a key.
    KeyLease,
    /// A lease on a key that is about to appear, or was moved away.
    KeyAside,
    /// The same of the store's use.
    Use,
    /// None of ours.
    Foreign,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (stem, end) = name.split_once('.').unwrap_or((&name, ""));
        let is_nonce = end.len() == 12 && end.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (stem.parse::<Fingerprint>().is_ok(), end) {
            (true, "") => Self::Key,
            (true, "lease") => Self::KeyLease,
            (true, _) if is_nonce => Self::KeyAside,
            (false, "") if stem == "store" => Self::Store,
            (false, _)
                if (stem == "alone" || stem.starts_with("use-"))
                    && (is_nonce || end == "lease") =>
            {
                Self::Use
            }
            _ => Self::Foreign,
        }
    }
}

impl Store {
    /// Removes what nobody holds, or only looks for that, and gives the sizes. Whoever calls this
    /// has the store alone, unless it is a dry run, so nobody takes the lock of a key meanwhile. A
    /// process that uses locks of another kind would not be seen by that: what it may hold is left.
    pub(in super::super) fn sweep_locks(&self, dry_run: bool) -> Result<Vec<u64>, StoreError> {
        let folder = self.root.join("locks");
        let failed = |e| StoreError::io(&folder, e);
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut removed = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let Ok(size) = fs::metadata(&path).map(|found| found.len()) else { continue };
            if self.is_left(&path, dry_run) && (dry_run || take_away(&path)) {
                removed.push(size);
            }
        }
        Ok(removed)
    }

    /// Whether nobody holds what this file stands for.
    fn is_left(&self, path: &Path, dry_run: bool) -> bool {
        let is_alone = |locks| self.locks == locks && !dry_run;
        match Kind::of(path) {
            Kind::Store | Kind::Foreign => false,
            // Whether it is locked shows when it is taken away.
            Kind::Key if self.locks == Locks::Flock => !dry_run || is_free(path),
            Kind::Key => written_by(path).is_some_and(|holder| holder.is_gone()),
            // All who used the store are known to be gone.
            Kind::KeyLease | Kind::KeyAside if is_alone(Locks::Lease) => true,
            Kind::KeyLease | Kind::KeyAside | Kind::Use => {
                lease::holder(path).is_some_and(|holder| holder.is_gone())
            }
        }
    }
}

/// Whether nobody has locked a file just now.
fn is_free(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok())
}

/// Who wrote that he holds the lock of a file.
fn written_by(path: &Path) -> Option<Holder> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Removes a file that nobody holds; says if it did. One that the file system locks is removed
/// while it is locked here, as its holder does it: whoever opened it before finds it gone once he
/// has the lock.
fn take_away(path: &Path) -> bool {
    match Kind::of(path) {
        Kind::Key => {
            let Ok(file) = File::options().read(true).write(true).open(path) else { return false };
            file.try_lock().is_ok() && still_there(path, &file) && fs::remove_file(path).is_ok()
        }
        Kind::KeyLease | Kind::Use if path.extension().is_some_and(|end| end == "lease") => {
            lease::remove(path)
        }
        _ => fs::remove_file(path).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::store::{Attempt, lock::KeyLock};

    fn store(locks: Locks) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().using(locks);
        (dir, store)
    }

    fn take(store: &Store, key: Fingerprint) -> KeyLock {
        let mut wait = store.key_wait(key);
        loop {
            if let Attempt::Taken(lock) = wait.try_take().unwrap() {
                return lock;
            }
            std::thread::yield_now();
        }
    }

    fn key(text: &str) -> Fingerprint {
        Fingerprint::of(text.as_bytes())
    }

    /// A file in `locks/` as a process leaves it that is killed.
    fn leave(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join("locks").join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn left(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir.join("locks")).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn names_tell_what_a_file_is() {
        let key = key("k");
        for (name, kind) in [
            ("store".to_owned(), Kind::Store),
            (key.to_string(), Kind::Key),
            (format!("{key}.lease"), Kind::KeyLease),
            (format!("{key}.0123456789ab"), Kind::KeyAside),
            ("use-0123456789ab.lease".to_owned(), Kind::Use),
            ("use-0123456789ab.ba9876543210".to_owned(), Kind::Use),
            ("alone.lease".to_owned(), Kind::Use),
            (format!("{key}.txt"), Kind::Foreign),
            ("notes.lease".to_owned(), Kind::Foreign),
            ("use-case.md".to_owned(), Kind::Foreign),
        ] {
            assert_eq!(Kind::of(Path::new(&name)), kind, "{name}");
        }
    }

    #[test]
    fn what_nobody_holds_goes_and_what_somebody_holds_stays() {
        let (dir, store) = store(Locks::Flock);
        let dead = serde_json::to_string(&Holder::this())
            .unwrap()
            .replace(&format!("\"pid\":{}", std::process::id()), "\"pid\":4194999");
        let lease = |holder: &str| format!("{:020}\n{{\"holder\":{holder},\"nonce\":\"0\"}}\n", 7);
        let elsewhere = dead.replace("\"place\":\"", "\"place\":\"elsewhere ");
        for (name, text) in [
            (key("dead").to_string(), "{}"),
            (key("empty").to_string(), ""),
            (format!("{}.lease", key("dead")), &*lease(&dead)),
            (format!("{}.lease", key("elsewhere")), &*lease(&elsewhere)),
            (format!("{}.0123456789ab", key("cut")), ""),
            ("use-0123456789ab.lease".to_owned(), &*lease(&dead)),
            ("mine.txt".to_owned(), ""),
        ] {
            leave(dir.path(), &name, text);
        }
        let held = take(&store, key("held"));
        assert_eq!(store.sweep_locks(true).unwrap().len(), 4);
        assert_eq!(left(dir.path()).len(), 8);
        assert_eq!(store.sweep_locks(false).unwrap().len(), 4);
        let mut kept = [
            key("held").to_string(),
            format!("{}.lease", key("elsewhere")),
            format!("{}.0123456789ab", key("cut")),
            "mine.txt".to_owned(),
        ];
        kept.sort();
        assert_eq!(left(dir.path()), kept);
        drop(held);
    }

    #[test]
    fn who_has_the_store_alone_by_a_lease_removes_leases_on_keys() {
        let (dir, store) = store(Locks::Lease);
        leave(dir.path(), &format!("{}.lease", key("elsewhere")), "cut");
        leave(dir.path(), &format!("{}.0123456789ab", key("cut")), "");
        // Somebody is about to use the store, and waits.
        leave(dir.path(), "use-0123456789ab.ba9876543210", "");
        leave(dir.path(), &key("by flock").to_string(), "");
        let _alone = store.exclusive(&|| false).unwrap();
        assert_eq!(store.sweep_locks(true).unwrap().len(), 0, "nothing is known of them");
        assert_eq!(store.sweep_locks(false).unwrap().len(), 2);
        let mut kept = [
            "use-0123456789ab.ba9876543210".to_owned(),
            key("by flock").to_string(),
            "alone.lease".to_owned(),
            "store".to_owned(),
        ];
        kept.sort();
        assert_eq!(left(dir.path()), kept);
    }

    #[test]
    fn a_lock_is_never_taken_twice_while_files_are_swept() {
        let (dir, store) = store(Locks::Flock);
        let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = take(&store, key("k"));
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        // As one who is killed leaves it, and as one who ends.
                        drop(lock);
                        let _ = File::options()
                            .create(true)
                            .append(true)
                            .open(dir.path().join("locks").join(key("k").to_string()));
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            while done.load(Ordering::SeqCst) < 4 {
                store.sweep_locks(false).unwrap();
            }
        });
    }
}
