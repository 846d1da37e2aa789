//! Against a folder, and against an S3 server on this machine with the faults of networks.

mod damage;
mod errors;
mod large;
mod records;
mod s3;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use object_store::aws::AmazonS3Builder;
use s3::{Fault, S3};
use serde_json::Map;
use tempfile::TempDir;

use super::{
    bucket::Bucket,
    http::{Connector, METADATA},
    *,
};
use crate::{
    artifact::{ArtifactKind, Item, Manifest},
    plan::fingerprint::action_key,
    store::{Behind, Digest, Fingerprint, Ingredients, NewResult, Record, Store, StoreError},
};

const QUICK: Patience = Patience {
    connect: Duration::from_millis(500),
    read: Duration::from_millis(1500),
    retries: 3,
    pause: Duration::from_millis(5),
};

const HOW: Transfer<'static> =
    Transfer { progress: &|_, _| {}, stopped: &|| false, dry_run: false, replace: false };

const DRY: Transfer<'static> = Transfer { dry_run: true, ..HOW };

struct Machine {
    dir: TempDir,
    store: Store,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Self { dir, store }
    }

    /// A result with these files, each an item of its own.
    fn make(&self, name: &str, files: &[&[u8]]) -> NewResult {
        let mut items = Vec::new();
        let mut keys = Vec::new();
        for (at, bytes) in files.iter().enumerate() {
            let file = self.store.put(bytes).unwrap();
            let files = BTreeMap::from([("clip.safetensors".to_owned(), file)]);
            let key = Fingerprint::of(format!("{name} item {at}").as_bytes());
            self.store.commit_item(key, files.clone()).unwrap();
            keys.push(key);
            items.push(Item { name: format!("{at}"), files });
        }
        let ingredients = Ingredients {
            kind: "toy".into(),
            version: 1,
            output_format: 1,
            params: Map::from_iter([("name".to_owned(), name.into())]),
            inputs: BTreeMap::new(),
            weights: None,
            sources: BTreeMap::from([("list.txt".to_owned(), Digest::of(b"1"))]),
        };
        let manifest = Manifest { kind: ArtifactKind::Videos, format_version: 1, items };
        let record = Record {
            format_version: 1,
            fingerprint: action_key(&ingredients),
            output: self.store.put_manifest(&manifest).unwrap(),
            files: Record::few_files(&manifest),
            ingredients,
            trajectory: None,
            reached: None,
            traced: Some(Fingerprint::of(b"traced")),
            source_root: None,
            started: "2025-01-01T00:00:00Z".into(),
            wall_secs: 1.0,
            cpu_secs: 1.0,
            device_secs: None,
            peak_memory: None,
            went_on_from: None,
            model: None,
            device: "cpu".into(),
            card: None,
            pipe_version: "0".into(),
            items_run: files.len(),
            items_total: files.len(),
        };
        self.store.commit(&record).unwrap();
        NewResult { name: name.to_owned(), record, items: keys }
    }

    fn has(&self, made: &NewResult) -> bool {
        let record = self.store.lookup(made.record.fingerprint).unwrap().found();
        record.is_some_and(|record| self.store.is_whole(&record))
    }

    fn pull(&self, remote: &Remote) -> Moved {
        remote.pull(&self.store, &Scope::All, &HOW).unwrap()
    }

    /// Nothing is left of what did not get through: no file aside, no record without content.
    fn is_clean(&self) -> bool {
        let aside = std::fs::read_dir(self.dir.path().join("tmp")).unwrap().count();
        let records = self.store.records().unwrap();
        aside == 0 && records.iter().all(|record| self.store.is_whole(record))
    }
}

fn folder() -> (TempDir, Remote) {
    let dir = tempfile::tempdir().unwrap();
    let remote = Remote::open(dir.path().join("shared").to_str().unwrap(), QUICK).unwrap();
    (dir, remote)
}

fn s3_with(server: &S3, secret: &str) -> Remote {
    s3_patient(server, secret, QUICK.read)
}

fn s3_patient(server: &S3, secret: &str, read: Duration) -> Remote {
    let objects = AmazonS3Builder::new()
        .with_endpoint(&server.endpoint)
        .with_bucket_name("bucket")
        .with_access_key_id(s3::KEY)
        .with_secret_access_key(secret)
        .with_http_connector(Connector { connect: QUICK.connect, read, metadata: METADATA })
        .with_retry(Bucket::retry(Patience { read, ..QUICK }))
        .build()
        .unwrap();
    Remote::over(Bucket::of(objects, QUICK), "s3://bucket/".into()).unwrap()
}

fn s3() -> (S3, Remote) {
    let server = S3::new();
    let remote = s3_with(&server, s3::SECRET);
    (server, remote)
}

fn link(machine: &Machine, remote: Remote) -> Link {
    Link::new(remote, machine.dir.path(), || false).unwrap()
}

fn round_trip(remote: &Remote) {
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("clips", &[b"one", b"two"]);
    let dry = remote.push(&here.store, std::slice::from_ref(&made), &DRY).unwrap();
    assert_eq!((dry.results.len(), dry.objects), (1, 3));
    assert!(!remote.check().unwrap());
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), moved.objects, moved.bytes), (1, 3, dry.bytes));
    let again = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((again.there, again.objects), (1, 0));

    let dry = remote.pull(&there.store, &Scope::All, &DRY).unwrap();
    assert_eq!((dry.results.len(), dry.bytes), (1, moved.bytes));
    assert!(!there.has(&made));
    let pulled = there.pull(remote);
    assert_eq!((pulled.results.len(), pulled.broken.len()), (1, 0));
    assert!(there.has(&made) && there.is_clean());
    assert_eq!(there.pull(remote).there, 1);
    let traces = there.store.traces(Fingerprint::of(b"traced")).unwrap().found().unwrap();
    assert_eq!(traces[0].paths, ["list.txt"]);
}

#[test]
fn results_go_through_a_folder() {
    round_trip(&folder().1);
}

#[test]
fn results_go_through_s3() {
    round_trip(&s3().1);
}

#[test]
fn the_first_record_stays_and_a_different_one_is_told() {
    for remote in [folder().1, s3().1] {
        let (here, there) = (Machine::new(), Machine::new());
        let first = here.make("clips", &[b"one"]);
        remote.push(&here.store, std::slice::from_ref(&first), &HOW).unwrap();
        let second = there.make("clips", &[b"another"]);
        let moved = remote.push(&there.store, std::slice::from_ref(&second), &HOW).unwrap();
        assert_eq!(moved.differing, ["clips"]);
        let kept = remote.record(first.record.fingerprint).unwrap().unwrap();
        assert_eq!(kept.output, first.record.output);
        // As when both looked before either wrote.
        assert!(!remote.send_result(&second, false).unwrap());
    }
}

#[test]
fn faults_that_pass_are_waited_out() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("clips", &[&[7; 5000]]);
    server.fault("GET /bucket/format", Fault::Broken);
    server.fault("PUT /bucket/objects", Fault::Broken);
    server.fault("PUT /bucket/objects", Fault::Silent);
    server.fault("PUT /bucket/actions", Fault::Silent);
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), &moved.error), (1, &None));
    for fault in [Fault::Cut, Fault::Broken, Fault::Slow(Duration::from_secs(2))] {
        server.fault("GET /bucket/", fault);
    }
    assert_eq!(there.pull(&remote).results.len(), 1);
    assert!(there.has(&made) && there.is_clean());
    assert_eq!(server.faults_left(), 0);
}

#[test]
fn a_push_that_was_cut_off_is_completed_by_the_next() {
    let (server, remote) = s3();
    let here = Machine::new();
    let made = here.make("clips", &[b"one", b"two", b"three"]);
    // As often as the record is tried: three times, each with its retries.
    for _ in 0..3 * (QUICK.retries + 1) {
        server.fault("PUT /bucket/actions", Fault::Broken);
    }
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert!(moved.failed == 1 && moved.error.is_some() && moved.results.is_empty());
    assert!(server.keys("actions").is_empty());
    assert_eq!((server.keys("objects").len(), server.faults_left()), (4, 0));
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.objects, moved.results.len(), moved.error), (0, 1, None));
    assert_eq!(server.keys("actions").len(), 1);
}

#[test]
fn results_are_fetched_side_by_side() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made: Vec<_> = (0..32_u8).map(|at| here.make(&format!("clips{at}"), &[&[at]])).collect();
    remote.push(&here.store, &made, &HOW).unwrap();
    let dry = remote.pull(&Machine::new().store, &Scope::All, &DRY).unwrap();
    server.delay(Duration::from_millis(50));
    let start = Instant::now();
    let pulled = there.pull(&s3_with(&server, s3::SECRET));
    let took = start.elapsed();
    assert_eq!((pulled.results.len(), pulled.broken.len()), (32, 0));
    assert_eq!((pulled.bytes, pulled.objects), (dry.bytes, 64));
    assert_eq!(pulled.results.iter().map(|(_, bytes)| bytes).sum::<u64>(), pulled.bytes);
    assert!(made.iter().all(|made| there.has(made)) && there.is_clean());
    // One after the other, three requests of each would take 4.8 s.
    assert!(took < Duration::from_millis(2400), "{took:?}");
    // In the order of the list.
    let all = |names: &Moved| names.results.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    assert_eq!(all(&pulled), all(&dry));
}

#[test]
fn a_run_reads_through_and_writes_back() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("clips", &[b"one", b"two"]);
    let writing = link(&here, remote);
    writing.made(made.clone());
    let report = writing.finish();
    assert_eq!((report.sent.results.len(), report.sent.failed), (1, 0));

    let reading = link(&there, s3_with(&server, s3::SECRET));
    assert!(reading.bring(&there.store, Fingerprint::of(b"unknown"), &"clips").is_none());
    reading.bring_items(&there.store, &made.items);
    assert!(there.store.lookup_item(made.items[0]).unwrap().is_some());
    let record = reading.bring(&there.store, made.record.fingerprint, &"clips").unwrap();
    assert_eq!(record.output, made.record.output);
    assert_eq!(reading.traces(Fingerprint::of(b"traced"), None).len(), 1);
    assert_eq!(reading.finish().brought.len(), 1);
    assert!(there.has(&made) && there.is_clean());
    // What is not there is asked for once.
    server.requests();
    let reading = link(&there, s3_with(&server, s3::SECRET));
    for _ in 0..3 {
        assert!(reading.bring(&there.store, Fingerprint::of(b"unknown"), &"clips").is_none());
    }
    assert_eq!(server.requests().iter().filter(|line| line.contains("actions")).count(), 1);
}

#[test]
fn without_a_network_a_run_goes_on_at_once() {
    // A port at which nobody listens.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    drop(server);
    let mut gone = S3::new();
    gone.endpoint = endpoint;
    let here = Machine::new();
    let made = here.make("clips", &[b"one"]);
    let start = Instant::now();
    let link = link(&here, s3_with(&gone, s3::SECRET));
    for _ in 0..50 {
        assert!(link.bring(&here.store, Fingerprint::of(b"k"), &"clips").is_none());
    }
    link.made(made);
    let report = link.finish();
    assert_eq!((report.brought.len(), report.sent.failed), (0, 1));
    assert!(report.error.is_some());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_folder_of_something_else_and_a_newer_cache_are_refused() {
    let (dir, remote) = folder();
    assert!(!remote.check().unwrap() && !dir.path().join("shared").exists());
    remote.prepare().unwrap();
    let format = dir.path().join("shared/format");
    std::fs::write(&format, "not a number").unwrap();
    assert!(matches!(remote.check(), Err(RemoteError::NotACache)));
    std::fs::write(&format, "99\n").unwrap();
    assert!(matches!(remote.check(), Err(RemoteError::Newer { found: 99 })));
    let here = Machine::new();
    assert!(remote.push(&here.store, &[here.make("clips", &[b"1"])], &HOW).is_err());
}

#[test]
fn a_cache_of_a_machine_and_one_that_machines_share_are_told_apart() {
    let here = Machine::new();
    let made = here.make("clips", &[b"1"]);
    let error = Remote::open(here.dir.path().to_str().unwrap(), QUICK).unwrap_err();
    assert!(matches!(error, RemoteError::NotShared { .. }), "{error}");
    // What lies in one would be damage there.
    let inside = here.dir.path().join("objects/remote");
    let error = Remote::open(inside.to_str().unwrap(), QUICK).unwrap_err();
    assert!(
        matches!(&error, RemoteError::NotShared { path } if path == here.dir.path()),
        "{error}"
    );
    // One that becomes a machine's own later.
    let own = tempfile::tempdir().unwrap();
    let late = Remote::open(own.path().to_str().unwrap(), QUICK).unwrap();
    Store::open(own.path()).unwrap();
    assert!(matches!(late.check(), Err(RemoteError::NotShared { .. })));
    let error = late.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap_err();
    assert!(matches!(error, RemoteError::NotShared { .. }), "{error}");
    assert!(here.has(&made));

    let (dir, remote) = folder();
    remote.push(&here.store, &[made], &HOW).unwrap();
    let error = Store::look(&dir.path().join("shared")).unwrap_err();
    assert!(matches!(error, StoreError::Shared { .. }), "{error}");
    assert!(Store::open(&dir.path().join("shared")).is_err());
    assert!(remote.check().unwrap(), "and nothing was made in it");
}

#[test]
fn a_folder_of_pictures_becomes_no_remote_cache() {
    let (dir, remote) = folder();
    std::fs::create_dir(dir.path().join("shared")).unwrap();
    std::fs::write(dir.path().join("shared/cat.png"), "").unwrap();
    assert!(!remote.check().unwrap(), "who only asks finds nothing");
    let here = Machine::new();
    let error = remote.push(&here.store, &[here.make("clips", &[b"1"])], &HOW).unwrap_err();
    assert!(matches!(error, RemoteError::NotEmpty { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path().join("shared")).unwrap().count(), 1);
}

#[test]
fn nothing_is_taken_before_the_format_is_known() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let made: Vec<_> = (0..8_u8).map(|at| here.make(&format!("clips{at}"), &[&[at]])).collect();
    remote.push(&here.store, &made, &HOW).unwrap();
    server.change("format", |bytes| *bytes = b"99\n".to_vec());
    server.delay(Duration::from_millis(100));
    let link = link(&there, s3_with(&server, s3::SECRET));
    std::thread::scope(|scope| {
        for made in &made {
            let bring = || link.bring(&there.store, made.record.fingerprint, &"clips");
            scope.spawn(move || assert!(bring().is_none()));
        }
    });
    let report = link.finish();
    assert!(report.brought.is_empty() && report.error.unwrap().contains("format 99"));
}

#[test]
fn who_stops_waits_for_no_more_than_what_is_on_its_way() {
    let (server, remote) = s3();
    let (here, there) = (Machine::new(), Machine::new());
    let files: Vec<Vec<u8>> = (0..100).map(|at: u8| vec![at; 10]).collect();
    let made = here.make("clips", &files.iter().map(Vec::as_slice).collect::<Vec<_>>());
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    server.requests();
    // Not yet when it is asked whether to begin at all.
    let asked = AtomicUsize::new(0);
    let stopped = move || asked.fetch_add(1, Ordering::Relaxed) > 0;
    let reading = Link::new(remote, there.dir.path(), stopped).unwrap();
    assert!(reading.bring(&there.store, made.record.fingerprint, &"clips").is_none());
    assert!(server.requests().len() < 10);
    assert!(!there.has(&made) && there.is_clean());
}

#[test]
fn listings_of_many_pages_are_read_to_the_end() {
    let (server, remote) = s3();
    server.list_at_once(3);
    let (here, there) = (Machine::new(), Machine::new());
    let made: Vec<_> = (0..10).map(|at: u8| here.make(&format!("clips{at}"), &[&[at]])).collect();
    remote.push(&here.store, &made, &HOW).unwrap();
    assert_eq!(server.keys("actions").len(), 10);
    server.requests();
    assert_eq!(there.pull(&remote).results.len(), 10);
    assert!(made.iter().all(|made| there.has(made)) && there.is_clean());
    let pages = server.requests().iter().filter(|line| line.contains("list-type=2")).count();
    assert_eq!(pages, 4);
}
