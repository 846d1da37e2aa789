//! What the threads of a link share, and how a remote is left alone that does not answer.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
};

use super::SILENCE;
use crate::{
    remote::{
        Moved, Remote, RemoteError, Transfer, Wrong,
        transfer::{BringError, Cargo},
    },
    store::{Fingerprint, NewResult, Store},
    sync::Unpoisoned,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub remote: Remote,
    /// Set when the remote did not answer.
    pub down: AtomicBool,
    /// Set from outside to stop.
    pub stop: Stop,
    /// Whether the format was looked at.
    pub checked: OnceLock<()>,
    /// What the remote does not have, or not undamaged.
    pub absent: Mutex<HashSet<Fingerprint>>,
    /// Whether only to look, as a dry run does.
    pub looks: AtomicBool,
    /// Whether what is not fetched is computed.
    pub computes: AtomicBool,
    /// Results that are damaged at the remote, by name.
    pub wrong: Mutex<BTreeMap<Fingerprint, (String, Wrong)>>,
    /// Items that are.
    pub wrong_items: Mutex<BTreeMap<Fingerprint, Wrong>>,
    pub brought: Mutex<BTreeMap<Fingerprint, u64>>,
    pub items: AtomicUsize,
    /// Results that were told of and are not sent yet.
    pub waiting: AtomicUsize,
    pub error: Mutex<Option<String>>,
    /// Whether what failed would fail again.
    pub is_lasting: AtomicBool,
    pub cargo: Cargo,
}

pub(super) struct Stop(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl Shared {
    /// Sends what comes, until nothing more will.
    pub fn send(&self, store: &Store, results: &Mutex<Receiver<NewResult>>) -> Moved {
        let mut all = Moved::default();
        loop {
            // Of the senders, one waits for the next result, the others for that one.
            let next = results.lock().unpoisoned().recv();
            let Ok(made) = next else { return all };
            self.send_one(store, made, &mut all);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn send_one(&self, store: &Store, made: NewResult, all: &mut Moved) {
        if self.is_down() || (self.stop.0)() {
            return all.fails(1, None);
        }
        let how = Transfer {
            progress: &|_, _| {},
            stopped: &*self.stop.0,
            dry_run: false,
            replace: false,
        };
        match self.remote.push(store, &[made], &how) {
            Ok(mut moved) => {
                if moved.unreachable
                    && let Some(error) = &moved.error
                {
                    self.gives_up(error, "");
                }
                moved.failed += std::mem::take(&mut moved.broken).len();
                all.add(moved);
            }
            Err(error) => {
                all.fails(1, None);
                self.fails(&error);
            }
        }
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub fn fails(&self, error: &RemoteError) {
        // Nothing is asked from then on anyway.
        if matches!(error, RemoteError::Stopped) {
            return;
        }
        let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
        self.is_lasting.fetch_or(error.is_lasting(), Ordering::Relaxed);
        self.gives_up(&error.to_string(), &help);
    }

    fn gives_up(&self, error: &str, help: &str) {
        if !self.down.swap(true, Ordering::Relaxed) {
            *self.error.lock().unpoisoned() = Some(error.to_owned());
            tracing::warn!("From here on without remote cache: {error}{help}.");
        }
    }

    /// Whether the remote may be asked: it answered so far, and is a cache of a form we know.
    pub fn is_usable(&self) -> bool {
        if self.is_down() || (self.stop.0)() {
            return false;
        }
        // Who comes meanwhile waits: nothing is taken from a cache of a form that is not known yet.
        self.checked.get_or_init(|| {
            if let Err(error) = self.patiently(|| self.remote.check()) {
                self.fails(&error);
            }
        });
        !self.is_down()
    }

    /// Asks, and says for what it waits where the answer takes long.
    fn patiently<T>(&self, ask: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let (asking, answered) = channel::<()>();
            scope.spawn(move || {
                if answered.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                    tracing::warn!("Waiting for an answer of the remote cache `{}`.", self.remote);
                }
            });
            let answer = ask();
            drop(asking);
            answer
        })
    }

    /// What came of asking for a key.
    pub fn brought<T>(
        &self,
        key: Fingerprint,
        name: Option<&dyn Display>,
        result: Result<T, BringError>,
    ) -> Option<T> {
        match result {
            Ok(brought) => Some(brought),
            Err(BringError::Remote(error)) => {
                self.fails(&error);
                None
            }
            Err(BringError::Stopped) => None,
            Err(BringError::Lies(wrong)) => {
                self.is_wrong(key, name, wrong);
                self.forget(key);
                None
            }
            Err(BringError::Store(error)) => {
                tracing::warn!("A result of `{}` cannot be kept here: {error}.", self.remote);
                self.forget(key);
                None
            }
        }
    }

    fn is_wrong(&self, key: Fingerprint, name: Option<&dyn Display>, wrong: Wrong) {
        let Some(name) = name else {
            // Told when its stage has run, of all its items at once.
            self.wrong_items.lock().unpoisoned().insert(key, wrong);
            return;
        };
        if self.computes.load(Ordering::Relaxed) {
            tracing::warn!(
                "`{name}` is computed anew: of what `{}` holds of it, {wrong}.",
                self.remote
            );
        }
        self.wrong.lock().unpoisoned().insert(key, (name.to_string(), wrong));
    }

    /// Says of a result that was made here which of its items could not be fetched.
    pub fn tell_of_items(&self, made: &NewResult) {
        let mut items = self.wrong_items.lock().unpoisoned();
        let found: Vec<_> = made.items.iter().filter_map(|key| items.remove(key)).collect();
        let told = self.wrong.lock().unpoisoned();
        if found.is_empty() || told.contains_key(&made.record.fingerprint) {
            return;
        }
        let wrong = found.iter().fold(Wrong::default(), |all, wrong| all.and(*wrong));
        let items = match found.len() {
            1 => "1 item".to_owned(),
            items => format!("{items} items"),
        };
        tracing::warn!(
            "{items} of `{}` computed anew: of what `{}` holds of this, {wrong}.",
            made.name,
            self.remote
        );
    }

    pub fn forget(&self, key: Fingerprint) {
        self.absent.lock().unpoisoned().insert(key);
    }

    pub fn is_absent(&self, key: &Fingerprint) -> bool {
        self.absent.lock().unpoisoned().contains(key)
    }
}
