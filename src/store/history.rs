//! What each instance of a pipeline last was, so that a reason to run can say old and new.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::PathBuf,
};

use super::{Fingerprint, Store, StoreError};

/// The last fingerprint of each instance of one pipeline.
///
/// The file only grows at its end, a line per change, so that two runs at once lose nothing and a
/// thousand stages cost a thousand lines. Reading takes the last line of each instance; a line that
/// was cut short is skipped.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    last: BTreeMap<String, Fingerprint>,
}

impl History {
    /// The last fingerprint of an instance such as `lora[n=10]`.
    pub fn of(&self, instance: &str) -> Option<Fingerprint> {
        self.last.get(instance).copied()
    }

    /// All instances of a stage, whatever their cell, with their last fingerprints.
    pub fn of_stage<'a>(
        &'a self,
        stage: &'a str,
    ) -> impl Iterator<Item = (&'a str, Fingerprint)> + 'a {
        self.last
            .range(stage.to_owned()..)
            .take_while(move |(instance, _)| instance.starts_with(stage))
            .filter(move |(instance, _)| instance.split('[').next() == Some(stage))
            .map(|(instance, key)| (instance.as_str(), *key))
    }

    /// Remembers that `instance` is `key` now.
    pub fn note(&mut self, instance: &str, key: Fingerprint) -> Result<(), StoreError> {
        if self.of(instance) == Some(key) {
            return Ok(());
        }
        self.last.insert(instance.to_owned(), key);
        let name = serde_json::to_string(instance).expect("a string is valid JSON");
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(format!("{key} {name}\n").as_bytes()))
            .map_err(|e| StoreError::io(&self.path, e))
    }
}

impl Store {
    /// The history of the pipeline called `name`.
    pub fn history(&self, name: &str) -> Result<History, StoreError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let file = if name.chars().all(plain) && !name.starts_with('.') && !name.is_empty() {
            name.to_owned()
        } else {
            // A leading dot keeps it apart from names that stand for themselves.
            format!(".{}", Fingerprint::of(name.as_bytes()))
        };
        read(self.root.join("history").join(file))
    }

    /// The last fingerprint of every instance of every pipeline: what `gc` keeps.
    pub fn latest(&self) -> Result<Vec<Fingerprint>, StoreError> {
        let dir = self.root.join("history");
        let mut keys = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|e| StoreError::io(&dir, e))? {
            let entry = entry.map_err(|e| StoreError::io(&dir, e))?;
            keys.extend(read(entry.path())?.last.into_values());
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }
}

fn read(path: PathBuf) -> Result<History, StoreError> {
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(StoreError::io(&path, e)),
    };
    let last = text
        .lines()
        .filter_map(|line| {
            let (key, name) = line.split_once(' ')?;
            Some((serde_json::from_str(name).ok()?, key.parse().ok()?))
        })
        .collect();
    Ok(History { path, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_wins_and_a_torn_one_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut history = store.history("a/b").unwrap();
        history.note("lora[n=1]", Fingerprint::of(b"1")).unwrap();
        history.note("lora[n=1]", Fingerprint::of(b"2")).unwrap();
        history.note("lora[n=3]", Fingerprint::of(b"3")).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&history.path).unwrap();
        file.write_all(b"0123 \"lor").unwrap();
        let history = store.history("a/b").unwrap();
        assert_eq!(history.of("lora[n=1]"), Some(Fingerprint::of(b"2")));
        assert_eq!(history.of_stage("lora").count(), 2);
        assert_eq!(history.of_stage("lor").count(), 0);
        assert_eq!(store.history("other").unwrap().of("lora[n=1]"), None);
        assert_eq!(store.latest().unwrap().len(), 2);
    }
}
