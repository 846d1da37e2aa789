//! How many requests records take, and what the remote lost of them.

use super::*;
use crate::{
    plan::fingerprint::action_key,
    store::{ItemRecord, Opened, Trace, unseal},
};

/// The requests since the last call that begin with this.
fn asked(server: &S3, what: &str) -> usize {
    server.requests().iter().filter(|line| line.starts_with(what)).count()
}

#[test]
fn records_beside_a_result_that_the_remote_lost_are_sent_again() {
    for by_run in [false, true] {
        let (server, remote) = s3();
        let here = Machine::new();
        let made = here.make("clips", &[b"one", b"two"]);
        remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
        for folder in ["traces", "items"] {
            let keys = server.keys(folder);
            server.remove(&keys[0]);
            let dry = remote.push(&here.store, std::slice::from_ref(&made), &DRY).unwrap();
            assert_eq!((dry.results.len(), dry.there), (1, 0), "{folder}");
            assert_eq!(server.keys(folder).len(), keys.len() - 1);
            if by_run {
                // Another machine made the same again.
                let link = link(&here, s3_with(&server, s3::SECRET));
                link.made(made.clone());
                assert_eq!(link.finish().sent.results.len(), 1, "{folder}");
            } else {
                let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
                assert_eq!((moved.results.len(), moved.there, moved.objects), (1, 0, 0));
                assert!(moved.bytes > 0 && moved.results[0].1 == moved.bytes);
            }
            assert_eq!(server.keys(folder), keys);
            let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
            assert_eq!((moved.results.len(), moved.there), (0, 1));
        }
    }
}

#[test]
fn a_wrong_result_is_replaced_when_that_is_asked_for() {
    let (_server, remote) = s3();
    let (wrong, right) = (Machine::new(), Machine::new());
    // The same keys, other content: the stage gave something wrong once.
    let first = wrong.make("clips", &[b"wrong", b"two"]);
    let second = right.make("clips", &[b"right", b"two"]);
    assert_eq!(first.record.fingerprint, second.record.fingerprint);
    remote.push(&wrong.store, &[first], &HOW).unwrap();
    let results = [second.clone()];
    let kept = remote.push(&right.store, &results, &HOW).unwrap();
    assert_eq!((kept.results.len(), kept.differing.len()), (0, 1));
    let replace = Transfer { replace: true, ..HOW };
    let dry = remote.push(&right.store, &results, &Transfer { dry_run: true, ..replace }).unwrap();
    assert_eq!((dry.results.len(), dry.differing.len()), (1, 0));
    let moved = remote.push(&right.store, &results, &replace).unwrap();
    assert_eq!((moved.results.len(), moved.differing.len()), (1, 0));
    let other = Machine::new();
    other.pull(&remote);
    let key = second.record.fingerprint;
    let record = other.store.lookup(key).unwrap().found().unwrap();
    assert_eq!(record.output, second.record.output);
    // The items, too, which other results may share.
    for key in &second.items {
        let name = sharded("items", &key.to_string());
        let there = remote.bucket.get(&name).unwrap().unwrap();
        let Opened::Whole(there) = unseal::<ItemRecord>(&there) else { panic!("{name}") };
        let here = right.store.item_files(*key).unwrap().unwrap();
        assert!(there.is_of(*key) && there.files == here);
    }
}

#[test]
fn many_items_are_looked_for_by_lists_and_few_one_by_one() {
    let (server, remote) = s3();
    let here = Machine::new();
    let files: Vec<Vec<u8>> = (0..400_u16).map(|at| at.to_le_bytes().to_vec()).collect();
    let files: Vec<_> = files.iter().map(Vec::as_slice).collect();
    let (many, few) = (here.make("many", &files), here.make("few", &files[..10]));
    let both = [many.clone(), few.clone()];
    remote.push(&here.store, &both, &HOW).unwrap();
    server.requests();
    assert_eq!(remote.push(&here.store, &[few], &HOW).unwrap().there, 1);
    assert_eq!(asked(&server, "HEAD /bucket/items"), 10);
    let lost = server.keys("items")[7].clone();
    server.remove(&lost);
    assert_eq!(remote.push(&here.store, &[many], &HOW).unwrap().results.len(), 1);
    let requests = server.requests();
    assert!(!requests.iter().any(|line| line.starts_with("HEAD /bucket/items")));
    assert!(requests.len() <= 260, "{}", requests.len());
    assert!(server.keys("items").contains(&lost));
}

#[test]
fn a_result_that_is_new_takes_one_request_for_each_thing_sent() {
    let (server, remote) = s3();
    let here = Machine::new();
    let link = link(&here, remote);
    link.made(here.make("first", &[b"one"]));
    while server.keys("actions").is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.requests();
    link.made(here.make("second", &[b"two", b"three"]));
    assert_eq!(link.finish().sent.results.len(), 2);
    let mut requests: Vec<_> = server
        .requests()
        .iter()
        .map(|line| line.split('/').take(3).collect::<Vec<_>>().join("/"))
        .collect();
    // The record is asked for first and written last.
    assert!(requests[0].starts_with("GET") && requests.last().unwrap().ends_with("actions"));
    requests.sort();
    // Both read the same from outside, so the second finds that there, and says that it is in use.
    insta::assert_snapshot!(requests.join("\n"), @"
    GET /bucket/actions
    PUT /bucket/actions
    PUT /bucket/items
    PUT /bucket/items
    PUT /bucket/objects
    PUT /bucket/objects
    PUT /bucket/objects
    PUT /bucket/traces
    PUT /bucket/traces
    ");
}

/// A result of a stage that read this file, each at its time.
fn reading(machine: &Machine, at: u8, content: &[u8]) -> NewResult {
    let mut made = machine.make(&format!("clips{at}"), &[content]);
    made.record.ingredients.sources = [(format!("{at}.txt"), Digest::of(content))].into();
    made.record.fingerprint = action_key(&made.record.ingredients);
    machine.store.commit(&made.record).unwrap();
    made.record.started = format!("2025-01-01T00:00:{at:02}Z");
    made
}

#[test]
fn of_the_sets_of_files_that_were_read_the_latest_are_kept() {
    let key = Fingerprint::of(b"traced");
    let read = |remote: &Remote| -> Vec<String> {
        remote.traces(key, None).unwrap().into_iter().flat_map(|trace| trace.paths).collect()
    };
    let names = |of: &[u8]| of.iter().map(|at| format!("{at}.txt")).collect::<Vec<_>>();
    let (_dir, remote) = folder();
    let here = Machine::new();
    let made: Vec<_> = (0..20).map(|at| reading(&here, at, &[at])).collect();
    // One push of many sends those of the latest.
    remote.push(&here.store, &made[..10], &HOW).unwrap();
    let mut kept = read(&remote);
    kept.sort();
    assert_eq!(kept, names(&[2, 3, 4, 5, 6, 7, 8, 9]));
    // What comes one by one takes the places of the oldest.
    for made in &made[10..18] {
        std::thread::sleep(Duration::from_millis(20));
        remote.push(&here.store, std::slice::from_ref(made), &HOW).unwrap();
    }
    assert_eq!(read(&remote), names(&[17, 16, 15, 14, 13, 12, 11, 10]));
    // What is in use again is no longer old, and the others are not missed.
    let again = reading(&here, 10, b"another content");
    std::thread::sleep(Duration::from_millis(20));
    remote.push(&here.store, &[again], &HOW).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    remote.push(&here.store, &made[18..19], &HOW).unwrap();
    assert_eq!(read(&remote), names(&[18, 10, 17, 16, 15, 14, 13, 12]));
    let moved = remote.push(&here.store, &made[..19], &HOW).unwrap();
    assert_eq!((moved.there, moved.results.len()), (19, 0));
}

#[test]
fn the_latest_sets_of_files_are_kept_of_each_folder_that_was_read() {
    let key = Fingerprint::of(b"traced");
    let (server, remote) = s3();
    let here = Machine::new();
    let folders = ["a", "b", "c"].map(|name| Trace::root_name(Path::new(name)));
    for at in 0..30 {
        let mut made = reading(&here, at, &[at]);
        made.record.source_root = Some(folders[usize::from(at) % 3]);
        remote.push(&here.store, &[made], &HOW).unwrap();
    }
    // As an older version sends it.
    remote.push(&here.store, &[reading(&here, 30, &[30])], &HOW).unwrap();
    assert_eq!(server.keys("traces").len(), 3 * Trace::KEPT + 1);
    for (at, root) in folders.into_iter().enumerate() {
        let traces = remote.traces(key, Some(root)).unwrap();
        assert_eq!(traces.len(), Trace::KEPT);
        let is_own = |trace: &Trace| {
            trace.paths[0].strip_suffix(".txt").unwrap().parse::<usize>().unwrap() % 3 == at
        };
        assert!(traces.iter().all(is_own), "{traces:?}");
    }
    assert_eq!(remote.traces(key, None).unwrap().len(), Trace::KEPT);
    assert!(remote.traces(key, Some(Trace::root_name(Path::new("d")))).unwrap().is_empty());
}

#[test]
fn old_sets_of_files_are_removed_from_a_server_and_the_others_read_at_once() {
    let (server, remote) = s3();
    let here = Machine::new();
    for at in 0..12 {
        remote.push(&here.store, &[reading(&here, at, &[at])], &HOW).unwrap();
    }
    assert_eq!(server.keys("traces").len(), Trace::KEPT);
    server.delay(Duration::from_millis(200));
    let remote = s3_with(&server, s3::SECRET);
    let start = Instant::now();
    assert_eq!(remote.traces(Fingerprint::of(b"traced"), None).unwrap().len(), Trace::KEPT);
    // One after the other, they would take 1.8 s.
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
}

#[test]
fn results_are_sent_side_by_side() {
    let (server, remote) = s3();
    let here = Machine::new();
    server.delay(Duration::from_millis(40));
    let link = link(&here, remote);
    for at in 0..16_u8 {
        link.made(here.make(&format!("clips{at}"), &[&[at]]));
    }
    assert_eq!(link.finish().sent.results.len(), 16);
    // One result alone has no more than three requests on their way.
    assert!(server.busiest() >= 6, "{}", server.busiest());
    assert_eq!(Machine::new().pull(&s3_with(&server, s3::SECRET)).results.len(), 16);
}

#[test]
fn who_waits_long_for_the_remote_is_told_for_what() {
    let server = S3::new();
    let here = Machine::new();
    let made = here.make("clips", &[b"one"]);
    let told = |delay| {
        let link = link(&here, s3_patient(&server, s3::SECRET, Duration::from_secs(8)));
        server.fault("GET /bucket/actions", Fault::Slow(delay));
        link.made(made.clone());
        let mut told = None;
        link.finish_telling(|results| told = Some(results));
        told
    };
    assert_eq!(told(Duration::from_secs(3)), Some(1));
    assert_eq!(told(Duration::from_millis(1)), None);
}

#[test]
fn a_remote_that_stops_answering_is_waited_for_once() {
    let (server, remote) = s3();
    let here = Machine::new();
    let link = link(&here, remote);
    link.made(here.make("first", &[b"one"]));
    while server.keys("actions").is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Longer than anybody waits.
    server.delay(Duration::from_secs(9));
    for at in 0..40_u8 {
        link.made(here.make(&format!("clips{at}"), &[&[at]]));
    }
    let start = Instant::now();
    let report = link.finish();
    assert_eq!((report.sent.results.len(), report.sent.failed), (1, 40));
    assert!(report.error.unwrap().contains("cannot be reached"));
    assert!(start.elapsed() < (QUICK.connect + QUICK.read) * 6, "{:?}", start.elapsed());
}

#[test]
fn a_remote_that_drips_is_given_up_as_one_that_does_not_answer() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("clips", &[&[7; 5000]]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    for _ in 0..=QUICK.retries * 2 {
        server.fault("bytes=0-4999", Fault::Drip(Duration::from_millis(100)));
    }
    let link = link(&there, remote);
    let start = Instant::now();
    assert!(link.bring(&there.store, made.record.fingerprint, &"clips").is_none());
    assert!(start.elapsed() < (QUICK.connect + QUICK.read) * 6, "{:?}", start.elapsed());
    assert!(server.faults_left() > 0, "all of them are needed otherwise");
    assert!(link.finish().error.unwrap().contains("cannot be reached"));
    assert!(!there.has(&made) && there.is_clean());
}

#[test]
fn a_remote_that_sends_more_than_was_asked_for_is_not_read_to_the_end() {
    // Longer than a record, and than a part.
    const LONG: usize = 65 << 20;
    let (server, remote) = s3();
    let here = Machine::new();
    let made = here.make("clips", &[b"one"]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    for (on, wrong) in
        [("GET /bucket/actions", "the record is damaged"), ("bytes=0-2", "1 file is damaged")]
    {
        let there = Machine::new();
        server.fault(on, Fault::Longer(LONG));
        let pulled = there.pull(&remote);
        let told: Vec<_> = pulled.broken.iter().map(|(_, wrong)| wrong.to_string()).collect();
        assert_eq!(told, [wrong], "{on}: {pulled:?}");
        assert!(!there.has(&made) && there.is_clean(), "{on}");
        assert_eq!(server.faults_left(), 0, "it is asked once");
        assert_eq!(there.pull(&remote).results.len(), 1);
    }
    // In a folder, too.
    let (dir, remote) = folder();
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    let record = sharded("actions", &made.record.fingerprint.to_string());
    let file = std::fs::File::options().write(true).open(dir.path().join("shared").join(record));
    file.unwrap().set_len(LONG as u64).unwrap();
    let broken = Machine::new().pull(&remote).broken;
    assert_eq!(broken[0].1.to_string(), "the record is damaged");
}

#[test]
fn what_is_wrong_at_the_remote_is_told_once_a_result() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("clips", &[b"one", b"two", b"three"]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    let object = |bytes: &[u8]| sharded("objects", &Digest::of(bytes).to_string());
    server.change(&object(b"one"), |bytes| bytes[0] ^= 1);
    server.remove(&object(b"two"));
    let wrong = Wrong { record: false, damaged: 1, gone: 1 };
    assert_eq!(wrong.to_string(), "1 file is damaged, 1 file is gone");
    let key = made.record.fingerprint;
    assert_eq!(there.pull(&remote).broken, [(key.short(), wrong)]);
    let link = link(&there, remote);
    assert!(link.bring(&there.store, key, &"pairs").is_none());
    link.bring_items(&there.store, &made.items);
    assert!(link.bring(&there.store, key, &"pairs").is_none());
    assert_eq!(link.finish().broken, [("pairs".to_owned(), wrong)]);

    // A record that cannot be read, and a list of items, also where nothing is fetched.
    let manifest = sharded("objects", &made.record.output.to_string());
    server.remove(&manifest);
    let remote = s3_with(&server, s3::SECRET);
    let found = remote.pull(&Machine::new().store, &Scope::All, &DRY).unwrap();
    assert_eq!(found.broken, [(key.short(), Wrong::file(true))]);
    server.change(&server.keys("actions")[0], |bytes| bytes.truncate(9));
    let found = remote.pull(&Machine::new().store, &Scope::All, &DRY).unwrap();
    assert_eq!(found.broken[0].1.to_string(), "the record is damaged");
}
