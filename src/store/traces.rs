//! Which outside files stages read in earlier runs.

use std::{fs, io::ErrorKind, path::Path, sync::Mutex};

use super::{Digest, Fingerprint, Lookup, Store, StoreError, Trace};
use crate::sync::Unpoisoned;

impl Store {
    /// What a stage read from outside in earlier runs, the latest first, by its key without it. A
    /// folder in the place of the record, as a remote cache has it, is as good as a record that was
    /// cut short.
    pub fn traces(&self, key: Fingerprint) -> Result<Lookup<Vec<Trace>>, StoreError> {
        match self.read_json("traces", key) {
            Err(error) if is_folder(&error) => Ok(Lookup::Damaged),
            found => found,
        }
    }

    /// Remembers what a stage read from outside. Stages of one run that end at once wait for each
    /// other here; of two runs that do, one may forget what the other added, and the stage is then
    /// made again.
    pub fn add_trace(&self, key: Fingerprint, trace: Trace) -> Result<(), StoreError> {
        static ADDING: Mutex<()> = Mutex::new(());
        let _adding = ADDING.lock().unpoisoned();
        let mut traces = self.traces(key)?.found().unwrap_or_default();
        if traces.first() == Some(&trace) {
            return Ok(());
        }
        Trace::remember(&mut traces, trace);
        let path = self.sharded("traces", &key.to_string());
        match self.write_json(&path, &traces) {
            Err(error) if is_folder(&error) && drop_remote_traces(&path) => {
                self.write_json(&path, &traces)
            }
            written => written,
        }
    }
}

fn is_folder(error: &StoreError) -> bool {
    match error {
        StoreError::Unreadable { source, .. } | StoreError::Io { source, .. } => {
            source.kind() == ErrorKind::IsADirectory
        }
        _ => false,
    }
}

/// Removes a folder that holds nothing but the traces of a remote; says whether it is gone.
fn drop_remote_traces(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let is_trace = |name: &std::ffi::OsString| {
        name.to_str().is_some_and(|name| name.parse::<Digest>().is_ok())
    };
    let drop_one = |name: &std::ffi::OsString| {
        let path = folder.join(name);
        // The traces of one source root lie one deeper.
        fs::remove_file(&path).is_ok() || drop_remote_traces(&path)
    };
    names.iter().all(is_trace) && names.iter().all(drop_one) && fs::remove_dir(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_end_at_once_all_remember_what_they_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Fingerprint::of(b"key");
        std::thread::scope(|scope| {
            for at in 0..Trace::KEPT {
                let store = &store;
                scope.spawn(move || store.add_trace(key, Trace::new([at.to_string()])).unwrap());
            }
        });
        assert_eq!(store.traces(key).unwrap().found().unwrap().len(), Trace::KEPT);
    }

    #[test]
    fn a_folder_in_the_place_of_a_trace_counts_as_none_and_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Fingerprint::of(b"key");
        let folder = store.sharded("traces", &key.to_string());
        let trace = || Trace::new(["list.txt".to_owned()]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(Digest::of(b"trace").to_string()), "x").unwrap();
        let of_root = folder.join(Trace::root_name(Path::new("data")).to_string());
        fs::create_dir(&of_root).unwrap();
        fs::write(of_root.join(Digest::of(b"trace").to_string()), "x").unwrap();
        assert_eq!(store.traces(key).unwrap(), Lookup::Damaged);
        store.add_trace(key, trace()).unwrap();
        assert_eq!(store.traces(key).unwrap().found(), Some(vec![trace()]));

        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("mine.txt"), "x").unwrap();
        assert!(store.add_trace(key, trace()).is_err());
        assert!(folder.join("mine.txt").exists(), "what nobody knows stays");
    }
}
