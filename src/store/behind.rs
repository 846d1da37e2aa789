//! What may stand behind a store: another cache that knows results which this one lacks.

use std::{collections::BTreeMap, fmt, fs, io, sync::Arc};

use super::{Digest, Fingerprint, Record, Store, StoreError, Trace};
use crate::artifact::FileRef;

/// Another cache. Whatever it cannot do counts as not there; it is for it to say why.
pub trait Behind: fmt::Debug + Send + Sync {
    /// Brings the result of a key, whole, and gives its record; `name` is what a person calls it.
    fn bring(&self, store: &Store, key: Fingerprint, name: &dyn fmt::Display) -> Option<Record>;
    /// Brings the results of items, those it has.
    fn bring_items(&self, store: &Store, keys: &[Fingerprint]);
    /// What stages with this key read from outside, below this source root or, without one,
    /// anywhere: the latest.
    fn traces(&self, key: Fingerprint, root: Option<Fingerprint>) -> Vec<Trace>;
    /// Tells of a result that was made here.
    fn made(&self, result: NewResult);
}

/// A result that was made here.
#[derive(Clone, Debug)]
pub struct NewResult {
    /// What a person calls it.
    pub name: String,
    /// Its record.
    pub record: Record,
    /// The keys of its items, if it was made item by item.
    pub items: Vec<Fingerprint>,
}

impl NewResult {
    /// All keys under which something of it is known.
    pub fn keys(&self) -> impl Iterator<Item = Fingerprint> {
        let own = [Some(self.record.fingerprint), self.record.traced].into_iter().flatten();
        own.chain(self.items.iter().copied())
    }
}

impl Store {
    /// Puts a cache behind this one.
    #[must_use]
    pub fn with_behind(mut self, behind: Arc<dyn Behind>) -> Self {
        self.behind = Some(behind);
        self
    }

    /// The cache behind this one.
    pub fn behind(&self) -> Option<&dyn Behind> {
        self.behind.as_deref()
    }

    /// Adds content that `fill` writes, if it has this digest.
    pub fn receive<E: From<StoreError>>(
        &self,
        digest: Digest,
        fill: impl FnOnce(&mut dyn io::Write) -> Result<(), E>,
    ) -> Result<u64, E> {
        let path = self.object_path(digest);
        let temp = super::scratch(&self.root.join("tmp")).map_err(|e| StoreError::io(&path, e))?;
        let mut hashed = Hashed { file: temp.as_file(), hasher: blake3::Hasher::new(), len: 0 };
        fill(&mut hashed)?;
        let len = hashed.len;
        if Digest::from(hashed.hasher.finalize()) != digest {
            return Err(StoreError::Damaged { digest }.into());
        }
        self.place(temp, digest)?;
        Ok(len)
    }

    /// The record of an item and its files, whether or not these are here.
    pub fn item_files(
        &self,
        key: Fingerprint,
    ) -> Result<Option<BTreeMap<String, FileRef>>, StoreError> {
        Ok(self.item(key)?.found().map(|record| record.files))
    }

    /// The keys of all items with the content of their files.
    pub fn items(&self) -> Result<Vec<(Fingerprint, Vec<Digest>)>, StoreError> {
        Ok(self
            .hashes_in("items")?
            .filter_map(|key| {
                let files = self.item_files(key).ok().flatten()?;
                Some((key, files.values().map(|file| file.digest).collect()))
            })
            .collect())
    }

    /// The records of all results.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let keys = self.hashes_in("actions")?;
        Ok(keys.filter_map(|key| self.lookup(key).ok()?.found()).collect())
    }
}

/// A file and the hash of what was written to it.
struct Hashed<'a> {
    file: &'a fs::File,
    hasher: blake3::Hasher,
    len: u64,
}

impl io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
