//! Whether what is in the store is intact.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{
    CheckpointName, Digest, Fingerprint, ItemRecord, Lookup, PictureName, Record, Root, Store,
    StoreError, Trace,
    checkpoints::trajectory_of,
    read_json,
    record::unnamed,
    stats::{files_below, hash_of},
};

/// What a full check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VerifyReport {
    /// Objects read.
    pub objects: usize,
    /// Checkpoints of trainings read.
    pub checkpoints: usize,
    /// Pictures read.
    pub pictures: usize,
    /// The bytes of all these.
    pub bytes: u64,
    /// Records read.
    pub records: usize,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Results of which some content is gone.
    pub gone: Vec<Gone>,
    /// Histories of pipelines of which something cannot be read, by their paths below the store.
    #[serde(serialize_with = "all_shown")]
    #[schemars(with = "Vec<String>")]
    pub histories: Vec<PathBuf>,
}

/// A file of the store that was damaged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Damage {
    /// Its path below the store.
    #[serde(serialize_with = "shown")]
    #[schemars(with = "String")]
    pub file: PathBuf,
    /// The results that it is part of, as `pose_ablation: lora[n=10]`, where a history knows them.
    pub results: Vec<String>,
    /// Whether it is gone now. If not, nothing was to be removed, or the cache cannot be written,
    /// or it not read.
    pub removed: bool,
    /// Why it could not be read, if it could not. Then it may be whole, so it is not removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// A result of which some content is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Gone {
    /// Its name, as `pose_ablation: lora[n=10]`, where a history knows it.
    pub name: String,
    /// The names that others have for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Its key.
    pub key: Fingerprint,
    /// Whether some pipeline last gave it, so that a run of that makes it again.
    pub is_live: bool,
}

/// JSON has no other text than Unicode, and no path of the store's own has other bytes.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn all_shown<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

impl VerifyReport {
    /// Whether nothing is damaged or gone.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.gone.is_empty() && self.histories.is_empty()
    }
}

impl Damage {
    /// Whether it was a state of a training, which nothing is made again for.
    pub fn is_checkpoint(&self) -> bool {
        self.file.starts_with("checkpoints")
    }

    /// Whether it was a picture, which a run draws again.
    pub fn is_picture(&self) -> bool {
        self.file.starts_with("pictures")
    }
}

impl Store {
    /// Hashes every object, checkpoint and picture and reads every record; removes those that are
    /// damaged, unless it is a dry run or the store cannot be written.
    pub fn verify(&self, dry_run: bool) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        let (roots, unread) = self.roots_read()?;
        let damaged = roots.iter().filter(|root| root.is_damaged);
        let below =
            |root: &Root| root.path.strip_prefix(&self.root).unwrap_or(&root.path).to_owned();
        report.histories = damaged.map(below).collect();
        let known = self.readable_records()?;
        report.gone = self.without_content(&known, &roots)?;
        // What a history that cannot be read says of it, nobody knows.
        report.gone.iter_mut().for_each(|gone| gone.is_live |= !unread.is_empty());
        let objects = self.damaged_objects(&mut report)?;
        let records = self.damaged_records(&mut report)?;
        // Before anything is removed: the lists of items say which results a file is part of.
        let owners = if objects.is_empty() { HashMap::new() } else { self.owners(&objects)? };
        let sweeper = Sweeper { store: self, roots: &roots, dry_run };
        for (path, digest) in objects {
            let keys = owners.get(&digest).map(Vec::as_slice).unwrap_or_default();
            let is_damaged = || Ok(!self.is_intact(digest)?);
            report.damaged.extend(sweeper.remove(&path, is_damaged, keys)?);
            self.forget_manifest(digest);
        }
        for (path, folder, key) in records {
            let is_damaged = || is_damaged(folder, &path, key);
            report.damaged.extend(sweeper.remove(&path, is_damaged, &[key])?);
        }
        for (path, trajectory) in self.damaged_checkpoints(&mut report)? {
            let along = known.iter().filter(|record| record.trajectory == Some(trajectory));
            let keys: Vec<_> = along.map(|record| record.fingerprint).collect();
            let is_of = || CheckpointName::of(&path).map_or(Ok(false), |name| name.is_of(&path));
            report.damaged.extend(sweeper.remove(&path, || is_wrong(&path, is_of()), &keys)?);
        }
        for (path, predictions) in self.damaged_pictures(&mut report)? {
            let shown = known.iter().filter(|record| record.output.short() == predictions);
            let keys: Vec<_> = shown.map(|record| record.fingerprint).collect();
            let is_of = || PictureName::of(&path).map_or(Ok(false), |name| name.is_of(&path));
            report.damaged.extend(sweeper.remove(&path, || is_wrong(&path, is_of()), &keys)?);
        }
        report.damaged.extend(unread.into_iter().map(|(path, error)| Damage {
            file: path.strip_prefix(&self.root).unwrap_or(&path).to_owned(),
            results: Vec::new(),
            removed: false,
            unread: Some(error.to_string()),
        }));
        report.damaged.sort();
        Ok(report)
    }

    fn damaged_objects(
        &self,
        report: &mut VerifyReport,
    ) -> Result<Vec<(PathBuf, Digest)>, StoreError> {
        let objects = files_below(&self.root.join("objects"))?;
        report.objects = objects.len();
        report.bytes += objects.iter().map(|(_, size)| size).sum::<u64>();
        let damaged = objects.into_par_iter().filter_map(|(path, _)| {
            let digest = hash_of::<Digest>(&path)?;
            match self.is_intact(digest) {
                Ok(true) => None,
                Ok(false) => Some(Ok((path, digest))),
                Err(error) if error.is_unread() => Some(Ok((path, digest))),
                Err(error) => Some(Err(error)),
            }
        });
        damaged.collect()
    }

    /// The checkpoints that are not what their names say, each with its trajectory.
    fn damaged_checkpoints(
        &self,
        report: &mut VerifyReport,
    ) -> Result<Vec<(PathBuf, Fingerprint)>, StoreError> {
        let files = files_below(&self.root.join("checkpoints"))?.into_iter();
        let named = files.filter_map(|(path, size)| {
            let (name, trajectory) = (CheckpointName::of(&path)?, trajectory_of(&path)?);
            Some((path, size, name, trajectory))
        });
        let checkpoints: Vec<_> = named.collect();
        report.checkpoints = checkpoints.len();
        report.bytes += checkpoints.iter().map(|(_, size, ..)| size).sum::<u64>();
        let damaged = checkpoints.into_par_iter().filter_map(|(path, _, name, trajectory)| {
            match is_wrong(&path, name.is_of(&path)) {
                Ok(false) => None,
                Ok(true) => Some(Ok((path, trajectory))),
                Err(error) if error.is_unread() => Some(Ok((path, trajectory))),
                Err(error) => Some(Err(error)),
            }
        });
        damaged.collect()
    }

    /// The pictures that are not what their names say, each with the digest of what it shows.
    fn damaged_pictures(
        &self,
        report: &mut VerifyReport,
    ) -> Result<Vec<(PathBuf, String)>, StoreError> {
        let mut damaged = Vec::new();
        for (path, size) in files_below(&self.root.join("pictures"))? {
            let Some(name) = PictureName::of(&path) else { continue };
            report.pictures += 1;
            report.bytes += size;
            if is_wrong(&path, name.is_of(&path)).or_else(counts)? {
                let predictions = name.predictions.unwrap_or_default().to_owned();
                damaged.push((path, predictions));
            }
        }
        Ok(damaged)
    }

    /// The records that can be read.
    fn readable_records(&self) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        for key in self.hashes_in("actions")? {
            match self.lookup(key) {
                Ok(record) => records.extend(record.found()),
                Err(error) if error.is_unread() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// The objects of a result, as far as its list of items can be read.
    fn objects_known(&self, record: &Record) -> Result<Vec<Digest>, StoreError> {
        match self.objects_of(record) {
            Ok(objects) => Ok(objects.into_keys().collect()),
            Err(error) if error.is_unread() => Ok(vec![record.output]),
            Err(error) => Err(error),
        }
    }

    /// The results of which some content is not here: their lists of items, or files that these
    /// name.
    fn without_content(&self, records: &[Record], roots: &[Root]) -> Result<Vec<Gone>, StoreError> {
        let is_here = |digest: &Digest| self.object_path(*digest).exists();
        let live: HashSet<Fingerprint> =
            roots.iter().flat_map(|root| &root.live).copied().collect();
        let mut gone = Vec::new();
        for record in records {
            // Of a list that cannot be read, nothing is known but that it is damaged.
            if is_here(&record.output) && self.objects_known(record)?.iter().all(is_here) {
                continue;
            }
            let key = record.fingerprint;
            let mut names = Root::names_among(roots, key).into_iter();
            let name = names.next().unwrap_or_else(|| unnamed(&record.ingredients.kind, key));
            gone.push(Gone { name, others: names.collect(), key, is_live: live.contains(&key) });
        }
        gone.sort();
        Ok(gone)
    }

    fn damaged_records(
        &self,
        report: &mut VerifyReport,
    ) -> Result<Vec<(PathBuf, &'static str, Fingerprint)>, StoreError> {
        let mut damaged = Vec::new();
        for folder in ["actions", "items", "traces"] {
            let records = files_below(&self.root.join(folder))?;
            report.records += records.len();
            for (path, _) in records {
                let Some(key) = hash_of::<Fingerprint>(&path) else { continue };
                if is_damaged(folder, &path, key).or_else(counts)? {
                    damaged.push((path, folder, key));
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
        for record in self.readable_records()? {
            for digest in self.objects_known(&record)?.into_iter().filter(|d| damaged.contains(d)) {
                owners.entry(digest).or_default().push(record.fingerprint);
            }
        }
        Ok(owners)
    }
}

/// What removes damaged files.
struct Sweeper<'a> {
    store: &'a Store,
    roots: &'a [Root],
    dry_run: bool,
}

impl Sweeper<'_> {
    /// Removes what was found damaged, unless a run has made it again, or dropped it, since it was
    /// looked at: much else was read in between.
    fn remove(
        &self,
        path: &Path,
        is_damaged: impl FnOnce() -> Result<bool, StoreError>,
        keys: &[Fingerprint],
    ) -> Result<Option<Damage>, StoreError> {
        let unread = match is_damaged() {
            Ok(false) => return Ok(None),
            Ok(true) => None,
            Err(error) if error.is_unread() => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        let stays = self.dry_run || unread.is_some();
        let removed = if stays { Ok(None) } else { super::remove(path).map(Some) };
        let removed = match removed {
            Ok(Some(false)) => return Ok(None),
            Ok(removed) => removed.is_some(),
            Err(StoreError::NotWritable { .. }) => false,
            Err(error) => return Err(error),
        };
        let names = keys.iter().flat_map(|key| self.roots.iter().filter_map(|r| r.name_of(*key)));
        let mut results: Vec<String> = names.collect();
        results.sort();
        results.dedup();
        let file = path.strip_prefix(&self.store.root).unwrap_or(path).to_owned();
        Ok(Some(Damage { file, results, removed, unread }))
    }
}

/// What cannot be read counts as damaged, until it is looked at once more.
fn counts(error: StoreError) -> Result<bool, StoreError> {
    if error.is_unread() { Ok(true) } else { Err(error) }
}

/// Whether a file is there and is not what it is called.
fn is_wrong(path: &Path, is_of: io::Result<bool>) -> Result<bool, StoreError> {
    match is_of {
        Ok(is_of) => Ok(!is_of),
        // A run has replaced it since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::content(path, error)),
    }
}

/// Whether a record has not the form that its folder is for. What vanishes meanwhile was removed,
/// not damaged.
fn is_damaged(folder: &str, path: &Path, key: Fingerprint) -> Result<bool, StoreError> {
    Ok(match folder {
        "actions" => match read_json::<Record>(path)? {
            Lookup::Found(record) => record.fingerprint != key,
            record => record.is_damaged(),
        },
        "items" => match read_json::<ItemRecord>(path)? {
            // What does not say of which key it is, nobody believes.
            Lookup::Found(record) => record.key.is_some_and(|found| found != key),
            record => record.is_damaged(),
        },
        _ => read_json::<Vec<Trace>>(path)?.is_damaged(),
    })
}

#[cfg(test)]
mod tests;
