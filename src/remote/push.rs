//! Results on their way to the remote: objects before the record that names them.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;

use super::{Moved, Remote, RemoteError, Transfer, Wrong, sharded, transfer::Cargo};
use crate::{
    store::{Digest, Fingerprint, NewResult, Record, Store},
    sync::Unpoisoned,
};

/// Content of up to so many bytes is sent at once, rather than after a question whether it is
/// there.
const SMALL: u64 = 64 << 10;

/// The objects of a result with their sizes.
pub(super) type Contents = BTreeMap<Digest, u64>;

/// What is done with results.
#[derive(Default)]
struct Chosen<'m> {
    /// To be sent, with their objects.
    to_send: Vec<(&'m NewResult, Contents)>,
    /// Those whose records are there.
    there: Vec<&'m NewResult>,
}

impl Remote {
    /// Sends results, those that are whole here and not there yet, and of the others what the
    /// remote lost of their records; all of them, where they are to replace what is there.
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
            if !self.gave_up.swap(true, Ordering::Relaxed) {
                self.bucket.give_up_old(store);
            }
        }
        let mut moved = Moved::default();
        let chosen = self.choose(store, results, how, &mut moved)?;
        let objects: BTreeMap<Digest, u64> = chosen
            .to_send
            .iter()
            .flat_map(|(_, contents)| contents.iter().map(|(d, s)| (*d, *s)))
            .collect();
        let missing = self.send_objects(store, &objects, how, &mut moved);
        let is_whole = |(_, contents): &(&NewResult, Contents)| {
            !contents.keys().any(|digest| missing.contains(digest))
        };
        let (whole, cut): (Vec<_>, Vec<_>) = chosen.to_send.into_iter().partition(is_whole);
        moved.failed += cut.len();
        let ready: Vec<_> =
            whole.iter().map(|(made, contents)| (*made, contents.values().sum())).collect();
        if how.dry_run {
            moved.results.extend(ready.iter().map(|(made, bytes)| (made.name.clone(), *bytes)));
        } else {
            self.send_results(store, &ready, how, &mut moved);
        }
        self.mend(store, &chosen.there, how, &mut moved)?;
        Ok(moved)
    }

    /// The results that are to be sent, with their objects; of the others, `moved` says why not.
    fn choose<'m>(
        &self,
        store: &Store,
        results: &'m [NewResult],
        how: &Transfer<'_>,
        moved: &mut Moved,
    ) -> Result<Chosen<'m>, RemoteError> {
        let mut seen = HashSet::new();
        let results: Vec<_> =
            results.iter().filter(|made| seen.insert(made.record.fingerprint)).collect();
        let known: Result<Vec<_>, RemoteError> = self.threads.install(|| {
            results.par_iter().map(|made| self.record(made.record.fingerprint)).collect()
        });
        let mut chosen = Chosen::default();
        for (made, known) in results.into_iter().zip(known?) {
            match known.filter(|_| !how.replace) {
                Some(known) if known.output != made.record.output && !self.is_broken(&known) => {
                    moved.differing.push(made.name.clone());
                }
                Some(known)
                    if known.output == made.record.output && !self.is_to_mend(store, made) =>
                {
                    chosen.there.push(made);
                }
                _ => match contents(store, &made.record) {
                    Some(contents) => {
                        self.doubt(made.record.fingerprint, &contents);
                        chosen.to_send.push((made, contents));
                    }
                    None => moved.broken.push((made.name.clone(), wrong(store, &made.record))),
                },
            }
        }
        Ok(chosen)
    }

    /// Whether something of a result was found damaged at the remote.
    fn is_to_mend(&self, store: &Store, made: &NewResult) -> bool {
        let suspects = self.suspects.lock().unpoisoned();
        if !suspects.is_empty() && made.keys().any(|key| suspects.contains(&key)) {
            return true;
        }
        let damaged = self.damaged.lock().unpoisoned();
        !damaged.is_empty()
            && contents(store, &made.record)
                .is_some_and(|contents| contents.keys().any(|digest| damaged.contains(digest)))
    }

    /// Whether a result could not be fetched whole, and still is the same.
    pub(super) fn is_broken(&self, known: &Record) -> bool {
        let broken = self.broken.lock().unpoisoned();
        broken.get(&known.fingerprint) == Some(&known.output)
    }

    pub(super) fn is_suspect(&self, key: Fingerprint) -> bool {
        self.suspects.lock().unpoisoned().contains(&key)
    }

    /// Of a suspect, nobody knows what of its content is damaged.
    fn doubt(&self, key: Fingerprint, contents: &Contents) {
        if self.is_suspect(key) {
            self.damaged.lock().unpoisoned().extend(contents.keys());
        }
    }

    /// All of this result was sent.
    pub(super) fn trust(&self, made: &NewResult) {
        let mut suspects = self.suspects.lock().unpoisoned();
        for key in made.keys() {
            suspects.remove(&key);
        }
        self.broken.lock().unpoisoned().remove(&made.record.fingerprint);
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
            if (how.stopped)() || error.lock().unpoisoned().is_some() {
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
                    error.lock().unpoisoned().get_or_insert(failed);
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
        moved.fails(0, error.into_inner().unpoisoned());
        missing
    }

    /// Sends an object that is not there, or damaged there; gives the bytes that took.
    fn send_object(
        &self,
        name: &str,
        (digest, size): (Digest, u64),
        store: &Store,
    ) -> Result<Option<u64>, RemoteError> {
        let is_damaged = self.damaged.lock().unpoisoned().contains(&digest);
        let is_small = size <= SMALL && !is_damaged;
        if !is_small && !is_damaged && self.bucket.size(name)? == Some(size) {
            return Ok(None);
        }
        // Damage here must not become damage there.
        if !store.is_intact(digest).map_err(|error| RemoteError::Local(error.to_string()))? {
            return Err(RemoteError::Damaged { digest });
        }
        let file = store.object_path(digest);
        // One request tells whether it is there, and sends it if not.
        if is_small {
            let bytes = fs::read(&file).map_err(|error| RemoteError::Local(error.to_string()))?;
            if self.bucket.create(name, &bytes)? {
                return Ok(Some(size));
            }
            if self.bucket.size(name)? == Some(size) {
                return Ok(None);
            }
        }
        self.bucket.upload(name, &file, store)?;
        self.damaged.lock().unpoisoned().remove(&digest);
        Ok(Some(size))
    }
}

/// What of a result is not here.
fn wrong(store: &Store, record: &Record) -> Wrong {
    let is_gone = |digest| !store.is_there(digest);
    if !store.object_ok(record.output, None) {
        return Wrong::file(is_gone(record.output));
    }
    let Ok(manifest) = store.manifest(record.output) else {
        return Wrong::file(is_gone(record.output));
    };
    let wrong = manifest.files().filter(|file| !store.object_ok(file.digest, Some(file.size)));
    wrong.fold(Wrong::default(), |all, file| all.and(Wrong::file(is_gone(file.digest))))
}

/// The objects of a result, if all are here, with their sizes.
fn contents(store: &Store, record: &Record) -> Option<Contents> {
    store.complete(record.output)?;
    store.objects_of(record).ok()
}
