//! Locks of both kinds, and what a cache says of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

impl Store {
    /// Goes by these locks, whatever the store says.
    pub(in super::super) fn using(mut self, locks: Locks) -> Self {
        self.locks = locks.of(&self.root);
        self
    }

    /// Takes the lock of a key. If somebody else holds it, `on_wait` is called once with whom,
    /// where that is known; then the lock is tried again until it is free or `cancelled` says to
    /// stop.
    fn lock_key(
        &self,
        key: Fingerprint,
        on_wait: &mut dyn FnMut(Option<&Holder>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<KeyLock, StoreError> {
        let mut wait = self.key_wait(key);
        let mut waited = false;
        loop {
            let holder = match wait.try_take()? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Held(holder) => holder,
            };
            if !waited {
                waited = true;
                on_wait(holder.as_ref());
            }
            if cancelled() {
                return Err(StoreError::Cancelled);
            }
            std::thread::sleep(wait.pause());
        }
    }
}

#[test]
fn one_at_a_time_holds_a_key() {
    for locks in [Locks::Flock, Locks::Lease] {
        one_at_a_time(locks);
    }
}

fn one_at_a_time(locks: Locks) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap().using(locks);
    let (inside, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut on_wait = |_: Option<&Holder>| {
                    waits.fetch_add(1, Ordering::SeqCst);
                };
                let lock = store.lock_key(Fingerprint::of(b"k"), &mut on_wait, &|| false).unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(lock);
            });
        }
    });
    assert!(waits.into_inner() <= 8);
    assert_eq!(fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
}

#[test]
fn waiting_is_told_for_whom_and_ends_when_the_user_interrupts() {
    for locks in [Locks::Flock, Locks::Lease] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().using(locks);
        let key = Fingerprint::of(b"k");
        let _held = store.lock_key(key, &mut |_| {}, &|| false).unwrap();
        let mut whom = None;
        let error =
            store.lock_key(key, &mut |holder| whom = holder.cloned(), &|| true).unwrap_err();
        assert!(matches!(error, StoreError::Cancelled));
        assert_eq!(whom.map(|holder| holder.pid), Some(std::process::id()));
    }
}

#[test]
fn a_run_keeps_gc_away() {
    for locks in [Locks::Flock, Locks::Lease] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().using(locks);
        let held = store.in_use(&|| false).unwrap();
        assert!(matches!(store.exclusive(&|| false), Err(StoreError::Busy { .. })));
        drop(held);
        store.exclusive(&|| false).unwrap();
    }
}

#[test]
fn a_run_waits_for_gc_until_it_ends_or_the_user_interrupts() {
    for locks in [Locks::Flock, Locks::Lease] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().using(locks);
        let alone = store.exclusive(&|| false).unwrap();
        let asked = AtomicUsize::new(0);
        let third = || asked.fetch_add(1, Ordering::SeqCst) == 2;
        assert!(matches!(store.in_use(&third), Err(StoreError::Cancelled)));
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| store.in_use(&|| false).map(drop));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!run.is_finished());
            drop(alone);
            run.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_longer_name_of_a_killed_holder_does_not_show_through() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap().using(Locks::Flock);
    let key = Fingerprint::of(b"k");
    let path = dir.path().join("locks").join(key.to_string());
    let mut left = serde_json::to_value(Holder::this()).unwrap();
    left["host"] = "a-long-name.".repeat(20).into();
    fs::write(path, left.to_string()).unwrap();
    let _held = store.lock_key(key, &mut |_| {}, &|| false).unwrap();
    let mut whom = None;
    let waited = store.lock_key(key, &mut |holder| whom = holder.cloned(), &|| true);
    assert!(waited.is_err());
    assert_eq!(whom, Some(Holder::this()));
}

#[test]
fn who_wants_a_store_alone_sees_users_by_locks_of_either_kind() {
    let dir = tempfile::tempdir().unwrap();
    let store = |locks| Store::open(dir.path()).unwrap().using(locks);
    for (run, gc) in [(Locks::Flock, Locks::Lease), (Locks::Lease, Locks::Flock)] {
        let held = store(run).in_use(&|| false).unwrap();
        assert!(matches!(store(gc).exclusive(&|| false), Err(StoreError::Busy { .. })));
        drop(held);
        let alone = store(gc).exclusive(&|| false).unwrap();
        assert!(matches!(store(run).in_use(&|| true), Err(StoreError::Cancelled)));
        drop(alone);
    }
}

#[test]
fn a_store_says_by_which_locks_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path()).unwrap();
    let mode = dir.path().join("locks/mode");
    // Who only asks says nothing.
    assert_eq!(open().with_locks(Locks::Lease).unwrap().locks, Locks::Lease);
    assert!(!mode.exists());
    assert_eq!(open().settle_locks(Locks::Auto).unwrap().locks, Locks::Flock);
    assert_eq!(fs::read_to_string(&mode).unwrap(), "local\n");
    for store in [open().settle_locks(Locks::Lease), open().with_locks(Locks::Lease)] {
        let error = store.unwrap_err();
        assert!(error.to_string().contains("`local`"), "{error}");
        assert!(error.help().unwrap().contains("write `lease`"));
    }
    // As the remedy says.
    fs::write(&mode, "lease").unwrap();
    assert_eq!(open().settle_locks(Locks::Auto).unwrap().locks, Locks::Lease);
    assert!(open().with_locks(Locks::Flock).is_err());
    // Damage needs no repair.
    fs::write(&mode, "").unwrap();
    assert_eq!(open().with_locks(Locks::Auto).unwrap().locks, Locks::Flock);
    assert_eq!(open().settle_locks(Locks::Auto).unwrap().locks, Locks::Flock);
    assert_eq!(fs::read_to_string(&mode).unwrap(), "local\n");
}

#[test]
fn of_many_who_open_a_store_first_all_use_the_same_locks() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let open = |wanted| Store::open(dir.path()).unwrap().settle_locks(wanted);
        let threads: Vec<_> = (0..8)
            .map(|n| scope.spawn(move || open(if n % 2 == 0 { Locks::Auto } else { Locks::Lease })))
            .collect();
        let stores = threads.into_iter().filter_map(|thread| thread.join().unwrap().ok());
        let used: Vec<Locks> = stores.map(|store| store.locks).collect();
        assert!(!used.is_empty() && used.iter().all(|locks| *locks == used[0]), "{used:?}");
    });
}

#[test]
fn who_takes_what_a_dead_process_left_knows_of_whom() {
    let mut dead = Holder::this();
    dead.pid = 4_194_999;
    for locks in [Locks::Flock, Locks::Lease] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap().using(locks);
        let key = Fingerprint::of(b"k");
        let take = || match store.key_wait(key).try_take().unwrap() {
            Attempt::Taken(lock) => lock,
            Attempt::Held(holder) => panic!("held by {holder:?}"),
        };
        drop(take());
        assert_eq!(take().left_by(), None, "it was given back");
        let holder = serde_json::to_string(&dead).unwrap();
        let (path, text) = match locks {
            Locks::Lease => (
                store.lock_path(key).with_extension("lease"),
                format!("{:020}\n{{\"holder\":{holder},\"nonce\":\"0\"}}\n", 7),
            ),
            // More than who comes next writes.
            _ => (store.lock_path(key), format!("{holder}{}", " ".repeat(100))),
        };
        std::fs::write(&path, text).unwrap();
        if cfg!(target_os = "linux") || locks == Locks::Flock {
            let lock = take();
            assert_eq!(lock.left_by(), Some(&dead));
            if locks == Locks::Flock {
                let holder: Holder =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                assert_eq!(holder, Holder::this());
            }
        }
        assert_eq!(take().left_by(), None);
    }
}
