//! Content by digest: written once, read with a check, never changed.
//!
//! An object's modification time is set to one second after the epoch. Whoever changes the file
//! afterwards, sets another. Then, and after a copy of the folder that kept no times, the object is
//! hashed once more and either gets its time back or counts as damaged.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rayon::prelude::*;

use super::{Digest, Store, StoreError, stat_cache::hash_file};
use crate::artifact::FileRef;

fn untouched() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1)
}

/// Reads something, and once more if that failed: a file server may be away for a moment. What cannot be read
/// even then may be whole all the same, so nobody removes it for that; but who has the content at hand writes it
/// anew.
pub(super) fn twice<T>(read: impl Fn() -> io::Result<T>) -> io::Result<T> {
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
        temp.persist(&path).map_err(|e| StoreError::io(&path, e.error))?;
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
        fs::rename(from, &path).map_err(|e| StoreError::io(&path, e))?;
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

    /// Gives a file all that makes it an object but its name, and makes the folder of that.
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
        file.sync_all().map_err(failed)?;
        fs::create_dir_all(path.parent().expect("an object lies in a folder")).map_err(failed)
    }

    /// Notes content that this process wrote, or another one at its word.
    pub(crate) fn note_written(&self, digest: Digest) {
        let mut written = self.written.lock().expect("no panic while held");
        let what = written.entry(digest).or_insert(Written::Once);
        if *what == Written::Lost {
            *what = Written::Again;
        }
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

    /// Reads all content of an artifact, and removes what is damaged, so that it can be made again; gives
    /// how much is damaged or gone.
    ///
    /// Content that this process wrote is no more removed but an error, as is that which is gone once more.
    /// So whoever has things made again for as long as something is damaged comes to an end.
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
        if let Some(written) = self.written.lock().expect("no panic while held").get_mut(&digest) {
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

    /// Whether content is there and is what its digest says. Read piece by piece: weights are large.
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
mod tests {
    use super::*;
    use crate::artifact::{ArtifactKind, Item, Manifest};

    fn overwrite(store: &Store, file: &FileRef, bytes: &[u8]) {
        let path = store.object_path(file.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn content_written_in_pieces_is_that_written_at_once() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [store, other] = [0, 1].map(|index| Store::open(dirs[index].path()).unwrap());
        let whole = store.put(b"content").unwrap();
        for damaged in [false, true] {
            if damaged {
                overwrite(&store, &whole, b"c0ntent");
            }
            let mut object = store.begin().unwrap();
            object.write(b"con").unwrap();
            object.write(b"tent").unwrap();
            assert_eq!(object.finish().unwrap(), whole);
            assert_eq!(store.read(&whole).unwrap(), b"content");
        }
        drop(store.begin().unwrap());
        assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);

        other.take_over(&store, &whole).unwrap();
        assert_eq!(other.read(&whole).unwrap(), b"content");
        other.take_over(&other, &whole).unwrap();
        overwrite(&store, &whole, b"c0ntent");
        for into in [&store, &Store::open(tempfile::tempdir().unwrap().path()).unwrap()] {
            let error = into.take_over(&store, &whole);
            assert!(matches!(error, Err(StoreError::Damaged { .. })), "{error:?}");
        }
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
        // As a failing disk does it.
        overwrite(&store, &file, b"c0ntent");
        let path = store.object_path(file.digest);
        fs::File::open(path).and_then(|file| file.set_modified(untouched())).unwrap();
        assert!(store.object_ok(file.digest, Some(7)));
        store.put(b"content").unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
    }

    #[test]
    fn damage_is_dropped_until_it_is_in_what_was_written_here() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let items = ["one", "two", "three"].map(|name| Item {
            name: name.into(),
            files: [("file".to_owned(), store.put(name.as_bytes()).unwrap())].into(),
        });
        let files = items.each_ref().map(|item| item.files["file"]);
        let manifest =
            Manifest { kind: ArtifactKind::Files, format_version: 1, items: items.into() };
        let output = store.put_manifest(&manifest).unwrap();
        // As another process finds it.
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.drop_damaged(output).unwrap(), 0);
        for file in &files[..2] {
            overwrite(&store, file, b"0ne");
        }
        assert_eq!(store.drop_damaged(output).unwrap(), 2);
        assert!(store.read(&files[2]).is_ok());
        for text in ["one", "two"] {
            store.put(text.as_bytes()).unwrap();
        }
        assert_eq!(store.drop_damaged(output).unwrap(), 0);
        overwrite(&store, &files[0], b"0ne");
        let error = store.drop_damaged(output).unwrap_err();
        assert!(matches!(error, StoreError::Unreliable { .. }), "{error}");
        assert!(error.help().unwrap().contains("PIPE_CACHE"));
    }

    #[test]
    fn what_was_written_here_and_is_gone_is_made_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"content").unwrap().digest;
        let remove = || fs::remove_file(store.object_path(digest)).unwrap();
        remove();
        // All who need it find it gone before it is there again.
        assert!(store.drop_if_damaged(digest).unwrap());
        assert!(store.drop_if_damaged(digest).unwrap());
        store.put(b"content").unwrap();
        assert!(!store.drop_if_damaged(digest).unwrap());
        remove();
        let error = store.drop_if_damaged(digest).unwrap_err();
        assert!(matches!(error, StoreError::Vanished { .. }), "{error}");
        assert!(error.help().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn what_a_disk_does_not_give_back_stays_until_it_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = store.put(b"content").unwrap();
        let path = store.object_path(file.digest);
        fs::remove_file(&path).unwrap();
        // As a disk fails: there is a name, and what it leads to cannot be read.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        for error in [store.read(&file).map(drop), store.drop_if_damaged(file.digest).map(drop)] {
            let error = error.unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
            assert!(error.help().unwrap().contains("pipe cache verify"));
        }
        assert!(path.symlink_metadata().is_ok(), "nothing is removed for that");
        let mut object = store.begin().unwrap();
        object.write(b"content").unwrap();
        object.finish().unwrap();
        assert_eq!(store.read(&file).unwrap(), b"content");
    }

    #[test]
    fn a_read_that_fails_for_a_moment_is_made_again() {
        let asked = std::cell::Cell::new(0);
        let read = || {
            asked.set(asked.get() + 1);
            if asked.get() == 1 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
        };
        twice(read).unwrap();
        assert_eq!(asked.get(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn what_may_not_be_read_is_told_so_and_stays() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = store.put(b"content").unwrap();
        let path = store.object_path(file.digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(&path).is_ok() {
            // Who may do everything is refused nothing.
            return;
        }
        for error in [store.read(&file).map(drop), store.drop_if_damaged(file.digest).map(drop)] {
            let error = error.unwrap_err();
            assert!(matches!(error, StoreError::NotReadable { .. }), "{error}");
        }
        assert!(path.exists());
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
