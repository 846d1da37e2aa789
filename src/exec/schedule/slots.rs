//! Which stage is called where: in the worker of a free slot, or in this process.

use std::collections::VecDeque;

use crate::{exec::work::Job, store::Digest};

/// As many models of a kind as a worker keeps.
const RESIDENT: usize = 2;

/// Where stages can be called, and what is loaded there.
pub(super) struct Places {
    slots: Vec<Place>,
    /// This process, and how many stages at most it calls at once beside the slots.
    here: Place,
    most_here: usize,
    /// Stages that were started so far.
    started: usize,
}

/// A process that calls stages.
#[derive(Default)]
struct Place {
    /// The stages that it calls now, by index.
    stages: Vec<usize>,
    /// The weights that it used last, the latest first.
    resident: VecDeque<Digest>,
    /// Which of all stages that were started was its last one.
    last: usize,
}

impl Place {
    fn is_free(&self) -> bool {
        self.stages.is_empty()
    }

    fn start(&mut self, stage: usize, weights: Option<Digest>, number: usize) {
        self.stages.push(stage);
        self.last = number;
        let Some(weights) = weights else { return };
        self.resident.retain(|other| *other != weights);
        self.resident.push_front(weights);
        self.resident.truncate(RESIDENT);
    }
}

impl Places {
    /// Places for so many stages at once in all. Those that need no slot leave one stage for each slot, unless
    /// the run has nothing for them.
    pub(super) fn new(slots: usize, workers: usize, has_device_work: bool) -> Self {
        let place = std::iter::repeat_with(Place::default);
        let left = if has_device_work { slots } else { 0 };
        let most_here = workers.saturating_sub(left).max(1);
        Self { slots: place.take(slots).collect(), here: Place::default(), most_here, started: 0 }
    }

    /// Whether a stage can be started that computes on the device, or one that does not.
    pub(super) fn is_free(&self, on_device: bool) -> bool {
        if self.slots.is_empty() {
            // Only the number of workers limits these.
            return true;
        }
        if on_device {
            return self.slots.iter().any(Place::is_free);
        }
        self.here.stages.len() < self.most_here
    }

    /// The weights that are loaded where a stage could be started, the latest first.
    pub(super) fn loaded(&self) -> Vec<Option<Digest>> {
        if self.slots.is_empty() {
            return vec![self.here.resident.front().copied()];
        }
        let mut free: Vec<&Place> = self.slots.iter().filter(|slot| slot.is_free()).collect();
        free.sort_by_key(|slot| std::cmp::Reverse(slot.last));
        free.into_iter().flat_map(|slot| &slot.resident).copied().map(Some).collect()
    }

    /// Starts a stage: one that computes on the device in the free slot that has its weights loaded, else in the one
    /// that has the fewest, of those the one that was used longest ago.
    pub(super) fn start(
        &mut self,
        stage: usize,
        on_device: bool,
        weights: Option<Digest>,
    ) -> Option<usize> {
        self.started += 1;
        let has = |slot: &Place| weights.is_some_and(|weights| slot.resident.contains(&weights));
        let free = self.slots.iter().enumerate().filter(|(_, slot)| on_device && slot.is_free());
        let best = free.min_by_key(|(_, slot)| (!has(slot), slot.resident.len(), slot.last));
        let slot = best.map(|(index, _)| index);
        let number = self.started;
        self.place(slot).start(stage, weights, number);
        slot
    }

    /// A stage is over, or somebody else computes it.
    pub(super) fn end(&mut self, job: &Job) {
        self.place(job.slot).stages.retain(|stage| *stage != job.index);
    }

    /// The worker that called a stage has died: a new one loads what that needs, and no more.
    pub(super) fn is_new(&mut self, stage: usize) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.stages.contains(&stage)) {
            slot.resident.truncate(1);
        }
    }

    fn place(&mut self, slot: Option<usize>) -> &mut Place {
        slot.map_or(&mut self.here, |slot| &mut self.slots[slot])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    impl Places {
        /// Starts a stage on the device, if it can be.
        fn try_start(&mut self, name: &str) -> Option<usize> {
            self.is_free(true).then(|| self.start(0, true, Some(weights(name)))).flatten()
        }

        fn free(&mut self, slot: usize) {
            self.slots[slot].stages.clear();
        }
    }

    #[test]
    fn a_slot_calls_one_stage_at_a_time_and_keeps_its_model() {
        let mut places = Places::new(2, 4, true);
        assert_eq!((places.try_start("a"), places.try_start("a")), (Some(0), Some(1)));
        assert!(!places.is_free(true) && places.loaded().is_empty());
        places.free(0);
        assert_eq!(places.try_start("b"), Some(0));
        places.free(1);
        places.free(0);
        assert_eq!(places.loaded(), ["b", "a", "a"].map(|name| Some(weights(name))));
        assert_eq!(places.try_start("a"), Some(1), "it has the fewest that has it");
        assert_eq!(places.try_start("a"), Some(0), "rather than wait");
    }

    #[test]
    fn a_worker_in_the_place_of_a_dead_one_has_loaded_what_it_was_given() {
        let mut places = Places::new(1, 1, true);
        places.try_start("a");
        places.free(0);
        places.try_start("b");
        places.is_new(0);
        places.free(0);
        assert_eq!(places.loaded(), [Some(weights("b"))]);
    }

    #[test]
    fn a_model_that_is_loaded_nowhere_goes_where_the_fewest_are() {
        let mut places = Places::new(3, 3, true);
        for (name, slot) in [("a", 0), ("b", 1)] {
            assert_eq!(places.try_start(name), Some(slot));
        }
        places.free(0);
        places.free(1);
        assert_eq!(places.try_start("c"), Some(2));
        assert_eq!(places.try_start("d"), Some(0), "used longest ago");
    }

    #[test]
    fn what_needs_no_slot_leaves_room_for_those_that_do() {
        let mut places = Places::new(2, 5, true);
        for _ in 0..3 {
            assert!(places.is_free(false));
            assert_eq!(places.start(1, false, None), None);
        }
        assert!(!places.is_free(false) && places.is_free(true));
        assert_eq!(places.try_start("a"), Some(0));
        let alone = Places::new(4, 2, true);
        assert!(alone.is_free(false), "but one of them can always be started");
        let mut idle = Places::new(2, 2, false);
        assert_eq!(idle.start(1, false, None), None);
        assert!(idle.is_free(false), "nobody waits for the slots");
    }

    #[test]
    fn without_slots_all_is_called_here() {
        let mut places = Places::new(0, 1, true);
        assert_eq!(places.loaded(), [None]);
        assert_eq!(places.start(0, true, Some(weights("a"))), None);
        assert_eq!(places.start(1, true, None), None);
        assert_eq!(places.loaded(), [Some(weights("a"))]);
        assert!(places.is_free(true));
    }
}
