//! Records of what stages and items gave, and whether that is all there.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use serde::Serialize;

use super::{
    Digest, Fingerprint, Form, ItemRecord, Lookup, Opened, Record, Store, StoreError, objects,
    seal, unseal,
};
use crate::artifact::{FileRef, Manifest};

impl Store {
    /// The record of a key, if the key was ever computed. That its output is still there is
    /// another question: [`Store::complete`].
    pub fn lookup(&self, key: Fingerprint) -> Result<Lookup<Record>, StoreError> {
        let record: Lookup<Record> = self.read_json("actions", key)?;
        Ok(match record {
            Lookup::Found(record) if record.fingerprint != key => Lookup::Damaged,
            record => record,
        })
    }

    /// Writes the record of a finished stage; its content must be in the store.
    pub fn commit(&self, record: &Record) -> Result<(), StoreError> {
        self.write_json(&self.sharded("actions", &record.fingerprint.to_string()), record)
    }

    /// The manifest of an artifact, if it and all its files are in the store.
    pub fn complete(&self, output: Digest) -> Option<Arc<Manifest>> {
        if !self.object_ok(output, None) {
            self.forget_manifest(output);
            return None;
        }
        let manifest = self.manifest(output).ok()?;
        self.artifact_complete(&manifest).then_some(manifest)
    }

    /// Whether the output of a record and all its files are in the store.
    pub fn is_whole(&self, record: &Record) -> bool {
        if record.files.is_empty() {
            return self.complete(record.output).is_some();
        }
        let files = record.files.iter().map(|file| (file.digest, Some(file.size)));
        let whole = std::iter::once((record.output, None))
            .chain(files)
            .all(|(digest, size)| self.object_ok(digest, size));
        if !whole {
            self.forget_manifest(record.output);
        }
        whole
    }

    /// An error where nobody can tell whether the output of a record is in the store, since the
    /// folders of content may not be entered: that is no damage, and nothing could be made again.
    pub fn check_visible(&self, record: &Record) -> Result<(), StoreError> {
        let objects = self.root.join("objects");
        let shard = self.object_path(record.output);
        let shards = shard.parent().map(Path::to_owned).into_iter();
        let files = record.files.iter().map(|file| self.object_path(file.digest));
        let files = files.filter_map(|path| path.parent().map(Path::to_owned));
        for folder in std::iter::once(objects).chain(shards).chain(files) {
            match fs::metadata(folder.join(".")) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(StoreError::read(&folder, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether all files of an artifact are in the store and look untouched.
    pub fn artifact_complete(&self, manifest: &Manifest) -> bool {
        manifest.files().all(|file| self.object_ok(file.digest, Some(file.size)))
    }

    /// The record of an item's key, if its files are in the store.
    pub fn lookup_item(&self, key: Fingerprint) -> Result<Option<ItemRecord>, StoreError> {
        Ok(self.item(key)?.found().filter(|record| {
            record.files.values().all(|file| self.object_ok(file.digest, Some(file.size)))
        }))
    }

    /// The record of an item's key, whether or not its files are in the store. That of another key
    /// is damage; one that does not say of which it is, as older versions wrote it, counts as none.
    pub(super) fn item(&self, key: Fingerprint) -> Result<Lookup<ItemRecord>, StoreError> {
        let record: Lookup<ItemRecord> = self.read_json("items", key)?;
        Ok(match record {
            Lookup::Found(record) if record.is_of(key) => Lookup::Found(record),
            Lookup::Found(record) if record.key.is_none() => Lookup::Absent,
            Lookup::Found(_) | Lookup::Damaged => Lookup::Damaged,
            Lookup::Absent => Lookup::Absent,
        })
    }

    /// Writes the record of a finished item.
    pub fn commit_item(
        &self,
        key: Fingerprint,
        files: BTreeMap<String, FileRef>,
    ) -> Result<(), StoreError> {
        let record = ItemRecord::new(key, files);
        self.write_json(&self.sharded("items", &key.to_string()), &record)
    }

    pub(super) fn read_json<T: Form>(
        &self,
        folder: &str,
        key: Fingerprint,
    ) -> Result<Lookup<T>, StoreError> {
        // Who only asks need not ask the disk for what is in no cache.
        if self.exists {
            read_json(&self.sharded(folder, &key.to_string()))
        } else {
            Ok(Lookup::Absent)
        }
    }

    pub(super) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        self.write(path, &seal(value))
    }
}

/// A record of a newer version is refused, even where it can be read.
pub(super) fn read_json<T: Form>(path: &Path) -> Result<Lookup<T>, StoreError> {
    let bytes = match objects::twice(|| fs::read(path)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Lookup::Absent),
        Err(e) => return Err(StoreError::content(path, e)),
    };
    match unseal(&bytes) {
        Opened::Whole(value) => Ok(Lookup::Found(value)),
        Opened::Damaged => Ok(Lookup::Damaged),
        Opened::Newer(found) => Err(StoreError::Newer { path: path.to_owned(), found }),
    }
}
