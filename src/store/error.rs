//! What can go wrong with the cache folder, and what to do about it.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{Digest, FORMAT_VERSION};
use crate::units::bytes;

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store, or one read from outside, could not be read or written.
    #[error("cannot access `{path}`: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache folder may not be written to.
    #[error("cannot write to `{path}`: {source}")]
    NotWritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the cache is there, and may not be read.
    #[error("cannot read `{path}`: {source}")]
    NotReadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in the cache that can be made again cannot be read, and not because that is
    /// forbidden.
    #[error("cannot read `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk, or the user's share of it, is full.
    #[error("no space left for `{path}`{}", needed.map(takes).unwrap_or_default())]
    Full {
        /// The file.
        path: PathBuf,
        /// The bytes that it takes, where that is known.
        needed: Option<u64>,
    },
    /// Content is missing or differs from its digest.
    #[error("the content of {digest} is damaged")]
    Damaged {
        /// The content asked for.
        digest: Digest,
    },
    /// Written by a newer `pipe`.
    #[error("`{path}` has format {found}, but this `pipe` knows formats up to {FORMAT_VERSION}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The folder holds something else.
    #[error("`{path}` is not a cache of `pipe`")]
    NotACache {
        /// The folder.
        path: PathBuf,
    },
    /// A cache that machines share, whose files lie otherwise.
    #[error("`{path}` is a remote cache, which machines share, and cannot be used as their own")]
    Shared {
        /// The folder.
        path: PathBuf,
    },
    /// A cache, by its folders, that does not say which format it has.
    #[error("the cache cannot be used, because its file `{path}` is lost or damaged")]
    FormatLost {
        /// The file.
        path: PathBuf,
    },
    /// The folder of the cache cannot be made.
    #[error("cannot make the cache `{path}`: {source}")]
    NotMade {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no cache, where one is needed.
    #[error("there is no cache at `{path}`")]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// Content was damaged after this process had written it.
    #[error("`{path}` was written in this run, and already holds something else")]
    Unreliable {
        /// The file.
        path: PathBuf,
    },
    /// Content was gone after this process had written it, and again after it had written it once
    /// more.
    #[error("`{path}` was written twice in this run, and is gone again")]
    Vanished {
        /// The file.
        path: PathBuf,
    },
    /// A file is where the folder should be.
    #[error("`{path}` cannot be the cache: it, or what it lies in, is a file")]
    NotAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Another process uses the cache in a way that excludes this.
    #[error("the cache `{path}` is in use by another process")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// By what is said in the store, others would not see when this process uses it.
    #[error("`{path}` says `{said}`, but this process would keep others out of its way {wanted}")]
    OtherLocks {
        /// The file.
        path: PathBuf,
        /// What it says.
        said: String,
        /// How this process would do it, and why.
        wanted: &'static str,
    },
    /// Waiting for another process was ended by the user.
    #[error("interrupted")]
    Cancelled,
}

impl StoreError {
    /// What an error of reading something in the cache means.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        if source.kind() == ErrorKind::PermissionDenied {
            return Self::NotReadable { path: path.to_owned(), source };
        }
        Self::io(path, source)
    }

    /// The same for what can be made again, were it gone: an object or a record.
    pub(crate) fn content(path: &Path, source: io::Error) -> Self {
        match Self::read(path, source) {
            Self::Io { path, source } => Self::Unreadable { path, source },
            error => error,
        }
    }

    /// Whether something is there that cannot be read, whatever is in it.
    pub fn is_unread(&self) -> bool {
        matches!(self, Self::NotReadable { .. } | Self::Unreadable { .. })
    }

    /// Sorts an I/O error by what the user can do about it. One that was sorted before says more.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let source = match source.downcast::<Self>() {
            Ok(sorted) => return sorted,
            Err(source) => source,
        };
        let path = path.to_owned();
        // Wrapped errors carry the names of temporary files, which tell the user nothing.
        let source = match source.raw_os_error() {
            Some(_) => source,
            None => io::Error::from(source.kind()),
        };
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path, needed: None },
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                Self::NotWritable { path, source }
            }
            _ => Self::Io { path, source },
        }
    }

    /// Says of a full disk how much there was no space for.
    #[must_use]
    pub(super) fn needing(mut self, bytes: u64) -> Self {
        if let Self::Full { needed, .. } = &mut self {
            *needed = Some(bytes);
        }
        self
    }

    /// The same as an I/O error, for who knows no others; [`Self::io`] finds it in there.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Full { .. } => ErrorKind::StorageFull,
            Self::Io { source, .. } | Self::NotWritable { source, .. } => source.kind(),
            _ => ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }

    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotWritable { .. } | Self::NotMade { .. } => {
                "name a folder that you may write to with `--cache DIR` or `PIPE_CACHE`"
            }
            Self::NotReadable { .. } => {
                "ask who wrote it to let you read it, as by `chmod -R g+rX` on the cache and `umask 002` (with a \
                 common group) or 022 from then on, or name another folder with `--cache DIR` or `PIPE_CACHE`"
            }
            Self::Full { .. } => {
                "free space with `pipe cache gc`, or `pipe cache gc --max-size SIZE` where that is too \
                 little, or name another disk with `--cache DIR`; what is finished is kept, so running \
                 again goes on from here"
            }
            Self::Newer { .. } => {
                "use the newer `pipe` that wrote it, or another folder with `--cache DIR`"
            }
            Self::Shared { .. } => {
                "name it with `--remote`, and another folder with `--cache DIR` or `PIPE_CACHE`"
            }
            Self::NotACache { .. } | Self::NotAFolder { .. } => {
                "name a cache, or a folder that is empty or absent, with `--cache DIR` or \
                 `PIPE_CACHE`"
            }
            Self::FormatLost { .. } => {
                "if this is your cache, `echo 3 > format` in its folder makes it usable again, and \
                 `pipe cache verify` checks it; else name another folder with `--cache DIR` or `PIPE_CACHE`"
            }
            Self::Absent { .. } => {
                "see that `--cache DIR` or `PIPE_CACHE` names the right folder; `pipe run` makes a cache"
            }
            Self::Unreliable { .. } => {
                "the disk, its connection or the memory fails, or another program writes to the cache: \
                 name a folder elsewhere with `--cache DIR` or `PIPE_CACHE`"
            }
            Self::Vanished { .. } => {
                "another program removes files of the cache while it is in use: end it, or name a folder \
                 elsewhere with `--cache DIR` or `PIPE_CACHE`"
            }
            Self::OtherLocks { .. } => {
                "all who use a cache must do it alike: take back the setting `locks` (`PIPE_LOCKS`), or, while \
                 no process on any machine uses the cache, write `lease` into this file, which is right \
                 everywhere"
            }
            Self::Busy { .. } => "wait until the other run has ended",
            Self::Damaged { .. } => "`pipe run` makes damaged content again",
            Self::Io { source, .. } | Self::Unreadable { source, .. }
                if source.kind() == ErrorKind::InvalidData =>
            {
                "rename the file, or move it elsewhere"
            }
            Self::Io { source, .. } | Self::Unreadable { source, .. }
                if source.kind() == ErrorKind::IsADirectory =>
            {
                "a folder stands where a file must be: move it away, or name another path"
            }
            Self::Io { source, .. } | Self::Unreadable { source, .. }
                if source.kind() == ErrorKind::Unsupported =>
            {
                "put a file, or a link to one, in its place"
            }
            Self::Unreadable { .. } => {
                "the disk, or its connection, fails there; nothing was removed, as the file may be whole: try \
                 again. If it stays so, `pipe cache verify` names all such files, and what you remove of them, \
                 `pipe run` makes again"
            }
            Self::Io { .. } | Self::Cancelled => return None,
        })
    }
}

fn takes(size: u64) -> String {
    format!(", which takes {}", bytes(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_disk_are_told_apart() {
        let of = |kind| StoreError::io(Path::new("x"), io::Error::from(kind));
        assert!(matches!(of(ErrorKind::StorageFull), StoreError::Full { .. }));
        assert!(matches!(of(ErrorKind::QuotaExceeded), StoreError::Full { .. }));
        assert!(matches!(of(ErrorKind::ReadOnlyFilesystem), StoreError::NotWritable { .. }));
        assert!(matches!(of(ErrorKind::PermissionDenied), StoreError::NotWritable { .. }));
        assert!(matches!(of(ErrorKind::NotFound), StoreError::Io { .. }));
        assert!(of(ErrorKind::StorageFull).help().unwrap().contains("pipe cache gc"));
        let read = |kind| StoreError::read(Path::new("x"), io::Error::from(kind));
        assert!(matches!(read(ErrorKind::PermissionDenied), StoreError::NotReadable { .. }));
        assert!(read(ErrorKind::PermissionDenied).help().unwrap().contains("umask"));
        assert!(matches!(read(ErrorKind::NotFound), StoreError::Io { .. }));
        let content = |kind| StoreError::content(Path::new("x"), io::Error::from(kind));
        assert!(matches!(content(ErrorKind::PermissionDenied), StoreError::NotReadable { .. }));
        assert!(matches!(content(ErrorKind::TimedOut), StoreError::Unreadable { .. }));
    }

    #[test]
    fn an_error_that_was_sorted_says_the_same_later() {
        let full = StoreError::io(Path::new("cache/x"), ErrorKind::StorageFull.into());
        let told = full.needing(3_500_000).into_io();
        assert_eq!(told.kind(), ErrorKind::StorageFull);
        let again = StoreError::io(Path::new("elsewhere"), told);
        insta::assert_snapshot!(again, @"no space left for `cache/x`, which takes 3.3 MiB");
    }
}
