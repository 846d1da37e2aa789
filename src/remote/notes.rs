//! What a machine notes of the uploads that it has begun, so that the next run goes on where one
//! broke off. No server is asked for that: the interface to them lists no uploads.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::store::{Digest, Store, write_aside};

/// An upload that nobody went on with for so long is given up: servers keep it, and charge for it.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The address of the remote.
    address: String,
    /// The object's path there.
    pub(super) object: String,
    /// What the server calls it.
    pub(super) upload: String,
    /// The bytes of the object, and of each of its parts but the last.
    size: u64,
    pub(super) length: u64,
    /// What the server calls the parts that it has.
    pub(super) parts: BTreeMap<usize, String>,
}

/// Where uploads to one address are noted.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    folder: PathBuf,
    address: String,
}

/// Where one of them is.
#[derive(Clone, Debug)]
pub(super) struct Note {
    file: PathBuf,
    address: String,
    object: String,
    size: u64,
    length: u64,
}

impl Notes {
    /// The notes in a cache.
    pub(super) fn new(store: &Store, address: &str) -> Self {
        Self { folder: store.root().join("uploads"), address: address.to_owned() }
    }

    /// That of an object of `size` bytes that goes in parts of this length.
    pub(super) fn of(&self, object: &str, (size, length): (u64, u64)) -> Note {
        let name = Digest::of(format!("{}\n{object}", self.address).as_bytes()).to_string();
        Note {
            file: self.folder.join(name),
            address: self.address.clone(),
            object: object.to_owned(),
            size,
            length,
        }
    }

    /// Takes out the uploads that nobody went on with for long.
    pub(super) fn given_up(&self) -> Vec<(Begun, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let old = entries.map(|entry| entry.path()).filter(|path| {
            let modified = fs::metadata(path).and_then(|found| found.modified());
            modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= KEPT))
        });
        let begun = old.filter_map(|path| Some((read(&path)?, path)));
        begun.filter(|(begun, _)| begun.address == self.address).collect()
    }
}

impl Note {
    /// The upload that was begun of the same object in the same parts, if any.
    pub(super) fn begun(&self) -> Option<Begun> {
        read(&self.file).filter(|begun| {
            (&begun.address, &begun.object, begun.size, begun.length)
                == (&self.address, &self.object, self.size, self.length)
        })
    }

    /// One that was begun just now.
    pub(super) fn begin(&self, upload: String) -> Begun {
        let Self { address, object, size, length, .. } = self.clone();
        Begun { address, object, upload, size, length, parts: BTreeMap::new() }
    }

    /// Notes what was sent. Without that, the upload only cannot be gone on with.
    pub(super) fn write(&self, begun: &Begun) {
        let text = serde_json::to_vec(begun).expect("names and numbers are valid JSON");
        if let Err(error) = write_aside(&self.file, &text) {
            tracing::debug!("an upload is not noted in `{}`: {error}", self.file.display());
        }
    }

    /// Forgets it: it is complete, or gone.
    pub(super) fn forget(&self) {
        forget(&self.file);
    }
}

/// Forgets an upload that is complete, or gone.
pub(super) fn forget(file: &Path) {
    if let Err(error) = fs::remove_file(file)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("an upload stays noted in `{}`: {error}", file.display());
    }
}

fn read(file: &Path) -> Option<Begun> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}
