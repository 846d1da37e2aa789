//! Digests of outside files by their metadata, so that a file that nobody touched is not read.
//!
//! A line of the file is `<seal> <digest> <size> <modified> <changed> <inode> <path>`; the seal is the begin
//! of the hash of the rest, and a line that has not its own says nothing. A wrong digest would be another key,
//! and all that follows from it would run again without a reason that anybody could see.

use std::{
    collections::HashMap,
    fmt::Write,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::Digest;
use crate::regular;

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified_ns: i128,
    /// Status change: catches an edit that puts the old modification time back.
    changed_ns: i128,
    inode: u64,
}

/// The digests known, read from disk when the first is asked for.
#[derive(Debug)]
pub(super) struct StatCache {
    path: PathBuf,
    known: Option<HashMap<PathBuf, (Stamp, Digest)>>,
    dirty: bool,
}

impl StatCache {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: None, dirty: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The digest of the file at an absolute path.
    pub(super) fn digest(&mut self, path: &Path) -> io::Result<Digest> {
        let known = self.known.get_or_insert_with(|| load(&self.path));
        let stamp = Stamp::of(&fs::metadata(path)?);
        if let Some((_, digest)) = known.get(path).filter(|(old, _)| *old == stamp) {
            return Ok(*digest);
        }
        let digest = hash_file(path)?;
        if stamp.is_settled() && Stamp::of(&fs::metadata(path)?) == stamp {
            known.insert(path.to_owned(), (stamp, digest));
            self.dirty = true;
        }
        Ok(digest)
    }

    /// The text to write, if anything was learnt since it was read.
    pub(super) fn changes(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let mut text = String::new();
        for (path, (stamp, digest)) in self.known.iter().flatten() {
            // A name that is not Unicode is hashed every time.
            let Some(path) = path.to_str() else { continue };
            let path = serde_json::to_string(path).expect("a string is valid JSON");
            let Stamp { size, modified_ns, changed_ns, inode } = stamp;
            let line = format!("{digest} {size} {modified_ns} {changed_ns} {inode} {path}");
            writeln!(text, "{} {line}", seal(&line)).expect("writing to a string cannot fail");
        }
        Some(text)
    }
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
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(regular::open(path)?)?;
    Ok(hasher.finalize().into())
}

fn load(path: &Path) -> HashMap<PathBuf, (Stamp, Digest)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// The begin of a line, by which it is known to be what was written.
fn seal(line: &str) -> String {
    Digest::of(line.as_bytes()).short()
}

fn parse(line: &str) -> Option<(PathBuf, (Stamp, Digest))> {
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
    let path: String = serde_json::from_str(fields.next()?).ok()?;
    Some((path.into(), (stamp, digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_as_written() {
        let stamp = Stamp { size: 3, modified_ns: -1, changed_ns: 5, inode: 7 };
        let entry = (PathBuf::from("/data/a \"b\"\n.png"), (stamp, Digest::of(b"x")));
        let mut cache = StatCache::new("cache".into());
        cache.known = Some(HashMap::from([entry.clone()]));
        cache.dirty = true;
        let text = cache.changes().unwrap();
        assert_eq!(text.lines().filter_map(parse).collect::<Vec<_>>(), [entry]);
        assert_eq!(cache.changes(), None);
    }

    #[test]
    fn a_line_with_any_flipped_bit_says_nothing() {
        let stamp = Stamp { size: 3, modified_ns: 4, changed_ns: 5, inode: 7 };
        let mut cache = StatCache::new("cache".into());
        cache.known = Some(HashMap::from([("/data/a.png".into(), (stamp, Digest::of(b"x")))]));
        cache.dirty = true;
        let text = cache.changes().unwrap();
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let text = String::from_utf8_lossy(&bytes);
            // The line's end may become anything else.
            let intact = bit / 8 == text.len() - 1;
            assert!(intact || text.lines().all(|line| parse(line).is_none()), "bit {bit}");
        }
        // As it was before there were seals.
        assert_eq!(parse(text.split_once(' ').unwrap().1.trim_end()), None);
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
}
