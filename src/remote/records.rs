//! Records on their way to the remote: those of items and of outside files beside that of a result,
//! and that one last.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Mutex,
};

use rayon::prelude::*;
use serde::Serialize;

use super::{
    Moved, Remote, RemoteError, Transfer, sharded,
    transfer::{trace_of, traces_of},
};
use crate::{
    store::{Digest, Fingerprint, Form, ItemRecord, NewResult, Opened, Store, Trace, seal, unseal},
    sync::Unpoisoned,
};

/// Up to so many names are asked for one by one, without a thought.
const FEW: usize = 64;
/// Names that one request lists.
const LISTED: usize = 1000;

/// A record beside that of a result.
enum Beside {
    /// Of an item, by its key.
    Item(Fingerprint),
    /// Of the files outside that a stage read, by its name.
    Trace(String, Trace),
}

impl Beside {
    /// All of a result.
    fn of(made: &NewResult) -> impl Iterator<Item = Self> {
        let trace = Self::trace_of(made).map(|(name, trace)| Self::Trace(name, trace));
        made.items.iter().map(|key| Self::Item(*key)).chain(trace)
    }

    fn trace_of(made: &NewResult) -> Option<(String, Trace)> {
        let key = made.record.traced?;
        let trace = trace_of(&made.record);
        let hash = Digest::of(&serde_json::to_vec(&trace).expect("a trace is valid JSON"));
        Some((format!("{}/{hash}", traces_of(key, made.record.source_root)), trace))
    }

    /// Whether it is an item, or one of these traces.
    fn is_among(&self, traces: &HashSet<String>) -> bool {
        match self {
            Self::Item(_) => true,
            Self::Trace(name, _) => traces.contains(name),
        }
    }
}

/// The names of the traces of results, of each key and source root those of the results that were
/// made last.
fn latest_traces<'a>(results: impl Iterator<Item = &'a NewResult>) -> HashSet<String> {
    let mut results: Vec<_> = results.filter(|made| made.record.traced.is_some()).collect();
    let started = |made: &&NewResult| made.record.started.parse::<jiff::Timestamp>().ok();
    results.sort_by_cached_key(|made| Reverse(started(made)));
    let mut latest: HashMap<_, HashSet<String>> = HashMap::new();
    for made in results {
        let of_key = latest.entry((made.record.traced, made.record.source_root)).or_default();
        if of_key.len() < Trace::KEPT {
            of_key.extend(Beside::trace_of(made).map(|(name, _)| name));
        }
    }
    latest.into_values().flatten().collect()
}

/// `traces/ab/cdef…/<root>` of `traces/ab/cdef…/<root>/<hash>`, and `traces/ab/cdef…` of what has
/// no root.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(folder, _)| folder)
}

impl Remote {
    /// Sends the records of results whose content is there.
    pub(super) fn send_results(
        &self,
        store: &Store,
        ready: &[(&NewResult, u64)],
        how: &Transfer<'_>,
        moved: &mut Moved,
    ) {
        let latest = latest_traces(ready.iter().map(|(made, _)| *made));
        // The records of items that were not made now are there, most of them.
        let (new, old): (Vec<_>, Vec<_>) = ready
            .iter()
            .enumerate()
            .flat_map(|(at, (made, _))| Beside::of(made).map(move |beside| (at, beside)))
            .filter(|(_, beside)| beside.is_among(&latest))
            .partition(|(at, _)| {
                let record = &ready[*at].0.record;
                how.replace || record.items_run >= record.items_total
            });
        let failed = Mutex::new(BTreeMap::new());
        let send = |(at, beside): &(usize, Beside)| {
            // What fails once fails again, after as long a wait.
            if (how.stopped)() || !failed.lock().unpoisoned().is_empty() {
                failed.lock().unpoisoned().entry(*at).or_insert(None);
            } else if let Err(error) = self.send_beside(store, beside, how.replace) {
                failed.lock().unpoisoned().insert(*at, Some(error));
            }
        };
        match self.lost(old) {
            Ok(lost) => self.threads.install(|| new.par_iter().chain(&lost).for_each(send)),
            Err(error) => drop(failed.lock().unpoisoned().insert(0, Some(error))),
        }
        let failed = failed.into_inner().unpoisoned();
        let whole: Vec<_> =
            ready.iter().enumerate().filter(|(at, _)| !failed.contains_key(at)).collect();
        let sent: Vec<_> = self.threads.install(|| {
            whole.par_iter().map(|(_, (made, _))| self.send_result(made, how.replace)).collect()
        });
        for ((_, (made, bytes)), sent) in whole.into_iter().zip(sent) {
            match sent {
                Ok(true) => {
                    self.trust(made);
                    moved.results.push((made.name.clone(), *bytes));
                }
                Ok(false) => moved.differing.push(made.name.clone()),
                Err(error) => moved.fails(1, Some(error)),
            }
        }
        for error in failed.into_values() {
            moved.fails(1, error);
        }
    }

    /// Sends what the remote lost of the records beside those of results that are there.
    pub(super) fn mend(
        &self,
        store: &Store,
        there: &[&NewResult],
        how: &Transfer<'_>,
        moved: &mut Moved,
    ) -> Result<(), RemoteError> {
        let beside = there
            .iter()
            .enumerate()
            .flat_map(|(at, made)| Beside::of(made).map(move |beside| (at, beside)));
        let latest = latest_traces(there.iter().copied());
        let beside = beside.filter(|(_, beside)| beside.is_among(&latest));
        let lost = self.lost(beside.collect())?;
        let sent: Vec<_> = self.threads.install(|| {
            let send = |(at, beside): &(usize, Beside)| {
                let sent = if how.dry_run || (how.stopped)() {
                    Ok(0)
                } else {
                    self.send_beside(store, beside, false)
                };
                sent.map(|bytes| (*at, bytes))
            };
            lost.par_iter().map(send).collect::<Result<_, RemoteError>>()
        })?;
        let mut mended: BTreeMap<usize, u64> = BTreeMap::new();
        for (at, bytes) in sent {
            *mended.entry(at).or_default() += bytes;
        }
        moved.there += there.len() - mended.len();
        moved.bytes += mended.values().sum::<u64>();
        moved.results.extend(mended.iter().map(|(at, bytes)| (there[*at].name.clone(), *bytes)));
        Ok(())
    }

    /// Those that are not at the remote, or were found damaged there.
    fn lost(&self, all: Vec<(usize, Beside)>) -> Result<Vec<(usize, Beside)>, RemoteError> {
        let items: Vec<_> = all
            .iter()
            .filter_map(|(_, beside)| match beside {
                Beside::Item(key) => Some(*key),
                Beside::Trace(..) => None,
            })
            .collect();
        let items = self.present(&items)?;
        let is_lost = |(_, beside): &(usize, Beside)| match beside {
            Beside::Item(key) => Ok(!items.contains(key) || self.is_suspect(*key)),
            // One that is older than those that are kept is not missed.
            Beside::Trace(name, _) => Ok(self.bucket.size(name)?.is_none()
                && self.bucket.list(folder_of(name))?.len() < Trace::KEPT),
        };
        let lost: Vec<_> = self.threads.install(|| {
            let asked = all.into_par_iter().map(|one| Ok((is_lost(&one)?, one)));
            asked.collect::<Result<_, RemoteError>>()
        })?;
        Ok(lost.into_iter().filter(|(lost, _)| *lost).map(|(_, one)| one).collect())
    }

    /// The keys of items that the remote has a record of: asked for one by one, or by lists of all
    /// that begin alike, whichever takes fewer requests.
    fn present(&self, keys: &[Fingerprint]) -> Result<HashSet<Fingerprint>, RemoteError> {
        let mut shards: BTreeMap<String, Vec<Fingerprint>> = BTreeMap::new();
        for key in keys {
            shards.entry(key.to_string()[..2].to_owned()).or_default().push(*key);
        }
        let list = |shard: &String| -> Result<Vec<Fingerprint>, RemoteError> {
            Ok(self.keys(&format!("items/{shard}"))?.collect())
        };
        if keys.len() > FEW
            && let Some((first, others)) = shards.keys().collect::<Vec<_>>().split_first()
        {
            let listed = list(first)?;
            // Keys are hashes, so one list is as long as another.
            if listed.len().div_ceil(LISTED).max(1) * others.len() <= keys.len() {
                let others: Vec<_> = self.threads.install(|| {
                    others.par_iter().map(|shard| list(shard)).collect::<Result<_, RemoteError>>()
                })?;
                return Ok(others.into_iter().flatten().chain(listed).collect());
            }
        }
        let is_there = |key: &Fingerprint| {
            let there = self.bucket.size(&sharded("items", &key.to_string()))?;
            Ok(there.map(|_| *key))
        };
        let found: Result<Vec<_>, RemoteError> =
            self.threads.install(|| keys.par_iter().map(is_there).collect());
        Ok(found?.into_iter().flatten().collect())
    }

    /// The bytes that it took.
    fn send_beside(
        &self,
        store: &Store,
        beside: &Beside,
        replace: bool,
    ) -> Result<u64, RemoteError> {
        match beside {
            Beside::Item(key) => {
                let Ok(Some(files)) = store.item_files(*key) else { return Ok(0) };
                let name = sharded("items", &key.to_string());
                let record = ItemRecord::new(*key, files);
                let bytes = seal(&record).len() as u64;
                let is_sound = |there: &ItemRecord| there.is_of(*key);
                if replace || !self.send_record(&name, &record, is_sound)? && self.is_suspect(*key)
                {
                    self.bucket.put(&name, seal(&record))?;
                }
                Ok(bytes)
            }
            Beside::Trace(name, trace) => {
                let trace = seal(trace);
                if self.bucket.create(name, &trace)? {
                    self.drop_old_traces(name);
                } else {
                    // Its time says that it is in use.
                    self.bucket.put(name, trace.clone())?;
                }
                Ok(trace.len() as u64)
            }
        }
    }

    /// Removes the traces beside a new one that nobody looks at any more. One that another machine
    /// sends at this moment may go with them: then its result is made again where it is wanted, or
    /// its trace sent by the next push of it.
    fn drop_old_traces(&self, name: &str) {
        let folder = folder_of(name);
        let dropped = self.bucket.list_latest(folder).and_then(|mut names| {
            // Those of source roots are in folders of their own.
            names.retain(|name| folder_of(name) == folder);
            match names.get(Trace::KEPT..) {
                Some(old) if !old.is_empty() => self.bucket.remove(old),
                _ => Ok(()),
            }
        });
        if let Err(error) = dropped {
            // Who may only add is no worse a pusher.
            tracing::debug!("Old traces of `{}` stay: {error}.", self.name);
        }
    }

    /// Sends the record of a result; false if another output is there, whole, that is not to be
    /// replaced.
    pub(super) fn send_result(&self, made: &NewResult, replace: bool) -> Result<bool, RemoteError> {
        let record = &made.record;
        let name = sharded("actions", &record.fingerprint.to_string());
        if replace {
            return self.bucket.put(&name, seal(record)).map(|()| true);
        }
        if self.send_record(&name, record, |_| true)? {
            return Ok(true);
        }
        match self.record(record.fingerprint)? {
            Some(first) if first.output == record.output => Ok(true),
            Some(first) if !self.is_broken(&first) => Ok(false),
            // That of a newer version stays.
            None if !self.is_suspect(record.fingerprint) => Ok(false),
            _ => self.bucket.put(&name, seal(record)).map(|()| true),
        }
    }

    /// Writes a record where there is none, or one that is damaged or not sound; says if it did.
    /// That of a newer version stays.
    fn send_record<T: Form + Serialize>(
        &self,
        name: &str,
        record: &T,
        is_sound: impl Fn(&T) -> bool,
    ) -> Result<bool, RemoteError> {
        let record = seal(record);
        if self.bucket.create(name, &record)? {
            return Ok(true);
        }
        let stays = |bytes: Vec<u8>| match unseal::<T>(&bytes) {
            Opened::Whole(there) => is_sound(&there),
            Opened::Newer(_) => true,
            Opened::Damaged => false,
        };
        if self.bucket.get(name)?.is_some_and(stays) {
            return Ok(false);
        }
        self.bucket.put(name, record)?;
        Ok(true)
    }
}
