//! How much is in the store.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Serialize;

use super::{Store, StoreError};

/// How much of what is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Files and bytes by folder: `objects`, `actions` and so on.
    pub folders: BTreeMap<&'static str, Count>,
    /// Results that are pinned.
    pub pins: usize,
}

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Number of files.
    pub files: u64,
    /// Their lengths' sum.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
    }
}

/// What is counted. Beside these there are `format` and `stat-cache`, two files, and pins, which
/// are told apart.
const FOLDERS: [&str; 10] = [
    "objects",
    "actions",
    "items",
    "traces",
    "checkpoints",
    "history",
    "pictures",
    "tmp",
    "uploads",
    "locks",
];

impl StoreStats {
    /// What is being written, or was left by processes that were killed.
    pub fn unfinished(&self) -> Count {
        self.folders.get("tmp").copied().unwrap_or_default()
    }
}

impl Store {
    /// Counts files and bytes.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = StoreStats { pins: self.pinned()?.len(), ..StoreStats::default() };
        for folder in FOLDERS {
            let count = stats.folders.entry(folder).or_default();
            for (_, size) in files_below(&self.root.join(folder))? {
                count.add(size);
            }
        }
        Ok(stats)
    }

    /// Whether anything was ever computed, or brought, that is still here.
    pub fn has_results(&self) -> Result<bool, StoreError> {
        Ok(self.hashes_in::<super::Fingerprint>("actions")?.next().is_some())
    }

    /// The hashes that the files of a folder are named by.
    pub(super) fn hashes_in<H: FromStr>(
        &self,
        folder: &str,
    ) -> Result<impl Iterator<Item = H>, StoreError> {
        let files = files_below(&self.root.join(folder))?.into_iter();
        Ok(files.filter_map(|(path, _)| hash_of(&path)))
    }
}

/// `ab/cdef…` to the hash `abcdef…`.
pub(super) fn hash_of<H: FromStr>(path: &Path) -> Option<H> {
    let name = path.file_name()?.to_str()?;
    let shard = path.parent()?.file_name()?.to_str()?;
    format!("{shard}{name}").parse().ok()
}

/// All files below a folder with their sizes. What vanishes meanwhile is left out.
pub(super) fn files_below(dir: &Path) -> Result<Vec<(PathBuf, u64)>, StoreError> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::read(&folder, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::read(&folder, e))?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => files.push((entry.path(), metadata.len())),
                Err(_) => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_behind_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("uploads")).unwrap();
        for name in ["tmp/.tmpAb3dEf", "uploads/ab", "locks/store"] {
            fs::write(dir.path().join(name), "12345").unwrap();
        }
        let stats = store.stats().unwrap();
        for folder in ["tmp", "uploads", "locks"] {
            assert_eq!(stats.folders[folder], Count { files: 1, bytes: 5 }, "{folder}");
        }
        assert_eq!(stats.unfinished().bytes, 5);
    }
}
