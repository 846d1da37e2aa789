use std::time::Instant;

use super::*;

const QUICK: Timing = Timing { beat: Duration::from_millis(20), limit: Duration::from_millis(300) };

/// A lease left by a process that was killed on another machine.
fn leave(path: &Path) {
    let mut lease = Lease::take(path, QUICK).unwrap().unwrap();
    lease.freeze();
    std::mem::forget(lease);
    let text = fs::read_to_string(path).unwrap();
    let boot = Holder::this().place;
    fs::write(path, text.replace(&boot, "another boot").replace("unnamed", "other")).unwrap();
}

fn wait(path: &Path) -> Duration {
    let (start, mut watch) = (Instant::now(), Watch::default());
    while watch.look(path, QUICK).is_some() {
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[test]
fn a_dead_holder_is_taken_over_after_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.lease");
    leave(&path);
    assert!(Lease::take(&path, QUICK).unwrap().is_none());
    assert!(wait(&path) >= QUICK.limit);
    assert!(Lease::take(&path, QUICK).unwrap().is_some());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn what_fails_is_not_taken_for_somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    // The file beside it can be written; this name is too long for any.
    let path = dir.path().join(format!("k.{}", "x".repeat(300)));
    assert!(Lease::take(&path, QUICK).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_dead_process_of_this_machine_is_known_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.lease");
    let mut lease = Lease::take(&path, QUICK).unwrap().unwrap();
    lease.freeze();
    std::mem::forget(lease);
    let text = fs::read_to_string(&path).unwrap();
    let (us, nobody) = (format!("\"pid\":{},", std::process::id()), "\"pid\":4194999,");
    fs::write(&path, text.replace(&us, nobody)).unwrap();
    assert!(wait(&path) < QUICK.limit);
}

#[test]
fn a_holder_that_counts_or_pauses_for_less_than_the_limit_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.lease");
    let mut lease = Lease::take(&path, QUICK).unwrap().unwrap();
    let (mut watch, start) = (Watch::default(), Instant::now());
    while start.elapsed() < QUICK.limit * 3 {
        assert!(watch.look(&path, QUICK).is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    lease.freeze();
    let mut watch = Watch::default();
    assert!(watch.look(&path, QUICK).is_some());
    std::thread::sleep(QUICK.limit / 2);
    assert!(watch.look(&path, QUICK).is_some());
    // It counts again: the wait begins anew.
    let mut file = File::options().write(true).open(&path).unwrap();
    renew(&mut file, 1_000).unwrap();
    std::thread::sleep(QUICK.limit / 2);
    assert!(watch.look(&path, QUICK).is_some());
    std::thread::sleep(QUICK.limit / 2);
    assert!(watch.look(&path, QUICK).is_some());
}

#[test]
fn times_of_files_decide_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (alive, dead) = (dir.path().join("a.lease"), dir.path().join("d.lease"));
    let lease = Lease::take(&alive, QUICK).unwrap().unwrap();
    leave(&dead);
    let year = Duration::from_hours(24 * 365);
    let set = |path: &Path, time| {
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let (mut watch, start) = (Watch::default(), Instant::now());
    while start.elapsed() < QUICK.limit * 2 {
        set(&alive, super::super::now() - year);
        assert!(watch.look(&alive, QUICK).is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(lease);
    set(&dead, super::super::now() + year);
    assert!(wait(&dead) < QUICK.limit * 10);
}

#[test]
fn one_of_many_takes_over_and_the_others_leave_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.lease");
    leave(&path);
    let inside = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut watch = Watch::default();
                let lease = loop {
                    if watch.look(&path, QUICK).is_none()
                        && let Some(lease) = Lease::take(&path, QUICK).unwrap()
                    {
                        break lease;
                    }
                    std::thread::sleep(Duration::from_millis(3));
                };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::sleep(Duration::from_millis(40));
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(lease);
            });
        }
    });
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_rename_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, place] = ["one", "two", "place"].map(|name| dir.path().join(name));
    for file in [&one, &two] {
        fs::write(file, file.file_name().unwrap().as_encoded_bytes()).unwrap();
    }
    rename_new(&one, &place).unwrap();
    assert_eq!(rename_new(&two, &place).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&place).unwrap(), "one");
    assert!(two.exists());
}

#[test]
fn a_store_is_had_alone_or_together() {
    let dir = tempfile::tempdir().unwrap();
    let uses = Uses::new(dir.path().to_owned(), QUICK);
    let mut wait = || -> Result<(), StoreError> { unreachable!("nobody has it alone") };
    let (one, two) = (uses.join(&mut wait).unwrap(), uses.join(&mut wait).unwrap());
    let mut quiet = |_: &Holder| Ok(());
    assert!(uses.alone(&mut quiet).unwrap().is_none());
    drop((one, two));
    leave(&dir.path().join("use-left.lease"));
    let alone = uses.alone(&mut quiet).unwrap().unwrap();
    assert!(uses.alone(&mut quiet).unwrap().is_none());
    drop(alone);
    uses.join(&mut wait).unwrap();
}

#[test]
fn many_dead_are_waited_for_at_once_and_nobody_waits_for_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let uses = Uses::new(dir.path().to_owned(), QUICK);
    for name in ["use-a", "use-b", "use-c", "use-d", "use-e", "alone"] {
        leave(&dir.path().join(name).with_extension("lease"));
    }
    let (start, mut waited) = (Instant::now(), 0);
    let mut wait = |holder: &Holder| {
        assert_eq!(holder.pid, std::process::id());
        waited += 1;
        Ok(())
    };
    let alone = uses.alone(&mut wait).unwrap().unwrap();
    assert!(start.elapsed() >= QUICK.limit && start.elapsed() < QUICK.limit * 4);
    assert!(waited > 0);
    drop(alone);

    leave(&dir.path().join("use-a.lease"));
    let mut stop = |_: &Holder| Err(StoreError::Cancelled);
    assert!(matches!(uses.alone(&mut stop), Err(StoreError::Cancelled)));
    // One that comes while the dead are sorted out does not wait, and keeps the other away.
    let mut joined = None;
    let mut come = |_: &Holder| {
        let mut never = || -> Result<(), StoreError> { unreachable!("nobody has it alone") };
        if joined.is_none() {
            joined = Some(uses.join(&mut never)?);
        }
        Ok(())
    };
    assert!(uses.alone(&mut come).unwrap().is_none());
    assert!(joined.is_some());
}
