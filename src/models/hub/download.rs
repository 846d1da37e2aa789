//! Fills the cache: each file beside its place, checked against its hash, then moved there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use hf_hub::Cache;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::{
    super::{LoadError, ModelSource},
    Hub, Name,
    client::{Listing, RemoteFile, RequestError},
    known_commit, missing,
    request::{Chunks, LOOK},
    select,
};

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
/// A repository that lacks some of them is refused by its list, before anything is fetched, or by the indexes of
/// its shards, before any weights are. A file that was begun before goes on where it ended. The revision's commit
/// is noted last, so that a branch never leads to a commit of which nothing is here.
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

/// The files of weights as the indexes, which are here by now, name them: shards may be called otherwise than those
/// of published models, and the repository must have all of them.
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

/// The files of one commit on their way into the cache.
struct Download<'a, 'o> {
    hub: &'a Hub,
    name: &'a Name<'a>,
    commit: &'a str,
    /// The repository's folder in the cache.
    folder: PathBuf,
    locks: PathBuf,
    /// Bytes of the files before this one.
    before: u64,
    total: u64,
    observe: &'a mut Observe<'o>,
}

impl Download<'_, '_> {
    /// Fetches these files, and has their places in the snapshot lead to them.
    fn all(&mut self, files: &[&RemoteFile], snapshot: &Path) -> Result<(), FetchError> {
        for file in files {
            let path = snapshot.join(&file.path);
            let blob = self.blob(file, path.exists())?;
            link(&blob, &path, file.path.split('/').count() + 1)
                .map_err(|e| unwritten(snapshot, &e))?;
            self.before += file.size;
        }
        Ok(())
    }

    /// The whole content of a file, in its place by its hash. One that no link of the commit leads to
    /// may be another program's, so its content is looked at before it is used.
    fn blob(&mut self, file: &RemoteFile, is_linked: bool) -> Result<PathBuf, FetchError> {
        let blobs = self.folder.join("blobs");
        let (blob, partial) =
            (blobs.join(&file.hash), blobs.join(format!("{}.incomplete", file.hash)));
        let here = || length(&blob) == Some(file.size);
        if is_linked && here() {
            return Ok(blob);
        }
        for folder in [&blobs, &self.locks] {
            fs::create_dir_all(folder).map_err(|e| unwritten(folder, &e))?;
        }
        // Another process may fetch the same file: it is waited for.
        let _lock = self.lock(file)?;
        let sound = || hash_of(&blob, file).is_ok_and(|hash| hash == file.hash);
        if !here() || !(is_linked || sound()) {
            self.whole(file, &partial)?;
            let moved = File::open(&partial).and_then(|written| written.sync_all());
            moved.and_then(|()| fs::rename(&partial, &blob)).map_err(|e| unwritten(&blob, &e))?;
        }
        Ok(blob)
    }

    fn lock(&mut self, file: &RemoteFile) -> Result<File, FetchError> {
        let path = self.locks.join(format!("{}.lock", file.hash));
        let lock = File::create(&path).map_err(|e| unwritten(&path, &e))?;
        while lock.try_lock().is_err() {
            self.tell(file, 0)?;
            thread::sleep(Duration::from_millis(200));
        }
        Ok(lock)
    }

    /// Fetches until all bytes are there and have the hash that the hub states.
    fn whole(&mut self, file: &RemoteFile, partial: &Path) -> Result<(), FetchError> {
        loop {
            // What an earlier run left may be damaged, so a wrong hash then is no fault of the hub.
            let resumed = length(partial).unwrap_or_default() > 0;
            self.append(file, partial)?;
            let hash = hash_of(partial, file).map_err(|e| unwritten(partial, &e))?;
            if hash == file.hash {
                return Ok(());
            }
            fs::remove_file(partial).map_err(|e| unwritten(partial, &e))?;
            if !resumed {
                return Err(FetchError::Load(missing(
                    format!(
                        "`{}` of `{}` arrived with another content than the hub states: its hash must \
                         be `{}`, but is `{hash}`",
                        file.path, self.name.id, file.hash
                    ),
                    "nothing of it was kept; run again, or check what lies between here and the hub",
                )));
            }
        }
    }

    /// Adds to the file until it is as long as it must be.
    fn append(&mut self, file: &RemoteFile, partial: &Path) -> Result<(), FetchError> {
        let mut failures = 0;
        loop {
            let have = length(partial).unwrap_or_default();
            if have == file.size && partial.exists() {
                return Ok(());
            }
            let start = if have > file.size { 0 } else { have };
            match self.some(file, partial, start) {
                Ok(()) if file.size == 0 => return Ok(()),
                Ok(()) => {
                    if length(partial).unwrap_or_default() > start {
                        failures = 0;
                    }
                    if length(partial) != Some(file.size) {
                        let cut = "the connection was cut";
                        self.hub.wait(&mut failures, cut, Duration::ZERO)?;
                    }
                }
                Err(SomeError::Fetch(error)) => return Err(error),
                Err(SomeError::Request(RequestError::Final(error))) => return Err(error.into()),
                Err(SomeError::Request(RequestError::Stopped)) => return Err(FetchError::Stopped),
                Err(SomeError::Request(RequestError::Passing { message, rest })) => {
                    self.hub.wait(&mut failures, &message, rest)?;
                }
            }
        }
    }

    /// Adds what one request gives; a connection that breaks is no error.
    fn some(&mut self, file: &RemoteFile, partial: &Path, start: u64) -> Result<(), SomeError> {
        let (reader, begins) = self.hub.read(self.name, self.commit, &file.path, start)?;
        let write = |e: io::Error| SomeError::Fetch(unwritten(partial, &e).into());
        let mut out = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(begins == 0)
            .append(begins > 0)
            .open(partial)
            .map_err(write)?;
        let chunks = Chunks::of(reader.take(file.size - begins));
        let mut have = begins;
        loop {
            self.tell(file, have).map_err(SomeError::Fetch)?;
            let next = chunks.next(&*self.hub.stopped);
            let Some(bytes) = next.map_err(|_| SomeError::Fetch(FetchError::Stopped))? else {
                return Ok(());
            };
            out.write_all(&bytes).map_err(write)?;
            have += bytes.len() as u64;
        }
    }

    fn tell(&mut self, file: &RemoteFile, have: u64) -> Result<(), FetchError> {
        let progress = Progress { file: &file.path, done: self.before + have, total: self.total };
        match (self.observe)(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(FetchError::Stopped),
        }
    }
}

/// Why one request added nothing.
enum SomeError {
    Request(RequestError),
    Fetch(FetchError),
}

impl From<RequestError> for SomeError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

fn length(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| metadata.len())
}

/// The hash of a file's content in the form that the hub states it in.
fn hash_of(path: &Path, file: &RemoteFile) -> io::Result<String> {
    let mut context = if file.hash.len() == 64 {
        Context::new(&SHA256)
    } else {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(format!("blob {}\0", file.size).as_bytes());
        context
    };
    let (mut reader, mut buffer) = (File::open(path)?, vec![0; 1 << 18]);
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    Ok(HEXLOWER.encode(context.finish().as_ref()))
}

/// Makes `path`, which lies `depth` folders below the repository's, lead to the blob.
fn link(blob: &Path, path: &Path, depth: usize) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    // A link to nothing, where a blob was deleted.
    if path.is_symlink() {
        fs::remove_file(path)?;
    }
    let up: PathBuf = std::iter::repeat_n("..", depth).collect();
    let name = blob.file_name().unwrap_or_default();
    match symlink(&up.join("blobs").join(name), path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::hard_link(blob, path),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn unwritten(path: &Path, error: &io::Error) -> LoadError {
    missing(
        format!("the Hugging Face cache cannot be filled at `{}`: {error}", path.display()),
        "check that the disk is not full and the folder can be written, or set `HF_HUB_CACHE`",
    )
}
