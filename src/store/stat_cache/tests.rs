use super::*;

const STAMP: Stamp = Stamp { size: 3, modified_ns: -1, changed_ns: 5, inode: 7 };
const TODAY: u64 = 20_000;

fn entry(path: &str, used: u64) -> (PathBuf, Entry) {
    (path.into(), Entry { stamp: STAMP, digest: Digest::of(b"x"), used })
}

fn cache(entries: impl IntoIterator<Item = (PathBuf, Entry)>) -> StatCache {
    let cache = StatCache { today: TODAY, ..StatCache::new("no such file".into()) };
    let known = Some(entries.into_iter().collect());
    *cache.state() = State { known, dirty: true, ..State::default() };
    cache
}

fn read_back(text: &str) -> Vec<(PathBuf, Entry)> {
    text.lines().filter_map(|line| parse(line, TODAY)).collect()
}

#[test]
fn a_line_is_read_back_as_written() {
    let entry = entry("/data/a \"b\"\n.png", TODAY - 1);
    let cache = cache([entry.clone()]);
    let text = cache.changes().unwrap();
    assert_eq!(read_back(&text), [entry]);
    assert_eq!(cache.changes(), None);
}

#[test]
fn a_line_of_an_older_version_is_read() {
    let line = format!("{} 3 -1 5 7 \"/data/a b.png\"", Digest::of(b"x"));
    let line = format!("{} {line}", seal(&line));
    assert_eq!(read_back(&line), [entry("/data/a b.png", TODAY)]);
}

#[test]
fn what_nobody_asked_for_in_a_long_time_is_dropped() {
    let old = entry("/data/old.png", TODAY - KEPT - 1);
    let lately = entry("/data/lately.png", TODAY - KEPT);
    let text = cache([old, lately.clone()]).changes().unwrap();
    assert_eq!(read_back(&text), [lately]);
}

#[test]
fn what_is_asked_for_again_is_noted_once_a_week_and_what_is_gone_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    fs::write(&path, "x").unwrap();
    let stamp = Stamp::of(&fs::metadata(&path).unwrap());
    let limit = || Limit { stopped: &|| false, left: None };
    for (used, noted) in [(TODAY - STEP + 1, false), (TODAY - STEP, true)] {
        let entry = Entry { stamp, digest: Digest::of(b"known"), used };
        let cache = cache([(path.clone(), entry)]);
        cache.changes();
        assert_eq!(cache.digest(&path, &mut limit()).unwrap(), Digest::of(b"known"));
        assert_eq!(cache.changes().is_some(), noted);
    }
    let cache = cache([(path.clone(), entry("", TODAY).1), entry("/no/such/file", TODAY)]);
    cache.forget_gone();
    let left = read_back(&cache.changes().unwrap());
    assert_eq!(left.into_iter().map(|(path, _)| path).collect::<Vec<_>>(), [path]);
}

#[test]
fn what_is_too_long_is_left_and_what_is_stopped_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    fs::write(&path, "four").unwrap();
    let cache = cache([]);
    let digest =
        |stopped: &dyn Fn() -> bool, left| cache.digest(&path, &mut Limit { stopped, left });
    assert!(matches!(digest(&|| false, Some(3)), Err(NotHashed::Long)));
    assert!(matches!(digest(&|| true, None), Err(NotHashed::Stopped)));
    assert_eq!(digest(&|| false, Some(4)).unwrap(), Digest::of(b"four"));
    assert!(cache.state().busy.is_empty());
}

#[test]
fn one_thread_hashes_a_file_while_others_wait_for_it_or_hash_another() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let dir = tempfile::tempdir().unwrap();
    let [path, other] = ["a.png", "b.png"].map(|name| dir.path().join(name));
    fs::write(&path, "one").unwrap();
    fs::write(&other, "two").unwrap();
    let cache = cache([]);
    let (begun, is_begun) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel();
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (cache, path, asked) = (&cache, &path, &asked);
        let first = scope.spawn(move || {
            let stopped = || {
                begun.send(()).unwrap();
                may_go.recv().unwrap()
            };
            cache.digest(path, &mut Limit { stopped: &stopped, left: None })
        });
        is_begun.recv().unwrap();
        let digest = cache.digest(&other, &mut Limit { stopped: &|| false, left: None });
        assert_eq!(digest.unwrap(), Digest::of(b"two"));
        let second = scope.spawn(move || {
            let stopped = || asked.fetch_add(1, Ordering::Relaxed) > 0;
            cache.digest(path, &mut Limit { stopped: &stopped, left: None })
        });
        // Who waits is heard, too.
        assert!(matches!(second.join().unwrap(), Err(NotHashed::Stopped)));
        go.send(false).unwrap();
        assert_eq!(first.join().unwrap().unwrap(), Digest::of(b"one"));
    });
}

#[test]
fn a_line_with_any_flipped_bit_says_nothing() {
    let text = cache([entry("/data/a.png", TODAY)]).changes().unwrap();
    for bit in 0..text.len() * 8 {
        let mut bytes = text.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let text = String::from_utf8_lossy(&bytes);
        // The line's end may become anything else.
        let intact = bit / 8 == text.len() - 1;
        assert!(intact || read_back(&text).is_empty(), "bit {bit}");
    }
    // As it was before there were seals.
    assert_eq!(parse(text.split_once(' ').unwrap().1.trim_end(), TODAY), None);
}

#[test]
fn a_file_just_written_is_not_trusted() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stamp = Stamp::of(&file.as_file().metadata().unwrap());
    assert!(!stamp.is_settled());
    let hour = 3_600_000_000_000;
    let old = Stamp {
        modified_ns: stamp.modified_ns - hour,
        changed_ns: stamp.changed_ns - hour,
        ..stamp
    };
    assert!(old.is_settled());
}
