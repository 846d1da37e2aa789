//! The stages that must run, found by index, by model and by lock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::job::Job;
use crate::store::{Digest, Fingerprint};

/// Jobs that wait for a thread.
#[derive(Default)]
pub(super) struct Queue {
    jobs: BTreeMap<usize, Job>,
    by_weights: HashMap<Option<Digest>, BTreeSet<usize>>,
    by_lock: HashMap<Fingerprint, BTreeSet<usize>>,
}

impl Queue {
    pub(super) fn push(&mut self, job: Job) {
        self.by_weights.entry(job.key.ingredients.weights).or_default().insert(job.index);
        self.by_lock.entry(job.key.lock()).or_default().insert(job.index);
        self.jobs.insert(job.index, job);
    }

    /// Takes the first job whose lock is free and that there is room for; one that uses weights
    /// that are `loaded` goes before others, so that a model is loaded once for all stages that
    /// need it.
    pub(super) fn pop(
        &mut self,
        loaded: &[Option<Digest>],
        busy: &HashSet<Fingerprint>,
        has_room: &dyn Fn(&Job) -> bool,
    ) -> Option<Job> {
        let free = |index: &usize| {
            let job = &self.jobs[index];
            !busy.contains(&job.key.lock()) && has_room(job)
        };
        let mut same_model = loaded.iter().filter_map(|weights| self.by_weights.get(weights));
        let same_model = same_model.find_map(|jobs| jobs.iter().copied().find(free));
        let index = same_model.or_else(|| self.jobs.keys().copied().find(free))?;
        self.remove(index)
    }

    /// Takes all jobs with a lock.
    pub(super) fn take_locked(&mut self, lock: Fingerprint) -> Vec<usize> {
        let indices: Vec<_> = self.by_lock.get(&lock).into_iter().flatten().copied().collect();
        for index in &indices {
            self.remove(*index);
        }
        indices
    }

    fn remove(&mut self, index: usize) -> Option<Job> {
        let job = self.jobs.remove(&index)?;
        remove_from(&mut self.by_weights, &job.key.ingredients.weights, index);
        remove_from(&mut self.by_lock, &job.key.lock(), index);
        Some(job)
    }
}

fn remove_from<K: std::hash::Hash + Eq>(
    sets: &mut HashMap<K, BTreeSet<usize>>,
    key: &K,
    index: usize,
) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&index);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Key, store::Ingredients};

    fn job(index: usize, weights: &str, lock: &str) -> Job {
        let ingredients = Ingredients {
            kind: "toy".into(),
            version: 1,
            output_format: 1,
            params: serde_json::Map::new(),
            inputs: BTreeMap::new(),
            weights: Some(Digest::of(weights.as_bytes())),
            sources: BTreeMap::new(),
        };
        let direct = Fingerprint::of(lock.as_bytes());
        let key = Key { ingredients, direct, trajectory: None };
        let reasons = Vec::new();
        let (cause, before, room, slot, wait) = (None, None, None, None, None);
        Job { index, key, reasons, cause, forced: false, before, need: 0, room, slot, wait }
    }

    #[test]
    fn stages_of_one_model_follow_each_other() {
        let mut queue = Queue::default();
        for (index, weights) in ["a", "b", "a", "b"].into_iter().enumerate() {
            queue.push(job(index, weights, &index.to_string()));
        }
        let mut loaded = None;
        let mut order = Vec::new();
        while let Some(job) = queue.pop(&[loaded], &HashSet::new(), &|_| true) {
            loaded = job.key.ingredients.weights;
            order.push(job.index);
        }
        assert_eq!(order, [0, 2, 1, 3]);
    }

    #[test]
    fn what_there_is_no_room_for_lets_others_go_first() {
        let mut queue = Queue::default();
        for index in 0..3 {
            queue.push(job(index, "a", &index.to_string()));
        }
        let popped = queue.pop(&[None], &HashSet::new(), &|job| job.index == 2);
        assert_eq!(popped.map(|job| job.index), Some(2));
        assert!(queue.pop(&[None], &HashSet::new(), &|_| false).is_none());
    }

    #[test]
    fn a_key_that_is_computed_is_not_started_again() {
        let mut queue = Queue::default();
        queue.push(job(0, "a", "x"));
        queue.push(job(1, "a", "y"));
        queue.push(job(2, "a", "x"));
        let lock = Fingerprint::of(b"x");
        let busy = HashSet::from([lock]);
        assert_eq!(queue.pop(&[None], &busy, &|_| true).map(|job| job.index), Some(1));
        assert!(queue.pop(&[None], &busy, &|_| true).is_none());
        assert_eq!(queue.take_locked(lock), [0, 2]);
        assert!(queue.pop(&[None], &HashSet::new(), &|_| true).is_none());
    }
}
