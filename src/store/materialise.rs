//! Content as ordinary files outside the store.
//!
//! A file shares its blocks with the object where the file system can do that (reflink, as on Btrfs,
//! XFS and APFS), and is a copy elsewhere. It is never a hard link: that would be the object itself
//! under a second name, and its mode bits stop neither `chmod` nor root, so that whoever edits the
//! export would edit the cache.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use serde::Serialize;

use tempfile::TempDir;

use super::{
    Digest, Store, StoreError,
    adopt::SCRATCH,
    aside::{folder_of, scratch},
    stat_cache::hash_file,
};
use crate::{artifact::FileRef, regular};

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
    /// Puts content at `path`, in one step and with the user's own permissions, and checks it there.
    pub fn materialise(&self, file: &FileRef, path: &Path) -> Result<Transfer, StoreError> {
        let object = match File::open(self.object_path(file.digest)) {
            Ok(object) => object,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Damaged { digest: file.digest });
            }
            Err(e) => return Err(StoreError::io(&self.object_path(file.digest), e)),
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
    /// Adds the content of a file from outside, without holding it in memory.
    pub fn put_file(&self, path: &Path) -> Result<FileRef, StoreError> {
        let outside = |source| StoreError::Io { path: path.to_owned(), source };
        let source = regular::open(path).map_err(outside)?;
        let tmp = self.root.join("tmp");
        let failed = |e| StoreError::io(&tmp, e);
        let mut temp = scratch(&tmp).map_err(failed)?;
        transfer(&source, temp.as_file_mut()).map_err(failed)?;
        let digest = hash_file(temp.path()).map_err(failed)?;
        let size = temp.as_file().metadata().map_err(failed)?.len();
        if !self.object_ok(digest, Some(size)) || !self.is_intact(digest)? {
            self.place(temp, digest)?;
        }
        Ok(FileRef { digest, size })
    }

    /// A folder for work, by its full path. It goes when it is dropped, or with `gc` if this process was
    /// killed.
    pub fn work_folder(&self) -> Result<TempDir, StoreError> {
        let tmp = self.root.join("tmp");
        let failed = |e| StoreError::io(&tmp, e);
        let full = std::path::absolute(&tmp).map_err(failed)?;
        tempfile::Builder::new()
            .prefix(&format!("{SCRATCH}-work-"))
            .tempdir_in(full)
            .map_err(failed)
    }

    /// Removes folders for work whose process was killed; no run may be using the store.
    pub(super) fn drop_work_folders(&self) {
        for entry in fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&format!("{SCRATCH}-work-")) {
                // What cannot be removed is left to the next time.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
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
    fn a_file_from_outside_becomes_the_object_that_its_bytes_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "content").unwrap();
        let file = store.put_file(&path).unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
        assert_eq!(store.put(b"content").unwrap(), file);
        // Damage is made good.
        let object = store.object_path(file.digest);
        fs::remove_file(&object).unwrap();
        fs::write(&object, "damaged").unwrap();
        assert_eq!(store.put_file(&path).unwrap(), file);
        assert_eq!(store.read(&file).unwrap(), b"content");
        assert_eq!(fs::read_dir(dir.path().join("cache/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_for_work_that_was_left_goes_with_gc() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let gone = store.work_folder().unwrap().path().to_owned();
        assert!(gone.is_absolute() && !gone.exists());
        let left = store.work_folder().unwrap().keep();
        fs::create_dir_all(left.join("in/input")).unwrap();
        fs::write(left.join("in/input/a"), "1").unwrap();
        store.gc(&crate::store::GcPolicy::default()).unwrap();
        assert!(!left.exists());
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
