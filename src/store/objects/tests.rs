use super::*;
use crate::artifact::{ArtifactKind, Item, Manifest};

fn overwrite(store: &Store, file: &FileRef, bytes: &[u8]) {
    let path = store.object_path(file.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn content_written_in_pieces_is_that_written_at_once() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [store, other] = [0, 1].map(|index| Store::open(dirs[index].path()).unwrap());
    let whole = store.put(b"content").unwrap();
    for damaged in [false, true] {
        if damaged {
            overwrite(&store, &whole, b"c0ntent");
        }
        let mut object = store.begin().unwrap();
        object.write(b"con").unwrap();
        object.write(b"tent").unwrap();
        assert_eq!(object.finish().unwrap(), whole);
        assert_eq!(store.read(&whole).unwrap(), b"content");
    }
    drop(store.begin().unwrap());
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);

    other.take_over(&store, &whole).unwrap();
    assert_eq!(other.read(&whole).unwrap(), b"content");
    other.take_over(&other, &whole).unwrap();
    overwrite(&store, &whole, b"c0ntent");
    for into in [&store, &Store::open(tempfile::tempdir().unwrap().path()).unwrap()] {
        let error = into.take_over(&store, &whole);
        assert!(matches!(error, Err(StoreError::Damaged { .. })), "{error:?}");
    }
}

#[test]
fn a_flipped_byte_is_seen_without_reading_and_at_reading() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let file = store.put(b"content").unwrap();
    assert!(store.object_ok(file.digest, Some(7)));
    overwrite(&store, &file, b"c0ntent");
    assert!(!store.object_ok(file.digest, Some(7)));
    assert!(matches!(store.read(&file), Err(StoreError::Damaged { .. })));
    store.put(b"content").unwrap();
    assert_eq!(store.read(&file).unwrap(), b"content");
    // As a failing disk does it.
    overwrite(&store, &file, b"c0ntent");
    let path = store.object_path(file.digest);
    fs::File::open(path).and_then(|file| file.set_modified(untouched())).unwrap();
    assert!(store.object_ok(file.digest, Some(7)));
    store.put(b"content").unwrap();
    assert_eq!(store.read(&file).unwrap(), b"content");
}

#[test]
fn damage_is_dropped_until_it_is_in_what_was_written_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let items = ["one", "two", "three"].map(|name| Item {
        name: name.into(),
        files: [("file".to_owned(), store.put(name.as_bytes()).unwrap())].into(),
    });
    let files = items.each_ref().map(|item| item.files["file"]);
    let manifest = Manifest { kind: ArtifactKind::Files, format_version: 1, items: items.into() };
    let output = store.put_manifest(&manifest).unwrap();
    // As another process finds it.
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.drop_damaged(output).unwrap(), 0);
    for file in &files[..2] {
        overwrite(&store, file, b"0ne");
    }
    assert_eq!(store.drop_damaged(output).unwrap(), 2);
    assert!(store.read(&files[2]).is_ok());
    for text in ["one", "two"] {
        store.put(text.as_bytes()).unwrap();
    }
    assert_eq!(store.drop_damaged(output).unwrap(), 0);
    overwrite(&store, &files[0], b"0ne");
    let error = store.drop_damaged(output).unwrap_err();
    assert!(matches!(error, StoreError::Unreliable { .. }), "{error}");
    assert!(error.help().unwrap().contains("PIPE_CACHE"));
}

#[test]
fn what_was_written_here_and_is_gone_is_made_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(b"content").unwrap().digest;
    let remove = || fs::remove_file(store.object_path(digest)).unwrap();
    remove();
    // All who need it find it gone before it is there again.
    assert!(store.drop_if_damaged(digest).unwrap());
    assert!(store.drop_if_damaged(digest).unwrap());
    store.put(b"content").unwrap();
    assert!(!store.drop_if_damaged(digest).unwrap());
    remove();
    let error = store.drop_if_damaged(digest).unwrap_err();
    assert!(matches!(error, StoreError::Vanished { .. }), "{error}");
    assert!(error.help().is_some());
}

#[cfg(unix)]
#[test]
fn what_a_disk_does_not_give_back_stays_until_it_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let file = store.put(b"content").unwrap();
    let path = store.object_path(file.digest);
    fs::remove_file(&path).unwrap();
    // As a disk fails: there is a name, and what it leads to cannot be read.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    for error in [store.read(&file).map(drop), store.drop_if_damaged(file.digest).map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
        assert!(error.help().unwrap().contains("pipe cache verify"));
    }
    assert!(path.symlink_metadata().is_ok(), "nothing is removed for that");
    let mut object = store.begin().unwrap();
    object.write(b"content").unwrap();
    object.finish().unwrap();
    assert_eq!(store.read(&file).unwrap(), b"content");
}

#[test]
fn a_read_that_fails_for_a_moment_is_made_again() {
    let asked = std::cell::Cell::new(0);
    let read = || {
        asked.set(asked.get() + 1);
        if asked.get() == 1 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    };
    twice(read).unwrap();
    assert_eq!(asked.get(), 2);
}

#[cfg(unix)]
#[test]
fn what_may_not_be_read_is_told_so_and_stays() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let file = store.put(b"content").unwrap();
    let path = store.object_path(file.digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        // Who may do everything is refused nothing.
        return;
    }
    for error in [store.read(&file).map(drop), store.drop_if_damaged(file.digest).map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::NotReadable { .. }), "{error}");
    }
    assert!(path.exists());
}

#[test]
fn a_copy_without_times_is_believed_after_one_hash() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let file = store.put(b"content").unwrap();
    overwrite(&store, &file, b"content");
    let time = || fs::metadata(store.object_path(file.digest)).unwrap().modified().unwrap();
    assert_ne!(time(), untouched());
    assert!(store.object_ok(file.digest, Some(7)));
    assert_eq!(time(), untouched());
}
