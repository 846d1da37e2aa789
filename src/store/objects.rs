//! Content by digest: written once, read with a check, never changed.
//!
//! An object's modification time is set to one second after the epoch. Whoever changes the file
//! afterwards, sets another. Then, and after a copy of the folder that kept no times, the object is
//! hashed once more and either gets its time back or counts as damaged.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{Digest, Store, StoreError};
use crate::artifact::FileRef;

fn untouched() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1)
}

impl Store {
    /// Adds bytes and returns their address.
    pub fn put(&self, bytes: &[u8]) -> Result<FileRef, StoreError> {
        let file = FileRef { digest: Digest::of(bytes), size: bytes.len() as u64 };
        if self.object_ok(file.digest, Some(file.size)) {
            return Ok(file);
        }
        let path = self.object_path(file.digest);
        let failed = |e| StoreError::io(&path, e);
        let mut temp = super::scratch(&self.root.join("tmp")).map_err(failed)?;
        temp.write_all(bytes).map_err(failed)?;
        self.seal(temp, file.digest)?;
        Ok(file)
    }

    /// Makes a file that holds the content of `digest` an object.
    pub(super) fn seal(
        &self,
        temp: tempfile::NamedTempFile,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let path = self.object_path(digest);
        let failed = |e| StoreError::io(&path, e);
        temp.as_file().set_modified(untouched()).map_err(failed)?;
        let mut permissions = temp.as_file().metadata().map_err(failed)?.permissions();
        permissions.set_readonly(true);
        temp.as_file().set_permissions(permissions).map_err(failed)?;
        temp.as_file().sync_all().map_err(failed)?;
        fs::create_dir_all(path.parent().expect("an object lies in a folder")).map_err(failed)?;
        temp.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Reads content and checks it against its digest.
    pub fn read(&self, file: &FileRef) -> Result<Vec<u8>, StoreError> {
        self.read_object(file.digest)
    }

    /// Removes content that is damaged, so that it can be made again.
    pub fn evict(&self, digest: Digest) -> Result<(), StoreError> {
        self.forget_manifest(digest);
        super::remove(&self.object_path(digest)).map(drop)
    }

    /// Reads content by its digest alone, and checks it.
    pub fn read_object(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(_) => Err(StoreError::Damaged { digest }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::Damaged { digest }),
            Err(e) => Err(StoreError::io(&path, e)),
        }
    }

    /// Whether content is there and, by its size, if that is known, and its time, untouched.
    pub fn object_ok(&self, digest: Digest, size: Option<u64>) -> bool {
        let path = self.object_path(digest);
        let Ok(metadata) = fs::metadata(&path) else { return false };
        if size.is_some_and(|size| size != metadata.len()) {
            return false;
        }
        if metadata.modified().is_ok_and(|time| time == untouched()) {
            return true;
        }
        let intact = self.read_object(digest).is_ok();
        if intact {
            // Only spares the next look; a file system without times is merely slower.
            let _ = fs::File::open(&path).and_then(|file| file.set_modified(untouched()));
        }
        intact
    }

    /// The file that holds an object.
    pub fn object_path(&self, digest: Digest) -> PathBuf {
        self.sharded("objects", &digest.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overwrite(store: &Store, file: &FileRef, bytes: &[u8]) {
        let path = store.object_path(file.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn a_flipped_byte_is_seen_without_reading_and_at_reading() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = store.put(b"content").unwrap();
        assert!(store.object_ok(file.digest, Some(7)));
        overwrite(&store, &file, b"c0ntent");
        assert!(!store.object_ok(file.digest, Some(7)));
        assert!(matches!(store.read(&file), Err(StoreError::Damaged { .. })));
        store.put(b"content").unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
    }

    #[test]
    fn a_copy_without_times_is_believed_after_one_hash() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = store.put(b"content").unwrap();
        overwrite(&store, &file, b"content");
        let time = || fs::metadata(store.object_path(file.digest)).unwrap().modified().unwrap();
        assert_ne!(time(), untouched());
        assert!(store.object_ok(file.digest, Some(7)));
        assert_eq!(time(), untouched());
    }
}
