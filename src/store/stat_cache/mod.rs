//! Digests of outside files by their metadata, so that a file that nobody touched is not read.
//!
//! A line of the file is `<seal> <digest> <size> <modified> <changed> <inode> <used> <path>`; the
//! seal is the begin of the hash of the rest, and a line that has not its own says nothing. A wrong
//! digest would be another key, and all that follows from it would run again without a reason that
//! anybody could see.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    fs::{self, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use super::Digest;
use crate::{regular_file, sync::Unpoisoned};

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified_ns: i128,
    /// Status change: catches an edit that puts the old modification time back.
    changed_ns: i128,
    inode: u64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    stamp: Stamp,
    digest: Digest,
    /// The day when somebody last asked for it, to within [`STEP`].
    used: u64,
}

/// Days after which an entry that nobody asked for is dropped.
const KEPT: u64 = 90;
/// Days after which it is noted that an entry was asked for: a file that says so is written anew.
const STEP: u64 = 7;
/// Bytes that are hashed at most between one writing of the file and the next.
const UNSAVED: u64 = 1 << 30;

/// The digests known, read from disk when the first is asked for.
#[derive(Debug)]
pub(super) struct StatCache {
    path: PathBuf,
    today: u64,
    state: Mutex<State>,
    /// Told when a file was hashed, or not.
    hashed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    known: Option<HashMap<PathBuf, Entry>>,
    /// The files that are being hashed, each by one thread.
    busy: HashSet<PathBuf>,
    dirty: bool,
    /// Bytes hashed since the file was written.
    unsaved: u64,
}

/// How far to go.
pub(super) struct Limit<'a> {
    /// Asked whether to stop.
    pub(super) stopped: &'a dyn Fn() -> bool,
    /// Bytes that may be hashed yet; as many as there are, if none are named.
    pub(super) left: Option<u64>,
}

/// Why a file was not hashed.
#[derive(Debug)]
pub(super) enum NotHashed {
    /// It could not be read.
    Io(io::Error),
    /// It was asked to stop.
    Stopped,
    /// It has more bytes than may be hashed.
    Long,
}

impl From<io::Error> for NotHashed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file that this thread hashes; the others wait until this goes.
struct Turn<'a> {
    cache: &'a StatCache,
    path: &'a Path,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.cache.state().busy.remove(self.path);
        self.cache.hashed.notify_all();
    }
}

impl StatCache {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, today: day(super::now()), state: Mutex::default(), hashed: Condvar::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unpoisoned()
    }

    /// The digest of the file at an absolute path. It is hashed while others may ask for other
    /// files, and once where several ask for the same.
    pub(super) fn digest(&self, path: &Path, limit: &mut Limit<'_>) -> Result<Digest, NotHashed> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        let turn = match self.known_or_turn(path, stamp, limit)? {
            Ok(digest) => return Ok(digest),
            Err(turn) => turn,
        };
        let digest = hash_until(path, limit.stopped)?;
        if stamp.is_settled() && Stamp::of(&fs::metadata(path)?) == stamp {
            let mut state = self.state();
            let entry = Entry { stamp, digest, used: self.today };
            state.known.get_or_insert_default().insert(path.to_owned(), entry);
            state.dirty = true;
            state.unsaved += stamp.size;
        }
        drop(turn);
        Ok(digest)
    }

    /// What is known of a file, or the turn to hash it.
    fn known_or_turn<'a>(
        &'a self,
        path: &'a Path,
        stamp: Stamp,
        limit: &mut Limit<'_>,
    ) -> Result<Result<Digest, Turn<'a>>, NotHashed> {
        /// How often a waiting thread looks whether to stop.
        const LOOK: Duration = Duration::from_millis(50);
        let mut state = self.state();
        loop {
            let State { known, dirty, .. } = &mut *state;
            let known = known.get_or_insert_with(|| load(&self.path, self.today));
            if let Some(entry) = known.get_mut(path).filter(|entry| entry.stamp == stamp) {
                if entry.used.saturating_add(STEP) <= self.today {
                    entry.used = self.today;
                    *dirty = true;
                }
                return Ok(Ok(entry.digest));
            }
            if limit.left.is_some_and(|left| stamp.size > left) {
                return Err(NotHashed::Long);
            }
            if !state.busy.contains(path) {
                break;
            }
            if (limit.stopped)() {
                return Err(NotHashed::Stopped);
            }
            state = self.hashed.wait_timeout(state, LOOK).unpoisoned().0;
        }
        if let Some(left) = &mut limit.left {
            *left -= stamp.size;
        }
        state.busy.insert(path.to_owned());
        Ok(Err(Turn { cache: self, path }))
    }

    /// Whether so much was hashed since the file was written that it is better written now than at
    /// the end.
    pub(super) fn is_due(&self) -> bool {
        self.state().unsaved >= UNSAVED
    }

    /// Forgets files that are no longer there.
    pub(super) fn forget_gone(&self) {
        let mut state = self.state();
        let known = state.known.get_or_insert_with(|| load(&self.path, self.today));
        let before = known.len();
        let is_gone = |path: &Path| {
            fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        known.retain(|path, _| !is_gone(path));
        state.dirty |= known.len() < before;
    }

    /// The text to write, if anything was learnt since it was read. What nobody asked for in a long
    /// time is left out.
    pub(super) fn changes(&self) -> Option<String> {
        let mut state = self.state();
        state.unsaved = 0;
        if !std::mem::take(&mut state.dirty) {
            return None;
        }
        let mut text = String::new();
        let entries = state.known.iter().flatten();
        for (path, entry) in entries.filter(|(_, entry)| entry.used + KEPT >= self.today) {
            // A name that is not Unicode is hashed every time.
            let Some(path) = path.to_str() else { continue };
            let path = serde_json::to_string(path).expect("a string is valid JSON");
            let Entry { stamp, digest, used } = entry;
            let Stamp { size, modified_ns, changed_ns, inode } = stamp;
            let line = format!("{digest} {size} {modified_ns} {changed_ns} {inode} {used} {path}");
            writeln!(text, "{} {line}", seal(&line)).expect("writing to a string cannot fail");
        }
        Some(text)
    }
}

/// Days since 1970.
fn day(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / (24 * 60 * 60)
}

impl Stamp {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let ns = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Self {
            size: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    #[cfg(not(unix))]
    fn of(metadata: &Metadata) -> Self {
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let ns = metadata.modified().ok().and_then(since).map_or(0, |d| d.as_nanos() as i128);
        Self { size: metadata.len(), modified_ns: ns, changed_ns: ns, inode: 0 }
    }

    /// Whether the file is old enough that a later edit must get another time: file systems count
    /// in steps of up to two seconds.
    fn is_settled(&self) -> bool {
        const STEP: Duration = Duration::from_secs(2);
        let now = super::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let latest = self.modified_ns.max(self.changed_ns);
        latest + STEP.as_nanos() as i128 <= now.as_nanos() as i128
    }
}

/// Hashes a file piece by piece: weights are larger than the memory.
pub(super) fn hash_file(path: &Path) -> io::Result<Digest> {
    hash_open(&regular_file::open(path)?)
}

/// Hashes a file that is open, from where it stands.
pub(super) fn hash_open(file: &fs::File) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize().into())
}

/// The same, until it is asked to stop.
fn hash_until(path: &Path, stopped: &dyn Fn() -> bool) -> Result<Digest, NotHashed> {
    /// A fraction of a second of hashing.
    const PIECE: u64 = 16 << 20;
    let mut hasher = blake3::Hasher::new();
    let mut file = regular_file::open(path)?;
    loop {
        if stopped() {
            return Err(NotHashed::Stopped);
        }
        let before = hasher.count();
        hasher.update_reader(file.by_ref().take(PIECE))?;
        if hasher.count() - before < PIECE {
            return Ok(hasher.finalize().into());
        }
    }
}

fn load(path: &Path, today: u64) -> HashMap<PathBuf, Entry> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| parse(line, today)).collect()
}

/// The begin of a line, by which it is known to be what was written.
fn seal(line: &str) -> String {
    Digest::of(line.as_bytes()).short()
}

/// Lines of older versions do not say when they were used last; that counts as today.
fn parse(line: &str, today: u64) -> Option<(PathBuf, Entry)> {
    let (sealed, line) = line.split_once(' ')?;
    if sealed != seal(line) {
        return None;
    }
    let mut fields = line.splitn(6, ' ');
    let digest = fields.next()?.parse().ok()?;
    let stamp = Stamp {
        size: fields.next()?.parse().ok()?,
        modified_ns: fields.next()?.parse().ok()?,
        changed_ns: fields.next()?.parse().ok()?,
        inode: fields.next()?.parse().ok()?,
    };
    let rest = fields.next()?;
    let (used, path) = match rest.split_once(' ') {
        Some((used, path)) if !rest.starts_with('"') => (used.parse().ok()?, path),
        _ => (today, rest),
    };
    let path: String = serde_json::from_str(path).ok()?;
    Some((path.into(), Entry { stamp, digest, used }))
}

#[cfg(test)]
mod tests;
