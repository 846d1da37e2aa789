//! Records, formats and what becomes of damage.

use std::collections::BTreeMap;

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
    let (_dir, store) = store();
    let key = Fingerprint::of(b"key");
    let mut record = ItemRecord::new(key, BTreeMap::new());
    record.format_version = NEWER;
    let path = store.sharded("items", &key.to_string());
    store.write_json(&path, &record).unwrap();
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
    let (_dir, store) = store();
    let key = Fingerprint::of(b"key");
    store.commit_item(key, BTreeMap::new()).unwrap();
    assert_eq!(store.lookup_item(key).unwrap(), Some(ItemRecord::new(key, BTreeMap::new())));
    fs::write(store.sharded("items", &key.to_string()), "{\"format").unwrap();
    assert_eq!(store.lookup_item(key).unwrap(), None);
}

#[test]
fn a_cache_of_the_first_format_is_read_and_becomes_one_of_this() {
    let (dir, store) = store();
    let key = Fingerprint::of(b"key");
    let traces = vec![Trace::new(["a".to_owned()])];
    store.add_trace(key, traces[0].clone()).unwrap();
    let path = store.sharded("traces", &key.to_string());
    fs::write(&path, serde_json::to_vec(&traces).unwrap()).unwrap();
    let format = dir.path().join("format");
    fs::write(&format, "1\n").unwrap();
    let of = |store: Store| store.traces(key).unwrap().found();
    assert_eq!(of(Store::look(dir.path()).unwrap()), Some(traces.clone()));
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    // Whoever writes records with checksums keeps older versions away from them.
    assert_eq!(of(Store::open(dir.path()).unwrap()), Some(traces));
    assert_eq!(fs::read_to_string(&format).unwrap(), format!("{FORMAT_VERSION}\n"));
}

#[test]
fn the_record_of_another_item_is_damage() {
    let (_dir, store) = store();
    let [one, two] = ["one", "two"].map(|text| {
        let (key, file) = (Fingerprint::of(text.as_bytes()), store.put(text.as_bytes()).unwrap());
        store.commit_item(key, [("file".to_owned(), file)].into()).unwrap();
        key
    });
    let [path, other] = [one, two].map(|key| store.sharded("items", &key.to_string()));
    let bytes = [&path, &other].map(|path| fs::read(path).unwrap());
    fs::write(&path, &bytes[1]).unwrap();
    fs::write(&other, &bytes[0]).unwrap();
    for key in [one, two] {
        assert_eq!(store.lookup_item(key).unwrap(), None);
        assert_eq!(store.item_files(key).unwrap(), None);
    }
    let damaged = store.verify(false).unwrap().damaged;
    assert_eq!(damaged.len(), 2);
    assert!(!path.exists() && !other.exists());
}

#[test]
fn the_record_of_an_item_that_does_not_say_which_counts_as_none() {
    let (_dir, store) = store();
    let key = Fingerprint::of(b"key");
    let record = ItemRecord { format_version: 2, key: None, files: BTreeMap::new() };
    let path = store.sharded("items", &key.to_string());
    store.write_json(&path, &record).unwrap();
    assert_eq!(store.lookup_item(key).unwrap(), None);
    assert!(store.verify(false).unwrap().is_sound() && path.exists());
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

#[test]
fn a_trace_is_kept_for_each_of_many_roots() {
    let (_dir, store) = store();
    let key = Fingerprint::of(b"key");
    let root = |n: usize| Some(Trace::root_name(std::path::Path::new(&format!("/data/{n}"))));
    for n in 0..20 {
        let paths = ["same.png".to_owned(), format!("{n}.png")];
        store.add_trace(key, Trace::new(paths).below(root(n))).unwrap();
    }
    let traces = store.traces(key).unwrap().found().unwrap();
    for n in 0..20 {
        let likely = Trace::likely(traces.clone(), root(n));
        assert_eq!(likely[0].paths[1], format!("{n}.png"));
        assert_eq!(likely.len(), 1 + Trace::KEPT, "others are few: each costs a look at its files");
    }
    for n in 0..20 {
        store.add_trace(key, Trace::new([format!("later {n}")]).below(root(3))).unwrap();
    }
    let traces = store.traces(key).unwrap().found().unwrap();
    assert_eq!(traces.len(), 19 + Trace::KEPT);
    for n in 0..10 {
        let paths = (0..5_000).map(|path| format!("{n}/{path}"));
        store.add_trace(key, Trace::new(paths).below(root(100 + n))).unwrap();
    }
    assert_eq!(store.traces(key).unwrap().found().unwrap().len(), Trace::KEPT);
}
