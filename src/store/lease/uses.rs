//! A store that many use at once, or one alone.

use std::{fs, path::PathBuf};

use super::{Lease, Timing, Watch, nonce, read};
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

    fn alone(&self) -> PathBuf {
        self.folder.join("alone.lease")
    }

    /// Joins those who use the store, once nobody has it alone; `wait` is called as long as somebody has.
    pub(in crate::store) fn join(
        &self,
        wait: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<Lease, StoreError> {
        let path = self.folder.join(format!("use-{}.lease", nonce()));
        let lease = Lease::take(&path, self.timing)?;
        let lease = lease.ok_or_else(|| StoreError::Busy { path: path.clone() })?;
        let mut watch = Watch::default();
        while watch.look(&self.alone(), self.timing).is_some() {
            wait()?;
        }
        Ok(lease)
    }

    /// Takes the store alone; `None` if somebody uses it. Leases whose holders do not count are
    /// watched until that is certain.
    pub(in crate::store) fn alone_now(&self) -> Result<Option<Lease>, StoreError> {
        let path = self.alone();
        let mut watch = Watch::default();
        if watch.look(&path, self.timing).is_some() {
            return Ok(None);
        }
        let Some(lease) = Lease::take(&path, self.timing)? else { return Ok(None) };
        for path in self.users()? {
            let (start, mut watch) = (read(&path), Watch::default());
            while watch.look(&path, self.timing).is_some() {
                if read(&path).map(|(count, _)| count) != start.as_ref().map(|(count, _)| *count) {
                    return Ok(None);
                }
                std::thread::sleep(self.timing.beat / 4);
            }
        }
        Ok(Some(lease))
    }

    fn users(&self) -> Result<Vec<PathBuf>, StoreError> {
        let failed = |e| StoreError::io(&self.folder, e);
        let entries = fs::read_dir(&self.folder).map_err(failed)?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_use = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("use-") && path.extension().is_some_and(|end| end == "lease")
        };
        Ok(paths.filter(is_use).collect())
    }
}
