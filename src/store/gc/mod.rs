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
//! No result names what a stage that was stopped has left: items that are part of no result at all, and
//! rolling checkpoints. That stays for [`UNFINISHED`], unless [`GcPolicy::drop_unfinished`].

mod pictures;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use pictures::Pictures;
use rayon::prelude::*;
use serde::Serialize;

use super::{
    CheckpointName, Count, Digest, Fingerprint, ItemRecord, Keep, PictureName, Record, Root, Store,
    StoreError,
    adopt::SCRATCH,
    checkpoints::trajectory_of,
    read_json,
    stats::{files_below, hash_of},
};

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
    /// The stage's kind.
    pub kind: String,
    /// Its key.
    pub key: Fingerprint,
    /// Bytes of content that go with it; what another removed result had too counts once.
    pub bytes: u64,
    /// When it was last used, or made.
    pub used: String,
}

/// How long what a stage that has not ended has left is kept: a checkpoint of a training, an item.
const UNFINISHED: Duration = Duration::from_hours(30 * 24);

/// A result of the store and what it needs.
struct Candidate {
    record: Record,
    used: SystemTime,
    /// Its manifest and files, with their sizes.
    objects: BTreeMap<Digest, u64>,
    pinned: bool,
    kept: bool,
}

/// What stays.
#[derive(Default)]
struct Needed {
    keys: HashSet<Fingerprint>,
    objects: HashSet<Digest>,
    pictures: Pictures,
    /// The files of each record of a single item that can be read.
    items: HashMap<PathBuf, Vec<Digest>>,
    /// Items, and their bytes, that are kept for stages that have not ended.
    unfinished: Count,
    traces: HashSet<Fingerprint>,
    /// Whether some result read outside files, but does not say under which key these are known.
    all_traces: bool,
    /// Trajectories, with the steps at which kept trainings ended; all where that is not known.
    trajectories: HashMap<Fingerprint, Option<BTreeSet<u64>>>,
}

impl Store {
    /// Removes what the policy does not keep. Refused while a run uses the store, because a run
    /// writes content before the record that names it. Only to ask what would go takes no lock: it
    /// writes nothing, and a run makes the answer out of date in any case.
    pub fn gc(&self, policy: &GcPolicy) -> Result<GcReport, StoreError> {
        let _alone = if policy.dry_run { None } else { Some(self.exclusive()?) };
        // Read only now: a run that has just ended added to them.
        let roots = self.roots()?;
        let pins = self.pins()?;
        let mut candidates = self.candidates(policy, &roots, &pins.keys().copied().collect())?;
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
        self.sweep_all(&needed, policy, &mut report)?;
        if !policy.dry_run {
            for root in &roots {
                self.compact(root, &needed.keys)?;
            }
        }
        self.manifests.lock().expect("no panic while held").clear();
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

    fn needed(
        &self,
        candidates: &[Candidate],
        roots: &[Root],
        policy: &GcPolicy,
    ) -> Result<Needed, StoreError> {
        let mut needed = Needed::default();
        for Candidate { record, objects, .. } in candidates.iter().filter(|found| found.kept) {
            needed.keys.insert(record.fingerprint);
            needed.objects.extend(objects.keys());
            needed.pictures.show(record.output);
            needed.traces.extend(record.traced);
            needed.all_traces |= record.traced.is_none() && !record.ingredients.sources.is_empty();
            let Some(trajectory) = record.trajectory else { continue };
            let ends = needed.trajectories.entry(trajectory).or_insert(Some(BTreeSet::new()));
            match (record.reached, ends.as_mut()) {
                (Some(step), Some(ends)) => drop(ends.insert(step)),
                _ => *ends = None,
            }
        }
        for root in roots {
            needed.pictures.draw(root, &needed.keys);
        }
        self.need_items(&mut needed, candidates, policy)?;
        Ok(needed)
    }

    /// Which results of single items stay though no kept result has their files.
    fn need_items(
        &self,
        needed: &mut Needed,
        candidates: &[Candidate],
        policy: &GcPolicy,
    ) -> Result<(), StoreError> {
        let of_results: HashSet<Digest> =
            candidates.iter().flat_map(|found| found.objects.keys().copied()).collect();
        for (path, _) in files_below(&self.root.join("items"))? {
            let Some(record) = read_json::<ItemRecord>(&path)?.found() else { continue };
            let files: Vec<Digest> = record.files.values().map(|file| file.digest).collect();
            let made = modified(&path);
            // What was part of a result goes with it; the rest was left by a run that was stopped.
            let unfinished = !policy.drop_unfinished
                && is_younger(made, UNFINISHED)
                && !files.iter().all(|file| of_results.contains(file));
            if unfinished {
                let bytes =
                    record.files.values().filter(|file| !needed.objects.contains(&file.digest));
                needed.unfinished.add(bytes.map(|file| file.size).sum());
            }
            if unfinished || policy.min_age.is_some_and(|age| is_younger(made, age)) {
                needed.objects.extend(&files);
            }
            needed.items.insert(path, files);
        }
        Ok(())
    }

    fn sweep_all(
        &self,
        needed: &Needed,
        policy: &GcPolicy,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        let dry_run = policy.dry_run;
        self.sweep("actions", dry_run, report, |path| {
            hash_of(path).is_some_and(|key| needed.keys.contains(&key))
        })?;
        self.sweep("items", dry_run, report, |path| {
            let whole = |files: &Vec<_>| files.iter().all(|file| needed.objects.contains(file));
            needed.items.get(path).is_some_and(whole)
        })?;
        self.sweep("traces", dry_run, report, |path| {
            needed.all_traces || hash_of(path).is_some_and(|key| needed.traces.contains(&key))
        })?;
        let mut unfinished = HashSet::new();
        self.sweep("checkpoints", dry_run, report, |path| {
            let kept = needed.keeps_checkpoint(path, policy);
            if kept && is_rolling(path) {
                unfinished.extend(trajectory_of(path));
            }
            kept
        })?;
        report.unfinished = unfinished.len() as u64;
        self.sweep("tmp", dry_run, report, |_| false)?;
        if !dry_run {
            self.drop_work_folders();
        }
        self.sweep("pictures", dry_run, report, |path| {
            needed.pictures.has(path)
                || policy.min_age.is_some_and(|age| is_younger(modified(path), age))
        })?;
        let objects = files_below(&self.root.join("objects"))?;
        let is_needed = |path: &Path| hash_of(path).is_some_and(|d| needed.objects.contains(&d));
        for (_, size) in objects.iter().filter(|(path, _)| is_needed(path)) {
            report.kept.add(*size);
        }
        self.sweep("objects", dry_run, report, is_needed)
    }

    fn sweep(
        &self,
        folder: &'static str,
        dry_run: bool,
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
            removed.add(size);
            if !dry_run {
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

impl Needed {
    /// A training that was killed, or stopped, may go on from its rolling checkpoint; no record
    /// names it, since a record is written at the end.
    fn keeps_checkpoint(&self, path: &Path, policy: &GcPolicy) -> bool {
        if is_rolling(path) {
            return !policy.drop_unfinished && is_younger(modified(path), UNFINISHED);
        }
        if policy.drop_checkpoints {
            return false;
        }
        match trajectory_of(path).and_then(|trajectory| self.trajectories.get(&trajectory)) {
            None => false,
            Some(None) => true,
            Some(Some(ends)) => step_of(path).is_none_or(|step| ends.contains(&step)),
        }
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
        Removed {
            name: roots.iter().find_map(|root| root.name_of(key)),
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

fn is_rolling(path: &Path) -> bool {
    CheckpointName::of(path).is_some_and(|name| name.keep == Keep::Rolling)
}

/// The step of a checkpoint such as `final-00000100-aa.safetensors`.
fn step_of(path: &Path) -> Option<u64> {
    CheckpointName::of(path).filter(|name| name.keep == Keep::Final).map(|name| name.step)
}

#[cfg(test)]
mod tests;
