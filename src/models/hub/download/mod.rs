//! Fills the cache: each file beside its place, checked against its hash, then moved there.

mod files;

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use hf_hub::Cache;

use super::{
    super::{LoadError, ModelSource},
    Hub, Name,
    client::{Listing, RemoteFile, RequestError},
    known_commit, missing,
    request::LOOK,
    select,
};
use files::Download;

/// Failures in a row, without a byte between them, after which a download is given up.
const MOST_FAILURES: u32 = 6;
/// A wait of which users are told.
const LONG_REST: Duration = Duration::from_secs(3);

/// How far a download is, over all its files.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file that is being fetched.
    pub file: &'a str,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The user asked to stop; what is here is kept.
    #[error("interrupted")]
    Stopped,
    /// The hub or the cache failed.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Told how far the download is; may stop it.
pub type Observe<'a> = dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a;

/// Fetches the files of a model's parts that the cache lacks, and gives the folder they are in.
///
/// A repository that lacks some of them is refused by its list, before anything is fetched, or by
/// the indexes of its shards, before any weights are. A file that was begun before goes on where it
/// ended. The revision's commit is noted last, so that a branch never leads to a commit of which
/// nothing is here.
pub fn fetch(
    hub: &Hub,
    cache: &Path,
    name: &Name<'_>,
    parts: &[&str],
    observe: &mut Observe<'_>,
) -> Result<PathBuf, FetchError> {
    fetch_some(hub, cache, name, (parts, true), observe)
}

/// The same without the weights, which must be there to be fetched all the same.
pub fn fetch_settings(
    hub: &Hub,
    cache: &Path,
    name: &Name<'_>,
    parts: &[&str],
    observe: &mut Observe<'_>,
) -> Result<PathBuf, FetchError> {
    fetch_some(hub, cache, name, (parts, false), observe)
}

fn fetch_some(
    hub: &Hub,
    cache: &Path,
    name: &Name<'_>,
    (parts, with_weights): (&[&str], bool),
    observe: &mut Observe<'_>,
) -> Result<PathBuf, FetchError> {
    let cache = std::path::absolute(cache).map_err(|e| unwritten(cache, &e))?;
    let repo = Cache::new(cache.clone()).repo(name.repo());
    // What is added later must be of the same commit as what is here.
    let known = known_commit(name, &cache);
    let revision = known.as_deref().unwrap_or(name.revision);
    let listing = hub.retrying(|| hub.listing(&Name { revision, ..*name }))?;
    let names: Vec<&str> = listing.names.iter().map(String::as_str).collect();
    select::check(name.id, &names, parts)?;
    let settings = listing.files(name.id, &select::settings_of(&names, parts))?;
    let weights = listing.files(name.id, &select::weights_of(&names, parts))?;
    let size = |files: &[&RemoteFile]| files.iter().map(|file| file.size).sum::<u64>();
    let snapshot = repo.pointer_path(&listing.commit);
    let mut download = Download {
        hub,
        name,
        commit: &listing.commit,
        folder: cache.join(name.repo().folder_name()),
        locks: cache.join(".locks").join(name.repo().folder_name()),
        before: 0,
        total: size(&settings) + if with_weights { size(&weights) } else { 0 },
        observe,
    };
    download.all(&settings, &snapshot)?;
    let weights = shards_as_named(name.id, (&names, &listing), &snapshot, parts, weights)?;
    if with_weights {
        download.total = size(&settings) + size(&weights);
        download.all(&weights, &snapshot)?;
    }
    if name.revision != listing.commit {
        repo.create_ref(&listing.commit).map_err(|e| unwritten(&cache, &e))?;
    }
    Ok(snapshot)
}

/// The files of weights as the indexes, which are here by now, name them: shards may be called
/// otherwise than those of published models, and the repository must have all of them.
fn shards_as_named<'l>(
    id: &str,
    (names, listing): (&[&str], &'l Listing),
    snapshot: &Path,
    parts: &[&str],
    weights: Vec<&'l RemoteFile>,
) -> Result<Vec<&'l RemoteFile>, LoadError> {
    let source = ModelSource::Folder(snapshot.to_owned());
    let mut files = weights;
    for part in select::with_weights(parts) {
        let Some(shards) = source.named_shards(part)? else { continue };
        select::check_shards(id, names, part, &shards)?;
        files
            .retain(|file| !file.path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/')));
        let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
        files.extend(listing.files(id, &shards)?);
    }
    Ok(files)
}

impl Hub {
    /// Asks again, after waits, what fails in passing.
    fn retrying<T>(&self, ask: impl Fn() -> Result<T, RequestError>) -> Result<T, FetchError> {
        let mut failures = 0;
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(RequestError::Final(error)) => return Err(error.into()),
                Err(RequestError::Stopped) => return Err(FetchError::Stopped),
                Err(RequestError::Passing { message, rest }) => {
                    self.wait(&mut failures, &message, rest)?;
                }
            }
        }
    }

    /// Waits before the next attempt, at least for `rest`, or says that there is none.
    fn wait(&self, failures: &mut u32, message: &str, rest: Duration) -> Result<(), FetchError> {
        *failures += 1;
        if *failures >= MOST_FAILURES {
            return Err(missing(
                format!("the download failed {MOST_FAILURES} times: {message}"),
                "check the network and `HF_ENDPOINT`, then run again: it goes on where it ended; or \
                 name a local folder in diffusers' layout",
            )
            .into());
        }
        if rest > LONG_REST {
            tracing::warn!("{message} and asks to wait for {} s.", rest.as_secs());
        }
        let end = Instant::now() + rest.max(self.pause * (1 << (*failures - 1)));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if (self.stopped)() {
                return Err(FetchError::Stopped);
            }
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

fn unwritten(path: &Path, error: &io::Error) -> LoadError {
    missing(
        format!("the Hugging Face cache cannot be filled at `{}`: {error}", path.display()),
        "check that the disk is not full and the folder can be written, or set `HF_HUB_CACHE`",
    )
}
