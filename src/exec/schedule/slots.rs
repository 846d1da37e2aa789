//! Which stage is called where: in the worker of a free slot, or in this process.

use std::collections::VecDeque;

use crate::{exec::job::Job, models::MODELS_KEPT, store::Digest};

/// What a stage computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The device: it is called in the worker of a slot, where there are slots.
    Device,
    /// The CPU alone: it is called in this process.
    Host,
}

/// Where stages can be called, and what is loaded there.
pub(super) struct SlotPool {
    slots: Vec<CallingProcess>,
    /// This process, and how many stages at most it calls at once beside the slots.
    here: CallingProcess,
    most_here: usize,
    /// Stages that were started so far.
    started: usize,
}

/// A process that calls stages.
#[derive(Default)]
struct CallingProcess {
    /// The stages that it calls now, by index.
    stages: Vec<usize>,
    /// The weights that it used last, the latest first.
    resident: VecDeque<Digest>,
    /// Which of all stages that were started was its last one.
    last: usize,
    /// Whether nothing is called there any more.
    is_retired: bool,
}

impl CallingProcess {
    fn is_free(&self) -> bool {
        self.stages.is_empty() && !self.is_retired
    }

    fn start(&mut self, stage: usize, weights: Option<Digest>, number: usize) {
        self.stages.push(stage);
        self.last = number;
        let Some(weights) = weights else { return };
        self.resident.retain(|other| *other != weights);
        self.resident.push_front(weights);
        self.resident.truncate(MODELS_KEPT);
    }
}

impl SlotPool {
    /// For so many stages at once in all. Those that need no slot leave one stage for each slot,
    /// unless the run has nothing for them.
    pub(super) fn new(slots: usize, threads: usize, has_device_work: bool) -> Self {
        let process = std::iter::repeat_with(CallingProcess::default);
        let left = if has_device_work { slots } else { 0 };
        let most_here = threads.saturating_sub(left).max(1);
        Self {
            slots: process.take(slots).collect(),
            here: CallingProcess::default(),
            most_here,
            started: 0,
        }
    }

    /// Whether a stage can be started there.
    pub(super) fn is_free(&self, target: Target) -> bool {
        if self.slots.is_empty() {
            // Only the number of threads limits these.
            return true;
        }
        match target {
            Target::Device => self.slots.iter().any(CallingProcess::is_free),
            Target::Host => self.here.stages.len() < self.most_here,
        }
    }

    /// The weights that are loaded where a stage could be started, the latest first.
    pub(super) fn loaded(&self) -> Vec<Option<Digest>> {
        if self.slots.is_empty() {
            return vec![self.here.resident.front().copied()];
        }
        let mut free: Vec<&CallingProcess> =
            self.slots.iter().filter(|slot| slot.is_free()).collect();
        free.sort_by_key(|slot| std::cmp::Reverse(slot.last));
        free.into_iter().flat_map(|slot| &slot.resident).copied().map(Some).collect()
    }

    /// Starts a stage: one that computes on the device in the free slot that has its weights
    /// loaded, else in the one that has the fewest, of those the one that was used longest ago.
    pub(super) fn start(
        &mut self,
        stage: usize,
        target: Target,
        weights: Option<Digest>,
    ) -> Option<usize> {
        self.started += 1;
        let has =
            |slot: &CallingProcess| weights.is_some_and(|weights| slot.resident.contains(&weights));
        let free = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| target == Target::Device && slot.is_free());
        let best = free.min_by_key(|(_, slot)| (!has(slot), slot.resident.len(), slot.last));
        let slot = best.map(|(index, _)| index);
        let number = self.started;
        self.process(slot).start(stage, weights, number);
        slot
    }

    /// A stage is over, or somebody else computes it.
    pub(super) fn end(&mut self, job: &Job) {
        self.process(job.slot).stages.retain(|stage| *stage != job.index);
    }

    /// The worker that called a stage has died: a new one loads what that needs, and no more.
    pub(super) fn worker_replaced(&mut self, stage: usize) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.stages.contains(&stage)) {
            slot.resident.truncate(1);
        }
    }

    /// Has nothing called any more in a slot, unless it is the last one that is left; says whether
    /// that is so.
    pub(super) fn retire(&mut self, slot: usize) -> bool {
        let is_left =
            self.slots.iter().enumerate().any(|(i, other)| i != slot && !other.is_retired);
        self.slots[slot].is_retired |= is_left;
        is_left
    }

    fn process(&mut self, slot: Option<usize>) -> &mut CallingProcess {
        slot.map_or(&mut self.here, |slot| &mut self.slots[slot])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    impl SlotPool {
        /// Starts a stage on the device, if it can be.
        fn try_start(&mut self, name: &str) -> Option<usize> {
            self.is_free(Target::Device)
                .then(|| self.start(0, Target::Device, Some(weights(name))))
                .flatten()
        }

        fn free(&mut self, slot: usize) {
            self.slots[slot].stages.clear();
        }
    }

    #[test]
    fn a_slot_calls_one_stage_at_a_time_and_keeps_its_model() {
        let mut pool = SlotPool::new(2, 4, true);
        assert_eq!((pool.try_start("a"), pool.try_start("a")), (Some(0), Some(1)));
        assert!(!pool.is_free(Target::Device) && pool.loaded().is_empty());
        pool.free(0);
        assert_eq!(pool.try_start("b"), Some(0));
        pool.free(1);
        pool.free(0);
        assert_eq!(pool.loaded(), ["b", "a", "a"].map(|name| Some(weights(name))));
        assert_eq!(pool.try_start("a"), Some(1), "it has the fewest that has it");
        assert_eq!(pool.try_start("a"), Some(0), "rather than wait");
    }

    #[test]
    fn a_worker_in_the_place_of_a_dead_one_has_loaded_what_it_was_given() {
        let mut pool = SlotPool::new(1, 1, true);
        pool.try_start("a");
        pool.free(0);
        pool.try_start("b");
        pool.worker_replaced(0);
        pool.free(0);
        assert_eq!(pool.loaded(), [Some(weights("b"))]);
    }

    #[test]
    fn a_slot_that_is_retired_is_given_nothing_and_the_last_one_stays() {
        let mut slots = SlotPool::new(2, 2, true);
        assert_eq!(slots.try_start("a"), Some(0));
        slots.free(0);
        assert!(slots.retire(0));
        assert_eq!((slots.try_start("a"), slots.try_start("a")), (Some(1), None));
        slots.free(1);
        assert!(!slots.retire(1), "somebody has to say what is wrong");
        assert_eq!(slots.try_start("b"), Some(1));
    }

    #[test]
    fn a_model_that_is_loaded_nowhere_goes_where_the_fewest_are() {
        let mut pool = SlotPool::new(3, 3, true);
        for (name, slot) in [("a", 0), ("b", 1)] {
            assert_eq!(pool.try_start(name), Some(slot));
        }
        pool.free(0);
        pool.free(1);
        assert_eq!(pool.try_start("c"), Some(2));
        assert_eq!(pool.try_start("d"), Some(0), "used longest ago");
    }

    #[test]
    fn what_needs_no_slot_leaves_room_for_those_that_do() {
        let mut pool = SlotPool::new(2, 5, true);
        for _ in 0..3 {
            assert!(pool.is_free(Target::Host));
            assert_eq!(pool.start(1, Target::Host, None), None);
        }
        assert!(!pool.is_free(Target::Host) && pool.is_free(Target::Device));
        assert_eq!(pool.try_start("a"), Some(0));
        let alone = SlotPool::new(4, 2, true);
        assert!(alone.is_free(Target::Host), "but one of them can always be started");
        let mut idle = SlotPool::new(2, 2, false);
        assert_eq!(idle.start(1, Target::Host, None), None);
        assert!(idle.is_free(Target::Host), "nobody waits for the slots");
    }

    #[test]
    fn without_slots_all_is_called_here() {
        let mut pool = SlotPool::new(0, 1, true);
        assert_eq!(pool.loaded(), [None]);
        assert_eq!(pool.start(0, Target::Device, Some(weights("a"))), None);
        assert_eq!(pool.start(1, Target::Device, None), None);
        assert_eq!(pool.loaded(), [Some(weights("a"))]);
        assert!(pool.is_free(Target::Device));
    }
}
