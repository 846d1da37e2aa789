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
    /// Refuses a folder that is neither a cache nor empty, or a newer cache; gives the format of a cache.
    pub(super) fn check_format(root: &Path) -> Result<Option<u32>, StoreError> {
        if root.ancestors().find(|path| path.exists()).is_some_and(|path| !path.is_dir()) {
            return Err(StoreError::NotAFolder { path: root.to_owned() });
        }
        if let Some(text) = read_format(root)? {
            return known(root, &text).map(Some);
        }
        if nothing_to_lose(root)? {
            return Ok(None);
        }
        // Another process may have begun the cache between the two looks.
        match read_format(root)? {
            Some(text) => known(root, &text).map(Some),
            None => Err(no_cache(root)),
        }
    }
}

fn known(root: &Path, text: &str) -> Result<u32, StoreError> {
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT_VERSION => {
            Err(StoreError::Newer { path: root.join("format"), found })
        }
        Ok(found) => Ok(found),
        Err(_) => Err(no_cache(root)),
    }
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

fn read_format(root: &Path) -> Result<Option<String>, StoreError> {
    let path = root.join("format");
    match fs::read(&path) {
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
        Err(e) => return Err(StoreError::read(folder, e)),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<Result<_, _>>().map_err(|e| StoreError::read(folder, e))
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
