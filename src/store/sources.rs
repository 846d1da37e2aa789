//! Files read from outside the store, such as a data set, and what was read of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Mutex,
};

use super::{
    Digest, Store, StoreError,
    stat_cache::{Limit, NotHashed},
};
use crate::{regular_file, sync::Unpoisoned};

/// Reads files below one folder and remembers which, so that their content enters the key.
///
/// A name with a `/` at its end stands for the listing of that folder; a file that was looked for
/// and is not there is remembered too, since the result would differ if it were.
#[derive(Debug)]
pub struct SourceReader {
    root: PathBuf,
    read: Mutex<BTreeMap<String, Digest>>,
}

impl SourceReader {
    /// A reader of the folder `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), read: Mutex::default() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads the file at `path` below the folder.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.read_at_most(path, u64::MAX)
    }

    /// The same of a file that must not have more than `most` bytes.
    pub fn read_at_most(&self, path: &str, most: u64) -> Result<Vec<u8>, StoreError> {
        let full = self.below(path)?;
        match regular_file::read_at_most(&full, most) {
            Ok(bytes) => {
                self.note(path.to_owned(), Digest::of(&bytes));
                Ok(bytes)
            }
            Err(e) => {
                if e.kind() == io::ErrorKind::NotFound {
                    self.note(path.to_owned(), missing());
                }
                Err(source_error(&full, e))
            }
        }
    }

    /// Opens the file at `path` below the folder for a look at its head. It is not remembered:
    /// whoever goes by what he sees reads the file.
    pub fn open(&self, path: &str) -> Result<fs::File, StoreError> {
        let full = self.below(path)?;
        regular_file::open(&full).map_err(|e| source_error(&full, e))
    }

    /// The names in the folder at `path`, sorted; folders end in `/`.
    pub fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let full = self.below(path)?;
        match names_in(&full) {
            Ok(names) => {
                self.note(listing(path), digest_of_names(&names));
                Ok(names)
            }
            Err(e) => {
                if e.kind() == io::ErrorKind::NotFound {
                    self.note(listing(path), missing());
                }
                Err(source_error(&full, e))
            }
        }
    }

    /// A path below the folder. Lists of a data set name files, and a foreign one may name others
    /// of this machine.
    fn below(&self, path: &str) -> Result<PathBuf, StoreError> {
        if is_below(path) {
            return Ok(self.root.join(path));
        }
        let message = "it does not lie below the folder of the data";
        Err(source_error(Path::new(path), io::Error::new(io::ErrorKind::InvalidInput, message)))
    }

    /// What was read so far, with its content.
    pub fn ingredients(&self) -> BTreeMap<String, Digest> {
        self.read.lock().unpoisoned().clone()
    }

    fn note(&self, path: String, digest: Digest) {
        self.read.lock().unpoisoned().insert(path, digest);
    }
}

impl Store {
    /// The content that `paths` have now: what a [`SourceReader`] would remember of reading them.
    /// Files whose size, times and inode are known are not read again.
    pub fn digest_sources(
        &self,
        root: &Path,
        paths: &[String],
    ) -> Result<BTreeMap<String, Digest>, StoreError> {
        // Without a limit, there always is one.
        Ok(self.digest_sources_within(root, paths, None)?.unwrap_or_default())
    }

    /// The same; nothing, if more than `most` bytes would have to be read for that.
    pub fn digest_sources_within(
        &self,
        root: &Path,
        paths: &[String],
        most: Option<u64>,
    ) -> Result<Option<BTreeMap<String, Digest>>, StoreError> {
        let root = std::path::absolute(root).map_err(|e| source_error(root, e))?;
        let mut limit = Limit { stopped: &|| self.is_stopped(), left: most };
        let mut digests = BTreeMap::new();
        for path in paths {
            let full = root.join(path);
            let found = if path.ends_with('/') {
                names_in(&full).map(|names| digest_of_names(&names)).map_err(NotHashed::Io)
            } else {
                self.stat_cache.digest(&full, &mut limit)
            };
            let digest = match found {
                Ok(digest) => digest,
                Err(NotHashed::Io(e)) if e.kind() == io::ErrorKind::NotFound => missing(),
                Err(NotHashed::Io(e)) => return Err(source_error(&full, e)),
                Err(NotHashed::Stopped) => return Err(StoreError::Cancelled),
                Err(NotHashed::Long) => return Ok(None),
            };
            digests.insert(path.clone(), digest);
        }
        Ok(Some(digests))
    }

    /// The content of one outside file, such as a model's weights, which is not read again while
    /// its size, times and inode are known. What is learnt is written now and then, and not only at
    /// the end: hashing tens of gigabytes again would cost more.
    pub fn digest_file(&self, path: &Path) -> io::Result<Digest> {
        let digest = self.digest_within(path, None)?;
        if self.stat_cache.is_due()
            && let Err(error) = self.save_stat_cache()
        {
            tracing::debug!("The hash of `{}` is not kept: {error}.", path.display());
        }
        Ok(digest)
    }

    /// The same where that takes no time to speak of: it is known, or the file is small.
    pub fn digest_file_at_hand(&self, path: &Path) -> io::Result<Digest> {
        const MOST: u64 = 1 << 20;
        self.digest_within(path, Some(MOST))
    }

    fn digest_within(&self, path: &Path, left: Option<u64>) -> io::Result<Digest> {
        let full = std::path::absolute(path)?;
        let mut limit = Limit { stopped: &|| self.is_stopped(), left };
        self.stat_cache.digest(&full, &mut limit).map_err(|error| match error {
            NotHashed::Io(error) => error,
            NotHashed::Stopped => io::Error::other("it was asked to stop"),
            NotHashed::Long => io::Error::other("it would have to be hashed"),
        })
    }

    /// Forgets the digests of outside files that are no longer there.
    pub(super) fn forget_gone_sources(&self) -> Result<(), StoreError> {
        self.stat_cache.forget_gone();
        self.save_stat_cache()
    }

    /// Writes the digests of outside files for the next run, if there are new ones and a cache.
    pub fn save_stat_cache(&self) -> Result<(), StoreError> {
        if !self.exists {
            return Ok(());
        }
        match self.stat_cache.changes() {
            Some(text) => self.write(self.stat_cache.path(), text.as_bytes()),
            None => Ok(()),
        }
    }
}

/// An outside file that may not be read is no fault of the cache.
fn source_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

/// Stands for a file that is not there.
fn missing() -> Digest {
    Digest::of(b"pipe: no such file")
}

/// Whether this is what a [`SourceReader`] remembers of a file that is not there.
pub fn is_missing(digest: Digest) -> bool {
    digest == missing()
}

/// The names in a folder that were not there when its list had the digest `old`, where that can be
/// told: of the names that are not `known` to have been there, those that came last.
pub fn names_before(folder: &Path, old: Digest, known: &BTreeSet<String>) -> Option<Vec<String>> {
    /// Bytes of names that are hashed at most.
    const WORK: usize = 16 << 20;
    let mut names = names_in(folder).ok()?;
    let came = |name: &String| {
        let metadata = fs::symlink_metadata(folder.join(name)).ok();
        (metadata.map(|metadata| changed(&metadata)), name.clone())
    };
    let new = names.iter().filter(|name| !known.contains(*name));
    let mut latest: Vec<_> = new.map(came).collect();
    latest.sort_by(|a, b| b.cmp(a));
    names.extend(known.iter().cloned());
    names.sort();
    names.dedup();
    let size: usize = names.iter().map(|name| name.len() + 3).sum();
    let mut added = Vec::new();
    let mut latest = latest.into_iter();
    for _ in 0..=WORK / size.max(1) {
        if digest_of_names(&names) == old {
            added.sort();
            return Some(added);
        }
        let (_, name) = latest.next()?;
        names.remove(names.binary_search(&name).ok()?);
        added.push(name);
    }
    None
}

/// When a file came to its place, or was last changed: to the nanosecond where that is known.
#[cfg(unix)]
fn changed(metadata: &fs::Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(metadata: &fs::Metadata) -> Option<std::time::SystemTime> {
    metadata.created().ok()
}

/// The name of a folder's listing; the root's is `./`.
fn listing(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" | "." => "./".to_owned(),
        path => format!("{path}/"),
    }
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A name that is changed to be readable would name another file, or none.
        let mut name = entry.file_name().into_string().map_err(|name| {
            #[expect(
                clippy::unnecessary_debug_formatting,
                reason = "it escapes the bytes that are no text"
            )]
            let message = format!("the name {name:?} in it is not Unicode");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        // Links to folders are folders too; only they need a second look.
        let kind = entry.file_type()?;
        if kind.is_dir() || kind.is_symlink() && entry.path().is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}

fn digest_of_names(names: &[String]) -> Digest {
    Digest::of(&serde_json::to_vec(names).expect("a list of strings is valid JSON"))
}

/// Whether a path stays below the folder that it is meant from.
pub fn is_below(path: &str) -> bool {
    let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    Path::new(path).components().all(stays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_digested_again_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("images")).unwrap();
        fs::write(data.join("images/1.png"), "one").unwrap();
        fs::write(data.join("list.txt"), "1").unwrap();
        let reader = SourceReader::new(&data);
        assert_eq!(reader.list("").unwrap(), ["images/", "list.txt"]);
        assert_eq!(reader.list("images").unwrap(), ["1.png"]);
        assert_eq!(reader.read("images/1.png").unwrap(), b"one");
        assert!(reader.read("masks/1.png").is_err());
        for outside in ["../data/list.txt", "/etc/hostname", "images/../../x"] {
            let error = reader.read(outside).unwrap_err().to_string();
            assert!(error.contains("does not lie below"), "{error}");
            assert!(reader.list(outside).is_err());
        }
        let seen = reader.ingredients();
        let paths: Vec<_> = seen.keys().cloned().collect();
        assert_eq!(paths, ["./", "images/", "images/1.png", "masks/1.png"]);

        let store = Store::open(&dir.path().join("cache")).unwrap();
        assert_eq!(store.digest_sources(&data, &paths).unwrap(), seen);
        let changed = || {
            let now = store.digest_sources(&data, &paths).unwrap();
            paths.iter().filter(|path| now[*path] != seen[*path]).cloned().collect::<Vec<_>>()
        };
        fs::write(data.join("list.txt"), "not read, so not looked at").unwrap();
        assert!(changed().is_empty());
        fs::write(data.join("images/1.png"), "uno").unwrap();
        assert_eq!(changed(), ["images/1.png"]);
        fs::write(data.join("images/2.png"), "two").unwrap();
        assert_eq!(changed(), ["images/", "images/1.png"]);
    }

    #[test]
    fn the_names_that_came_are_found_by_the_digest_of_those_that_were_there() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(dir.path().join(name), name).unwrap();
        for name in ["a", "b", "c"] {
            write(name);
        }
        let old = digest_of_names(&names_in(dir.path()).unwrap());
        let came = |known: &[&str]| {
            let known = known.iter().map(|name| (*name).to_owned()).collect();
            names_before(dir.path(), old, &known)
        };
        assert_eq!(came(&[]), Some(vec![]));
        // So that no file system's clock gives both the same time.
        std::thread::sleep(std::time::Duration::from_millis(50));
        write("bb");
        write("0");
        assert_eq!(came(&[]), Some(vec!["0".to_owned(), "bb".to_owned()]));
        fs::remove_file(dir.path().join("a")).unwrap();
        assert_eq!(came(&["a"]), Some(vec!["0".to_owned(), "bb".to_owned()]));
        // Nobody knows what went.
        assert_eq!(came(&[]), None);
        // It came again, and was there.
        write("a");
        assert_eq!(came(&["a"]), Some(vec!["0".to_owned(), "bb".to_owned()]));
    }
}
