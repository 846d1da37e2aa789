//! How much is in the store, and whether it is intact.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;

use super::{Digest, Store, StoreError};

/// How much of what is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Files and bytes by folder: `objects`, `actions`, `items`, `traces`, `checkpoints`.
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

/// What a full check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Objects read.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were damaged, and are gone now.
    pub damaged: Vec<Digest>,
}

impl Store {
    /// Counts files and bytes.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = StoreStats { pins: self.pins()?.len(), ..StoreStats::default() };
        for folder in ["objects", "actions", "items", "traces", "checkpoints"] {
            let count = stats.folders.entry(folder).or_default();
            for (_, size) in files_below(&self.root.join(folder))? {
                count.add(size);
            }
        }
        Ok(stats)
    }

    /// Reads and hashes every object; removes those that are damaged.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let objects = files_below(&self.root.join("objects"))?;
        let bytes = objects.iter().map(|(_, size)| size).sum();
        let mut damaged: Vec<Digest> = objects
            .par_iter()
            .filter_map(|(path, _)| hash_of::<Digest>(path))
            .filter(|digest| matches!(self.read_object(*digest), Err(StoreError::Damaged { .. })))
            .collect();
        damaged.sort();
        for digest in &damaged {
            self.evict(*digest)?;
        }
        Ok(VerifyReport { checked: objects.len() as u64, bytes, damaged })
    }
}

/// `ab/cdef…` to the hash `abcdef…`.
pub(super) fn hash_of<H: std::str::FromStr>(path: &Path) -> Option<H> {
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
            Err(e) => return Err(StoreError::io(&folder, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::io(&folder, e))?;
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
    fn verify_drops_what_is_damaged_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let good = store.put(b"good").unwrap();
        let bad = store.put(b"bad").unwrap();
        let path = store.object_path(bad.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "b@d").unwrap();
        let report = store.verify().unwrap();
        assert_eq!(report, VerifyReport { checked: 2, bytes: 7, damaged: vec![bad.digest] });
        assert!(!path.exists());
        assert_eq!(store.read(&good).unwrap(), b"good");
        assert_eq!(store.stats().unwrap().folders["objects"], Count { files: 1, bytes: 4 });
    }
}
