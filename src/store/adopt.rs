//! Which folders become a cache: a cache by its `format` file, or a folder with nothing to lose.
//!
//! `gc` deletes, so a folder that holds something else is never taken for a cache. Where `format`
//! is empty or gone, as after a power cut, the records tell which formats the cache has seen:
//! sealed ones, of which none is newer than what is known here. Without any, nobody can say, and a
//! person has to.

use std::{fs, io, path::Path};

use super::{
    FORMAT_VERSION, Form, ItemRecord, Lookup, Record, Store, StoreError, read_json,
    stats::files_below,
};

/// What a folder may hold without being used: git's own, and that of a fresh file system.
const IGNORED: [&str; 2] = [".gitignore", "lost+found"];

/// How the names of files that are still being written begin.
pub(super) const SCRATCH: &str = ".tmp";

/// The folders that every cache has beside `tmp`; they are empty in one that was only begun.
pub(super) const FOLDERS: [&str; 7] =
    ["objects", "actions", "items", "traces", "history", "checkpoints", "locks"];
/// How many of them, the first, a cache that machines share has, too.
const SHARED: usize = 4;

/// The folders of a cache that machines share.
pub(crate) fn shared_folders() -> &'static [&'static str] {
    &FOLDERS[..SHARED]
}

/// How it is known that a folder is a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// By its file, which says this format.
    Format(u32),
    /// By its records; the file is to be written anew.
    Records,
}

impl Store {
    /// Refuses a folder that is neither a cache nor empty, or a newer cache; says how a cache is
    /// known.
    pub(super) fn check_format(root: &Path) -> Result<Option<Said>, StoreError> {
        if root.ancestors().find(|path| path.exists()).is_some_and(|path| !path.is_dir()) {
            return Err(StoreError::NotAFolder { path: root.to_owned() });
        }
        if let Some(text) = read_format(root)? {
            return known(root, &text).map(|format| Some(Said::Format(format)));
        }
        if nothing_to_lose(root)? {
            return Ok(None);
        }
        // Another process may have begun the cache between the two looks.
        match read_format(root)? {
            Some(text) => known(root, &text).map(|format| Some(Said::Format(format))),
            None if is_known_by_records(root)? => Ok(Some(Said::Records)),
            None => Err(no_cache(root)),
        }
    }
}

/// Whether all the records that can be read are of formats that are known here, and there are some.
fn is_known_by_records(root: &Path) -> Result<bool, StoreError> {
    fn count<T: Form>(root: &Path, folder: &str) -> Result<usize, StoreError> {
        let mut found = 0;
        for (path, _) in files_below(&root.join(folder))? {
            // A newer one is an error: nothing here may be changed by this version.
            if let Lookup::Found(_) = read_json::<T>(&path)? {
                found += 1;
            }
        }
        Ok(found)
    }
    if !shared_folders().iter().all(|name| root.join(name).is_dir()) {
        return Ok(false);
    }
    Ok(count::<Record>(root, "actions")? + count::<ItemRecord>(root, "items")? > 0)
}

fn known(root: &Path, text: &str) -> Result<u32, StoreError> {
    if is_shared(root) {
        return Err(StoreError::Shared { path: root.to_owned() });
    }
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT_VERSION => {
            Err(StoreError::Newer { path: root.join("format"), found })
        }
        Ok(found) => Ok(found),
        Err(_) => Err(no_cache(root)),
    }
}

/// Whether a cache is one that machines share: it has content or records, and none of the folders
/// that a machine's own has besides.
fn is_shared(root: &Path) -> bool {
    let has = |name: &&str| root.join(name).is_dir();
    let (shared, own) = FOLDERS.split_at(SHARED);
    shared.iter().any(has) && !own.iter().any(has) && !has(&"tmp")
}

/// Whether a folder is a cache of a machine's own.
pub(crate) fn is_own_cache(root: &Path) -> bool {
    root.join("format").is_file()
        && ["tmp", "history", "locks"].iter().all(|name| root.join(name).is_dir())
}

/// A folder with the folders of a cache most likely is one, and can be used again.
fn no_cache(root: &Path) -> StoreError {
    let path = root.to_owned();
    if ["objects", "actions", "items", "history"].iter().all(|name| root.join(name).is_dir()) {
        StoreError::FormatLost { path: path.join("format") }
    } else {
        StoreError::NotACache { path }
    }
}

/// What `format` says; none where it is gone, or empty as what a power cut left of it.
fn read_format(root: &Path) -> Result<Option<String>, StoreError> {
    let path = root.join("format");
    match fs::read(&path) {
        Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::read(&path, e)),
    }
}

/// Whether a folder is absent or empty, but for what the start of a cache may have left in it.
fn nothing_to_lose(root: &Path) -> Result<bool, StoreError> {
    let names = names(root)?;
    for name in names.iter().filter(|name| !IGNORED.contains(&name.as_str())) {
        let scratch = |name: &String| name.starts_with(SCRATCH);
        let path = root.join(name);
        let is_nothing = match name.as_str() {
            "tmp" => path.is_dir() && self::names(&path)?.iter().all(scratch),
            // The caller found it empty.
            "format" => true,
            "locks" => {
                let is_said = |name: &String| ["mode", "store"].contains(&name.as_str());
                path.is_dir() && self::names(&path)?.iter().all(is_said)
            }
            folder if FOLDERS.contains(&folder) => path.is_dir() && self::names(&path)?.is_empty(),
            _ => false,
        };
        if !is_nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::read(folder, e)),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<Result<_, _>>().map_err(|e| StoreError::read(folder, e))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{Fingerprint, Locks};

    #[test]
    fn a_folder_with_other_files_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        fs::write(dir.path().join("objects/teapot.obj"), "v 0 0 0").unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::NotACache { .. }), "{error}");
        assert_eq!(names(dir.path()).unwrap(), ["objects"]);
    }

    #[test]
    fn a_cache_whose_format_is_lost_or_damaged_is_used_again_once_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = Store::open(dir.path()).unwrap().put(b"content").unwrap();
        let format = dir.path().join("format");
        for damaged in [Some("\u{1a}\n"), None] {
            match damaged {
                Some(text) => fs::write(&format, text).unwrap(),
                None => fs::remove_file(&format).unwrap(),
            }
            let error = Store::open(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::FormatLost { .. }), "{error}");
            assert!(error.help().unwrap().contains(&format!("`echo {FORMAT_VERSION} > format`")));
        }
        fs::write(&format, format!("{FORMAT_VERSION}\n")).unwrap();
        assert!(Store::open(dir.path()).unwrap().read(&file).is_ok());
    }

    #[test]
    fn a_cache_whose_format_is_empty_or_gone_is_known_by_its_records() {
        let key = Fingerprint::of(b"key");
        let format = |dir: &Path| dir.join("format");
        for damaged in [Some(""), Some("\0\0"), None] {
            let dir = tempfile::tempdir().unwrap();
            Store::open(dir.path()).unwrap().commit_item(key, BTreeMap::new()).unwrap();
            match damaged {
                Some(text) => fs::write(format(dir.path()), text).unwrap(),
                None => fs::remove_file(format(dir.path())).unwrap(),
            }
            assert!(Store::look(dir.path()).unwrap().must_exist().is_ok());
            let store = Store::open(dir.path()).unwrap();
            assert!(store.lookup_item(key).unwrap().is_some());
            let text = fs::read_to_string(format(dir.path())).unwrap();
            assert_eq!(text, format!("{FORMAT_VERSION}\n"));

            // One record that is newer, and nothing is touched.
            let mut record = ItemRecord::new(key, BTreeMap::new());
            record.format_version = FORMAT_VERSION + 1;
            store.write_json(&store.sharded("items", &key.to_string()), &record).unwrap();
            fs::write(format(dir.path()), "").unwrap();
            let error = Store::open(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Newer { .. }), "{error}");
            assert_eq!(fs::read_to_string(format(dir.path())).unwrap(), "");
        }
    }

    #[test]
    fn a_cache_that_was_only_begun_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap().settle_locks(Locks::Auto).unwrap();
        fs::write(dir.path().join("format"), "").unwrap();
        Store::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("format")).unwrap();
        fs::write(dir.path().join("history/mine"), "x").unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::FormatLost { .. }), "{error}");
    }

    #[test]
    fn a_folder_with_nothing_to_lose_becomes_a_cache() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".gitignore"), "*\n").unwrap();
        // A process that died while it began the cache.
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::write(dir.path().join("tmp/.tmpAb3dEf"), "1").unwrap();
        Store::open(dir.path()).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("format")).unwrap(),
            format!("{FORMAT_VERSION}\n")
        );
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn many_may_begin_one_cache_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("cache");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Store::open(&root).unwrap());
            }
        });
    }
}
