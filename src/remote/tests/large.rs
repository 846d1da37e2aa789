//! Objects of several parts, with faults at one of them.

use super::*;

/// Of three parts.
fn large() -> Vec<u8> {
    bytes(20_000_000)
}

fn bytes(size: u32) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

fn patient(server: &S3) -> Remote {
    s3_patient(server, s3::SECRET, Duration::from_secs(30))
}

#[test]
fn large_objects_go_in_parts_and_come_in_parts() {
    let server = S3::new();
    let remote = patient(&server);
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("latents", &[&large()]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    let parts = server.requests().iter().filter(|line| line.contains("partNumber=")).count();
    assert_eq!(parts, 3);
    there.pull(&remote);
    assert!(there.has(&made));
}

#[test]
fn a_part_that_fails_for_a_while_is_sent_again_alone() {
    let server = S3::new();
    let remote = patient(&server);
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("latents", &[&large()]);
    server.fault("partNumber=2", Fault::Silent);
    // Longer than a request is tried again, so that a second round is needed.
    for _ in 0..=QUICK.retries {
        server.fault("partNumber=2", Fault::Broken);
    }
    // Completed, but the answer is lost: the next one is that there is no such upload.
    server.fault("POST /bucket/objects", Fault::Slow(Duration::ZERO));
    server.fault("POST /bucket/objects", Fault::Silent);
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), moved.error), (1, None));
    let requests = server.requests();
    let sent = |part: &str| requests.iter().filter(|line| line.contains(part)).count();
    assert_eq!((sent("partNumber=1"), sent("partNumber=3"), sent("uploads")), (1, 1, 1));
    assert_eq!((sent("partNumber=2"), server.unfinished()), (QUICK.retries + 3, 0));
    assert_eq!(there.pull(&remote).results.len(), 1);
    assert!(there.has(&made));
}

#[test]
fn an_upload_that_does_not_get_through_leaves_nothing_that_costs() {
    // The first also while others wait until it is through, since not all may be on their way.
    let many = bytes(45_000_000);
    for (fails, content) in
        [("partNumber=1&", &many), ("partNumber=3&", &large()), ("POST /bucket/objects", &large())]
    {
        let server = S3::new();
        let remote = patient(&server);
        let here = Machine::new();
        let made = here.make("latents", &[content]);
        if fails.starts_with("POST") {
            server.fault("uploads", Fault::Slow(Duration::ZERO));
        }
        for _ in 0..parts::ROUNDS * (QUICK.retries + 1) {
            server.fault(fails, Fault::Broken);
        }
        let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
        assert!(moved.failed == 1 && moved.error.is_some(), "{fails}");
        let requests = server.requests();
        assert!(requests.iter().any(|line| line.starts_with("DELETE")), "{fails}: {requests:?}");
        assert_eq!((server.unfinished(), server.keys("actions").len()), (0, 0), "{fails}");
        server.heal();
        let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
        assert_eq!((moved.results.len(), moved.error), (1, None), "{fails}");
        assert_eq!(server.unfinished(), 0);
    }
}

/// A machine that began to send three parts, and lost its network before the last one.
fn broken_off() -> (S3, Machine, NewResult) {
    let server = S3::new();
    let here = Machine::new();
    let made = here.make("latents", &[&large()]);
    for _ in 0..parts::ROUNDS * (QUICK.retries + 1) {
        server.fault("partNumber=3", Fault::Broken);
    }
    for _ in 0..=QUICK.retries {
        server.fault("DELETE", Fault::Broken);
    }
    let moved = patient(&server).push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert!(moved.failed == 1 && moved.error.is_some());
    assert_eq!((server.unfinished(), server.faults_left()), (1, 0));
    server.requests();
    (server, here, made)
}

/// How often each part was sent, and how many uploads were begun.
fn sent(server: &S3) -> [usize; 4] {
    let requests = server.requests();
    ["partNumber=1&", "partNumber=2&", "partNumber=3&", "?uploads"]
        .map(|what| requests.iter().filter(|line| line.contains(what)).count())
}

#[test]
fn the_next_run_goes_on_where_an_upload_broke_off() {
    let (server, here, made) = broken_off();
    let noted = std::fs::read_dir(here.dir.path().join("uploads")).unwrap();
    let [note] = &noted.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..] else {
        panic!()
    };
    assert!(!std::fs::read_to_string(note).unwrap().contains(s3::SECRET));
    let moved = patient(&server).push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), moved.error), (1, None));
    assert_eq!((sent(&server), server.unfinished(), note.exists()), ([0, 0, 1, 0], 0, false));
    let there = Machine::new();
    there.pull(&patient(&server));
    assert!(there.has(&made));
}

#[test]
fn an_upload_that_the_server_forgot_begins_anew() {
    let (server, here, made) = broken_off();
    server.forget_unfinished();
    let moved = patient(&server).push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), moved.error), (1, None));
    assert_eq!((sent(&server), server.unfinished()), ([1, 1, 2, 1], 0));
    // As with a note that cannot be read.
    let (server, here, made) = broken_off();
    let folder = here.dir.path().join("uploads");
    for entry in std::fs::read_dir(&folder).unwrap() {
        std::fs::write(entry.unwrap().path(), "{").unwrap();
    }
    let moved = patient(&server).push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert_eq!((moved.results.len(), sent(&server)), (1, [1, 1, 1, 1]));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn an_upload_that_nobody_goes_on_with_is_given_up() {
    let (server, here, _) = broken_off();
    let other = here.make("other", &[b"small"]);
    let push = || patient(&server).push(&here.store, std::slice::from_ref(&other), &HOW).unwrap();
    push();
    assert_eq!(server.unfinished(), 1);
    let folder = here.dir.path().join("uploads");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - Duration::from_hours(8 * 24)).unwrap();
    }
    push();
    assert_eq!((server.unfinished(), std::fs::read_dir(&folder).unwrap().count()), (0, 0));
}

#[test]
fn a_part_that_is_refused_is_not_sent_again() {
    let server = S3::new();
    let remote = patient(&server);
    let here = Machine::new();
    let made = here.make("latents", &[&large()]);
    server.fault("partNumber=2", Fault::Says("403 Forbidden", "ExpiredToken", "Too old"));
    let moved = remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    assert!(moved.error.unwrap().contains("ExpiredToken"));
    let again = server.requests().iter().filter(|line| line.contains("partNumber=2")).count();
    assert_eq!((again, server.unfinished()), (1, 0));
}

#[test]
fn a_download_that_breaks_in_the_middle_goes_on_there() {
    let server = S3::new();
    let remote = patient(&server);
    let (here, there) = (Machine::new(), Machine::new());
    let made = here.make("latents", &[&large()]);
    remote.push(&here.store, std::slice::from_ref(&made), &HOW).unwrap();
    server.requests();
    for fault in [Fault::Cut, Fault::Broken, Fault::Silent] {
        server.fault("bytes=8388608-", fault);
    }
    assert_eq!(there.pull(&remote).results.len(), 1);
    assert!(there.has(&made) && there.is_clean());
    let requests = server.requests();
    let asked = |range: &str| requests.iter().filter(|line| line.contains(range)).count();
    assert_eq!((asked("bytes=0-"), asked("bytes=8388608-"), asked("bytes=16777216-")), (1, 4, 1));

    let there = Machine::new();
    for _ in 0..=QUICK.retries {
        server.fault("bytes=16777216-", Fault::Cut);
    }
    let moved = there.pull(&remote);
    assert!(moved.failed == 1 && moved.error.is_some());
    assert!(!there.has(&made) && there.is_clean());
    server.heal();
    assert_eq!(there.pull(&remote).results.len(), 1);
    assert!(there.has(&made) && there.is_clean());
}
