//! A store that many use at once, or one alone.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{Holder, Lease, Timing, Watch, nonce, read};
use crate::store::StoreError;

/// Leases of those who use a store, and of one who wants it alone.
#[derive(Debug)]
pub(in crate::store) struct Uses {
    folder: PathBuf,
    timing: Timing,
}

impl Uses {
    pub(in crate::store) fn new(folder: PathBuf, timing: Timing) -> Self {
        Self { folder, timing }
    }

    fn alone_path(&self) -> PathBuf {
        self.folder.join("alone.lease")
    }

    /// Joins those who use the store, once nobody has it alone; `wait` is called as long as
    /// somebody has.
    pub(in crate::store) fn join(
        &self,
        wait: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<Lease, StoreError> {
        let path = self.folder.join(format!("use-{}.lease", nonce()));
        let lease = Lease::take(&path, self.timing)?;
        let lease = lease.ok_or_else(|| StoreError::Busy { path: path.clone() })?;
        let mut watch = Watch::default();
        while watch.look(&self.alone_path(), self.timing).is_some() {
            wait()?;
        }
        Ok(lease)
    }

    /// Takes the store alone; `None` if somebody uses it. Leases whose holders do not count are
    /// watched before that, all at once, until it is certain that these are dead; `wait` is called
    /// with one of them in the meantime. Nobody else has to wait for this.
    pub(in crate::store) fn alone(
        &self,
        wait: &mut dyn FnMut(&Holder) -> Result<(), StoreError>,
    ) -> Result<Option<Lease>, StoreError> {
        if !self.bury_dead(wait)? {
            return Ok(None);
        }
        let lease = Lease::take(&self.alone_path(), self.timing)?;
        // Who has joined before it was there may not have seen it.
        Ok(lease.filter(|_| self.users().is_ok_and(|users| users.is_empty())))
    }

    /// Moves the leases away whose holders are dead; false once one counts.
    fn bury_dead(
        &self,
        wait: &mut dyn FnMut(&Holder) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let count = |path: &Path| read(path).map(|(count, _)| count);
        let mut watched: HashMap<PathBuf, (Watch, Option<u64>)> = HashMap::new();
        loop {
            let mut left = None;
            for path in self.users()?.into_iter().chain([self.alone_path()]) {
                let new = || (Watch::default(), count(&path));
                let (watch, first) = watched.entry(path.clone()).or_insert_with(new);
                let Some(holder) = watch.look(&path, self.timing) else { continue };
                if count(&path) != *first {
                    return Ok(false);
                }
                left.get_or_insert(holder);
            }
            match left {
                Some(holder) => wait(&holder)?,
                None => return Ok(true),
            }
            std::thread::sleep(self.timing.beat / 4);
        }
    }

    fn users(&self) -> Result<Vec<PathBuf>, StoreError> {
        let failed = |e| StoreError::read(&self.folder, e);
        let entries = fs::read_dir(&self.folder).map_err(failed)?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_use = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("use-") && path.extension().is_some_and(|end| end == "lease")
        };
        Ok(paths.filter(is_use).collect())
    }
}
