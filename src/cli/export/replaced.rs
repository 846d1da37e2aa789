//! Files that lie where parts of models are to be written.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde_json::Value;

use super::{
    CliError,
    files::{Exporter, reference},
};
use crate::{artifact::Item, models::FilePlace, regular_file, store};

/// The most of a file of JSON that is compared by what it says.
const MOST_OF_JSON: u64 = 64 << 20;

/// A file that is to be written.
#[derive(Clone, Copy)]
pub(super) enum New<'a> {
    /// That of an item, by its name.
    Of(&'a Item, &'a str),
    /// One of the model that the other parts are taken from.
    Beside(&'a FilePlace<'a>),
}

/// Writes a file to `path`, and notes one that was there and [`is_another`].
pub(super) fn noted(
    exporter: &Exporter<'_>,
    is_another: bool,
    path: &Path,
    write: impl FnOnce() -> Result<(), CliError>,
) -> Result<(), CliError> {
    write()?;
    if is_another {
        exporter.replaced.borrow_mut().push(path.to_owned());
    }
    Ok(())
}

/// Whether another file lies at `path`, which would be lost. One of JSON is the same if it says the
/// same, however it is written. What cannot be read is another one.
pub(super) fn is_another(
    exporter: &Exporter<'_>,
    new: New<'_>,
    path: &Path,
) -> Result<bool, CliError> {
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    let is_same = match new {
        New::Of(item, file) => store::holds(path, reference(item, file)?),
        New::Beside(FilePlace::Memory(bytes)) => {
            regular_file::read_at_most(path, bytes.len() as u64).map(|there| there == **bytes)
        }
        New::Beside(FilePlace::Disk(from)) => are_equal(from, path),
    };
    if is_same.unwrap_or(false) {
        return Ok(false);
    }
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    Ok(!is_json || !says_the_same(exporter, new, path)?)
}

fn says_the_same(exporter: &Exporter<'_>, new: New<'_>, path: &Path) -> Result<bool, CliError> {
    let Ok(there) = regular_file::read_at_most(path, MOST_OF_JSON) else { return Ok(false) };
    let new = match new {
        New::Of(item, file) => exporter.read(item, file)?,
        New::Beside(FilePlace::Memory(bytes)) => bytes.to_vec(),
        New::Beside(FilePlace::Disk(from)) => {
            match regular_file::read_at_most(from, MOST_OF_JSON) {
                Ok(bytes) => bytes,
                Err(_) => return Ok(false),
            }
        }
    };
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    Ok(parsed(&there).is_some_and(|there| Some(there) == parsed(&new)))
}

/// Whether two files have the same bytes, or are one.
fn are_equal(one: &Path, other: &Path) -> io::Result<bool> {
    if one.canonicalize()? == other.canonicalize()? {
        return Ok(true);
    }
    let (one, other) = (regular_file::open(one)?, regular_file::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    have_equal_bytes(one, other)
}

fn have_equal_bytes(mut one: File, mut other: File) -> io::Result<bool> {
    const CHUNK: u64 = 1 << 20;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    loop {
        for (file, chunk) in [(&mut one, &mut first), (&mut other, &mut second)] {
            chunk.clear();
            file.take(CHUNK).read_to_end(chunk)?;
        }
        if first != second {
            return Ok(false);
        }
        if first.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_by_their_bytes_to_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
            folder.path().join(name)
        };
        let mut long = vec![7; (1 << 20) + 3];
        let one = at("one", &long);
        assert!(are_equal(&one, &one).unwrap());
        assert!(are_equal(&one, &at("same", &long)).unwrap());
        *long.last_mut().unwrap() = 8;
        assert!(!are_equal(&one, &at("last", &long)).unwrap());
        assert!(!are_equal(&one, &at("short", &long[1..])).unwrap());
        assert!(are_equal(&one, &folder.path().join("nowhere")).is_err());
    }
}
