//! Records, formats and what becomes of damage.

use super::*;

const NEWER: u32 = FORMAT_VERSION + 1;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn a_newer_cache_is_refused() {
    let (dir, store) = store();
    drop(store);
    fs::write(dir.path().join("format"), format!("{NEWER}\n")).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: NEWER, .. }), "{error}");
    assert!(error.help().unwrap().contains("newer"));
}

#[test]
fn a_newer_record_is_refused_whether_or_not_it_can_be_read() {
    let (dir, store) = store();
    let key = Fingerprint::of(b"key");
    let mut record = ItemRecord::new(std::collections::BTreeMap::new());
    record.format_version = NEWER;
    store.commit_item(key, &record).unwrap();
    let hex = key.to_string();
    let path = dir.path().join("items").join(&hex[..2]).join(&hex[2..]);
    let unknown = format!(r#"{{"format_version":{NEWER},"f":3}}"#);
    for text in [fs::read_to_string(&path).unwrap(), unknown] {
        fs::write(&path, text).unwrap();
        let error = store.lookup_item(key).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: NEWER, .. }), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken");
    fs::write(&file, "x").unwrap();
    let error = Store::open(&file).unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
}

#[test]
fn a_record_cut_short_counts_as_none() {
    let (dir, store) = store();
    let key = Fingerprint::of(b"key");
    let record = ItemRecord::new(std::collections::BTreeMap::new());
    store.commit_item(key, &record).unwrap();
    assert_eq!(store.lookup_item(key).unwrap(), Some(record));
    let hex = key.to_string();
    let path = dir.path().join("items").join(&hex[..2]).join(&hex[2..]);
    fs::write(path, "{\"format").unwrap();
    assert_eq!(store.lookup_item(key).unwrap(), None);
}

#[test]
fn a_cache_of_the_first_format_is_read_and_becomes_one_of_this() {
    let (dir, store) = store();
    let key = Fingerprint::of(b"key");
    let mut record = ItemRecord::new(std::collections::BTreeMap::new());
    record.format_version = 1;
    store.commit_item(key, &record).unwrap();
    let path = store.sharded("items", &key.to_string());
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let format = dir.path().join("format");
    fs::write(&format, "1\n").unwrap();
    assert_eq!(Store::look(dir.path()).unwrap().lookup_item(key).unwrap(), Some(record.clone()));
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    // Whoever writes records with checksums keeps older versions away from them.
    assert_eq!(Store::open(dir.path()).unwrap().lookup_item(key).unwrap(), Some(record));
    assert_eq!(fs::read_to_string(&format).unwrap(), format!("{FORMAT_VERSION}\n"));
}

#[test]
fn a_damaged_record_is_told_from_none() {
    let (_dir, store) = store();
    let [key, absent] = ["key", "absent"].map(|text| Fingerprint::of(text.as_bytes()));
    store.add_trace(key, Trace::new(["a".to_owned()])).unwrap();
    assert!(store.traces(key).unwrap().found().is_some());
    let path = store.sharded("traces", &key.to_string());
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(store.traces(key).unwrap(), Lookup::Damaged);
    assert_eq!(store.traces(absent).unwrap(), Lookup::Absent);
    assert!(matches!(store.lookup(key).unwrap(), Lookup::Absent));
    let path = store.sharded("actions", &key.to_string());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "{").unwrap();
    assert!(matches!(store.lookup(key).unwrap(), Lookup::Damaged));
}

#[test]
fn the_latest_trace_comes_first_and_none_twice() {
    let (_dir, store) = store();
    let key = Fingerprint::of(b"key");
    for paths in [["a"], ["b"], ["a"]] {
        store.add_trace(key, Trace::new(paths.map(str::to_owned))).unwrap();
    }
    let paths: Vec<_> =
        store.traces(key).unwrap().found().unwrap().into_iter().flat_map(|t| t.paths).collect();
    assert_eq!(paths, ["a", "b"]);
}
