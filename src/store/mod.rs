//! Where artifacts live: content by digest, and records of which fingerprint gave which content.
//!
//! ```text
//! <cache>/
//! ├── format                  the version of this layout, by which a cache is known
//! ├── objects/ab/cdef…        content by blake3: files of items, and manifests (JSON)
//! ├── actions/ab/cdef…        one Record (JSON) per fingerprint: what a stage gave
//! ├── items/ab/cdef…          one ItemRecord (JSON) per item fingerprint
//! ├── traces/ab/cdef…         which outside files a stage read, by its key without their content
//! ├── history/<hash>-<place>  of a pipeline file, profile and folder: what each instance last was
//! ├── pins/<fingerprint>-…    who wants a result that `gc` never removes
//! ├── checkpoints/<trajectory>/   left by trainings; equal but for how far they go
//! ├── locks/                  one file per key being computed: locked, or a lease (`lease`); `mode` says which
//! ├── pictures/<pipeline>/    contact sheets that a run wrote, for people; no stage reads them
//! ├── uploads/<hash>          what of an object was sent to a remote when that broke off
//! ├── stat-cache              size, times and inode of outside files whose digest is known
//! └── tmp/                    files being written, and folders in which commands work, named by their process
//! ```
//!
//! Nothing is changed in place. A file is written in `tmp/`, flushed, and renamed; a record is
//! written after the content it names. So a process that dies at any moment leaves at worst
//! content that nobody names, which `gc` removes.
//!
//! Every record carries a checksum of itself (`seal`); one that is not what was written counts as
//! none, and what it told of is made again.
//!
//! Every object gets the same modification time (`objects`). One that has another was touched by
//! somebody else and is hashed again before it is believed, so a glance at the metadata tells of
//! damage without reading the content.

mod adopt;
mod atomic_write;
mod behind;
mod checkpoints;
mod digest;
mod error;
mod find;
mod gc;
mod history;
mod lease;
mod lock;
mod materialise;
mod objects;
mod pictures;
mod pins;
mod record;
mod records;
mod seal;
mod sources;
mod space;
mod stat_cache;
mod stats;
mod traces;
mod verify;
mod work_folders;

pub(crate) use atomic_write::{check_aside, link_aside, write_aside};
pub use behind::{Behind, NewResult};
pub use checkpoints::{CheckpointFolder, CheckpointName, Keep};
pub use digest::{Digest, Fingerprint, HashParseError};
pub use error::StoreError;
pub use find::Named;
pub use gc::{GcPolicy, GcReport, Removed};
pub use history::{History, Owner, Root};
pub use lease::Holder;
pub use lock::{Attempt, KeyLock, KeyWait, Locks, StoreUse};
pub use materialise::Transfer;
pub(crate) use materialise::{copy_aside, holds};
pub use objects::NewObject;
pub use pictures::PictureName;
pub use pins::{Pin, Pinner};
pub use record::{Ingredients, ItemRecord, Lookup, Record, Trace, unnamed};
pub(crate) use seal::{Form, Opened, open as unseal, seal};
pub use sources::{SourceReader, is_below, is_missing, names_before};
pub use stats::{Count, StoreStats};
pub use verify::{Damage, Gone, VerifyReport};

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::SystemTime,
};

use adopt::Said;
pub(crate) use adopt::{is_own_cache, shared_folders};
use atomic_write::{persist, scratch, write_durably};
use objects::Written;
use records::read_json;
use stat_cache::StatCache;

use crate::{artifact::Manifest, sync::Unpoisoned};

/// The time, which decides only how long things are remembered and kept.
#[expect(clippy::disallowed_methods, reason = "no key and no content depends on it")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The version of the layout and of every JSON form in it.
///
/// 1: first. 2: records carry checksums; those of format 1 are still read. 3: the record of an item
/// says which, and the cache by what processes keep out of each other's way (`locks/mode`); items
/// whose records do not say it are made again.
pub const FORMAT_VERSION: u32 = 3;

/// Asked whether to stop.
#[derive(Clone)]
struct Stop(Arc<dyn Fn() -> bool + Send + Sync>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

/// Told what takes long.
struct Ear(Box<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ear")
    }
}

/// The content-addressed store of one cache folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Whether the folder is a cache yet; if not, nothing is written to it.
    exists: bool,
    manifests: Arc<Mutex<HashMap<Digest, Arc<Manifest>>>>,
    /// Content that was written here: damage to it shows that the disk cannot be relied on.
    written: Arc<Mutex<HashMap<Digest, Written>>>,
    stat_cache: Arc<StatCache>,
    stop: Option<Stop>,
    ear: Option<Ear>,
    behind: Option<Arc<dyn Behind>>,
    locks: Locks,
    /// The permissions of a file that this process makes here, once they are known.
    permissions: Arc<OnceLock<fs::Permissions>>,
}

impl Store {
    /// Opens the store in `root`, making it if that is absent or empty.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let found = Self::check_format(root)?;
        let make = |folder: &str| {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|e| match StoreError::io(&path, e) {
                // Whatever is wrong with the place, another one helps.
                StoreError::Io { source, .. } | StoreError::NotWritable { source, .. }
                    if found.is_none() =>
                {
                    StoreError::NotMade { path: root.to_owned(), source }
                }
                StoreError::Io { path, source } => StoreError::NotWritable { path, source },
                error => error,
            })
        };
        make("tmp")?;
        let store = Self::of(root, true);
        if found != Some(Said::Format(FORMAT_VERSION)) {
            // Before the other folders, so that a process that dies here leaves what is adopted;
            // and before the first record, which an older version could not read.
            let (path, text) = (root.join("format"), format!("{FORMAT_VERSION}\n"));
            let written = write_durably(&root.join("tmp"), &path, text.as_bytes());
            match written.map_err(|error| StoreError::io(&path, error)) {
                // `gc` has to work on a full disk. Who comes later writes it.
                Err(StoreError::Full { .. }) if found.is_some() => {}
                written => written?,
            }
        }
        adopt::FOLDERS.into_iter().try_for_each(make)?;
        Ok(store)
    }

    /// The store in `root` for those who only ask: nothing is made, and a folder that is absent or
    /// empty, or a disk that cannot be written, will do.
    pub fn look(root: &Path) -> Result<Self, StoreError> {
        Ok(Self::of(root, Self::check_format(root)?.is_some()))
    }

    /// The store itself, unless it is that of a folder which is no cache yet.
    pub fn must_exist(self) -> Result<Self, StoreError> {
        if self.exists { Ok(self) } else { Err(StoreError::Absent { path: self.root }) }
    }

    fn of(root: &Path, exists: bool) -> Self {
        Self {
            root: root.to_owned(),
            exists,
            manifests: Arc::default(),
            written: Arc::default(),
            stat_cache: Arc::new(StatCache::new(root.join("stat-cache"))),
            stop: None,
            ear: None,
            behind: None,
            locks: Locks::Auto.of(root),
            permissions: Arc::default(),
        }
    }

    /// The same store, with all that was learnt of it, for who must not wait for a cache behind it.
    /// It tells nobody what takes long.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self {
            root: self.root.clone(),
            exists: self.exists,
            manifests: Arc::clone(&self.manifests),
            written: Arc::clone(&self.written),
            stat_cache: Arc::clone(&self.stat_cache),
            stop: self.stop.clone(),
            ear: None,
            behind: None,
            locks: self.locks,
            permissions: Arc::clone(&self.permissions),
        }
    }

    /// Asks `stop` whether to stop while outside files are hashed, which can take minutes.
    #[must_use]
    pub fn stopped_by(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Stop(Arc::new(stop)));
        self
    }

    /// Whether to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| (stop.0)())
    }

    /// Has `ear` told what takes long and was not asked for by itself, such as the hashing of large
    /// weights.
    #[must_use]
    pub fn telling(mut self, ear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.ear = Some(Ear(Box::new(ear)));
        self
    }

    /// Tells what takes long, if somebody wants to hear it.
    pub(crate) fn tell(&self, text: &str) {
        if let Some(ear) = &self.ear {
            (ear.0)(text);
        }
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Adds a manifest and returns its address.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<Digest, StoreError> {
        let bytes = serde_json::to_vec(manifest).expect("a manifest is valid JSON");
        Ok(self.put(&bytes)?.digest)
    }

    /// Reads a manifest; one that is missing or damaged is [`StoreError::Damaged`].
    pub fn manifest(&self, digest: Digest) -> Result<Arc<Manifest>, StoreError> {
        if let Some(manifest) = self.manifests.lock().unpoisoned().get(&digest) {
            return Ok(Arc::clone(manifest));
        }
        let bytes = self.read_object(digest)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|_| StoreError::Damaged { digest })?;
        let manifest = Arc::new(manifest);
        self.manifests.lock().unpoisoned().insert(digest, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Removes the checkpoints of a trajectory, so that nothing goes on from them.
    pub fn forget_checkpoints(&self, trajectory: Fingerprint) -> Result<(), StoreError> {
        let path = self.root.join("checkpoints").join(trajectory.to_string());
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io(&path, e)),
            _ => Ok(()),
        }
    }

    /// Removes all content and all checkpoints, of a store that is for scratch only.
    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        for folder in ["objects", "checkpoints"] {
            let path = self.root.join(folder);
            fs::remove_dir_all(&path)
                .and_then(|()| fs::create_dir(&path))
                .map_err(|e| StoreError::io(&path, e))?;
        }
        self.manifests.lock().unpoisoned().clear();
        self.written.lock().unpoisoned().clear();
        Ok(())
    }

    fn forget_manifest(&self, digest: Digest) {
        self.manifests.lock().unpoisoned().remove(&digest);
    }

    fn sharded(&self, folder: &str, hex: &str) -> PathBuf {
        self.root.join(folder).join(&hex[..2]).join(&hex[2..])
    }

    /// Writes a small file in one step: whoever reads sees the old content or the new.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        let mut file = scratch(&tmp).map_err(|e| StoreError::io(&tmp, e))?;
        file.write_all(bytes).map_err(|e| StoreError::io(path, e))?;
        persist(file, path).map_err(|e| StoreError::io(path, e))
    }
}

/// Removes a file; says whether there was one.
fn remove(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io(path, e)),
    }
}

#[cfg(test)]
mod tests;
