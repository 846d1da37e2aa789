//! The seam to `object_store`: named bytes behind an address, for code that waits for its answers.

use std::{
    fs, io,
    io::Write,
    path,
    sync::{Arc, OnceLock},
};

use object_store::{
    BackoffConfig, Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, RetryConfig,
    WriteMultipart, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, memory::InMemory, path::Path,
};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::{
    Patience, RemoteError,
    http::{Connector, METADATA, NoCredentials},
};

/// A longer object is sent and fetched in parts of this length.
const PART: u64 = 8 << 20;

/// Parts of one object that are on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Named bytes at an address.
#[derive(Debug)]
pub(super) struct Bucket {
    /// None yet where it is a folder that is not there.
    objects: OnceLock<Arc<dyn ObjectStore>>,
    /// The folder, made when the first bytes are written to it.
    folder: path::PathBuf,
    /// Stands for a folder that is not there.
    nothing: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

impl Bucket {
    /// Connects to nothing yet, and makes nothing.
    pub(super) fn open(address: &Url, patience: Patience) -> Result<Self, RemoteError> {
        let connector =
            Connector { connect: patience.connect, read: patience.read, metadata: METADATA };
        let (retry, text) = (Self::retry(patience), address.to_string());
        let (scheme, prefix) = ObjectStoreScheme::parse(address)
            .map_err(|_| RemoteError::Address { scheme: address.scheme().to_owned() })?;
        let objects: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::Local => return Self::folder(address),
            ObjectStoreScheme::AmazonS3 => Arc::new(
                AmazonS3Builder::from_env()
                    .with_url(text)
                    .with_http_connector(connector)
                    .with_retry(retry)
                    .build()
                    .map_err(|error| RemoteError::Setup(plain(&error)))?,
            ),
            ObjectStoreScheme::GoogleCloudStorage => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(text)
                    .with_http_connector(connector)
                    .with_retry(retry)
                    .build()
                    .map_err(|error| RemoteError::Setup(plain(&error)))?,
            ),
            ObjectStoreScheme::MicrosoftAzure => Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_url(text)
                    .with_http_connector(connector)
                    .with_retry(retry)
                    .build()
                    .map_err(|error| RemoteError::Setup(plain(&error)))?,
            ),
            _ => return Err(RemoteError::Address { scheme: address.scheme().to_owned() }),
        };
        Ok(Self { prefix, ..Self::over(objects.into())? })
    }

    fn over(objects: OnceLock<Arc<dyn ObjectStore>>) -> Result<Self, RemoteError> {
        Ok(Self {
            objects,
            folder: path::PathBuf::default(),
            nothing: Arc::new(InMemory::new()),
            prefix: Path::default(),
            runtime: runtime()?,
        })
    }

    pub(super) fn retry(patience: Patience) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: patience.pause,
                max_backoff: patience.pause * 16,
                base: 2.0,
            },
            max_retries: patience.retries,
            retry_timeout: (patience.connect + patience.read) * 2,
        }
    }

    fn folder(address: &Url) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Address { scheme: "file".to_owned() };
        let folder: path::PathBuf = address.to_file_path().map_err(|()| wrong())?;
        let objects = OnceLock::new();
        match fs::metadata(&folder) {
            Ok(found) if found.is_dir() => drop(objects.set(below(&folder)?)),
            // An address ends in a slash, so a file is found not to be a folder already here.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(RemoteError::Folder { path: folder, error });
            }
            // It is made by the first write.
            _ => {}
        }
        Ok(Self { folder, ..Self::over(objects)? })
    }

    #[cfg(test)]
    pub(super) fn of(objects: Arc<dyn ObjectStore>) -> Self {
        Self::over(objects.into()).unwrap()
    }

    /// Where to read.
    fn objects(&self) -> &Arc<dyn ObjectStore> {
        self.objects.get().unwrap_or(&self.nothing)
    }

    /// Where to write.
    fn objects_to_change(&self) -> Result<&Arc<dyn ObjectStore>, RemoteError> {
        if self.objects.get().is_none() {
            let path = || self.folder.clone();
            fs::create_dir_all(&self.folder)
                .map_err(|error| RemoteError::Folder { path: path(), error })?;
            // Another thread may have been faster.
            let _ = self.objects.set(below(&self.folder)?);
        }
        Ok(self.objects())
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// The bytes with this name.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let path = self.path(name);
        let got = self.runtime.block_on(async { self.objects().get(&path).await?.bytes().await });
        Ok(found(got)?.map(|bytes| bytes.to_vec()))
    }

    /// How many bytes have this name.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        let path = self.path(name);
        let head = self.runtime.block_on(self.objects().head(&path));
        Ok(found(head)?.map(|meta| meta.size))
    }

    /// Writes the `size` bytes with this name to `out`; says if they are there.
    pub(super) fn download(
        &self,
        name: &str,
        size: u64,
        out: &mut dyn Write,
    ) -> Result<bool, RemoteError> {
        let path = self.path(name);
        let mut at = 0;
        while at < size {
            let end = size.min(at + PART);
            let part = self.runtime.block_on(self.objects().get_range(&path, at..end));
            let Some(part) = found(part)? else { return Ok(false) };
            out.write_all(&part).map_err(|e| RemoteError::Local(e.to_string()))?;
            // What is too short is refused by its digest.
            if (part.len() as u64) < end - at {
                return Ok(true);
            }
            at = end;
        }
        Ok(true)
    }

    /// Writes bytes under a name that is free; false if it is taken.
    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, RemoteError> {
        const ATTEMPTS: usize = 3;
        let (path, objects) = (self.path(name), self.objects_to_change()?);
        let mut attempt = 1;
        loop {
            let payload = bytes.to_vec().into();
            let put = objects.put_opts(&path, payload, PutMode::Create.into());
            match self.runtime.block_on(put) {
                Ok(_) => return Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(false),
                // Whether it was written before the connection broke, the next answer says.
                Err(error) if attempt < ATTEMPTS && RemoteError::is_passing(&error) => attempt += 1,
                Err(error) => return Err(RemoteError::from(error)),
            }
        }
    }

    /// Writes bytes under a name, whatever was there.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let path = self.path(name);
        let put = self.runtime.block_on(self.objects_to_change()?.put(&path, bytes.into()));
        put.map(drop).map_err(RemoteError::from)
    }

    /// Sends a file, in parts if it is long, whatever was there.
    pub(super) fn upload(&self, name: &str, file: &path::Path) -> Result<(), RemoteError> {
        let local = |e: std::io::Error| RemoteError::Local(e.to_string());
        let size = fs::metadata(file).map_err(local)?.len();
        if size <= PART {
            self.put(name, fs::read(file).map_err(local)?)?;
        } else {
            self.upload_parts(name, &mut fs::File::open(file).map_err(local)?)?;
        }
        Ok(())
    }

    fn upload_parts(&self, name: &str, file: &mut fs::File) -> Result<(), RemoteError> {
        use std::io::Read;
        let (path, objects) = (self.path(name), self.objects_to_change()?);
        self.runtime.block_on(async {
            let upload = objects.put_multipart(&path).await.map_err(RemoteError::from)?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART as usize);
            loop {
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(RemoteError::from)?;
                let mut part = Vec::new();
                let read = file.take(PART).read_to_end(&mut part);
                match read {
                    Ok(0) => break,
                    Ok(_) => upload.put(part.into()),
                    Err(error) => {
                        // What was sent is of no use; a server that keeps it has rules for that.
                        let _ = upload.abort().await;
                        return Err(RemoteError::Local(error.to_string()));
                    }
                }
            }
            upload.finish().await.map(drop).map_err(RemoteError::from)
        })
    }

    /// The names that begin with this folder, with their sizes.
    pub(super) fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, RemoteError> {
        let folder = self.path(folder);
        let listed = self.runtime.block_on(async {
            use futures_util::TryStreamExt;
            self.objects().list(Some(&folder)).try_collect::<Vec<_>>().await
        });
        let below = |path: &Path| {
            let rest: Vec<_> = path.prefix_match(&self.prefix)?.collect();
            Some(rest.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/"))
        };
        let listed = found(listed)?.unwrap_or_default();
        Ok(listed.iter().filter_map(|meta| Some((below(&meta.location)?, meta.size))).collect())
    }
}

impl From<Error> for RemoteError {
    fn from(error: Error) -> Self {
        if causes(&error).any(<dyn std::error::Error>::is::<NoCredentials>) {
            return Self::NoCredentials;
        }
        let text = plain(&error);
        match error {
            Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::InvalidPath { .. } => Self::Refused(text),
            _ => Self::Unreachable(text),
        }
    }
}

impl RemoteError {
    fn is_passing(error: &Error) -> bool {
        matches!(error, Error::Generic { .. })
    }
}

/// An error and what caused it.
fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The innermost cause of an error in one line, without what addresses may carry after a `?`.
fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let words: Vec<_> =
        line.split(' ').map(|word| word.split('?').next().unwrap_or_default()).collect();
    words.join(" ")
}

/// The files below a folder, which is there.
fn below(folder: &path::Path) -> Result<Arc<dyn ObjectStore>, RemoteError> {
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?))
}

/// What is not there is no error.
fn found<T>(result: object_store::Result<T>) -> Result<Option<T>, RemoteError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(RemoteError::from(error)),
    }
}

/// Drives requests in the thread that waits for them; several may.
fn runtime() -> Result<Runtime, RemoteError> {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| RemoteError::Local(e.to_string()))
}
