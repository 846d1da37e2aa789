//! The file of a history, and how several write to it at once.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::super::{
    Attempt, Fingerprint, Holder, KeyLock, KeyWait, Locks, Stop, Store, StoreError, scratch,
};

/// How long lines wait for others where a lock is taken to write them.
const BATCH: Duration = Duration::from_secs(1);

/// After which a wait for another process is told.
const TELL: Duration = Duration::from_secs(2);

/// How long who is to stop still waits: one that lives holds the lock for as long as a line takes.
const LAST: Duration = Duration::from_millis(500);

/// The file of a history. A file system of one machine adds to its end in one piece, whoever else
/// does so; where several machines see it, each writes where it believes the end to be, so they
/// write one after the other.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    tmp: PathBuf,
    /// The lock under which it is written, if one is needed.
    lock: Option<(PathBuf, Locks)>,
    pending: String,
    written: Option<Instant>,
    stop: Option<Stop>,
}

impl Journal {
    /// The file of this name in the store.
    pub(super) fn new(store: &Store, name: &str) -> Self {
        let lock = Fingerprint::of(format!("pipe history 1\n{name}").as_bytes());
        Self {
            path: store.root.join("history").join(name),
            tmp: store.root.join("tmp"),
            lock: store.is_seen_by_others().then(|| (store.lock_path(lock), store.locks)),
            pending: String::new(),
            written: None,
            stop: store.stop.clone(),
        }
    }

    /// Adds lines at the end, now or soon.
    pub(super) fn add(&mut self, lines: &str) -> Result<(), StoreError> {
        self.pending.push_str(lines);
        let is_early = self.written.is_some_and(|at| at.elapsed() < BATCH);
        if self.lock.is_some() && is_early { Ok(()) } else { self.flush() }
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let _lock = self.take_lock()?;
        let lines = std::mem::take(&mut self.pending);
        let written = fs::OpenOptions::new().append(true).create(true).open(&self.path).and_then(
            |mut file| {
                file.write_all(lines.as_bytes())?;
                if self.lock.is_some() { file.sync_all() } else { Ok(()) }
            },
        );
        self.written = Some(Instant::now());
        written.map_err(|e| StoreError::io(&self.path, e))
    }

    /// Writes the file anew; who reads meanwhile sees the old one, and so does who reads after a
    /// failure.
    pub(super) fn replace(&mut self, text: &str) -> Result<(), StoreError> {
        self.pending.clear();
        let _lock = self.take_lock()?;
        let written = scratch(&self.tmp).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)
        });
        written.map(drop).map_err(|e| StoreError::io(&self.path, e))
    }

    fn take_lock(&self) -> Result<Option<KeyLock>, StoreError> {
        let Some((path, locks)) = &self.lock else { return Ok(None) };
        let mut wait = KeyWait::new(path.clone(), *locks);
        let (start, mut stopped, mut told) = (Instant::now(), None, false);
        loop {
            // Held for as long as a line takes to be written; a dead holder is taken over.
            let holder = match wait.try_take()? {
                Attempt::Taken(lock) => return Ok(Some(lock)),
                Attempt::Held(holder) => holder,
            };
            if self.stop.as_ref().is_some_and(|stop| (stop.0)())
                && stopped.get_or_insert_with(Instant::now).elapsed() >= LAST
            {
                return Err(StoreError::Cancelled);
            }
            if start.elapsed() >= TELL && !std::mem::replace(&mut told, true) {
                self.tell(holder);
            }
            std::thread::sleep(wait.pause());
        }
    }

    fn tell(&self, holder: Option<Holder>) {
        let who = holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
        tracing::warn!(
            "{who} has been writing to the history `{}` for a while; waiting, until it has done so or it is \
             certain that it has ended.",
            self.path.display()
        );
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "toy";

    fn journal(locks: Locks) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().using(locks);
        (dir, store)
    }

    #[test]
    fn one_after_the_other_writes_where_several_machines_may() {
        let (_dir, store) = journal(Locks::Lease);
        let mut journal = Journal::new(&store, NAME);
        let held = journal.take_lock().unwrap();
        assert!(held.is_some());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| Journal::new(&store, NAME).add("other\n").unwrap());
            std::thread::sleep(Duration::from_millis(100));
            assert!(!other.is_finished() && !journal.path.exists());
            drop(held);
            other.join().unwrap();
        });
        journal.add("one\n").unwrap();
        journal.add("two\n").unwrap();
        let text = |journal: &Journal| fs::read_to_string(&journal.path).unwrap();
        assert_eq!(text(&journal), "other\none\n", "the second waits for others");
        journal.flush().unwrap();
        assert_eq!(text(&journal), "other\none\ntwo\n");
        journal.add("three\n").unwrap();
        let path = journal.path.clone();
        drop(journal);
        assert!(fs::read_to_string(path).unwrap().ends_with("three\n"));
    }

    #[test]
    fn who_is_to_stop_does_not_wait_for_one_that_does_not_end() {
        let (_dir, store) = journal(Locks::Lease);
        let held = Journal::new(&store, NAME).take_lock().unwrap();
        let store = store.stopped_by(|| true);
        let mut journal = Journal::new(&store, NAME);
        let start = Instant::now();
        assert!(matches!(journal.add("one\n"), Err(StoreError::Cancelled)));
        assert!(start.elapsed() < 10 * LAST);
        // What was to be written is not lost where the other one ends after all.
        drop(held);
        let path = journal.path.clone();
        drop(journal);
        assert_eq!(fs::read_to_string(path).unwrap(), "one\n");
    }

    #[test]
    fn a_disk_of_one_machine_needs_no_lock() {
        let (_dir, store) = journal(Locks::Auto);
        let mut journal = Journal::new(&store, NAME);
        assert!(journal.take_lock().unwrap().is_none());
        journal.add("one\n").unwrap();
        journal.add("two\n").unwrap();
        assert_eq!(fs::read_to_string(&journal.path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn what_cannot_be_written_anew_stays() {
        let (dir, store) = journal(Locks::Auto);
        let mut journal = Journal::new(&store, NAME);
        journal.add("one\n").unwrap();
        fs::remove_dir_all(dir.path().join("tmp")).unwrap();
        assert!(journal.replace("anew\n").is_err());
        assert_eq!(fs::read_to_string(&journal.path).unwrap(), "one\n");
        fs::create_dir(dir.path().join("tmp")).unwrap();
        journal.replace("anew\n").unwrap();
        assert_eq!(fs::read_to_string(&journal.path).unwrap(), "anew\n");
    }
}
