//! What a check finds and removes.

use std::{collections::BTreeMap, fs};

use super::*;
use crate::store::{Count, Keep};

#[test]
fn a_history_that_cannot_be_read_is_one_finding_among_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(b"content").unwrap().digest;
    let object = store.object_path(digest);
    fs::remove_file(&object).unwrap();
    fs::write(&object, "c0ntent").unwrap();
    fs::create_dir(dir.path().join("history/a-folder")).unwrap();
    assert!(store.roots().is_err(), "who cleans up must not go on");
    let report = store.verify(false).unwrap();
    let found: Vec<_> =
        report.damaged.iter().map(|damage| (damage.file.clone(), damage.removed)).collect();
    let object = object.strip_prefix(dir.path()).unwrap().to_owned();
    assert_eq!(found, [(PathBuf::from("history/a-folder"), false), (object, true)]);
    assert!(report.damaged[0].unread.is_some());
}

#[test]
fn what_a_run_repairs_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(b"content").unwrap().digest;
    let path = store.object_path(digest);
    let damage = || {
        fs::remove_file(&path).unwrap();
        fs::write(&path, "c0ntent").unwrap();
    };
    let remove = || {
        let is_damaged = || Ok(!store.is_intact(digest)?);
        let sweeper = Sweeper { store: &store, roots: &[], dry_run: false };
        sweeper.remove(&path, is_damaged, &[]).unwrap()
    };
    damage();
    let found = store.damaged_objects(&mut VerifyReport::default()).unwrap();
    assert_eq!(found, [(path.clone(), digest)]);
    store.put(b"content").unwrap();
    assert_eq!(remove(), None);
    assert!(store.is_intact(digest).unwrap());
    damage();
    assert!(remove().is_some() && !path.exists());
    assert_eq!(remove(), None, "dropped by another");
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_is_told_and_left_and_the_rest_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let path = |content: &[u8]| store.object_path(store.put(content).unwrap().digest);
    let [cut, bad] = [path(b"cut"), path(b"bad")];
    for file in [&cut, &bad] {
        fs::remove_file(file).unwrap();
    }
    fs::write(&bad, "b@d").unwrap();
    let record = store.sharded("items", &Fingerprint::of(b"item").to_string());
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    for file in [&cut, &record] {
        // As a disk fails: there is a name, and what it leads to cannot be read.
        std::os::unix::fs::symlink(file, file).unwrap();
    }
    let report = store.verify(false).unwrap();
    let mut found: Vec<_> =
        report.damaged.iter().map(|d| (d.removed, d.unread.is_some())).collect();
    found.sort_unstable();
    assert_eq!(found, [(false, true), (false, true), (true, false)]);
    assert!(!bad.exists() && [cut, record].iter().all(|file| file.symlink_metadata().is_ok()));
}

#[test]
fn verify_drops_what_is_damaged_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let good = store.put(b"good").unwrap();
    let bad = store.put(b"bad").unwrap();
    let path = store.object_path(bad.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "b@d").unwrap();
    let [whole, cut] = ["whole", "cut"].map(|text| Fingerprint::of(text.as_bytes()));
    for key in [whole, cut] {
        store.commit_item(key, BTreeMap::new()).unwrap();
    }
    let record = store.sharded("items", &cut.to_string());
    fs::write(&record, "{").unwrap();
    let folder = store.checkpoints(whole).unwrap().path().to_owned();
    let name = |content: &[u8]| {
        let hash = CheckpointName::hash_of(Digest::of(content));
        folder.join(CheckpointName { keep: Keep::Final, step: 1, hash }.to_string())
    };
    let state = name(b"state");
    fs::write(&state, "st@te").unwrap();

    let drawn = dir.path().join("pictures/a");
    fs::create_dir_all(&drawn).unwrap();
    let of = Digest::of(b"shown").short();
    let picture = |own: &[u8]| drawn.join(format!("x-{of}-{of}-{}.png", Digest::of(own).short()));
    let [sheet, cut] = [picture(b"sheet"), picture(b"whole")];
    fs::write(&sheet, "sheet").unwrap();
    fs::write(&cut, "who").unwrap();
    fs::write(drawn.join("mine.png"), "mine").unwrap();

    let found = store.verify(true).unwrap().damaged;
    assert!(found.len() == 4 && found.iter().all(|damage| !damage.removed));
    assert!([&path, &record, &state, &cut].into_iter().all(|file| file.exists()));
    let report = store.verify(false).unwrap();
    let below = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_owned();
    let mut files = vec![below(&record), below(&path), below(&state), below(&cut)];
    files.sort();
    let damage = |file| Damage { file, results: Vec::new(), removed: true, unread: None };
    let damaged = files.into_iter().map(damage).collect();
    assert_eq!(
        report,
        VerifyReport {
            objects: 2,
            checkpoints: 1,
            pictures: 2,
            bytes: 20,
            records: 2,
            damaged,
            ..VerifyReport::default()
        }
    );
    assert!(![&path, &record, &state, &cut].into_iter().any(|file| file.exists()));
    assert!(sheet.exists());
    fs::write(&state, "state").unwrap();
    assert_eq!(store.read(&good).unwrap(), b"good");
    assert_eq!(store.stats().unwrap().folders["objects"], Count { files: 1, bytes: 4 });
    let report = store.verify(false).unwrap();
    assert_eq!((report.checkpoints, report.damaged), (1, Vec::new()));
}
