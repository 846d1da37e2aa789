//! The content of a model's files as a hash, for keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
    time::SystemTime,
};

use blake3::Hash;

use super::{super::LoadError, ModelSource, io};
use crate::regular;

impl ModelSource {
    /// The content of parts' files, as one hash that goes into keys.
    ///
    /// Hashed are, for each part in the order of names, the paths and contents of exactly those
    /// files that are read: its configuration and its weights, or the tokenizer's file. Instead of a
    /// part, one file can be named (`transformer/config.json`). Hashes of files in folders are
    /// remembered by path, size and time of change while the program runs.
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

    fn file_digest(&self, path: &str, hash: HashFile<'_>) -> Result<Hash, LoadError> {
        match self.holder(path) {
            Self::Folder(root) => digest_on_disk(&root.join(path), hash),
            holder => Ok(blake3::hash(&holder.read(path)?)),
        }
    }
}

/// Hashes a file.
pub type HashFile<'a> = &'a dyn Fn(&Path) -> std::io::Result<Hash>;

fn hash_file(path: &Path) -> std::io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(regular::open(path)?)?;
    Ok(hasher.finalize())
}

/// What tells whether a file is the one that was hashed.
type FileState = (PathBuf, u64, SystemTime);

/// Hashes a file, unless it was hashed before and has the same size and time of change.
fn digest_on_disk(path: &Path, hash: HashFile<'_>) -> Result<Hash, LoadError> {
    static KNOWN: LazyLock<Mutex<HashMap<FileState, Hash>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let state = |path: &Path| {
        let metadata = path.metadata()?;
        Ok((path.to_owned(), metadata.len(), metadata.modified()?))
    };
    let key: FileState = state(path).map_err(|e| io(path, e))?;
    if let Some(digest) = known().get(&key) {
        return Ok(*digest);
    }
    let digest = hash(path).map_err(|e| io(path, e))?;
    known().insert(key, digest);
    Ok(digest)
}
