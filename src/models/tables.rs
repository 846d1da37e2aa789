//! What a model makes of a size alone, shared by all models of the same weights.

use crate::sync::Unpoisoned;
use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex},
};

/// The last thing that was made for a size. A training builds its model anew at each step, and
/// sizes seldom change: without this, rotations would be made on the host at every step.
#[derive(Default)]
pub struct Tables(Mutex<Option<Kept>>);

struct Kept {
    size: Box<dyn Any + Send>,
    made: Arc<dyn Any + Send + Sync>,
}

impl Tables {
    /// What was made for this size, or is made now and kept instead of what was before.
    pub fn get<S, T>(&self, size: S, make: impl FnOnce(&S) -> T) -> Arc<T>
    where
        S: PartialEq + Send + 'static,
        T: Send + Sync + 'static,
    {
        let mut kept = self.0.lock().unpoisoned();
        let known = kept.as_ref().filter(|kept| kept.size.downcast_ref() == Some(&size));
        if let Some(made) = known.and_then(|kept| Arc::clone(&kept.made).downcast().ok()) {
            return made;
        }
        let made = Arc::new(make(&size));
        *kept = Some(Kept { size: Box::new(size), made: Arc::<T>::clone(&made) });
        made
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_made_once_for_a_size() {
        let tables = Tables::default();
        let made = |size: [usize; 2]| tables.get(size, |size| size.iter().sum::<usize>());
        let first = made([2, 3]);
        assert_eq!(*first, 5);
        assert!(Arc::ptr_eq(&first, &made([2, 3])));
        assert_eq!(*made([2, 4]), 6);
        assert!(!Arc::ptr_eq(&first, &made([2, 3])));
        // A size of another kind is another.
        assert_eq!(*tables.get(5u8, |_| "text"), "text");
    }
}
