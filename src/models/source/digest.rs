//! The content of a model's files as a hash, for keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, MutexGuard},
    time::SystemTime,
};

use blake3::Hash;
use serde::{Deserialize, Serialize};

use super::{super::LoadError, ModelSource, PartFile, absent, io};
use crate::{regular_file, sync::Unpoisoned};

impl ModelSource {
    /// The content of parts' files, as one hash that goes into keys.
    ///
    /// Hashed are, for each part in the order of names, the paths and contents of exactly those
    /// files that are read: its configuration and its weights, with the log of its training where
    /// an exported transformer has one, or the tokenizer's file. Instead of a part, one file can be
    /// named (`transformer/config.json`). Hashes of files in folders are remembered by path, size,
    /// times and inode while the program runs.
    pub fn digest(&self, parts: &[&str]) -> Result<Hash, LoadError> {
        self.digest_by(parts, &hash_file)
    }

    /// The same, where `hash` hashes a file that is not remembered: somebody else may remember it
    /// for longer than the program runs.
    pub fn digest_by(&self, parts: &[&str], hash: HashFile<'_>) -> Result<Hash, LoadError> {
        let parts: BTreeSet<&str> = parts.iter().copied().collect();
        let mut files = BTreeMap::new();
        for part in parts {
            for file in self.part_files(part)? {
                let digest = self.file_digest(&file, hash)?;
                files.insert(file, digest.to_hex().to_string());
            }
        }
        Ok(blake3::hash(&serde_json::to_vec(&files).expect("a map of strings is valid JSON")))
    }

    /// Files of parts in folders whose content is not known, each with its bytes; `at_hand` says of
    /// a file that this process has not hashed whether somebody else knows its hash.
    pub fn unhashed(
        &self,
        parts: &[&str],
        at_hand: impl Fn(&Path) -> bool,
    ) -> Result<Vec<(String, u64)>, LoadError> {
        let mut files = Vec::new();
        for part in parts {
            for file in self.part_files(part)? {
                let Self::Folder(root) = self.holder(&file) else { continue };
                let path = root.join(&file);
                let state = FileState::of(&path).map_err(|e| io(&path, e))?;
                if state.digest().is_none() && !at_hand(&path) {
                    files.push((file, state.len));
                }
            }
        }
        Ok(files)
    }

    /// Hashes one file, such as `vae/config.json`, as [`Self::digest_by`] would.
    pub fn hash(&self, file: &str, hash: HashFile<'_>) -> Result<(), LoadError> {
        self.file_digest(file, hash).map(drop)
    }

    /// The states of parts' files in folders. As long as they are equal, so are the files.
    pub fn states(&self, parts: &[&str]) -> Result<Vec<FileState>, LoadError> {
        let mut states = Vec::new();
        for part in parts {
            for file in self.part_files(part)? {
                if let Self::Folder(root) = self.holder(&file) {
                    let path = root.join(&file);
                    states.push(FileState::of(&path).map_err(|e| io(&path, e))?);
                }
            }
        }
        Ok(states)
    }

    fn file_digest(&self, path: &str, hash: HashFile<'_>) -> Result<Hash, LoadError> {
        match self.holder(path) {
            Self::Folder(root) => digest_on_disk(&root.join(path), hash),
            Self::Files { files, .. } => match files.get(path).ok_or_else(|| absent(path))? {
                PartFile::Bytes(bytes) => Ok(blake3::hash(bytes)),
                PartFile::Stored(stored) => Ok(stored.digest),
            },
            holder @ Self::Builtin(_) => Ok(blake3::hash(&holder.read(path)?)),
        }
    }
}

/// Hashes a file.
pub type HashFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<Hash>;

fn hash_file(path: &Path) -> std::io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(regular_file::open(path)?)?;
    Ok(hasher.finalize())
}

/// What tells whether a file is the one that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileState {
    path: PathBuf,
    len: u64,
    modified: SystemTime,
    /// Where there are such things: when anything of it was changed, and its number on the disk.
    more: Option<(i64, i64, u64)>,
}

impl FileState {
    /// The hash of the file in this state, if this process knows it.
    pub fn digest(&self) -> Option<Hash> {
        known().get(self).copied()
    }

    /// Remembers the hash of the file in this state, which another process knows.
    pub fn remember(&self, digest: Hash) {
        known().insert(self.clone(), digest);
    }

    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            len: metadata.len(),
            modified: metadata.modified()?,
            more: more(&metadata),
        })
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
fn more(metadata: &std::fs::Metadata) -> Option<(i64, i64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.ctime(), metadata.ctime_nsec(), metadata.ino()))
}

#[cfg(not(unix))]
fn more(_metadata: &std::fs::Metadata) -> Option<(i64, i64, u64)> {
    None
}

/// The hashes of files that this process has seen.
fn known() -> MutexGuard<'static, HashMap<FileState, Hash>> {
    static KNOWN: LazyLock<Mutex<HashMap<FileState, Hash>>> = LazyLock::new(Mutex::default);
    KNOWN.lock().unpoisoned()
}

/// Hashes a file, unless it was hashed before and has the same state.
fn digest_on_disk(path: &Path, hash: HashFile<'_>) -> Result<Hash, LoadError> {
    let key = FileState::of(path).map_err(|e| io(path, e))?;
    if let Some(digest) = known().get(&key) {
        return Ok(*digest);
    }
    let digest = hash(path).map_err(|e| io(path, e))?;
    known().insert(key, digest);
    Ok(digest)
}
