//! Content by digest: written once, read with a check, never changed.
//!
//! An object's modification time is set to one second after the epoch. Whoever changes the file
//! afterwards, sets another. Then, and after a copy of the folder that kept no times, the object is
//! hashed once more and either gets its time back or counts as damaged.

mod check;

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Digest, Store, StoreError,
    atomic_write::{in_folder, persist},
};
use crate::{artifact::FileRef, sync::Unpoisoned};
pub(super) use check::twice;

fn untouched() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1)
}

/// What became of content that this process wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It was written.
    Once,
    /// It was found gone.
    Lost,
    /// It was written once more.
    Again,
}

impl Store {
    /// Adds bytes and returns their address.
    pub fn put(&self, bytes: &[u8]) -> Result<FileRef, StoreError> {
        let file = FileRef { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let path = self.object_path(file.digest);
        // With the bytes at hand, damage that no look at the metadata shows is made good.
        let is_there = || fs::read(&path).is_ok_and(|found| found == bytes);
        if self.object_ok(file.digest, Some(file.size)) && is_there() {
            return Ok(file);
        }
        let failed = |e| StoreError::io(&path, e);
        let mut temp = super::scratch(&self.root.join("tmp")).map_err(failed)?;
        temp.write_all(bytes).map_err(failed)?;
        self.place(temp, file.digest)?;
        Ok(file)
    }

    /// Begins content that is written piece by piece, being larger than what memory should hold.
    pub fn begin(&self) -> Result<NewObject<'_>, StoreError> {
        let path = self.root.join("tmp");
        let temp = super::scratch(&path).map_err(|e| StoreError::io(&path, e))?;
        Ok(NewObject { store: self, temp, hasher: blake3::Hasher::new(), size: 0 })
    }

    /// Adds content that another store holds, or this one, and checks it on the way.
    pub fn take_over(&self, from: &Self, file: &FileRef) -> Result<(), StoreError> {
        let damaged = || StoreError::Damaged { digest: file.digest };
        if self.root == from.root {
            return if self.is_intact(file.digest)? { Ok(()) } else { Err(damaged()) };
        }
        let path = from.object_path(file.digest);
        let mut reader = match twice(|| fs::File::open(&path)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged()),
            opened => opened.map_err(|e| StoreError::content(&path, e))?,
        };
        let mut object = self.begin()?;
        let mut piece = vec![0; 1 << 20];
        loop {
            match reader.read(&mut piece).map_err(|e| StoreError::content(&path, e))? {
                0 => break,
                len => object.write(&piece[..len])?,
            }
        }
        if Digest::from(object.hasher.finalize()) == file.digest {
            object.finish().map(drop)
        } else {
            Err(damaged())
        }
    }

    /// Makes a file that holds the content of `digest` an object.
    pub(super) fn place(
        &self,
        temp: tempfile::NamedTempFile,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let permissions = self.permissions(&temp)?;
        self.seal(temp.as_file(), permissions, digest)?;
        let path = self.object_path(digest);
        persist(temp, &path).map_err(|e| StoreError::io(&path, e))?;
        self.note_written(digest);
        Ok(())
    }

    /// The same of a file of this disk by its path, which goes.
    pub(super) fn place_path(
        &self,
        file: &fs::File,
        from: &Path,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let permissions = match self.permissions.get() {
            Some(known) => known.clone(),
            None => self.permissions(&self.begin()?.temp)?,
        };
        self.seal(file, permissions, digest)?;
        let path = self.object_path(digest);
        in_folder(&path, from, |from| fs::rename(from, &path).map_err(|e| (e, from)))
            .map_err(|e| StoreError::io(&path, e))?;
        self.note_written(digest);
        Ok(())
    }

    /// The permissions of a file that this process makes in the store, as this one.
    fn permissions(&self, made: &tempfile::NamedTempFile) -> Result<fs::Permissions, StoreError> {
        if let Some(known) = self.permissions.get() {
            return Ok(known.clone());
        }
        let found = made.as_file().metadata().map_err(|e| StoreError::io(made.path(), e))?;
        Ok(self.permissions.get_or_init(|| found.permissions()).clone())
    }

    /// Gives a file all that makes it an object but its name.
    fn seal(
        &self,
        file: &fs::File,
        mut permissions: fs::Permissions,
        digest: Digest,
    ) -> Result<(), StoreError> {
        let path = self.object_path(digest);
        let failed = |e| StoreError::io(&path, e);
        file.set_modified(untouched()).map_err(failed)?;
        permissions.set_readonly(true);
        file.set_permissions(permissions).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Notes content that this process wrote, or another one at its word.
    pub(crate) fn note_written(&self, digest: Digest) {
        let mut written = self.written.lock().unpoisoned();
        let what = written.entry(digest).or_insert(Written::Once);
        if *what == Written::Lost {
            *what = Written::Again;
        }
    }

    /// The file that holds an object.
    pub fn object_path(&self, digest: Digest) -> PathBuf {
        self.sharded("objects", &digest.to_string())
    }
}

/// Content that is being written; it is an object once it is finished.
pub struct NewObject<'a> {
    store: &'a Store,
    temp: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
    size: u64,
}

impl NewObject<'_> {
    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.temp.write_all(bytes).map_err(|e| StoreError::io(self.temp.path(), e))
    }

    /// Makes it an object and returns its address.
    pub fn finish(self) -> Result<FileRef, StoreError> {
        let Self { store, temp, hasher, size } = self;
        let file = FileRef { digest: hasher.finalize().into(), size };
        if !(store.object_ok(file.digest, Some(size))
            && store.is_intact(file.digest).unwrap_or(false))
        {
            store.place(temp, file.digest)?;
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests;
