//! What nobody needs any more, and its removal.
//!
//! A result is kept if a root names it: the present results of the pipelines that count
//! ([`Store::roots`]), what the caller names besides, and pins. With [`GcPolicy::min_age`], what is
//! younger stays too. If the rest is still larger than [`GcPolicy::max_bytes`], results that are
//! not pinned go as well, those first that were used least recently, of these the largest.
//!
//! All else follows from the results that are kept: objects, results of single items, traces, and
//! of the checkpoints those at which a kept training ended. What is lost can be computed again.
//!
//! No result names what a stage that was stopped has left: items that are part of no result at all,
//! and rolling checkpoints. That stays for [`UNFINISHED`](needed::UNFINISHED), unless
//! [`GcPolicy::drop_unfinished`]. Files of locks go that nobody holds.

mod needed;
mod pictures;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use needed::{Needed, is_rolling};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    Count, Digest, Fingerprint, PictureName, Record, Root, Store, StoreError,
    adopt::SCRATCH,
    checkpoints::trajectory_of,
    stats::{files_below, hash_of},
};
use crate::sync::Unpoisoned;

/// What may be removed.
#[derive(Clone, Debug, Default)]
pub struct GcPolicy {
    /// The files whose present results are kept; those of all that were run, if none are named.
    pub files: Option<Vec<PathBuf>>,
    /// Other results that are kept.
    pub keep: Vec<Fingerprint>,
    /// Nothing younger is removed because nobody names it.
    pub min_age: Option<Duration>,
    /// The most that results may take; least recently used ones go until they fit.
    pub max_bytes: Option<u64>,
    /// Whether the states go that trainings left for longer trainings.
    pub drop_checkpoints: bool,
    /// Whether that goes, too, from which stages would go on that were stopped.
    pub drop_unfinished: bool,
    /// Whether to say only what would be removed.
    pub dry_run: bool,
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// The results removed, the largest first.
    pub results: Vec<Removed>,
    /// Removed, by folder.
    pub removed: BTreeMap<&'static str, Count>,
    /// Objects kept.
    pub kept: Count,
    /// Results kept because they are pinned.
    pub pinned: usize,
    /// Trainings that have not ended, whose checkpoints are kept.
    pub unfinished: u64,
    /// Results of single items kept for stages that have not ended.
    pub unfinished_items: Count,
}

/// A result that is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// `pose_ablation: lora[n=10]`, where a history knows it.
    pub name: Option<String>,
    /// The names that others have for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// The stage's kind.
    pub kind: String,
    /// Its key.
    pub key: Fingerprint,
    /// Bytes of content that go with it; what another removed result had too counts once.
    pub bytes: u64,
    /// When it was last used, or made.
    pub used: String,
}

/// A result of the store and what it needs.
struct Candidate {
    record: Record,
    used: SystemTime,
    /// Its manifest and files, with their sizes.
    objects: BTreeMap<Digest, u64>,
    pinned: bool,
    kept: bool,
}

/// How files are removed.
struct Sweep<'a> {
    dry_run: bool,
    /// Asked before each. What is swept is in an order in which nothing is named that is gone.
    cancelled: &'a dyn Fn() -> bool,
}

impl Store {
    /// Removes what the policy does not keep. Refused while a run uses the store, because a run
    /// writes content before the record that names it. Ends early once `cancelled` says so. Only to
    /// ask what would go takes no lock: it writes nothing, and a run makes the answer out of date
    /// in any case.
    pub fn gc(
        &self,
        policy: &GcPolicy,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<GcReport, StoreError> {
        let _alone = if policy.dry_run { None } else { Some(self.exclusive(cancelled)?) };
        // Read only now: a run that has just ended added to them.
        let roots = self.roots()?;
        let pins = self.pinned()?;
        let mut candidates = self.candidates(policy, &roots, &pins)?;
        if let Some(most) = policy.max_bytes {
            shrink(&mut candidates, most);
        }
        let needed = self.needed(&candidates, &roots, policy)?;
        let mut report = GcReport {
            pinned: candidates.iter().filter(|candidate| candidate.pinned).count(),
            results: removed_results(&candidates, &needed, &roots),
            unfinished_items: needed.unfinished,
            ..GcReport::default()
        };
        self.sweep_all(&needed, policy, &mut report, cancelled)?;
        if !policy.dry_run {
            for root in &roots {
                self.compact(root, &needed.keys)?;
            }
            self.forget_gone_sources()?;
        }
        self.manifests.lock().unpoisoned().clear();
        Ok(report)
    }

    /// All results, those marked that are kept for what names them or for their age.
    fn candidates(
        &self,
        policy: &GcPolicy,
        roots: &[Root],
        pins: &HashSet<Fingerprint>,
    ) -> Result<Vec<Candidate>, StoreError> {
        let mut used: HashMap<Fingerprint, SystemTime> = HashMap::new();
        let counts = |root: &&Root| {
            policy.files.as_ref().is_none_or(|files| files.iter().any(|file| root.is_of(file)))
        };
        for root in roots.iter().filter(counts) {
            for key in &root.live {
                let latest = used.entry(*key).or_insert(root.used);
                *latest = root.used.max(*latest);
            }
        }
        let now = super::now();
        used.extend(policy.keep.iter().map(|key| (*key, now)));
        let candidate = |path: &Path, record: Record| -> Result<Candidate, StoreError> {
            let made = modified(path);
            let root = used.get(&record.fingerprint).copied();
            let pinned = pins.contains(&record.fingerprint);
            let young = policy.min_age.is_some_and(|age| is_younger(made, age));
            Ok(Candidate {
                objects: self.objects_of(&record)?,
                used: root.map_or(made, |root| root.max(made)),
                kept: root.is_some() || pinned || young,
                pinned,
                record,
            })
        };
        // What cannot be read may be needed, so nothing is removed then. Only a record that was cut
        // short is as good as none.
        let read = |(path, _): &(PathBuf, u64)| match self.lookup(hash_of(path)?) {
            Ok(record) => Some(candidate(path, record.found()?)),
            Err(error) => Some(Err(error)),
        };
        files_below(&self.root.join("actions"))?.par_iter().filter_map(read).collect()
    }

    /// What a result consists of: its list of items and their files, with their sizes.
    pub fn objects_of(&self, record: &Record) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let size = fs::metadata(self.object_path(record.output)).map_or(0, |found| found.len());
        let mut objects = BTreeMap::from([(record.output, size)]);
        match self.manifest(record.output) {
            Ok(manifest) => {
                objects.extend(manifest.files().map(|file| (file.digest, file.size)));
            }
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(objects)
    }

    fn sweep_all(
        &self,
        needed: &Needed,
        policy: &GcPolicy,
        report: &mut GcReport,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let dry_run = policy.dry_run;
        let how = Sweep { dry_run, cancelled };
        self.sweep("actions", &how, report, |path| {
            hash_of(path).is_some_and(|key| needed.keys.contains(&key))
        })?;
        self.sweep("items", &how, report, |path| {
            let whole = |files: &Vec<_>| files.iter().all(|file| needed.objects.contains(file));
            needed.items.get(path).is_some_and(whole)
        })?;
        self.sweep("traces", &how, report, |path| {
            needed.all_traces || hash_of(path).is_some_and(|key| needed.traces.contains(&key))
        })?;
        let mut unfinished = HashSet::new();
        self.sweep("checkpoints", &how, report, |path| {
            let kept = needed.keeps_checkpoint(path, policy);
            if kept && is_rolling(path) {
                unfinished.extend(trajectory_of(path));
            }
            kept
        })?;
        report.unfinished = unfinished.len() as u64;
        self.sweep("tmp", &how, report, |_| false)?;
        if !dry_run {
            self.drop_work_folders();
        }
        let locks = report.removed.entry("locks").or_default();
        self.sweep_locks(dry_run)?.into_iter().for_each(|size| locks.add(size));
        self.sweep("pictures", &how, report, |path| {
            needed.pictures.has(path)
                || policy.min_age.is_some_and(|age| is_younger(modified(path), age))
        })?;
        let objects = files_below(&self.root.join("objects"))?;
        let is_needed = |path: &Path| hash_of(path).is_some_and(|d| needed.objects.contains(&d));
        for (_, size) in objects.iter().filter(|(path, _)| is_needed(path)) {
            report.kept.add(*size);
        }
        self.sweep("objects", &how, report, is_needed)
    }

    fn sweep(
        &self,
        folder: &'static str,
        how: &Sweep<'_>,
        report: &mut GcReport,
        mut wanted: impl FnMut(&Path) -> bool,
    ) -> Result<(), StoreError> {
        let removed = report.removed.entry(folder).or_default();
        let root = self.root.join(folder);
        for (path, size) in files_below(&root)? {
            let below = path.strip_prefix(&root).unwrap_or(&path);
            if !is_ours(folder, below) || wanted(&path) {
                continue;
            }
            if (how.cancelled)() {
                return Err(StoreError::Cancelled);
            }
            removed.add(size);
            if !how.dry_run {
                fs::remove_file(&path).map_err(|e| StoreError::io(&path, e))?;
                if matches!(folder, "checkpoints" | "pictures") {
                    // Fails while others are in it.
                    let _ = path.parent().map(fs::remove_dir);
                }
            }
        }
        Ok(())
    }
}

/// Gives up results until what is kept has at most `most` bytes.
fn shrink(candidates: &mut [Candidate], most: u64) {
    let mut users: HashMap<Digest, (u64, u64)> = HashMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.kept) {
        for (digest, size) in &candidate.objects {
            users.entry(*digest).or_insert((0, *size)).0 += 1;
        }
    }
    let mut total: u64 = users.values().map(|(_, size)| size).sum();
    let size = |candidate: &Candidate| candidate.objects.values().sum::<u64>();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| {
        let candidate = &candidates[*index];
        (candidate.used, std::cmp::Reverse(size(candidate)), candidate.record.fingerprint)
    });
    for index in order {
        let candidate = &mut candidates[index];
        if total <= most || candidate.pinned || !candidate.kept {
            continue;
        }
        candidate.kept = false;
        for digest in candidate.objects.keys() {
            let (users, size) = users.get_mut(digest).expect("counted above");
            *users -= 1;
            if *users == 0 {
                total -= *size;
            }
        }
    }
}

fn removed_results(candidates: &[Candidate], needed: &Needed, roots: &[Root]) -> Vec<Removed> {
    let mut counted = HashSet::new();
    let removed = candidates.iter().filter(|candidate| !candidate.kept).map(|candidate| {
        let key = candidate.record.fingerprint;
        let own = candidate
            .objects
            .iter()
            .filter(|(digest, _)| !needed.objects.contains(*digest) && counted.insert(**digest));
        let used = jiff::Timestamp::try_from(candidate.used).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let mut names = Root::names_among(roots, key).into_iter();
        Removed {
            name: names.next(),
            others: names.collect(),
            kind: candidate.record.ingredients.kind.clone(),
            bytes: own.map(|(_, size)| size).sum(),
            used: used.to_string(),
            key,
        }
    });
    let mut removed: Vec<_> = removed.collect();
    removed.sort_by(|a, b| (b.bytes, &a.name, a.key).cmp(&(a.bytes, &b.name, b.key)));
    removed
}

/// When a file was written; now where the file system does not tell.
fn modified(path: &Path) -> SystemTime {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.unwrap_or_else(|_| super::now())
}

/// A time in the future is young, too: clocks jump.
fn is_younger(time: SystemTime, age: Duration) -> bool {
    time.elapsed().map_or(true, |elapsed| elapsed < age)
}

/// Whether a file, by its path in a folder of the store, has a name that the store gives.
fn is_ours(folder: &str, below: &Path) -> bool {
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    match (folder, &*parts) {
        ("tmp", [name, ..]) => name.starts_with(SCRATCH),
        ("pictures", [_, _]) => PictureName::of(below).is_some(),
        ("checkpoints", [trajectory, _]) => trajectory.parse::<Fingerprint>().is_ok(),
        (_, [shard, rest]) => {
            shard.len() == 2 && format!("{shard}{rest}").parse::<Digest>().is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
