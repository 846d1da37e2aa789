//! Which folders become a cache: a cache by its `format` file, or a folder with nothing to lose.
//!
//! `gc` deletes, so a folder that holds something else is never taken for a cache.

use std::{fs, io, path::Path};

use super::{FORMAT_VERSION, Store, StoreError};

/// What a folder may hold without being used: git's own, and that of a fresh file system.
const IGNORED: [&str; 2] = [".gitignore", "lost+found"];

/// How the names of files that are still being written begin.
pub(super) const SCRATCH: &str = ".tmp";

impl Store {
    /// Refuses a folder that is neither a cache of this form nor empty; says if it is new.
    pub(super) fn check_format(root: &Path) -> Result<bool, StoreError> {
        if root.ancestors().find(|path| path.exists()).is_some_and(|path| !path.is_dir()) {
            return Err(StoreError::NotAFolder { path: root.to_owned() });
        }
        if let Some(text) = read_format(root)? {
            return known(root, &text).map(|()| false);
        }
        if nothing_to_lose(root)? {
            return Ok(true);
        }
        // Another process may have begun the cache between the two looks.
        match read_format(root)? {
            Some(text) => known(root, &text).map(|()| false),
            None => Err(StoreError::NotACache { path: root.to_owned() }),
        }
    }
}

fn known(root: &Path, text: &str) -> Result<(), StoreError> {
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT_VERSION => {
            Err(StoreError::Newer { path: root.join("format"), found })
        }
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::NotACache { path: root.to_owned() }),
    }
}

fn read_format(root: &Path) -> Result<Option<String>, StoreError> {
    let path = root.join("format");
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io(&path, e)),
    }
}

/// Whether a folder is absent or empty, but for what the start of a cache may have left in it.
fn nothing_to_lose(root: &Path) -> Result<bool, StoreError> {
    let names = names(root)?;
    for name in names.iter().filter(|name| !IGNORED.contains(&name.as_str())) {
        let scratch = |name: &String| name.starts_with(SCRATCH);
        let path = root.join(name);
        if name != "tmp" || !path.is_dir() || !self::names(&path)?.iter().all(scratch) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io(folder, e)),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<Result<_, _>>().map_err(|e| StoreError::io(folder, e))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_folder_with_nothing_to_lose_becomes_a_cache() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".gitignore"), "*\n").unwrap();
        // A process that died while it began the cache.
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::write(dir.path().join("tmp/.tmpAb3dEf"), "1").unwrap();
        Store::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "1\n");
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
