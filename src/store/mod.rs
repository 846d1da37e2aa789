//! Where artifacts live: content by digest, and records of which fingerprint gave which content.

mod digest;
mod record;
mod sources;

pub use digest::{Digest, Fingerprint, HashParseError};
pub use record::{Ingredients, Record};
pub use sources::SourceReader;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use crate::artifact::FileRef;

/// The content-addressed store of one cache folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in `root`, making it if it is not there.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(root.join("objects")).map_err(|e| StoreError::io(root, e))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Adds bytes and returns their address.
    pub fn put(&self, bytes: &[u8]) -> Result<FileRef, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.object_path(digest);
        if !path.exists() {
            let dir = path.parent().expect("an object lies in a folder");
            std::fs::create_dir_all(dir).map_err(|e| StoreError::io(dir, e))?;
            let mut file =
                tempfile::NamedTempFile::new_in(dir).map_err(|e| StoreError::io(dir, e))?;
            file.write_all(bytes).map_err(|e| StoreError::io(&path, e))?;
            file.persist(&path).map_err(|e| StoreError::io(&path, e.error))?;
        }
        Ok(FileRef { digest, size: bytes.len() as u64 })
    }

    /// Reads content and checks it against its digest.
    pub fn read(&self, file: &FileRef) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(file.digest);
        let bytes =
            std::fs::read(&path).map_err(|_| StoreError::Damaged { digest: file.digest })?;
        if Digest::of(&bytes) == file.digest {
            Ok(bytes)
        } else {
            Err(StoreError::Damaged { digest: file.digest })
        }
    }

    fn object_path(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        self.root.join("objects").join(&hex[..2]).join(&hex[2..])
    }
}

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store could not be read or written.
    #[error("cannot access `{path}`: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Content is missing or differs from its digest.
    #[error("the content of {digest} is damaged")]
    Damaged {
        /// The content asked for.
        digest: Digest,
    },
}

impl StoreError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
