//! Results that are kept whatever else goes.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, Fingerprint, Store, StoreError, read_json, seal::Form};

#[derive(Serialize, Deserialize)]
struct Pin {
    format_version: u32,
    /// Of what, for people.
    name: String,
}

impl Form for Pin {
    fn version(&self) -> Option<u32> {
        Some(self.format_version)
    }
}

impl Store {
    /// Keeps the result of a key until it is unpinned.
    pub fn pin(&self, key: Fingerprint, name: &str) -> Result<(), StoreError> {
        let pin = Pin { format_version: FORMAT_VERSION, name: name.to_owned() };
        self.write_json(&self.pin_path(key), &pin)
    }

    /// Takes a pin away; says whether there was one.
    pub fn unpin(&self, key: Fingerprint) -> Result<bool, StoreError> {
        super::remove(&self.pin_path(key))
    }

    /// All pinned keys with their names.
    pub fn pins(&self) -> Result<BTreeMap<Fingerprint, String>, StoreError> {
        let dir = self.root.join("pins");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(StoreError::read(&dir, e)),
        };
        let mut pins = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|e| StoreError::read(&dir, e))?;
            let Ok(key) = entry.file_name().to_string_lossy().parse() else { continue };
            // A pin that cannot be read holds all the same.
            let pin: Option<Pin> = read_json(&entry.path())?.found();
            pins.insert(key, pin.map(|pin| pin.name).unwrap_or_default());
        }
        Ok(pins)
    }

    fn pin_path(&self, key: Fingerprint) -> PathBuf {
        self.root.join("pins").join(key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_holds_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.pins().unwrap().is_empty());
        let key = Fingerprint::of(b"key");
        store.pin(key, "toy: lora").unwrap();
        assert_eq!(store.pins().unwrap(), [(key, "toy: lora".to_owned())].into());
        assert!(store.unpin(key).unwrap());
        assert!(!store.unpin(key).unwrap());
    }
}
