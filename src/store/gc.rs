//! What is in the store, whether it is intact, and what nobody needs any more.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rayon::prelude::*;
use serde::Serialize;

use super::{Digest, Fingerprint, ItemRecord, Store, StoreError, adopt::SCRATCH};

/// How much of what is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Files and bytes by folder: `objects`, `actions`, `items`, `traces`, `checkpoints`.
    pub folders: BTreeMap<&'static str, Count>,
}

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Number of files.
    pub files: u64,
    /// Their lengths' sum.
    pub bytes: u64,
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

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Removed, by folder.
    pub removed: BTreeMap<&'static str, Count>,
    /// Objects kept.
    pub kept: Count,
    /// Trainings that have not ended, whose checkpoints are kept.
    pub unfinished: u64,
}

/// How the name of the checkpoint begins that a training has only until it ends.
pub const ROLLING: &str = "rolling";

/// How long the checkpoints of a training that has not ended are kept after the last one.
const UNFINISHED: Duration = Duration::from_hours(30 * 24);

impl Store {
    /// Counts files and bytes.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = StoreStats::default();
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

    /// Removes what the records of `keep` do not need; see [`Store::latest`]. Refused while a run
    /// uses the store, because a run writes content before the record that names it.
    pub fn gc(&self, keep: &[Fingerprint], dry_run: bool) -> Result<GcReport, StoreError> {
        let _alone = self.exclusive()?;
        let (objects, mut trajectories) = self.needed(keep)?;
        let keep: HashSet<_> = keep.iter().copied().collect();
        let unfinished = self.unfinished()?;
        trajectories.extend(&unfinished);

        let unfinished = unfinished.len() as u64;
        let mut report = GcReport { unfinished, ..GcReport::default() };
        self.sweep("actions", dry_run, &mut report, |path| {
            hash_of(path).is_some_and(|key| keep.contains(&key))
        })?;
        self.sweep("items", dry_run, &mut report, |path| {
            let record = fs::read(path).ok();
            let record = record.and_then(|b| serde_json::from_slice::<ItemRecord>(&b).ok());
            record.is_some_and(|r| r.files.values().all(|file| objects.contains(&file.digest)))
        })?;
        self.sweep("checkpoints", dry_run, &mut report, |path| {
            trajectory_of(path).is_some_and(|key| trajectories.contains(&key))
        })?;
        self.sweep("tmp", dry_run, &mut report, |_| false)?;
        for (path, size) in files_below(&self.root.join("objects"))? {
            if hash_of(&path).is_some_and(|digest| objects.contains(&digest)) {
                report.kept.add(size);
            }
        }
        self.sweep("objects", dry_run, &mut report, |path| {
            hash_of(path).is_some_and(|digest| objects.contains(&digest))
        })?;
        self.manifests.lock().expect("no panic while held").clear();
        Ok(report)
    }

    /// The objects and trajectories that the records of `keep` name.
    fn needed(
        &self,
        keep: &[Fingerprint],
    ) -> Result<(HashSet<Digest>, HashSet<Fingerprint>), StoreError> {
        let mut objects = HashSet::new();
        let mut trajectories = HashSet::new();
        for key in keep {
            let Some(record) = self.lookup(*key)? else { continue };
            objects.insert(record.output);
            trajectories.extend(record.trajectory);
            if let Ok(manifest) = self.manifest(record.output) {
                let files = manifest.items.iter().flat_map(|item| item.files.values());
                objects.extend(files.map(|file| file.digest));
            }
        }
        Ok((objects, trajectories))
    }

    /// Trajectories with a rolling checkpoint that is not too old: a run was killed, or stopped, and
    /// may go on. No record names them, since a record is written at the end.
    fn unfinished(&self) -> Result<HashSet<Fingerprint>, StoreError> {
        let files = files_below(&self.root.join("checkpoints"))?;
        let recent = |path: &Path| {
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            // A time in the future is recent, too.
            modified.is_ok_and(|time| time.elapsed().map_or(true, |age| age < UNFINISHED))
        };
        let rolling = files.iter().map(|(path, _)| path.as_path()).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(ROLLING)) && recent(path)
        });
        Ok(rolling.filter_map(trajectory_of).collect())
    }

    fn sweep(
        &self,
        folder: &'static str,
        dry_run: bool,
        report: &mut GcReport,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<(), StoreError> {
        let removed = report.removed.entry(folder).or_default();
        let root = self.root.join(folder);
        for (path, size) in files_below(&root)? {
            let below = path.strip_prefix(&root).unwrap_or(&path);
            if !is_ours(folder, below) || wanted(&path) {
                continue;
            }
            removed.add(size);
            if !dry_run {
                fs::remove_file(&path).map_err(|e| StoreError::io(&path, e))?;
            }
        }
        Ok(())
    }
}

/// Whether a file, by its path in a folder of the store, has a name that the store gives.
fn is_ours(folder: &str, below: &Path) -> bool {
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    match (folder, &*parts) {
        ("tmp", [name]) => name.starts_with(SCRATCH),
        ("checkpoints", [trajectory, _]) => trajectory.parse::<Fingerprint>().is_ok(),
        (_, [shard, rest]) => {
            shard.len() == 2 && format!("{shard}{rest}").parse::<Digest>().is_ok()
        }
        _ => false,
    }
}

/// The trajectory of a checkpoint.
fn trajectory_of(path: &Path) -> Option<Fingerprint> {
    path.parent()?.file_name()?.to_str()?.parse().ok()
}

impl Count {
    fn add(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
    }
}

/// `ab/cdef…` to the hash `abcdef…`.
fn hash_of<H: std::str::FromStr>(path: &Path) -> Option<H> {
    let name = path.file_name()?.to_str()?;
    let shard = path.parent()?.file_name()?.to_str()?;
    format!("{shard}{name}").parse().ok()
}

/// All files below a folder with their sizes. What vanishes meanwhile is left out.
fn files_below(dir: &Path) -> Result<Vec<(PathBuf, u64)>, StoreError> {
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
    use std::time::SystemTime;

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

    #[test]
    fn gc_waits_for_no_run_but_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let orphan = store.put(b"orphan").unwrap();
        let run = store.in_use().unwrap();
        assert!(matches!(store.gc(&[], false), Err(StoreError::Busy { .. })));
        drop(run);
        let dry = store.gc(&[], true).unwrap();
        assert_eq!(dry.removed["objects"], Count { files: 1, bytes: 6 });
        assert!(store.read(&orphan).is_ok());
        assert_eq!(store.gc(&[], false).unwrap(), dry);
        assert!(store.read(&orphan).is_err());
    }

    #[test]
    fn gc_removes_no_file_of_another_shape() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put(b"orphan").unwrap();
        let foreign =
            ["objects/teapot.obj", "objects/ab/notes", "tmp/draft", "checkpoints/best.pt"];
        for name in foreign {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "mine").unwrap();
        }
        fs::write(dir.path().join("tmp/.tmpAb3dEf"), "cut short").unwrap();
        let report = store.gc(&[], false).unwrap();
        assert_eq!(report.removed["objects"].files, 1);
        assert_eq!(report.removed["tmp"].files, 1);
        assert_eq!(report.removed["checkpoints"].files, 0);
        for name in foreign {
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine", "{name}");
        }
    }

    #[test]
    fn gc_keeps_the_checkpoints_of_an_unfinished_training() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = |trajectory: &[u8], name: &str| {
            let path = store.checkpoints(Fingerprint::of(trajectory)).unwrap().join(name);
            fs::write(&path, "state").unwrap();
            path
        };
        let killed = file(b"killed", "rolling-00000100-aa.safetensors");
        let ended = file(b"ended", "final-00000100-aa.safetensors");
        let forgotten = file(b"forgotten", "rolling-00000100-aa.safetensors");
        #[expect(clippy::disallowed_methods, reason = "checkpoints are kept by their age")]
        let long_ago = SystemTime::now() - 2 * UNFINISHED;
        fs::File::options().write(true).open(&forgotten).unwrap().set_modified(long_ago).unwrap();
        let report = store.gc(&[], false).unwrap();
        assert_eq!((report.removed["checkpoints"].files, report.unfinished), (2, 1));
        assert!(killed.exists() && !ended.exists() && !forgotten.exists());
    }
}
