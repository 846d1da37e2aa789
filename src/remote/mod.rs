//! A cache that several machines share: the same objects and records as in a store, under an
//! address that `object_store` knows (a folder, S3, Google Cloud Storage, Azure).
//!
//! ```text
//! <address>/
//! ├── format                the version of this layout
//! ├── objects/ab/cdef…      content by blake3, as in a store
//! ├── actions/ab/cdef…      one record per fingerprint; the first one stays
//! ├── items/ab/cdef…        one record per item fingerprint
//! └── traces/ab/cdef…/<root>/<hash>  one set of outside files that a stage read, by the folder it read and its hash;
//!                           the latest few of each
//! ```
//!
//! Objects go up before the record that names them, and come down before it: nobody ever sees half
//! a result, here or there. What arrives is believed only after its digest was computed; that a
//! record itself is true, no digest can say, so whoever may write to the remote is trusted.
//!
//! Checkpoints, histories and pins stay at home: a checkpoint is many times as large as the adapter
//! that comes of it and helps only a longer training; the others are about files of this machine.

mod bounds;
mod bucket;
mod credentials;
mod error;
mod http;
mod link;
mod notes;
mod parts;
mod pull;
mod push;
mod records;
#[cfg(test)]
mod tests;
mod transfer;
mod wait;

pub use error::{Place, RemoteError, Service};
pub use link::{Link, LinkReport};
pub use transfer::{Moved, Scope, Transfer, Wrong};

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Component, Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
    time::Duration,
};

use rayon::{ThreadPool, ThreadPoolBuilder};
use url::Url;

use bucket::Bucket;

use crate::{
    store::{Digest, FORMAT_VERSION, Fingerprint},
    sync::Unpoisoned,
};

/// Requests that are on their way at once.
const PARALLEL: usize = 16;

/// A cache at an address.
#[derive(Debug)]
pub struct Remote {
    bucket: Bucket,
    /// The address without what only its owner should know.
    name: String,
    threads: ThreadPool,
    /// Content that was fetched and did not match its digest, or was not there: to be replaced.
    damaged: Mutex<HashSet<Digest>>,
    /// Keys of results of which a record, or the list of items, could not be read: what lies behind
    /// it is unknown, so all of it is replaced. And of items whose content is damaged.
    suspects: Mutex<HashSet<Fingerprint>>,
    /// Outputs of results that could not be fetched whole: another output may take their place.
    broken: Mutex<HashMap<Fingerprint, Digest>>,
    /// Whether it is known to be a cache of this form.
    prepared: Mutex<bool>,
    /// Whether uploads that nobody went on with were looked for.
    gave_up: AtomicBool,
}

/// How long a remote is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// To be connected.
    pub connect: Duration,
    /// For the next bytes.
    pub read: Duration,
    /// How often a request is made again.
    pub retries: usize,
    /// The wait after a first failure; each further one doubles it.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            read: Duration::from_secs(20),
            retries: 4,
            pause: Duration::from_millis(200),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Remote {
    /// The cache at an address, which may be a folder's path. Nothing is asked yet, and nothing
    /// made.
    pub fn open(address: &str, patience: Patience) -> Result<Self, RemoteError> {
        let url = parse(address)?;
        Self::over(Bucket::open(&url, patience)?, public(&url))
    }

    fn over(bucket: Bucket, name: String) -> Result<Self, RemoteError> {
        let threads = ThreadPoolBuilder::new().num_threads(PARALLEL).build();
        let threads = threads.map_err(|e| RemoteError::Local(e.to_string()))?;
        Ok(Self {
            bucket,
            name,
            threads,
            damaged: Mutex::default(),
            suspects: Mutex::default(),
            broken: Mutex::default(),
            prepared: Mutex::default(),
            gave_up: AtomicBool::new(false),
        })
    }

    /// From now on it is asked all the time whether to stop: what is on its way then has two
    /// seconds more, and is an error, [`RemoteError::Stopped`], after that.
    pub fn stopped_by(&self, is_stopped: impl Fn() -> bool + Send + Sync + 'static) {
        self.bucket.stopped_by(is_stopped);
    }

    /// Refuses what is no cache or a newer one; says if anything is there.
    pub fn check(&self) -> Result<bool, RemoteError> {
        let found = self.format();
        *self.prepared.lock().unpoisoned() = matches!(found, Ok(Some(FORMAT_VERSION)));
        Ok(found?.is_some())
    }

    fn format(&self) -> Result<Option<u32>, RemoteError> {
        self.bucket.refuse_own_cache()?;
        let Some(text) = self.bucket.get("format")? else { return Ok(None) };
        match String::from_utf8_lossy(&text).trim().parse::<u32>() {
            Ok(found) if found > FORMAT_VERSION => Err(RemoteError::Newer { found }),
            Ok(found) => Ok(Some(found)),
            Err(_) => Err(RemoteError::NotACache),
        }
    }

    /// Makes it a cache of this form, once; an older version could not read what is written from
    /// now on.
    fn prepare(&self) -> Result<(), RemoteError> {
        // Who comes meanwhile waits, and need not ask again.
        let mut prepared = self.prepared.lock().unpoisoned();
        if !*prepared {
            self.make()?;
            *prepared = true;
        }
        Ok(())
    }

    fn make(&self) -> Result<(), RemoteError> {
        let text = format!("{FORMAT_VERSION}\n").into_bytes();
        let found = self.format()?;
        if found.is_none() {
            self.bucket.refuse_other_files()?;
        }
        match found {
            // Taken by another machine just now, or by what is no file, such as a folder.
            None if !self.bucket.create("format", &text)? && self.format()?.is_none() => {
                Err(RemoteError::NotACache)
            }
            Some(found) if found < FORMAT_VERSION => self.bucket.put("format", text),
            None | Some(_) => Ok(()),
        }
    }
}

/// How addresses begin that go on with a bucket, a container or a folder.
const SCHEMES: [&str; 4] = ["s3", "gs", "az", "file"];

/// Whether an address begins as one, but does not say where: `s3://`, `s3:bucket`. It would be
/// taken for a folder of this name, or for the folder of all.
fn is_incomplete(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once(':') else { return false };
    let named = rest.strip_prefix("//");
    let names_nothing = |rest: &str| match scheme {
        "file" => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with('/'),
    };
    SCHEMES.contains(&scheme) && named.is_none_or(names_nothing)
}

/// An address, or the path of a folder.
fn parse(address: &str) -> Result<Url, RemoteError> {
    if is_incomplete(address) {
        return Err(RemoteError::Incomplete { address: address.to_owned() });
    }
    if address.starts_with("file://") {
        return parse_folder(address);
    }
    if address.contains("://") {
        return Url::parse(address).map_err(|_| RemoteError::Address {
            scheme: address.split(':').next().unwrap_or_default().to_owned(),
        });
    }
    let folder = std::path::absolute(Path::new(address))
        .map_err(|e| RemoteError::Local(format!("`{address}` is no folder: {e}")))?;
    Url::from_directory_path(without_parents(folder))
        .map_err(|()| RemoteError::Address { scheme: address.to_owned() })
}

/// An address that begins with `file://`.
fn parse_folder(address: &str) -> Result<Url, RemoteError> {
    let wrong = |reason: String| RemoteError::NoFolder { address: address.to_owned(), reason };
    // Who reads addresses drops some of these, and they would be another folder's.
    let written: String = address
        .chars()
        .map(|c| if c.is_ascii_control() { format!("%{:02X}", c as u32) } else { c.to_string() })
        .collect();
    let url = Url::parse(&written).map_err(|error| wrong(error.to_string()))?;
    if let Some(machine) = url.host_str() {
        return Err(wrong(format!("`{machine}` is where the name of another machine stands")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(
            "a path ends at `?` and `#`, unless they are `%3F` and `%23`".to_owned(),
        ));
    }
    Ok(url)
}

/// A path without `..`, which stands for another folder behind a link than by the names alone.
fn without_parents(path: PathBuf) -> PathBuf {
    if !path.components().any(|part| part == Component::ParentDir) {
        return path;
    }
    let mut found = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            // What is not there has no links.
            found = found.canonicalize().unwrap_or(found);
            found.pop();
        } else {
            found.push(part);
        }
    }
    found
}

/// An address without a password or a signature.
fn public(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// `objects/ab/cdef…`.
fn sharded(folder: &str, hex: &str) -> String {
    format!("{folder}/{}/{}", &hex[..2], &hex[2..])
}
