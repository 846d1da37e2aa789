//! Results on their way from the remote: objects before the record that names them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use rayon::prelude::*;

use super::{
    Moved, PARALLEL, Remote, RemoteError, Scope, Transfer, Wrong, sharded,
    transfer::{BringError, Cargo, trace_of},
};
use crate::{
    artifact::FileRef,
    store::{Digest, Fingerprint, ItemRecord, Lookup, Record, Store, StoreError, unnamed},
    sync::Unpoisoned,
};

/// Asks whether to stop before the next object.
type Stopped<'a> = &'a (dyn Fn() -> bool + Sync);

impl Remote {
    /// Brings the result of a key, whole, and gives its record.
    pub(super) fn bring(
        &self,
        store: &Store,
        key: Fingerprint,
        cargo: &Cargo,
        stopped: Stopped<'_>,
    ) -> Result<Option<Record>, BringError> {
        let Some(record) = self.sound_record(key)? else { return Ok(None) };
        let brought = self.bring_content(store, &record, cargo, stopped);
        if let Err(BringError::Lies(_)) = brought {
            self.broken.lock().unpoisoned().insert(key, record.output);
        }
        brought?;
        if let Some(traced) = record.traced {
            store.add_trace(traced, trace_of(&record).below(record.source_root))?;
        }
        store.commit(&record)?;
        Ok(Some(record))
    }

    /// The record of a key; an error if it cannot be read.
    fn sound_record(&self, key: Fingerprint) -> Result<Option<Record>, BringError> {
        let record = self.record(key)?;
        if record.is_none() && self.is_suspect(key) {
            return Err(BringError::Lies(Wrong::RECORD));
        }
        Ok(record)
    }

    fn bring_content(
        &self,
        store: &Store,
        record: &Record,
        cargo: &Cargo,
        stopped: Stopped<'_>,
    ) -> Result<(), BringError> {
        if !store.object_ok(record.output, None) {
            let name = sharded("objects", &record.output.to_string());
            let bytes = self.bucket.get(&name)?;
            let wrong = Wrong::file(bytes.is_none());
            let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == record.output) else {
                self.mark_damaged(record.output);
                self.suspect(record.fingerprint);
                return Err(BringError::Lies(wrong));
            };
            cargo.add(store.put(&bytes)?.size);
        }
        let manifest = store.manifest(record.output)?;
        self.bring_files(store, manifest.files(), cargo, stopped)
    }

    /// Brings the result of an item; false if the remote has none.
    pub(super) fn bring_item(
        &self,
        store: &Store,
        key: Fingerprint,
        cargo: &Cargo,
        stopped: Stopped<'_>,
    ) -> Result<bool, BringError> {
        let record: Option<ItemRecord> = self.form(&sharded("items", &key.to_string()), key)?;
        let Some(record) = record else {
            let is_damaged = self.is_suspect(key);
            return if is_damaged { Err(BringError::Lies(Wrong::RECORD)) } else { Ok(false) };
        };
        if !record.is_of(key) {
            // What is made under the key takes its place.
            self.suspect(key);
            let is_another = record.key.is_some();
            return if is_another { Err(BringError::Lies(Wrong::RECORD)) } else { Ok(false) };
        }
        let brought = self.bring_files(store, record.files.values(), cargo, stopped);
        if let Err(BringError::Lies(_)) = brought {
            self.suspect(key);
        }
        brought?;
        store.commit_item(key, record.files)?;
        Ok(true)
    }

    fn bring_files<'f>(
        &self,
        store: &Store,
        files: impl Iterator<Item = &'f FileRef>,
        cargo: &Cargo,
        stopped: Stopped<'_>,
    ) -> Result<(), BringError> {
        let missing: BTreeMap<Digest, u64> = files
            .filter(|file| !store.object_ok(file.digest, Some(file.size)))
            .map(|file| (file.digest, file.size))
            .collect();
        let wrong = Mutex::new(Wrong::default());
        let bring = |(digest, size): (&Digest, &u64)| {
            if stopped() {
                return Err(BringError::Stopped);
            }
            let name = sharded("objects", &digest.to_string());
            let gone = || BringError::Lies(Wrong::file(true));
            let received = store.receive(*digest, |out| {
                if self.bucket.download(&name, *size, out)? { Ok(()) } else { Err(gone()) }
            });
            let found = match received {
                Ok(bytes) => {
                    cargo.add(bytes);
                    return Ok(());
                }
                Err(BringError::Store(StoreError::Damaged { .. })) => Wrong::file(false),
                Err(BringError::Lies(wrong)) => wrong,
                Err(error) => return Err(error),
            };
            // The others are fetched all the same: whoever makes this result again can then replace
            // all of it that is damaged.
            self.mark_damaged(*digest);
            let mut wrong = wrong.lock().unpoisoned();
            *wrong = wrong.and(found);
            Ok(())
        };
        self.threads.install(|| missing.par_iter().try_for_each(bring))?;
        let wrong = wrong.into_inner().unpoisoned();
        if wrong == Wrong::default() { Ok(()) } else { Err(BringError::Lies(wrong)) }
    }

    /// Refuses an address where there is nothing to fetch from.
    pub fn check_is_there(&self) -> Result<(), RemoteError> {
        let address = || RemoteError::Nothing { address: self.name.clone() };
        if self.check()? { Ok(()) } else { Err(address()) }
    }

    /// Remembers content that is gone from the remote or damaged there.
    fn mark_damaged(&self, digest: Digest) {
        self.damaged.lock().unpoisoned().insert(digest);
    }

    /// Remembers that what the remote knows of a key is damaged.
    pub(super) fn suspect(&self, key: Fingerprint) {
        self.suspects.lock().unpoisoned().insert(key);
    }

    /// Fetches results that are not whole here.
    pub fn pull(
        &self,
        store: &Store,
        scope: &Scope,
        how: &Transfer<'_>,
    ) -> Result<Moved, RemoteError> {
        self.check_is_there()?;
        let mut moved = Moved::default();
        let keys = match scope {
            Scope::Keys(keys) => keys.clone(),
            Scope::All => self.keys("actions")?.map(|key| (key, key.short())).collect(),
        };
        let (total, done) = (keys.len() as u64, AtomicU64::new(0));
        let is_unreachable = AtomicBool::new(false);
        let pulled = side_by_side(&keys, |(key, name)| {
            let pulled = if (how.stopped)() || is_unreachable.load(Ordering::Relaxed) {
                Pulled::Stopped
            } else {
                self.pull_one(store, *key, name, how)
            };
            if matches!(pulled, Pulled::Failed(RemoteError::Unreachable { .. })) {
                // The others would wait as long, and for nothing.
                is_unreachable.store(true, Ordering::Relaxed);
            }
            (how.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            pulled
        });
        let cargo = Cargo::default();
        for ((_, name), pulled) in keys.into_iter().zip(pulled) {
            match pulled {
                Pulled::There => moved.there += 1,
                Pulled::Nothing => {}
                Pulled::Stopped => moved.failed += 1,
                Pulled::Broken(wrong) => moved.broken.push((name, wrong)),
                Pulled::Failed(error) => moved.fails(1, Some(error)),
                Pulled::Brought(title, of_one) => {
                    moved.results.push((title, of_one.bytes()));
                    cargo.add_all(&of_one);
                }
            }
        }
        moved.bytes = cargo.bytes();
        moved.objects = cargo.objects();
        Ok(moved)
    }

    /// Fetches one result, unless it is whole here.
    fn pull_one(&self, store: &Store, key: Fingerprint, name: &str, how: &Transfer<'_>) -> Pulled {
        let here = store.lookup(key).ok().and_then(Lookup::found);
        if here.is_some_and(|record| store.is_whole(&record)) {
            return Pulled::There;
        }
        let cargo = Cargo::default();
        let found = if how.dry_run {
            self.weigh(store, key, &cargo)
        } else {
            self.bring(store, key, &cargo, how.stopped)
        };
        match found {
            Ok(Some(record)) => Pulled::Brought(title(name, &record), cargo),
            Ok(None) => Pulled::Nothing,
            Err(BringError::Lies(wrong)) => Pulled::Broken(wrong),
            Err(BringError::Stopped | BringError::Remote(RemoteError::Stopped)) => Pulled::Stopped,
            Err(BringError::Remote(error)) => Pulled::Failed(error),
            Err(error) => Pulled::Failed(RemoteError::Local(error.to_string())),
        }
    }

    /// The keys of the records in a folder, or in a part of it.
    pub(super) fn keys(
        &self,
        folder: &str,
    ) -> Result<impl Iterator<Item = Fingerprint>, RemoteError> {
        let names = self.bucket.list(folder)?.into_iter();
        Ok(names.filter_map(|(name, _)| name.split('/').skip(1).collect::<String>().parse().ok()))
    }

    /// The record of a key, and in `cargo` what bringing it would take. Only the manifest is
    /// brought, since those who wait for this result want to know its items.
    pub(super) fn weigh(
        &self,
        store: &Store,
        key: Fingerprint,
        cargo: &Cargo,
    ) -> Result<Option<Record>, BringError> {
        let Some(record) = self.sound_record(key)? else { return Ok(None) };
        let bytes = self.bucket.get(&sharded("objects", &record.output.to_string()))?;
        let wrong = Wrong::file(bytes.is_none());
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == record.output);
        let Some(bytes) = bytes else { return Err(BringError::Lies(wrong)) };
        let put = store.put(&bytes)?;
        cargo.add(put.size);
        let manifest = store.manifest(record.output)?;
        let files: BTreeMap<Digest, u64> = manifest
            .files()
            .filter(|file| !store.object_ok(file.digest, Some(file.size)))
            .map(|file| (file.digest, file.size))
            .collect();
        for size in files.into_values() {
            cargo.add(size);
        }
        Ok(Some(record))
    }
}

/// What came of one result that was to be fetched.
enum Pulled {
    There,
    Nothing,
    Stopped,
    Broken(Wrong),
    Failed(RemoteError),
    Brought(String, Cargo),
}

/// Does something with each of many that wait for answers, in threads of their own: the files of
/// one are fetched by the pool, whose threads must not wait for one another.
fn side_by_side<T: Sync, R: Send>(all: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(at) else { return done };
            done.push((at, act(one)));
        }
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PARALLEL.min(all.len())).map(|_| scope.spawn(work)).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.flatten().collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A result nobody here has a name for is called by its kind.
fn title(name: &str, record: &Record) -> String {
    if *name == record.fingerprint.short() {
        return unnamed(&record.ingredients.kind, record.fingerprint);
    }
    name.to_owned()
}
