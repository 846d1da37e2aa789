//! Results on their way to the remote: objects before the record that names them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;
use serde::Serialize;

use super::{
    Moved, Remote, RemoteError, Transfer, sharded,
    transfer::{Cargo, trace_of},
};
use crate::store::{
    Digest, Fingerprint, Form, ItemRecord, NewResult, Opened, Record, Store, seal, unseal,
};

/// The objects of a result with their sizes.
type Contents = BTreeMap<Digest, u64>;

impl Remote {
    /// Sends results, those that are whole here and not there yet.
    pub fn push(
        &self,
        store: &Store,
        results: &[NewResult],
        how: &Transfer<'_>,
    ) -> Result<Moved, RemoteError> {
        if how.dry_run {
            self.check()?;
        } else {
            self.prepare()?;
        }
        let mut moved = Moved::default();
        let to_send = self.choose(store, results, &mut moved)?;
        let objects: BTreeMap<Digest, u64> = to_send
            .iter()
            .flat_map(|(_, contents)| contents.iter().map(|(d, s)| (*d, *s)))
            .collect();
        let missing = self.send_objects(store, &objects, how, &mut moved);
        for (made, contents) in &to_send {
            let bytes = contents.values().sum();
            if contents.keys().any(|digest| missing.contains(digest)) {
                moved.failed += 1;
                continue;
            }
            if how.dry_run {
                moved.results.push((made.name.clone(), bytes));
                continue;
            }
            match self.send_records(store, made) {
                Ok(true) => {
                    self.trust(made);
                    moved.results.push((made.name.clone(), bytes));
                }
                Ok(false) => moved.differing.push(made.name.clone()),
                Err(error) => {
                    moved.failed += 1;
                    moved.error.get_or_insert(error.to_string());
                }
            }
        }
        Ok(moved)
    }

    /// The results that are to be sent, with their objects; of the others, `moved` says why not.
    fn choose<'m>(
        &self,
        store: &Store,
        results: &'m [NewResult],
        moved: &mut Moved,
    ) -> Result<Vec<(&'m NewResult, Contents)>, RemoteError> {
        let mut seen = HashSet::new();
        let results: Vec<_> =
            results.iter().filter(|made| seen.insert(made.record.fingerprint)).collect();
        let known: Result<Vec<_>, RemoteError> = self.threads.install(|| {
            results.par_iter().map(|made| self.record(made.record.fingerprint)).collect()
        });
        let mut to_send = Vec::new();
        for (made, known) in results.into_iter().zip(known?) {
            match known {
                Some(known) if known.output != made.record.output && !self.is_broken(&known) => {
                    moved.differing.push(made.name.clone());
                }
                Some(known)
                    if known.output == made.record.output && !self.is_to_mend(store, made) =>
                {
                    moved.there += 1;
                }
                _ => match contents(store, &made.record) {
                    Some(contents) => {
                        self.doubt(made.record.fingerprint, &contents);
                        to_send.push((made, contents));
                    }
                    None => moved.broken.push(made.name.clone()),
                },
            }
        }
        Ok(to_send)
    }

    /// Whether something of a result was found damaged at the remote.
    fn is_to_mend(&self, store: &Store, made: &NewResult) -> bool {
        let suspects = self.suspects.lock().expect("no panic while held");
        if !suspects.is_empty() && made.keys().any(|key| suspects.contains(&key)) {
            return true;
        }
        let damaged = self.damaged.lock().expect("no panic while held");
        !damaged.is_empty()
            && contents(store, &made.record)
                .is_some_and(|contents| contents.keys().any(|digest| damaged.contains(digest)))
    }

    /// Whether a result could not be fetched whole, and still is the same.
    fn is_broken(&self, known: &Record) -> bool {
        let broken = self.broken.lock().expect("no panic while held");
        broken.get(&known.fingerprint) == Some(&known.output)
    }

    fn is_suspect(&self, key: Fingerprint) -> bool {
        self.suspects.lock().expect("no panic while held").contains(&key)
    }

    /// Of a suspect, nobody knows what of its content is damaged.
    fn doubt(&self, key: Fingerprint, contents: &Contents) {
        if self.is_suspect(key) {
            self.damaged.lock().expect("no panic while held").extend(contents.keys());
        }
    }

    /// All of this result was sent.
    fn trust(&self, made: &NewResult) {
        let mut suspects = self.suspects.lock().expect("no panic while held");
        for key in made.keys() {
            suspects.remove(&key);
        }
        self.broken.lock().expect("no panic while held").remove(&made.record.fingerprint);
    }

    /// Sends objects; gives those that did not get through.
    fn send_objects(
        &self,
        store: &Store,
        objects: &BTreeMap<Digest, u64>,
        how: &Transfer<'_>,
        moved: &mut Moved,
    ) -> HashSet<Digest> {
        let total: u64 = objects.values().sum();
        let (done, cargo, error) = (AtomicU64::new(0), Cargo::default(), Mutex::new(None));
        let send = |digest: &Digest, size: u64| -> bool {
            if (how.stopped)() || error.lock().expect("no panic while held").is_some() {
                return false;
            }
            let name = sharded("objects", &digest.to_string());
            let sent = if how.dry_run {
                self.bucket.size(&name).map(|there| (there != Some(size)).then_some(size))
            } else {
                self.send_object(&name, (*digest, size), store)
            };
            match sent {
                Ok(sent) => {
                    if let Some(bytes) = sent {
                        cargo.add(bytes);
                    }
                    let done = done.fetch_add(size, Ordering::Relaxed) + size;
                    (how.progress)(done, total);
                    true
                }
                Err(failed) => {
                    error.lock().expect("no panic while held").get_or_insert(failed.to_string());
                    false
                }
            }
        };
        let missing = self.threads.install(|| {
            let failed = objects.par_iter().filter(|(digest, size)| !send(digest, **size));
            failed.map(|(digest, _)| *digest).collect()
        });
        moved.objects += cargo.objects();
        moved.bytes += cargo.bytes();
        if let Some(error) = error.into_inner().expect("no panic while held") {
            moved.error.get_or_insert(error);
        }
        missing
    }

    /// Sends an object that is not there, or damaged there; gives the bytes that took.
    fn send_object(
        &self,
        name: &str,
        (digest, size): (Digest, u64),
        store: &Store,
    ) -> Result<Option<u64>, RemoteError> {
        let is_damaged = self.damaged.lock().expect("no panic while held").contains(&digest);
        if !is_damaged && self.bucket.size(name)? == Some(size) {
            return Ok(None);
        }
        // Damage here must not become damage there.
        if !store.is_intact(digest).map_err(|error| RemoteError::Local(error.to_string()))? {
            return Err(RemoteError::Damaged { digest });
        }
        self.bucket.upload(name, &store.object_path(digest))?;
        self.damaged.lock().expect("no panic while held").remove(&digest);
        Ok(Some(size))
    }

    /// Sends the records of a result whose objects are there; false if another output is, whole.
    pub(super) fn send_records(
        &self,
        store: &Store,
        made: &NewResult,
    ) -> Result<bool, RemoteError> {
        let record = &made.record;
        let send_item = |key: &Fingerprint| {
            let Ok(Some(files)) = store.item_files(*key) else { return Ok(()) };
            let (name, record) = (sharded("items", &key.to_string()), ItemRecord::new(files));
            if !self.send_record(&name, &record)? && self.is_suspect(*key) {
                self.bucket.put(&name, seal(&record))?;
            }
            Ok(())
        };
        self.threads.install(|| made.items.par_iter().try_for_each(send_item))?;
        if let Some(key) = record.traced {
            let trace = trace_of(record);
            let hash = Digest::of(&serde_json::to_vec(&trace).expect("a trace is valid JSON"));
            let folder = sharded("traces", &key.to_string());
            self.send_record(&format!("{folder}/{hash}"), &trace)?;
        }
        let name = sharded("actions", &record.fingerprint.to_string());
        if self.send_record(&name, record)? {
            return Ok(true);
        }
        match self.record(record.fingerprint)? {
            Some(first) if first.output == record.output => Ok(true),
            Some(first) if self.is_broken(&first) => {
                self.bucket.put(&name, seal(record)).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Writes a record where there is none, or one that is damaged; says if it did. That of a newer
    /// version stays.
    fn send_record<T: Form + Serialize>(
        &self,
        name: &str,
        record: &T,
    ) -> Result<bool, RemoteError> {
        let record = seal(record);
        if self.bucket.create(name, &record)? {
            return Ok(true);
        }
        let is_sound = |bytes: Vec<u8>| !matches!(unseal::<T>(&bytes), Opened::Damaged);
        if self.bucket.get(name)?.is_some_and(is_sound) {
            return Ok(false);
        }
        self.bucket.put(name, record)?;
        Ok(true)
    }
}

/// The objects of a result, if all are here, with their sizes.
fn contents(store: &Store, record: &Record) -> Option<Contents> {
    store.complete(record.output)?;
    store.objects_of(record).ok()
}
