//! A remote behind the store of a run: asked before a stage runs, told after one did.

mod shared;

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use rayon::prelude::*;

use super::{Moved, Remote, Wrong, transfer::Cargo};
use crate::{
    store::{Behind, Fingerprint, NewResult, Record, Store, StoreError, Trace, is_below},
    sync::Unpoisoned,
};
use shared::{Shared, Stop};

/// Results that are sent at once. Each waits for answers most of the time.
const SENDERS: usize = 8;

/// How long a run waits for the remote before it says so.
const SILENCE: Duration = Duration::from_secs(2);

/// A remote that a run reads through and writes back to. A remote that does not answer is left
/// alone for the rest of the run, after one warning: a run never depends on it.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    made: Mutex<Option<Sender<NewResult>>>,
    senders: Mutex<Vec<JoinHandle<Moved>>>,
    /// Ends when all senders have.
    sent: Mutex<Option<Receiver<()>>>,
}

/// What went to and fro in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Results that were fetched instead of computed, with the bytes that took.
    pub brought: BTreeMap<Fingerprint, u64>,
    /// Items that were fetched besides.
    pub items: usize,
    /// Results that are damaged at the remote, or not all there, by name.
    pub broken: Vec<(String, Wrong)>,
    /// Why the remote was left alone.
    pub error: Option<String>,
    /// Whether it takes nothing later, either: it is no cache of a form that is known.
    pub is_lasting: bool,
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
        let stop: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(stop);
        let is_stopped = Arc::clone(&stop);
        remote.stopped_by(move || is_stopped());
        let shared = Arc::new(Shared {
            remote,
            down: AtomicBool::new(false),
            stop: Stop(stop),
            checked: OnceLock::new(),
            absent: Mutex::default(),
            looks: AtomicBool::new(false),
            computes: AtomicBool::new(true),
            wrong: Mutex::default(),
            wrong_items: Mutex::default(),
            brought: Mutex::default(),
            items: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            error: Mutex::default(),
            is_lasting: AtomicBool::new(false),
            cargo: Cargo::default(),
        });
        let (made, results) = channel();
        let (sending, sent) = channel();
        let (store, results) = (Arc::new(store), Arc::new(Mutex::new(results)));
        let sender = |_| {
            let (shared, store, results) =
                (Arc::clone(&shared), Arc::clone(&store), Arc::clone(&results));
            let sending: Sender<()> = sending.clone();
            std::thread::spawn(move || {
                let moved = shared.send(&store, &results);
                drop(sending);
                moved
            })
        };
        let senders = (0..SENDERS).map(sender).collect();
        Ok(Self {
            shared,
            made: Mutex::new(Some(made)),
            senders: Mutex::new(senders),
            sent: Mutex::new(Some(sent)),
        })
    }

    /// The same, but nothing is brought: only the records of what the remote has are given.
    pub fn only_looking(&self) {
        self.shared.looks.store(true, Ordering::Relaxed);
    }

    /// What cannot be fetched is not computed either: it is told by [`finish`](Self::finish) alone.
    pub fn only_fetching(&self) {
        self.shared.computes.store(false, Ordering::Relaxed);
    }

    /// Waits until everything was sent; says what went to and fro.
    pub fn finish(&self) -> LinkReport {
        self.finish_telling(|_| {})
    }

    /// The same; where it takes long, `tell` is told once how many results it waits for.
    pub fn finish_telling(&self, tell: impl FnOnce(usize)) -> LinkReport {
        drop(self.made.lock().unpoisoned().take());
        let all_sent = self.sent.lock().unpoisoned().take();
        let wait = all_sent.map(|sent| sent.recv_timeout(SILENCE));
        if wait == Some(Err(RecvTimeoutError::Timeout)) {
            tell(self.shared.waiting.load(Ordering::Relaxed));
        }
        let mut sent = Moved::default();
        for sender in self.senders.lock().unpoisoned().drain(..) {
            sent.add(sender.join().unwrap_or_default());
        }
        LinkReport {
            brought: self.shared.brought.lock().unpoisoned().clone(),
            items: self.shared.items.load(Ordering::Relaxed),
            broken: {
                let wrong = self.shared.wrong.lock().unpoisoned();
                wrong.values().cloned().collect()
            },
            error: self.shared.error.lock().unpoisoned().clone(),
            is_lasting: self.shared.is_lasting.load(Ordering::Relaxed),
            bytes: self.shared.cargo.bytes(),
            sent,
        }
    }
}

impl Behind for Link {
    fn bring(&self, store: &Store, key: Fingerprint, name: &dyn Display) -> Option<Record> {
        let shared = &self.shared;
        if shared.is_absent(&key) || !shared.is_usable() {
            return None;
        }
        let cargo = Cargo::default();
        let result = if shared.looks.load(Ordering::Relaxed) {
            shared.remote.weigh(store, key, &cargo)
        } else {
            shared.remote.bring(store, key, &cargo, &*shared.stop.0)
        };
        let Some(record) = shared.brought(key, Some(name), result)? else {
            shared.forget(key);
            return None;
        };
        let bytes = cargo.bytes();
        shared.cargo.add_all(&cargo);
        shared.brought.lock().unpoisoned().insert(key, bytes);
        Some(record)
    }

    fn bring_items(&self, store: &Store, keys: &[Fingerprint]) {
        let shared = &self.shared;
        let bring = |key: &Fingerprint| {
            if shared.is_absent(key) || !shared.is_usable() {
                return;
            }
            let result = shared.remote.bring_item(store, *key, &shared.cargo, &*shared.stop.0);
            match shared.brought(*key, None, result) {
                Some(true) => drop(shared.items.fetch_add(1, Ordering::Relaxed)),
                Some(false) => shared.forget(*key),
                None => {}
            }
        };
        shared.remote.threads.install(|| keys.par_iter().for_each(bring));
    }

    fn traces(&self, key: Fingerprint, root: Option<Fingerprint>) -> Vec<Trace> {
        if !self.shared.is_usable() {
            return Vec::new();
        }
        let mut traces = self.shared.remote.traces(key, root).unwrap_or_else(|error| {
            self.shared.fails(&error);
            Vec::new()
        });
        // Nobody else says which files of this machine are read.
        traces.retain(|trace| trace.paths.iter().all(|path| is_below(path)));
        traces
    }

    fn made(&self, result: NewResult) {
        if let Some(made) = &*self.made.lock().unpoisoned() {
            self.shared.tell_of_items(&result);
            self.shared.waiting.fetch_add(1, Ordering::Relaxed);
            // The threads end only after this sender is gone.
            let _ = made.send(result);
        }
    }
}
