//! Results on their way: objects before the record that names them, in both directions.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;

use super::{Remote, RemoteError, sharded};
use crate::{
    artifact::FileRef,
    store::{
        Digest, FORMAT_VERSION, Fingerprint, ItemRecord, Made, Record, Store, StoreError, Trace,
    },
};

/// What a transfer did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Results that were sent or fetched, with the bytes that took.
    pub results: Vec<(String, u64)>,
    /// Results that were there already.
    pub there: usize,
    /// Results whose content is not all at the place where they come from.
    pub broken: Vec<String>,
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
}

/// How a transfer goes.
pub struct Transfer<'a> {
    /// Told of bytes moved so far, and in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Asked whether to stop.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
    /// Whether only to say what would be done.
    pub dry_run: bool,
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
    #[error("what the remote cache holds for {0} is damaged")]
    Lies(String),
}

/// What bringing one result took.
#[derive(Debug, Default)]
pub(super) struct Cargo {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Cargo {
    fn add(&self, bytes: u64) {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_all(&self, other: &Self) {
        self.objects.fetch_add(other.objects.load(Ordering::Relaxed), Ordering::Relaxed);
        self.bytes.fetch_add(other.bytes(), Ordering::Relaxed);
    }
}

impl Remote {
    /// Sends results, those that are whole here and not there yet.
    pub fn push(
        &self,
        store: &Store,
        results: &[Made],
        how: &Transfer<'_>,
    ) -> Result<Moved, RemoteError> {
        if how.dry_run {
            self.check()?;
        } else {
            self.prepare()?;
        }
        let mut moved = Moved::default();
        let mut seen = HashSet::new();
        let results: Vec<_> =
            results.iter().filter(|made| seen.insert(made.record.fingerprint)).collect();
        let known: Result<Vec<_>, RemoteError> = self.threads.install(|| {
            results.par_iter().map(|made| self.record(made.record.fingerprint)).collect()
        });
        let mut to_send = Vec::new();
        for (made, known) in results.into_iter().zip(known?) {
            match known {
                Some(known) if known.output == made.record.output => moved.there += 1,
                Some(_) => moved.differing.push(made.name.clone()),
                None => match contents(store, &made.record) {
                    Some(contents) => to_send.push((made, contents)),
                    None => moved.broken.push(made.name.clone()),
                },
            }
        }
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
                Ok(true) => moved.results.push((made.name.clone(), bytes)),
                Ok(false) => moved.differing.push(made.name.clone()),
                Err(error) => {
                    moved.failed += 1;
                    moved.error.get_or_insert(error.to_string());
                }
            }
        }
        Ok(moved)
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
                let sent = self.bucket.upload(&name, &store.object_file(*digest));
                sent.map(|sent| sent.new.then_some(sent.bytes))
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
        moved.objects += cargo.objects.into_inner();
        moved.bytes += cargo.bytes.into_inner();
        if let Some(error) = error.into_inner().expect("no panic while held") {
            moved.error.get_or_insert(error);
        }
        missing
    }

    /// Sends the records of a result whose objects are there; false if another output is.
    pub(super) fn send_records(&self, store: &Store, made: &Made) -> Result<bool, RemoteError> {
        let record = &made.record;
        let send_item = |key: &Fingerprint| {
            let Ok(Some(files)) = store.item_files(*key) else { return Ok(()) };
            let name = sharded("items", &key.to_string());
            self.bucket.create(&name, &json(&ItemRecord::new(files))).map(drop)
        };
        self.threads.install(|| made.items.par_iter().try_for_each(send_item))?;
        if let Some(key) = record.traced {
            let trace = json(&trace_of(record));
            let name = sharded("traces", &key.to_string());
            self.bucket.create(&format!("{name}/{}", Digest::of(&trace)), &trace)?;
        }
        let name = sharded("actions", &record.fingerprint.to_string());
        if self.bucket.create(&name, &json(record))? {
            return Ok(true);
        }
        let first = self.record(record.fingerprint)?;
        Ok(first.is_some_and(|first| first.output == record.output))
    }

    /// The record of a key. One that cannot be read counts as none.
    pub(super) fn record(&self, key: Fingerprint) -> Result<Option<Record>, RemoteError> {
        let bytes = self.bucket.get(&sharded("actions", &key.to_string()))?;
        let record: Option<Record> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(record
            .filter(|record| record.fingerprint == key && record.format_version <= FORMAT_VERSION))
    }

    /// What stages with this key read from outside.
    pub(super) fn traces(&self, key: Fingerprint) -> Result<Vec<Trace>, RemoteError> {
        let names = self.bucket.list(&sharded("traces", &key.to_string()))?;
        let mut traces = Vec::new();
        for (name, _) in names {
            let bytes = self.bucket.get(&name)?;
            traces.extend(bytes.and_then(|bytes| serde_json::from_slice::<Trace>(&bytes).ok()));
        }
        Ok(traces)
    }

    /// Brings the result of a key, whole, and gives its record.
    pub(super) fn bring(
        &self,
        store: &Store,
        key: Fingerprint,
        cargo: &Cargo,
    ) -> Result<Option<Record>, BringError> {
        let Some(record) = self.record(key)? else { return Ok(None) };
        if !store.has_object(record.output) {
            let name = sharded("objects", &record.output.to_string());
            let lies = || BringError::Lies(format!("manifest {}", record.output.short()));
            let bytes = self.bucket.get(&name)?.ok_or_else(lies)?;
            if Digest::of(&bytes) != record.output {
                return Err(lies());
            }
            cargo.add(store.put(&bytes)?.size);
        }
        let manifest = store.manifest(record.output)?;
        let files = manifest.items.iter().flat_map(|item| item.files.values());
        self.bring_files(store, files, cargo)?;
        if let Some(traced) = record.traced {
            store.add_trace(traced, trace_of(&record))?;
        }
        store.commit(&record)?;
        Ok(Some(record))
    }

    /// Brings the result of an item; false if the remote has none.
    pub(super) fn bring_item(
        &self,
        store: &Store,
        key: Fingerprint,
        cargo: &Cargo,
    ) -> Result<bool, BringError> {
        let bytes = self.bucket.get(&sharded("items", &key.to_string()))?;
        let record = bytes.and_then(|bytes| serde_json::from_slice::<ItemRecord>(&bytes).ok());
        let Some(record) = record.filter(|record| record.format_version <= FORMAT_VERSION) else {
            return Ok(false);
        };
        self.bring_files(store, record.files.values(), cargo)?;
        store.commit_item(key, &record)?;
        Ok(true)
    }

    fn bring_files<'f>(
        &self,
        store: &Store,
        files: impl Iterator<Item = &'f FileRef>,
        cargo: &Cargo,
    ) -> Result<(), BringError> {
        let missing: BTreeMap<Digest, u64> =
            files.filter(|file| !store.has(file)).map(|file| (file.digest, file.size)).collect();
        let bring = |(digest, size): (&Digest, &u64)| {
            let name = sharded("objects", &digest.to_string());
            let lies = || BringError::Lies(format!("content {}", digest.short()));
            let received = store.receive(*digest, |out| {
                if self.bucket.download(&name, *size, out)? { Ok(()) } else { Err(lies()) }
            });
            match received {
                Ok(bytes) => cargo.add(bytes),
                Err(BringError::Store(StoreError::Damaged { .. })) => return Err(lies()),
                Err(error) => return Err(error),
            }
            Ok(())
        };
        self.threads.install(|| missing.par_iter().try_for_each(bring))
    }

    /// Fetches results that are not whole here.
    pub fn pull(
        &self,
        store: &Store,
        scope: &Scope,
        how: &Transfer<'_>,
    ) -> Result<Moved, RemoteError> {
        let mut moved = Moved::default();
        if !self.check()? {
            return Ok(moved);
        }
        let keys = match scope {
            Scope::Keys(keys) => keys.clone(),
            Scope::All => self.keys("actions")?.map(|key| (key, key.short())).collect(),
        };
        let (total, cargo) = (keys.len() as u64, Cargo::default());
        for (at, (key, name)) in keys.into_iter().enumerate() {
            if (how.stopped)() {
                moved.failed += 1;
                continue;
            }
            let here = store.lookup(key).ok().flatten();
            if here.as_ref().is_some_and(|record| store.is_whole(record)) {
                moved.there += 1;
            } else if how.dry_run {
                let before = cargo.bytes();
                if let Some(record) = self.weigh(store, key, &cargo)? {
                    moved.results.push((title(&name, &record), cargo.bytes() - before));
                }
            } else {
                let before = cargo.bytes();
                match self.bring(store, key, &cargo) {
                    Ok(Some(record)) => {
                        let bytes = cargo.bytes() - before;
                        moved.results.push((title(&name, &record), bytes));
                    }
                    Ok(None) => {}
                    Err(BringError::Lies(_)) => moved.broken.push(name),
                    Err(error) => {
                        moved.failed += 1;
                        moved.error.get_or_insert(error.to_string());
                    }
                }
            }
            (how.progress)(at as u64 + 1, total);
        }
        moved.bytes = cargo.bytes();
        moved.objects = cargo.objects.into_inner();
        Ok(moved)
    }

    fn keys(&self, folder: &str) -> Result<impl Iterator<Item = Fingerprint>, RemoteError> {
        let names = self.bucket.list(folder)?.into_iter();
        Ok(names.filter_map(|(name, _)| name.split('/').skip(1).collect::<String>().parse().ok()))
    }

    /// The record of a key, and in `cargo` what bringing it would take. Only the manifest is brought,
    /// since those who wait for this result want to know its items.
    pub(super) fn weigh(
        &self,
        store: &Store,
        key: Fingerprint,
        cargo: &Cargo,
    ) -> Result<Option<Record>, RemoteError> {
        let Some(record) = self.record(key)? else { return Ok(None) };
        let bytes = self.bucket.get(&sharded("objects", &record.output.to_string()))?;
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == record.output);
        let Some(bytes) = bytes else { return Ok(None) };
        let put = store.put(&bytes).map_err(|error| RemoteError::Local(error.to_string()))?;
        cargo.add(put.size);
        let manifest = store.manifest(record.output);
        let manifest = manifest.map_err(|error| RemoteError::Local(error.to_string()))?;
        let files: BTreeMap<Digest, u64> = manifest
            .items
            .iter()
            .flat_map(|item| item.files.values())
            .filter(|file| !store.has(file))
            .map(|file| (file.digest, file.size))
            .collect();
        for size in files.into_values() {
            cargo.add(size);
        }
        Ok(Some(record))
    }
}

/// A result nobody here has a name for is called by its kind.
fn title(name: &str, record: &Record) -> String {
    if *name == record.fingerprint.short() {
        return format!("a result of `{}` ({name})", record.ingredients.kind);
    }
    name.to_owned()
}

/// The objects of a result, if all are here, with their sizes.
fn contents(store: &Store, record: &Record) -> Option<BTreeMap<Digest, u64>> {
    let manifest = store.complete(record.output)?;
    let size = std::fs::metadata(store.object_file(record.output)).ok()?.len();
    let files = manifest.items.iter().flat_map(|item| item.files.values());
    let files = files.map(|file| (file.digest, file.size));
    Some(std::iter::once((record.output, size)).chain(files).collect())
}

fn trace_of(record: &Record) -> Trace {
    Trace::new(record.ingredients.sources.keys().cloned())
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are valid JSON")
}
