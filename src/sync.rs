//! Locks that outlive a panic.

use std::sync::{LockResult, PoisonError};

/// What is behind a lock, also after a thread has panicked that held it.
///
/// A panic in a stage, by a bug or by a device that failed, is caught and ends that stage alone, so
/// what others share with it must stay usable. It can be: what stands behind our locks is a map of
/// what is known, a queue, a sum or the like, and is changed by one insertion or removal, after all
/// that may panic. So the worst is that something is missing there, which is then looked up, read
/// or made once more.
pub(crate) trait Unpoisoned<T> {
    /// The guard, or the value.
    fn unpoisoned(self) -> T;
}

impl<T> Unpoisoned<T> for LockResult<T> {
    fn unpoisoned(self) -> T {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, panic::catch_unwind, sync::Mutex};

    use super::*;

    #[test]
    fn a_panic_while_a_lock_is_held_leaves_it_usable() {
        let known = Mutex::new(BTreeMap::from([("one", 1)]));
        let panicked = catch_unwind(|| {
            let _known = known.lock().unpoisoned();
            panic!("a stage fails");
        });
        assert!(panicked.is_err() && known.is_poisoned());
        known.lock().unpoisoned().insert("two", 2);
        assert_eq!(known.into_inner().unpoisoned().len(), 2);
    }
}
