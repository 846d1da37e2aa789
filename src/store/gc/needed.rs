//! What stays for the results that are kept, and of stages that have not ended.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Candidate, GcPolicy, is_younger, modified, pictures::Pictures};
use crate::store::{
    CheckpointName, Count, Digest, Fingerprint, Keep, Root, Store, StoreError,
    checkpoints::trajectory_of,
    stats::{files_below, hash_of},
};

/// How long what a stage that has not ended has left is kept: a checkpoint of a training, an item.
pub(super) const UNFINISHED: Duration = Duration::from_hours(30 * 24);

/// What stays.
#[derive(Default)]
pub(super) struct Needed {
    pub(super) keys: HashSet<Fingerprint>,
    pub(super) objects: HashSet<Digest>,
    pub(super) pictures: Pictures,
    /// The files of each record of a single item that can be read and is believed.
    pub(super) items: HashMap<PathBuf, Vec<Digest>>,
    /// Items, and their bytes, that are kept for stages that have not ended.
    pub(super) unfinished: Count,
    pub(super) traces: HashSet<Fingerprint>,
    /// Whether some result read outside files, but does not say under which key these are known.
    pub(super) all_traces: bool,
    /// Trajectories, with the steps at which kept trainings ended; all where that is not known.
    pub(super) trajectories: HashMap<Fingerprint, Option<BTreeSet<u64>>>,
}

impl Store {
    pub(super) fn needed(
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
            let Some(key) = hash_of(&path) else { continue };
            let Some(record) = self.item(key)?.found() else { continue };
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
}

impl Needed {
    /// A training that was killed, or stopped, may go on from its rolling checkpoint; no record
    /// names it, since a record is written at the end.
    pub(super) fn keeps_checkpoint(&self, path: &Path, policy: &GcPolicy) -> bool {
        // Older versions began their files here. One that is still being written has its run,
        // beside which nothing is collected.
        if CheckpointName::of(path).is_none() {
            return false;
        }
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

pub(super) fn is_rolling(path: &Path) -> bool {
    CheckpointName::of(path).is_some_and(|name| name.keep == Keep::Rolling)
}

/// The step of a checkpoint such as `final-00000100-aa.safetensors`.
fn step_of(path: &Path) -> Option<u64> {
    CheckpointName::of(path).filter(|name| name.keep == Keep::Final).map(|name| name.step)
}
