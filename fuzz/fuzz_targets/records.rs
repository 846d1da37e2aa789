//! Any bytes are a record of the store, which is written back as it was read, or damage.
#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use pipe::store::{Fingerprint, ItemRecord, Record, Store, Trace};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;

/// A store, and the files in which it looks for what it knows of [`key`].
static STORE: LazyLock<(TempDir, Store, [PathBuf; 3])> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = Store::open(folder.path()).expect("an empty folder is a store");
    let name = key().to_string();
    let files = ["actions", "items", "traces"]
        .map(|kind| folder.path().join(kind).join(&name[..2]).join(&name[2..]));
    for file in &files {
        fs::create_dir_all(file.parent().expect("it lies in a folder")).expect("it can be made");
    }
    (folder, store, files)
});

fn key() -> Fingerprint {
    Fingerprint::of(b"key")
}

fn round_trip<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as above"), written);
}

fuzz_target!(|bytes: &[u8]| {
    round_trip::<Record>(bytes);
    round_trip::<ItemRecord>(bytes);
    round_trip::<Vec<Trace>>(bytes);
    // With the checksum around it, as it lies in a cache.
    let (_, store, files) = &*STORE;
    for file in files {
        fs::write(file, bytes).expect("a file of the store can be written");
    }
    let _ = (store.lookup(key()), store.lookup_item(key()), store.traces(key()));
});
