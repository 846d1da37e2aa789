//! Results that are kept whatever else goes.
//!
//! Each wish to keep one is a file of its own, `pins/<key>-<hash of the wish>`, so that a result
//! stays as long as anybody wants it, and two who pin at once do not get in each other's way. Older
//! versions wrote one file a result, `pins/<key>`, which does not say whose it is.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, Fingerprint, Owner, Store, StoreError, read_json, seal::Form};

/// Whose wish it is to keep a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinner {
    /// The pipeline.
    pub owner: Owner,
    /// What `--set` said beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// The stage that was named, whose result this is or which needs it; the whole pipeline's if
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Which instance of the pipeline the result is of.
    pub instance: String,
}

impl Pinner {
    /// What people are told that is kept: `pose_ablation --set seed=9: pairs`.
    pub fn name(&self) -> String {
        let set = self.set.iter().flat_map(|value| [" --set ", value]).collect::<String>();
        format!("{}{set}: {}", self.owner.title(), self.instance)
    }
}

/// A wish to keep a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The result.
    pub key: Fingerprint,
    /// Of what, for people; empty if it cannot be read.
    pub name: String,
    /// Whose it is; unknown where an older version wrote it, or if it cannot be read.
    pub by: Option<Pinner>,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Written {
    format_version: u32,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Pinner>,
}

impl Form for Written {
    fn version(&self) -> Option<u32> {
        Some(self.format_version)
    }
}

impl Store {
    /// Keeps the result of a key until it is unpinned, whoever else wants it or not.
    pub fn pin(&self, key: Fingerprint, by: &Pinner) -> Result<(), StoreError> {
        let wish = serde_json::to_vec(by).expect("strings are valid JSON");
        let path = self.pins_folder().join(format!("{key}-{}", Fingerprint::of(&wish)));
        let (name, by) = (by.name(), Some(by.clone()));
        self.write_json(&path, &Written { format_version: FORMAT_VERSION, name, by })
    }

    /// Takes a pin away; says whether it was still there.
    pub fn unpin(&self, pin: &Pin) -> Result<bool, StoreError> {
        super::remove(&pin.path)
    }

    /// All pins, in the order of their files' names.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let read = |(key, path): (Fingerprint, PathBuf)| {
            // A pin that cannot be read holds all the same.
            let written: Option<Written> = read_json(&path)?.found();
            let (name, by) = written.map(|pin| (pin.name, pin.by)).unwrap_or_default();
            Ok(Pin { key, name, by, path })
        };
        self.pin_files()?.into_iter().map(read).collect()
    }

    /// The keys of all results that are pinned.
    pub fn pinned(&self) -> Result<HashSet<Fingerprint>, StoreError> {
        Ok(self.pin_files()?.into_iter().map(|(key, _)| key).collect())
    }

    fn pin_files(&self) -> Result<Vec<(Fingerprint, PathBuf)>, StoreError> {
        let dir = self.pins_folder();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StoreError::read(&dir, e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| StoreError::read(&dir, e))?.path();
            files.extend(key_of(&path).map(|key| (key, path)));
        }
        files.sort_by(|(_, a), (_, b)| a.cmp(b));
        Ok(files)
    }

    fn pins_folder(&self) -> PathBuf {
        self.root.join("pins")
    }
}

/// The key of the result that a pin of this name keeps.
fn key_of(path: &Path) -> Option<Fingerprint> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    match name.split_once('-') {
        Some((key, wish)) => wish.parse::<Fingerprint>().ok().and_then(|_| key.parse().ok()),
        None => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(owner: &str, stage: Option<&str>) -> Pinner {
        Pinner {
            owner: Owner::new(Path::new(owner), None, owner),
            set: vec!["seed=9".to_owned()],
            stage: stage.map(str::to_owned),
            instance: "lora".to_owned(),
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_result_is_pinned_until_nobody_wants_it_any_more() {
        let (_dir, store) = store();
        assert!(store.pins().unwrap().is_empty());
        let key = Fingerprint::of(b"key");
        for wish in [by("a", None), by("a", None), by("a", Some("lora")), by("b", None)] {
            store.pin(key, &wish).unwrap();
        }
        let pins = store.pins().unwrap();
        assert_eq!(pins.len(), 3, "the same wish twice is one");
        assert!(pins.iter().any(|pin| pin.name == "b --set seed=9: lora"));
        for pin in &pins {
            assert_eq!(store.pinned().unwrap(), [key].into());
            assert!(store.unpin(pin).unwrap());
            assert!(!store.unpin(pin).unwrap());
        }
        assert!(store.pinned().unwrap().is_empty());
    }

    #[test]
    fn what_older_versions_pinned_and_what_cannot_be_read_is_pinned() {
        let (_dir, store) = store();
        let [old, damaged] = [b"old".as_slice(), b"damaged"].map(Fingerprint::of);
        let file = |name: String| store.pins_folder().join(name);
        let form = serde_json::json!({ "format_version": FORMAT_VERSION, "name": "toy: lora" });
        store.write_json(&file(old.to_string()), &form).unwrap();
        fs::write(file(format!("{damaged}-{old}")), "{").unwrap();
        fs::write(file("notes-of-mine".to_owned()), "{").unwrap();
        let mut found: Vec<_> =
            store.pins().unwrap().into_iter().map(|pin| (pin.key, pin.name, pin.by)).collect();
        found.sort_by_key(|(_, name, _)| name.clone());
        assert_eq!(found, [(damaged, String::new(), None), (old, "toy: lora".to_owned(), None)]);
    }
}
