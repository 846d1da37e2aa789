//! Content at the remote that is not what it should be.

use super::*;

#[test]
fn a_remote_that_lies_is_not_believed() {
    let (server, remote) = s3();
    let here = Machine::new();
    let made = here.make("clips", &[b"one", b"two"]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    for key in server.keys("objects") {
        let there = Machine::new();
        server.change(&key, |bytes| bytes[0] ^= 1);
        assert_eq!(there.pull(&remote).broken.len(), 1, "{key}");
        assert!(!there.has(&made) && there.is_clean());
        // Too short, too.
        let mut last = None;
        server.change(&key, |bytes| {
            bytes[0] ^= 1;
            last = bytes.pop();
        });
        assert!(there.pull(&remote).results.is_empty(), "{key}");
        assert!(!there.has(&made) && there.is_clean());
        server.change(&key, |bytes| bytes.extend(last));
    }
    let there = Machine::new();
    let record = server.keys("actions").remove(0);
    server.change(&record, |bytes| *bytes = b"{\"format".to_vec());
    assert!(there.pull(&remote).results.is_empty());
}

#[test]
fn a_record_under_the_key_of_another_is_not_believed_and_is_replaced() {
    for renamed in [false, true] {
        let (server, remote) = s3();
        let (first, second, third) = (Machine::new(), Machine::new(), Machine::new());
        let [wanted, other] = ["wanted", "other"].map(|name| first.make(name, &[name.as_bytes()]));
        remote.push(&first.store, &[wanted.clone(), other.clone()], &HOW).unwrap();
        let key = wanted.record.fingerprint;
        let lie = Record {
            fingerprint: if renamed { key } else { other.record.fingerprint },
            ..other.record
        };
        let name = sharded("actions", &key.to_string());
        server.change(&name, |bytes| *bytes = crate::store::seal(&lie));

        let run = link(&second, remote);
        assert!(run.bring(&second.store, key, &"wanted").is_none());
        assert!(second.store.lookup(key).unwrap().found().is_none() && second.is_clean());
        run.made(second.make("wanted", &[b"wanted"]));
        let report = run.finish();
        assert_eq!(report.broken, [("wanted".to_owned(), Wrong::RECORD)]);
        assert_eq!((report.sent.results.len(), report.sent.differing.len()), (1, 0));
        assert_eq!(third.pull(&s3_with(&server, s3::SECRET)).broken, []);
        assert!(third.has(&wanted));
        assert_eq!(third.store.lookup(key).unwrap().found().unwrap().output, wanted.record.output);
    }
}

#[test]
fn what_is_damaged_there_is_replaced_by_who_makes_it_again() {
    let (server, remote) = s3();
    let (first, second, third) = (Machine::new(), Machine::new(), Machine::new());
    let made = first.make("clips", &[b"one", b"two", b"three"]);
    remote.push(&first.store, std::slice::from_ref(&made), &HOW).unwrap();
    let files: Vec<_> = server
        .keys("objects")
        .into_iter()
        .filter(|key| *key != sharded("objects", &made.record.output.to_string()))
        .collect();
    server.change(&files[0], |bytes| bytes[0] ^= 1);
    server.remove(&files[1]);

    let run = link(&second, remote);
    assert!(run.bring(&second.store, made.record.fingerprint, &"clips").is_none());
    run.made(second.make("clips", &[b"one", b"two", b"three"]));
    let report = run.finish();
    assert_eq!((report.sent.objects, report.sent.results.len()), (2, 1));
    assert_eq!(third.pull(&s3_with(&server, s3::SECRET)).broken, []);
    assert!(third.has(&made));
}

#[test]
fn what_lies_behind_a_damaged_list_or_record_is_replaced_at_once() {
    let of = |folder: &str, key: &str| key.starts_with(folder);
    for damaged in ["objects", "actions"] {
        let (server, remote) = s3();
        let (first, second, third) = (Machine::new(), Machine::new(), Machine::new());
        let made = first.make("clips", &[b"one", b"two", b"three"]);
        remote.push(&first.store, std::slice::from_ref(&made), &HOW).unwrap();
        for key in server.keys("").iter().filter(|key| of(damaged, key) || of("objects", key)) {
            server.change(key, |bytes| bytes[0] ^= 1);
        }
        let run = link(&second, remote);
        assert!(run.bring(&second.store, made.record.fingerprint, &"clips").is_none());
        run.made(second.make("clips", &[b"one", b"two", b"three"]));
        let report = run.finish();
        assert_eq!((report.sent.objects, report.sent.results.len()), (4, 1), "{damaged}");
        assert_eq!(third.pull(&s3_with(&server, s3::SECRET)).broken, []);
        assert!(third.has(&made));
    }
}

#[test]
fn damage_here_does_not_become_damage_there() {
    let (server, remote) = s3();
    let here = Machine::new();
    let made = here.make("clips", &[b"one", b"two"]);
    let path = here.store.object_path(Digest::of(b"one"));
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"0ne").unwrap();
    std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), moved.failed), (0, 1));
    assert!(moved.error.unwrap().contains("is damaged here"));
    assert!(server.keys("actions").is_empty());
    here.make("clips", &[b"one", b"two"]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!(Machine::new().pull(&remote).results.len(), 1);
}

#[test]
fn damaged_records_of_items_and_sources_are_replaced() {
    let (server, remote) = s3();
    let (first, second) = (Machine::new(), Machine::new());
    let made = first.make("clips", &[b"one", b"two"]);
    remote.push(&first.store, std::slice::from_ref(&made), &HOW).unwrap();
    let records: Vec<_> = ["items", "traces"].iter().flat_map(|name| server.keys(name)).collect();
    assert_eq!(records.len(), 3);
    for key in &records {
        server.change(key, |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    let run = link(&second, remote);
    assert!(run.traces(made.record.traced.unwrap(), None).is_empty());
    run.bring_items(&second.store, &made.items);
    assert!(second.store.lookup_item(made.items[0]).unwrap().is_none());
    run.made(second.make("clips", &[b"one", b"two"]));
    assert_eq!(run.finish().sent.failed, 0);
    let third = link(&Machine::new(), s3_with(&server, s3::SECRET));
    assert_eq!(third.traces(made.record.traced.unwrap(), None).len(), 1);
    for key in &records {
        server.change(key, |bytes| assert_ne!(*bytes.last().unwrap(), b'}' ^ 1));
    }
}

#[test]
fn exchanged_records_of_items_and_those_of_older_versions_are_replaced() {
    for older in [false, true] {
        let (server, remote) = s3();
        let (first, second) = (Machine::new(), Machine::new());
        let made = first.make("clips", &[b"one", b"two"]);
        remote.push(&first.store, std::slice::from_ref(&made), &HOW).unwrap();
        let names = server.keys("items");
        let mut records = Vec::new();
        for name in &names {
            server.change(name, |bytes| records.push(bytes.clone()));
        }
        for (name, record) in names.iter().zip(records.iter().rev()) {
            server.change(name, |bytes| {
                let sealed: serde_json::Value = serde_json::from_slice(record).unwrap();
                let mut old = sealed["record"].clone();
                old.as_object_mut().unwrap().remove("key");
                *bytes = if older { crate::store::seal(&old) } else { record.clone() };
            });
        }
        let run = link(&second, remote);
        run.bring_items(&second.store, &made.items);
        for key in &made.items {
            assert!(second.store.lookup_item(*key).unwrap().is_none());
        }
        run.made(second.make("clips", &[b"one", b"two"]));
        assert_eq!(run.finish().sent.failed, 0);
        for (name, record) in names.iter().zip(&records) {
            server.change(name, |bytes| assert_eq!(bytes, record));
        }
    }
}

#[test]
fn a_damaged_manifest_and_a_record_cut_short_are_replaced() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("clips", &[b"one"]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    let manifest = sharded("objects", &made.record.output.to_string());
    server.change(&manifest, |bytes| bytes[0] ^= 1);
    assert_eq!(there.pull(&remote).broken.len(), 1);
    let record = server.keys("actions").remove(0);
    server.change(&record, |bytes| bytes.truncate(9));
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.objects, moved.results.len(), moved.differing.len()), (2, 1, 0));
    assert_eq!(there.pull(&remote).results.len(), 1);
    assert!(there.has(&made) && there.is_clean());
    // What a newer version wrote is left.
    server.change(&record, |bytes| *bytes = b"{\"format_version\":9}".to_vec());
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    server.change(&record, |bytes| assert_eq!(bytes, b"{\"format_version\":9}"));
}

#[test]
fn another_output_takes_the_place_of_one_that_is_damaged_there() {
    for lost in [true, false] {
        let (server, remote) = s3();
        let (first, second, third) = (Machine::new(), Machine::new(), Machine::new());
        let made = first.make("clips", &[b"one"]);
        remote.push(&first.store, std::slice::from_ref(&made), &HOW).unwrap();
        let file = sharded("objects", &Digest::of(b"one").to_string());
        server.change(&file, |bytes| bytes[0] ^= 1);

        // The stage does not give the same twice.
        let run = link(&second, remote);
        assert!(run.bring(&second.store, made.record.fingerprint, &"clips").is_none());
        run.bring_items(&second.store, &made.items);
        let another = second.make("clips", &[b"another"]);
        if !lost {
            // Meanwhile somebody mended it otherwise: what is there now was never found damaged.
            server.remove(&server.keys("actions")[0]);
            let fourth = Machine::new();
            let result = fourth.make("clips", &[b"third"]);
            s3_with(&server, s3::SECRET).push(&fourth.store, &[result], &HOW).unwrap();
        }
        run.made(another.clone());
        let sent = run.finish().sent;
        assert_eq!((sent.results.len(), sent.differing.len()), (lost.into(), (!lost).into()));
        assert_eq!(third.pull(&s3_with(&server, s3::SECRET)).results.len(), 1);
        assert!(third.has(&another));
        let record = third.store.lookup(another.record.fingerprint).unwrap().found().unwrap();
        assert_eq!(record.output == another.record.output, lost);
        if lost {
            let items = link(&third, s3_with(&server, s3::SECRET));
            items.bring_items(&third.store, &made.items);
            let files = third.store.item_files(made.items[0]).unwrap().unwrap();
            assert_eq!(files["clip.safetensors"].digest, Digest::of(b"another"));
        }
    }
}
