//! How results go to and fro: what both directions share.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use rayon::prelude::*;

use super::{Remote, RemoteError, sharded};
use crate::{
    plan::fingerprint::action_key,
    store::{Fingerprint, Form, Opened, Record, StoreError, Trace, unseal},
};

/// What a transfer did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Results that were sent or fetched, with the bytes that took.
    pub results: Vec<(String, u64)>,
    /// Results that were there already.
    pub there: usize,
    /// Results that are not all at the place where they come from, or damaged there.
    pub broken: Vec<(String, Wrong)>,
    /// Results of which the other side has another output: their stage gives not the same twice.
    pub differing: Vec<String>,
    /// Results that did not get through.
    pub failed: usize,
    /// Objects that were sent or fetched.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first error.
    pub error: Option<String>,
    /// Whether nobody answered.
    pub unreachable: bool,
}

/// What of a result is not as it should be at the place where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Whether its record cannot be read.
    pub record: bool,
    /// Files with other content.
    pub damaged: usize,
    /// Files that are not there.
    pub gone: usize,
}

impl Wrong {
    pub(super) const RECORD: Self = Self { record: true, damaged: 0, gone: 0 };

    /// One file that is gone, or damaged.
    pub(super) fn file(gone: bool) -> Self {
        Self { record: false, damaged: usize::from(!gone), gone: usize::from(gone) }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            record: self.record || other.record,
            damaged: self.damaged + other.damaged,
            gone: self.gone + other.gone,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.record {
            parts.push("the record is damaged".to_owned());
        }
        for (files, what) in [(self.damaged, "damaged"), (self.gone, "gone")] {
            match files {
                0 => {}
                1 => parts.push(format!("1 file is {what}")),
                files => parts.push(format!("{files} files are {what}")),
            }
        }
        f.write_str(&parts.join(", "))
    }
}

impl Moved {
    /// Counts results that did not get through, and keeps the first reason.
    pub(super) fn fails(&mut self, results: usize, error: Option<RemoteError>) {
        self.failed += results;
        self.unreachable |= matches!(error, Some(RemoteError::Unreachable { .. }));
        if self.error.is_none() {
            let error = error.filter(|error| !matches!(error, RemoteError::Stopped));
            self.error = error.map(|error| error.to_string());
        }
    }

    /// Adds what another transfer did.
    pub(super) fn add(&mut self, other: Self) {
        self.results.extend(other.results);
        self.broken.extend(other.broken);
        self.differing.extend(other.differing);
        self.there += other.there;
        self.failed += other.failed;
        self.objects += other.objects;
        self.bytes += other.bytes;
        self.unreachable |= other.unreachable;
        self.error = self.error.take().or(other.error);
    }
}

/// How a transfer goes.
pub struct Transfer<'a> {
    /// Told of bytes moved so far, and in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Asked whether to stop.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
    /// Whether only to say what would be done.
    pub dry_run: bool,
    /// Whether what is sent takes the place of what is there, also of another output.
    pub replace: bool,
}

/// Which results of a remote.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All.
    All,
    /// Those with these keys and names.
    Keys(Vec<(Fingerprint, String)>),
}

/// Why a result was not brought.
#[derive(Debug, thiserror::Error)]
pub(super) enum BringError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("stopped")]
    Stopped,
    #[error("{0}")]
    Lies(Wrong),
}

/// What bringing one result took.
#[derive(Debug, Default)]
pub(super) struct Cargo {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Cargo {
    pub(super) fn add(&self, bytes: u64) {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_all(&self, other: &Self) {
        self.objects.fetch_add(other.objects(), Ordering::Relaxed);
        self.bytes.fetch_add(other.bytes(), Ordering::Relaxed);
    }
}

impl Remote {
    /// The record of a key. One that cannot be read counts as none, and so does that of another
    /// key: what it tells of was made from something else.
    pub(super) fn record(&self, key: Fingerprint) -> Result<Option<Record>, RemoteError> {
        let record: Option<Record> = self.form(&sharded("actions", &key.to_string()), key)?;
        let is_of =
            |record: &Record| record.fingerprint == key && action_key(&record.ingredients) == key;
        if record.as_ref().is_some_and(|record| !is_of(record)) {
            self.suspect(key);
        }
        Ok(record.filter(is_of))
    }

    /// What stages with this key read from outside, below this source root or anywhere: the latest
    /// first, as many as are kept of one.
    pub(super) fn traces(
        &self,
        key: Fingerprint,
        root: Option<Fingerprint>,
    ) -> Result<Vec<Trace>, RemoteError> {
        let mut names = self.bucket.list_latest(&traces_of(key, root))?;
        names.truncate(Trace::KEPT);
        let read = || names.par_iter().map(|name| self.form(name, key)).collect();
        let traces: Result<Vec<_>, RemoteError> = self.threads.install(read);
        Ok(traces?.into_iter().flatten().collect())
    }

    /// The record with this name, if it can be read. Where it is damaged, what is made under `key`
    /// takes its place.
    pub(super) fn form<T: Form>(
        &self,
        name: &str,
        key: Fingerprint,
    ) -> Result<Option<T>, RemoteError> {
        let opened = self.bucket.get(name)?.map(|bytes| unseal(&bytes));
        if matches!(opened, Some(Opened::Damaged)) {
            self.suspect(key);
        }
        Ok(opened.and_then(Opened::whole))
    }
}

/// The folder of the traces of a key: those of a source root are in one of their own, so that a
/// sweep over many folders keeps the latest of each.
pub(super) fn traces_of(key: Fingerprint, root: Option<Fingerprint>) -> String {
    let of_key = sharded("traces", &key.to_string());
    root.map_or_else(|| of_key.clone(), |root| format!("{of_key}/{root}"))
}

/// What the stage of a record read from outside.
pub(super) fn trace_of(record: &Record) -> Trace {
    Trace::new(record.ingredients.sources.keys().cloned())
}
