//! A remote behind the store of a run: asked before a stage runs, told after one did.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use rayon::prelude::*;

use super::{
    Moved, Remote, RemoteError, Transfer,
    transfer::{BringError, Cargo},
};
use crate::store::{Behind, Fingerprint, NewResult, Record, Store, StoreError, Trace, is_below};

/// A remote that a run reads through and writes back to. A remote that does not answer is left
/// alone for the rest of the run, after one warning: a run never depends on it.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    made: Mutex<Option<Sender<NewResult>>>,
    sender: Mutex<Option<JoinHandle<Moved>>>,
}

#[derive(Debug)]
struct Shared {
    remote: Remote,
    /// Set when the remote did not answer.
    down: AtomicBool,
    /// Set from outside to stop.
    stop: Stop,
    /// Whether the format was looked at.
    checked: AtomicBool,
    /// What the remote does not have, or not undamaged.
    absent: Mutex<HashSet<Fingerprint>>,
    /// Whether only to look, as a dry run does.
    looks: AtomicBool,
    brought: Mutex<BTreeMap<Fingerprint, u64>>,
    items: AtomicUsize,
    error: Mutex<Option<String>>,
    cargo: Cargo,
}

struct Stop(Box<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

/// What went to and fro in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Results that were fetched instead of computed, with the bytes that took.
    pub brought: BTreeMap<Fingerprint, u64>,
    /// Items that were fetched besides.
    pub items: usize,
    /// Why the remote was left alone.
    pub error: Option<String>,
    /// The bytes that were fetched.
    pub bytes: u64,
    /// What was sent.
    pub sent: Moved,
}

impl Link {
    /// A remote behind the store in the folder `root`.
    pub fn new(
        remote: Remote,
        root: &Path,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let store = Store::open(root)?;
        let shared = Arc::new(Shared {
            remote,
            down: AtomicBool::new(false),
            stop: Stop(Box::new(stop)),
            checked: AtomicBool::new(false),
            absent: Mutex::default(),
            looks: AtomicBool::new(false),
            brought: Mutex::default(),
            items: AtomicUsize::new(0),
            error: Mutex::default(),
            cargo: Cargo::default(),
        });
        let (made, results) = channel();
        let sending = Arc::clone(&shared);
        let sender = std::thread::spawn(move || sending.send(&store, &results));
        Ok(Self { shared, made: Mutex::new(Some(made)), sender: Mutex::new(Some(sender)) })
    }

    /// The same, but nothing is brought: only the records of what the remote has are given.
    pub fn only_looking(&self) {
        self.shared.looks.store(true, Ordering::Relaxed);
    }

    /// Waits until everything was sent; says what went to and fro.
    pub fn finish(&self) -> LinkReport {
        drop(self.made.lock().expect("no panic while held").take());
        let sender = self.sender.lock().expect("no panic while held").take();
        let sent = sender.and_then(|sender| sender.join().ok()).unwrap_or_default();
        LinkReport {
            brought: self.shared.brought.lock().expect("no panic while held").clone(),
            items: self.shared.items.load(Ordering::Relaxed),
            error: self.shared.error.lock().expect("no panic while held").clone(),
            bytes: self.shared.cargo.bytes(),
            sent,
        }
    }
}

impl Shared {
    /// Sends what comes, until nothing more will.
    fn send(&self, store: &Store, results: &Receiver<NewResult>) -> Moved {
        let mut all = Moved::default();
        while let Ok(made) = results.recv() {
            if self.is_down() || (self.stop.0)() {
                all.failed += 1;
                continue;
            }
            let how = Transfer { progress: &|_, _| {}, stopped: &*self.stop.0, dry_run: false };
            match self.remote.push(store, std::slice::from_ref(&made), &how) {
                Ok(moved) => {
                    all.results.extend(moved.results);
                    all.differing.extend(moved.differing);
                    all.there += moved.there;
                    all.failed += moved.failed + moved.broken.len();
                    all.objects += moved.objects;
                    all.bytes += moved.bytes;
                    all.error = all.error.or(moved.error);
                }
                Err(error) => {
                    all.failed += 1;
                    self.fails(&error);
                }
            }
        }
        all
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    fn fails(&self, error: &RemoteError) {
        if !self.down.swap(true, Ordering::Relaxed) {
            *self.error.lock().expect("no panic while held") = Some(error.to_string());
            let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
            tracing::warn!("From here on without remote cache: {error}{help}.");
        }
    }

    /// Whether the remote may be asked: it answered so far, and is a cache of a form we know.
    fn is_usable(&self) -> bool {
        if self.is_down() || (self.stop.0)() {
            return false;
        }
        if !self.checked.swap(true, Ordering::Relaxed)
            && let Err(error) = self.remote.check()
        {
            self.fails(&error);
        }
        !self.is_down()
    }

    /// What came of asking for a key.
    fn brought<T>(&self, key: Fingerprint, result: Result<T, BringError>) -> Option<T> {
        match result {
            Ok(brought) => Some(brought),
            Err(BringError::Remote(error)) => {
                self.fails(&error);
                None
            }
            Err(BringError::Stopped) => None,
            Err(error) => {
                tracing::warn!("A result of `{}` is computed anew: {error}.", self.remote);
                self.forget(key);
                None
            }
        }
    }

    fn forget(&self, key: Fingerprint) {
        self.absent.lock().expect("no panic while held").insert(key);
    }

    fn is_absent(&self, key: &Fingerprint) -> bool {
        self.absent.lock().expect("no panic while held").contains(key)
    }
}

impl Behind for Link {
    fn bring(&self, store: &Store, key: Fingerprint) -> Option<Record> {
        let shared = &self.shared;
        if shared.is_absent(&key) || !shared.is_usable() {
            return None;
        }
        let cargo = Cargo::default();
        let result = if shared.looks.load(Ordering::Relaxed) {
            shared.remote.weigh(store, key, &cargo).map_err(BringError::from)
        } else {
            shared.remote.bring(store, key, &cargo, &*shared.stop.0)
        };
        let Some(record) = shared.brought(key, result)? else {
            shared.forget(key);
            return None;
        };
        let bytes = cargo.bytes();
        shared.cargo.add_all(&cargo);
        shared.brought.lock().expect("no panic while held").insert(key, bytes);
        Some(record)
    }

    fn bring_items(&self, store: &Store, keys: &[Fingerprint]) {
        let shared = &self.shared;
        let bring = |key: &Fingerprint| {
            if shared.is_absent(key) || !shared.is_usable() {
                return;
            }
            let result = shared.remote.bring_item(store, *key, &shared.cargo, &*shared.stop.0);
            match shared.brought(*key, result) {
                Some(true) => drop(shared.items.fetch_add(1, Ordering::Relaxed)),
                Some(false) => shared.forget(*key),
                None => {}
            }
        };
        shared.remote.threads.install(|| keys.par_iter().for_each(bring));
    }

    fn traces(&self, key: Fingerprint) -> Vec<Trace> {
        if !self.shared.is_usable() {
            return Vec::new();
        }
        let mut traces = self.shared.remote.traces(key).unwrap_or_else(|error| {
            self.shared.fails(&error);
            Vec::new()
        });
        // Nobody else says which files of this machine are read.
        traces.retain(|trace| trace.paths.iter().all(|path| is_below(path)));
        traces
    }

    fn made(&self, result: NewResult) {
        if let Some(made) = &*self.made.lock().expect("no panic while held") {
            // The thread ends only after this sender is gone.
            let _ = made.send(result);
        }
    }
}
