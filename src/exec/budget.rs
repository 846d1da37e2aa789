//! Which stages may run at once by the memory they take together.

use std::collections::HashMap;

use crate::plan::MemoryPlan;

/// What must be free before a stage starts, models of others that stay loaded included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The need of each instance.
    needs: Vec<u64>,
    /// What runs, with its need.
    running: HashMap<usize, u64>,
}

impl Budget {
    /// The budget of a run, by what its stages are estimated to need.
    pub(super) fn new(limit: Option<u64>, memory: &MemoryPlan<'_>, instances: usize) -> Self {
        let need = |index| memory.of(index).map_or(0, |memory| memory.total());
        let needs = limit.map(|_| (0..instances).map(need).collect()).unwrap_or_default();
        Self { limit, needs, running: HashMap::new() }
    }

    /// Whether an instance fits beside those that run.
    pub(super) fn has_room(&self, index: usize) -> bool {
        let Some(limit) = self.limit else { return true };
        let need = self.needs[index];
        need == 0 || self.running.is_empty() || self.taken() + need <= limit
    }

    /// Starts an instance. If it takes memory, gives what all that run need then, and what there is.
    pub(super) fn start(&mut self, index: usize) -> Option<Room> {
        let limit = self.limit?;
        let need = self.needs[index];
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

    fn budget(limit: Option<u64>) -> Budget {
        Budget { limit, needs: vec![60, 30, 30, 0, 200], running: HashMap::new() }
    }

    #[test]
    fn stages_run_at_once_as_far_as_they_fit_together() {
        let mut budget = budget(Some(100));
        assert_eq!(budget.start(0), Some(Room { needed: 60, limit: 100 }));
        assert!(budget.has_room(1));
        assert_eq!(budget.start(1), Some(Room { needed: 90, limit: 100 }));
        assert_eq!(budget.start(3), None, "it takes no memory");
        assert!(!budget.has_room(2) && budget.has_room(3));
        budget.end(0);
        assert!(budget.has_room(2));
    }

    #[test]
    fn a_stage_alone_always_starts() {
        let mut budget = budget(Some(100));
        assert!(budget.has_room(4));
        budget.start(4);
        assert!(!budget.has_room(1));
        budget.end(4);
        assert!(budget.has_room(1));
    }

    #[test]
    fn nothing_waits_where_the_memory_is_not_known() {
        let mut budget = budget(None);
        assert_eq!(budget.start(4), None);
        assert!(budget.has_room(4));
    }
}
