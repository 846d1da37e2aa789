//! How much space is left, and how much of it something takes.

use std::{fs, io};

use super::{CheckpointName, Fingerprint, Record, Store, StoreError, stats::files_below};

impl Store {
    /// The bytes that may still be written to the disk of the cache; none where the system does not
    /// tell.
    #[cfg(unix)]
    pub fn free_space(&self) -> Option<u64> {
        // A cache that is not there yet will be on the disk of the folder it is made in.
        let root = std::path::absolute(&self.root).ok()?;
        let there = root.ancestors().find(|folder| folder.is_dir())?;
        let disk = nix::sys::statvfs::statvfs(there).ok()?;
        // Their types differ from system to system.
        #[allow(clippy::useless_conversion, reason = "they are 32 bits wide elsewhere")]
        let (blocks, size) = (u64::from(disk.blocks_available()), u64::from(disk.fragment_size()));
        blocks.checked_mul(size)
    }

    /// The bytes that may still be written to the disk of the cache; none where the system does not
    /// tell.
    #[cfg(not(unix))]
    pub fn free_space(&self) -> Option<u64> {
        None
    }

    /// Why no cache can be made in the folder; nothing where there is one, or one can be made. To
    /// find that out leaves nothing behind: the file that is tried has no name.
    pub fn obstacle(&self) -> Option<StoreError> {
        let failed = |source| StoreError::NotMade { path: self.root.clone(), source };
        if self.exists {
            return None;
        }
        let root = match std::path::absolute(&self.root) {
            Ok(root) => root,
            Err(error) => return Some(failed(error)),
        };
        let there = root.ancestors().find(|folder| folder.is_dir())?;
        match tempfile::tempfile_in(there) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                // A wrapped error names the file that was tried.
                let source = error.raw_os_error().map(io::Error::from_raw_os_error);
                Some(failed(source.unwrap_or_else(|| error.kind().into())))
            }
            _ => None,
        }
    }

    /// The bytes of a record's output; none if its list of items is gone.
    pub fn output_size(&self, record: &Record) -> Option<u64> {
        if !record.files.is_empty() {
            return Some(record.files.iter().map(|file| file.size).sum());
        }
        let list = fs::metadata(self.object_path(record.output)).ok()?.len();
        let manifest = self.manifest(record.output).ok()?;
        Some(list + manifest.files().map(|file| file.size).sum::<u64>())
    }

    /// The bytes of a checkpoint along a trajectory: of the largest, which is one that is whole.
    pub fn checkpoint_size(&self, trajectory: Fingerprint) -> Result<u64, StoreError> {
        let folder = self.root.join("checkpoints").join(trajectory.to_string());
        let files = files_below(&folder)?.into_iter();
        let whole = files.filter(|(path, _)| CheckpointName::of(path).is_some());
        Ok(whole.map(|(_, size)| size).max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_cache_has_some_space_and_not_more_than_it_can_have() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let free = store.free_space();
        assert!(!cfg!(unix) || free.is_some_and(|free| free > 0 && free < 1 << 60), "{free:?}");
    }
}
