//! Whether content is there and is what its digest says, and what becomes of it if not.

use std::{collections::BTreeSet, fs, io, time::Duration};

use rayon::prelude::*;

use super::{Written, untouched};
use crate::{
    artifact::FileRef,
    store::{Digest, Store, StoreError, remove, stat_cache::hash_file},
    sync::Unpoisoned,
};

/// Reads something, and once more if that failed: a file server may be away for a moment. What
/// cannot be read even then may be whole all the same, so nobody removes it for that; but who has
/// the content at hand writes it anew.
pub(in crate::store) fn twice<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    const PAUSE: Duration = Duration::from_millis(200);
    match read() {
        Err(e)
            if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
        {
            std::thread::sleep(PAUSE);
            read()
        }
        done => done,
    }
}

impl Store {
    /// Reads content and checks it against its digest.
    pub fn read(&self, file: &FileRef) -> Result<Vec<u8>, StoreError> {
        self.read_object(file.digest)
    }

    /// Removes content that is damaged, so that it can be made again.
    pub fn evict(&self, digest: Digest) -> Result<(), StoreError> {
        self.forget_manifest(digest);
        remove(&self.object_path(digest)).map(drop)
    }

    /// Reads all content of an artifact, and removes what is damaged, so that it can be made again;
    /// gives how much is damaged or gone.
    ///
    /// Content that this process wrote is no more removed but an error, as is that which is gone
    /// once more. So whoever has things made again for as long as something is damaged comes to an
    /// end.
    pub fn drop_damaged(&self, output: Digest) -> Result<usize, StoreError> {
        if self.drop_if_damaged(output)? {
            return Ok(1);
        }
        let files: BTreeSet<Digest> =
            self.manifest(output)?.files().map(|file| file.digest).collect();
        let dropped = files.into_par_iter().map(|digest| self.drop_if_damaged(digest));
        dropped
            .try_fold(|| 0, |sum, dropped| Ok(sum + usize::from(dropped?)))
            .try_reduce(|| 0, |a, b| Ok(a + b))
    }

    /// The same for one object; says whether it is damaged or gone.
    pub fn drop_if_damaged(&self, digest: Digest) -> Result<bool, StoreError> {
        let path = self.object_path(digest);
        let is_gone = match twice(|| hash_file(&path)) {
            Ok(found) if found == digest => return Ok(false),
            Ok(_) => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(StoreError::content(&path, e)),
        };
        if let Some(written) = self.written.lock().unpoisoned().get_mut(&digest) {
            match (is_gone, &written) {
                (false, _) => return Err(StoreError::Unreliable { path }),
                (true, Written::Again) => return Err(StoreError::Vanished { path }),
                // Somebody cleaned up.
                (true, Written::Once | Written::Lost) => *written = Written::Lost,
            }
        }
        // What cannot be removed cannot be made again, either.
        self.evict(digest).map_err(|_| StoreError::Damaged { digest })?;
        Ok(true)
    }

    /// Whether content is there and is what its digest says. Read piece by piece: weights are
    /// large.
    pub fn is_intact(&self, digest: Digest) -> Result<bool, StoreError> {
        let path = self.object_path(digest);
        match twice(|| hash_file(&path)) {
            Ok(found) => Ok(found == digest),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::content(&path, e)),
        }
    }

    /// Reads content by its digest alone, and checks it.
    pub fn read_object(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(digest);
        match twice(|| fs::read(&path)) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(bytes),
            Ok(_) => Err(StoreError::Damaged { digest }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::Damaged { digest }),
            Err(e) => Err(StoreError::content(&path, e)),
        }
    }

    /// Whether anything is there under a digest, be it what the digest says or not.
    pub fn is_there(&self, digest: Digest) -> bool {
        fs::symlink_metadata(self.object_path(digest)).is_ok()
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
        let intact = self.is_intact(digest).unwrap_or(false);
        if intact {
            // Only spares the next look; a file system without times is merely slower.
            let _ = fs::File::open(&path).and_then(|file| file.set_modified(untouched()));
        }
        intact
    }
}
