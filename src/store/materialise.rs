//! Content as ordinary files outside the store.
//!
//! A file shares its blocks with the object where the file system can do that (reflink, as on
//! Btrfs, XFS and APFS), and is a copy elsewhere. It is never a hard link: that would be the object
//! itself under a second name, and its mode bits stop neither `chmod` nor root, so that whoever
//! edits the export would edit the cache.

use std::{
    fs::{self, File},
    io::{self, Seek},
    path::Path,
};

use serde::Serialize;

use super::{
    Digest, Store, StoreError,
    atomic_write::{folder_of, scratch},
    stat_cache::hash_open,
};
use crate::{artifact::FileRef, regular_file};

/// How a file came out of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transfer {
    /// It shares its blocks with the store until one of both is changed.
    Reflink,
    /// Its bytes were written anew.
    Copy,
}

impl Store {
    /// Puts content at `path`, in one step and with the user's own permissions, and checks it
    /// there.
    pub fn materialise(&self, file: &FileRef, path: &Path) -> Result<Transfer, StoreError> {
        let object = match File::open(self.object_path(file.digest)) {
            Ok(object) => object,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Damaged { digest: file.digest });
            }
            Err(e) => return Err(StoreError::content(&self.object_path(file.digest), e)),
        };
        // Not one of the store's own errors, whose remedies are about the cache.
        let failed = |source| StoreError::Io { path: path.to_owned(), source };
        let folder = folder_of(path);
        fs::create_dir_all(folder).map_err(failed)?;
        let mut temp = scratch(folder).map_err(failed)?;
        let how = transfer(&object, temp.as_file_mut()).map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        let mut written = File::open(temp.path()).map_err(failed)?;
        io::copy(&mut written, &mut hasher).map_err(failed)?;
        if Digest::from(hasher.finalize()) != file.digest {
            return Err(StoreError::Damaged { digest: file.digest });
        }
        temp.persist(path).map_err(|error| failed(error.error))?;
        Ok(how)
    }
}

impl Store {
    /// Adds a file that lies in a folder for work, and that nobody writes to any more, without
    /// holding it in memory. It becomes the object where that can be, since a copy would take the
    /// space twice.
    pub fn take_in(&self, path: &Path) -> Result<FileRef, StoreError> {
        let failed = |e| StoreError::io(path, e);
        let source = regular_file::open(path).map_err(failed)?;
        let (digest, metadata) = (hash_open(&source).map_err(failed)?, source.metadata());
        let metadata = metadata.map_err(failed)?;
        let file = FileRef { digest, size: metadata.len() };
        if self.object_ok(digest, Some(file.size)) && self.is_intact(digest).unwrap_or(false) {
            return Ok(file);
        }
        if has_one_name(&metadata) {
            self.place_path(&source, path, digest)?;
        } else {
            let mut temp = scratch(&self.root.join("tmp")).map_err(failed)?;
            (&mut &source).rewind().map_err(failed)?;
            transfer(&source, temp.as_file_mut()).map_err(failed)?;
            self.place(temp, digest)?;
        }
        Ok(file)
    }
}

/// Whether a file can be reached by its path alone, as far as that is known.
fn has_one_name(metadata: &fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::nlink(metadata) == 1
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// Whether this content lies at `path`.
pub(crate) fn holds(path: &Path, file: &FileRef) -> io::Result<bool> {
    let there = regular_file::open(path)?;
    Ok(there.metadata()?.len() == file.size && hash_open(&there)? == file.digest)
}

/// Puts a file from outside the store at `path` in one step, as [`Store::materialise`] does with
/// content.
pub(crate) fn copy_aside(from: &Path, path: &Path) -> io::Result<Transfer> {
    let source = regular_file::open(from)?;
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut temp = scratch(folder)?;
    let how = transfer(&source, temp.as_file_mut())?;
    temp.persist(path).map_err(|error| error.error)?;
    Ok(how)
}

fn transfer(mut object: &File, to: &mut File) -> io::Result<Transfer> {
    if reflink_copy::reflink_file(object, to).is_ok() {
        return Ok(Transfer::Reflink);
    }
    to.set_len(0)?;
    io::copy(&mut object, to)?;
    Ok(Transfer::Copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_a_folder_for_work_becomes_the_object_that_its_bytes_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let work = store.work_folder().unwrap();
        let path = work.path().join("file");
        fs::write(&path, "content").unwrap();
        let file = store.take_in(&path).unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
        assert_eq!(store.put(b"content").unwrap(), file);
        let object = store.object_path(file.digest);
        let made = fs::metadata(&object).unwrap().permissions();
        let other = store.put(b"other").unwrap();
        assert_eq!(made, fs::metadata(store.object_path(other.digest)).unwrap().permissions());
        // Damage is made good; a file with a second name is copied.
        fs::remove_file(&object).unwrap();
        fs::write(&object, "damaged").unwrap();
        fs::write(&path, "content").unwrap();
        fs::hard_link(&path, work.path().join("second")).unwrap();
        assert_eq!(store.take_in(&path).unwrap(), file);
        fs::write(&path, "CONTENT").unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
        drop(work);
        assert_eq!(fs::read_dir(dir.path().join("cache/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_outside_is_the_users_own() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let file = store.put(b"content").unwrap();
        let path = dir.path().join("out/a.txt");
        for _ in 0..2 {
            // Also over what is there already.
            store.materialise(&file, &path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"content");
        }
        assert!(!fs::metadata(&path).unwrap().permissions().readonly());
        fs::write(&path, "edited").unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn damaged_content_goes_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let file = store.put(b"content").unwrap();
        let object = store.object_path(file.digest);
        fs::remove_file(&object).unwrap();
        let path = dir.path().join("a.txt");
        for damage in [None, Some("c0ntent")] {
            if let Some(bytes) = damage {
                fs::write(&object, bytes).unwrap();
            }
            let error = store.materialise(&file, &path).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(!path.exists());
        }
    }
}
