//! The files of one commit, fetched, checked and put in their places.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::{
    super::{
        Hub, Name,
        client::{RemoteFile, RequestError},
        missing,
        request::Chunks,
    },
    FetchError, Observe, Progress, unwritten,
};

/// The files of one commit on their way into the cache.
pub(super) struct Download<'a, 'o> {
    pub hub: &'a Hub,
    pub name: &'a Name<'a>,
    pub commit: &'a str,
    /// The repository's folder in the cache.
    pub folder: PathBuf,
    pub locks: PathBuf,
    /// Bytes of the files before this one.
    pub before: u64,
    pub total: u64,
    pub observe: &'a mut Observe<'o>,
}

impl Download<'_, '_> {
    /// Fetches these files, and has their places in the snapshot lead to them.
    pub fn all(&mut self, files: &[&RemoteFile], snapshot: &Path) -> Result<(), FetchError> {
        for file in files {
            let path = snapshot.join(&file.path);
            let blob = self.blob(file, path.exists())?;
            link(&blob, &path, file.path.split('/').count() + 1)
                .map_err(|e| unwritten(snapshot, &e))?;
            self.before += file.size;
        }
        Ok(())
    }

    /// The whole content of a file, in its place by its hash. One that no link of the commit leads
    /// to may be another program's, so its content is looked at before it is used.
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
