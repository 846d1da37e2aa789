//! Files read from outside the store, such as a data set, and what was read of them.

use std::path::{Path, PathBuf};

use super::StoreError;

/// Reads files below one folder and remembers which, so that their content enters the key.
#[derive(Debug)]
pub struct SourceReader {
    root: PathBuf,
}

impl SourceReader {
    /// A reader of the folder `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads the file at `path` below the folder.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.root.join(path);
        std::fs::read(&path).map_err(|e| StoreError::io(&path, e))
    }

    /// The names in the folder at `path`, sorted; folders end in `/`.
    pub fn list(&self, path: &str) -> Result<Vec<String>, StoreError> {
        let dir = self.root.join(path);
        let entries = std::fs::read_dir(&dir).map_err(|e| StoreError::io(&dir, e))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::io(&dir, e))?;
            let mut name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                name.push('/');
            }
            names.push(name);
        }
        names.sort();
        Ok(names)
    }
}
