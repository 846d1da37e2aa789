//! Which stages may run at once by the memory they take together.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What must be free before a stage starts, models of others that stay loaded included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Room {
    /// The need of all stages that run.
    pub(super) needed: u64,
    /// All of the memory.
    pub(super) limit: u64,
}

/// The device's memory and what runs on it.
///
/// A stage that would not fit beside those that run waits for them. Alone it always starts: what
/// cannot fit at all was refused before the run, and an estimate must not stop a run that might do.
#[derive(Default)]
pub(super) struct Budget {
    /// All of the memory; without it, nothing waits.
    limit: Option<u64>,
    /// What runs, with its need.
    running: HashMap<usize, u64>,
}

impl Budget {
    /// The budget of a run.
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, running: HashMap::new() }
    }

    /// Whether an instance with this need fits beside those that run.
    pub(super) fn has_room(&self, need: u64) -> bool {
        let Some(limit) = self.limit else { return true };
        need == 0 || self.running.is_empty() || self.taken() + need <= limit
    }

    /// Starts an instance. If it takes memory, gives what all that run need then, and what there
    /// is.
    pub(super) fn start(&mut self, index: usize, need: u64) -> Option<Room> {
        let limit = self.limit?;
        self.running.insert(index, need);
        (need > 0).then_some(Room { needed: self.taken(), limit })
    }

    pub(super) fn end(&mut self, index: usize) {
        self.running.remove(&index);
    }

    fn taken(&self) -> u64 {
        self.running.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: [u64; 5] = [60, 30, 30, 0, 200];

    fn start(budget: &mut Budget, index: usize) -> Option<Room> {
        budget.start(index, NEEDS[index])
    }

    fn has_room(budget: &Budget, index: usize) -> bool {
        budget.has_room(NEEDS[index])
    }

    #[test]
    fn stages_run_at_once_as_far_as_they_fit_together() {
        let mut budget = Budget::new(Some(100));
        assert_eq!(start(&mut budget, 0), Some(Room { needed: 60, limit: 100 }));
        assert!(has_room(&budget, 1));
        assert_eq!(start(&mut budget, 1), Some(Room { needed: 90, limit: 100 }));
        assert_eq!(start(&mut budget, 3), None, "it takes no memory");
        assert!(!has_room(&budget, 2) && has_room(&budget, 3));
        budget.end(0);
        assert!(has_room(&budget, 2));
    }

    #[test]
    fn a_stage_alone_always_starts() {
        let mut budget = Budget::new(Some(100));
        assert!(has_room(&budget, 4));
        start(&mut budget, 4);
        assert!(!has_room(&budget, 1));
        budget.end(4);
        assert!(has_room(&budget, 1));
    }

    #[test]
    fn nothing_waits_where_the_memory_is_not_known() {
        let mut budget = Budget::new(None);
        assert_eq!(start(&mut budget, 4), None);
        assert!(has_room(&budget, 4));
    }
}
