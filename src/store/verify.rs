//! Whether what is in the store is intact.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;

use super::{
    Digest, Fingerprint, ItemRecord, Record, Root, Store, StoreError, Trace, read_json,
    stats::{files_below, hash_of},
};

/// What a full check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Objects read.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Records read.
    pub records: usize,
    /// What was damaged, and is gone now.
    pub damaged: Vec<Damage>,
}

/// A file of the store that was damaged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// Its path below the store.
    pub file: PathBuf,
    /// The results that it is part of, as `pose_ablation: lora[n=10]`, where a history knows them.
    pub results: Vec<String>,
}

impl Store {
    /// Hashes every object and reads every record; removes those that are damaged.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        let roots = self.roots()?;
        let objects = self.damaged_objects(&mut report)?;
        let records = self.damaged_records(&mut report)?;
        // Before anything is removed: the lists of items say which results a file is part of.
        let owners = if objects.is_empty() { HashMap::new() } else { self.owners(&objects)? };
        for (path, digest) in objects {
            let keys = owners.get(&digest).map(Vec::as_slice).unwrap_or_default();
            report.damaged.push(self.remove(&path, keys, &roots)?);
            self.forget_manifest(digest);
        }
        for (path, key) in records {
            report.damaged.push(self.remove(&path, &[key], &roots)?);
        }
        report.damaged.sort();
        Ok(report)
    }

    fn damaged_objects(
        &self,
        report: &mut VerifyReport,
    ) -> Result<Vec<(PathBuf, Digest)>, StoreError> {
        let objects = files_below(&self.root.join("objects"))?;
        report.objects = objects.len();
        report.bytes = objects.iter().map(|(_, size)| size).sum();
        let damaged = objects.into_par_iter().filter_map(|(path, _)| {
            let digest = hash_of::<Digest>(&path)?;
            match self.is_intact(digest) {
                Ok(true) => None,
                Ok(false) => Some(Ok((path, digest))),
                Err(error) => Some(Err(error)),
            }
        });
        damaged.collect()
    }

    fn damaged_records(
        &self,
        report: &mut VerifyReport,
    ) -> Result<Vec<(PathBuf, Fingerprint)>, StoreError> {
        let mut damaged = Vec::new();
        for folder in ["actions", "items", "traces"] {
            let records = files_below(&self.root.join(folder))?;
            report.records += records.len();
            for (path, _) in records {
                let Some(key) = hash_of::<Fingerprint>(&path) else { continue };
                // What vanishes meanwhile was removed, not damaged.
                if !can_be_read(folder, &path, key)? && path.exists() {
                    damaged.push((path, key));
                }
            }
        }
        Ok(damaged)
    }

    /// The keys of the results that damaged objects are part of.
    fn owners(
        &self,
        damaged: &[(PathBuf, Digest)],
    ) -> Result<HashMap<Digest, Vec<Fingerprint>>, StoreError> {
        let damaged: HashSet<Digest> = damaged.iter().map(|(_, digest)| *digest).collect();
        let mut owners: HashMap<Digest, Vec<Fingerprint>> = HashMap::new();
        for key in self.hashes_in("actions")? {
            let Some(record) = self.lookup(key)? else { continue };
            for digest in self.objects_of(&record)?.into_keys().filter(|d| damaged.contains(d)) {
                owners.entry(digest).or_default().push(record.fingerprint);
            }
        }
        Ok(owners)
    }

    fn remove(
        &self,
        path: &Path,
        keys: &[Fingerprint],
        roots: &[Root],
    ) -> Result<Damage, StoreError> {
        super::remove(path)?;
        let names = keys.iter().flat_map(|key| roots.iter().filter_map(|root| root.name_of(*key)));
        let mut results: Vec<String> = names.collect();
        results.sort();
        results.dedup();
        let file = path.strip_prefix(&self.root).unwrap_or(path).to_owned();
        Ok(Damage { file, results })
    }
}

/// Whether a record has the form that its folder is for.
fn can_be_read(folder: &str, path: &Path, key: Fingerprint) -> Result<bool, StoreError> {
    Ok(match folder {
        "actions" => read_json::<Record>(path)?.is_some_and(|record| record.fingerprint == key),
        "items" => read_json::<ItemRecord>(path)?.is_some(),
        _ => read_json::<Vec<Trace>>(path)?.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::store::Count;

    #[test]
    fn verify_drops_what_is_damaged_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let good = store.put(b"good").unwrap();
        let bad = store.put(b"bad").unwrap();
        let path = store.object_path(bad.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "b@d").unwrap();
        let [whole, cut] = ["whole", "cut"].map(|text| Fingerprint::of(text.as_bytes()));
        for key in [whole, cut] {
            store.commit_item(key, &ItemRecord::new(BTreeMap::new())).unwrap();
        }
        let record = store.sharded("items", &cut.to_string());
        fs::write(&record, "{").unwrap();

        let report = store.verify().unwrap();
        let below = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_owned();
        let mut files = vec![below(&record), below(&path)];
        files.sort();
        let damaged = files.into_iter().map(|file| Damage { file, results: Vec::new() }).collect();
        assert_eq!(report, VerifyReport { objects: 2, bytes: 7, records: 2, damaged });
        assert!(!path.exists() && !record.exists());
        assert_eq!(store.read(&good).unwrap(), b"good");
        assert_eq!(store.stats().unwrap().folders["objects"], Count { files: 1, bytes: 4 });
        assert_eq!(store.verify().unwrap().damaged, []);
    }
}
