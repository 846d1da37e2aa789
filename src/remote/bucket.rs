//! The seam to `object_store`: named bytes behind an address, for code that waits for its answers.

use std::{
    fs,
    io::{self, Write},
    path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use object_store::{
    BackoffConfig, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme,
    PutMode, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    memory::InMemory,
    multipart::MultipartStore,
    path::Path,
};
use url::Url;

use super::{
    Patience, Place, RemoteError, Service,
    bounds::{Most, is_too_much, of_name},
    credentials,
    error::{is_bucket_missing, plain},
    http::{Connector, METADATA},
    notes::{self, Notes},
    parts::{self, PART, PartsError, Uploads},
    public,
    wait::Waiter,
};
use crate::store::{Store, is_own_cache, shared_folders};

/// Named bytes at an address.
#[derive(Debug)]
pub(super) struct Bucket {
    /// None yet where it is a folder that is not there.
    objects: OnceLock<Arc<dyn ObjectStore>>,
    /// The same, to send objects in parts; a folder takes them whole.
    parts: Option<InParts>,
    /// The folder, made when the first bytes are written to it.
    folder: path::PathBuf,
    /// Stands for a folder that is not there.
    nothing: Arc<dyn ObjectStore>,
    prefix: Path,
    /// For errors.
    place: Place,
    /// Between rounds of a part.
    pause: Duration,
    waiter: Waiter,
}

/// What takes objects in parts.
struct InParts(Arc<dyn MultipartStore>);

impl std::fmt::Debug for InParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InParts")
    }
}

impl Bucket {
    /// Connects to nothing yet, and makes nothing.
    pub(super) fn open(address: &Url, patience: Patience) -> Result<Self, RemoteError> {
        // Not all names of folders can be names in a bucket, which this would ask for.
        if address.scheme() == "file" {
            return Self::folder(address, patience);
        }
        let connector =
            Connector { connect: patience.connect, read: patience.read, metadata: METADATA };
        let (retry, text) = (Self::retry(patience), address.to_string());
        let (scheme, prefix) = ObjectStoreScheme::parse(address)
            .map_err(|_| RemoteError::Address { scheme: address.scheme().to_owned() })?;
        let setup = |service| {
            move |error: Error| RemoteError::Setup {
                service,
                reason: plain(&error).trim_end_matches('.').to_owned(),
                set: credentials::set_for(service),
            }
        };
        let ((objects, parts), service, endpoint) = match scheme {
            ObjectStoreScheme::AmazonS3 => {
                let builder = AmazonS3Builder::from_env().with_url(text);
                let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
                let builder = builder.with_http_connector(connector).with_retry(retry);
                (both(builder.build().map_err(setup(Service::S3))?), Service::S3, endpoint)
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(text);
                let builder = builder.with_http_connector(connector).with_retry(retry);
                (both(builder.build().map_err(setup(Service::Google))?), Service::Google, None)
            }
            ObjectStoreScheme::MicrosoftAzure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(text);
                let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
                let builder = builder.with_http_connector(connector).with_retry(retry);
                (both(builder.build().map_err(setup(Service::Azure))?), Service::Azure, endpoint)
            }
            _ => return Err(RemoteError::Address { scheme: address.scheme().to_owned() }),
        };
        let endpoint = endpoint.map(|text| Url::parse(&text).map_or(text, |url| public(&url)));
        let place = Place { address: public(address), endpoint, service };
        let parts = Some(parts);
        Ok(Self { parts, prefix, ..Self::over(objects.into(), place, patience)? })
    }

    fn over(
        objects: OnceLock<Arc<dyn ObjectStore>>,
        place: Place,
        patience: Patience,
    ) -> Result<Self, RemoteError> {
        Ok(Self {
            objects,
            parts: None,
            folder: path::PathBuf::default(),
            nothing: Arc::new(InMemory::new()),
            prefix: Path::default(),
            place,
            pause: patience.pause,
            waiter: Waiter::new()?,
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

    fn folder(address: &Url, patience: Patience) -> Result<Self, RemoteError> {
        let place = Place { address: public(address), endpoint: None, service: Service::Folder };
        let wrong = || RemoteError::Address { scheme: "file".to_owned() };
        let folder: path::PathBuf = address.to_file_path().map_err(|()| wrong())?;
        let objects = OnceLock::new();
        match fs::metadata(&folder) {
            Ok(found) if found.is_dir() => drop(objects.set(below(&folder, &place)?)),
            // An address ends in a slash, so a file is found not to be a folder already here.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(RemoteError::Folder { path: folder, error });
            }
            // It is made by the first write.
            _ => {}
        }
        let bucket = Self { folder, ..Self::over(objects, place, patience)? };
        bucket.refuse_own_cache()?;
        Ok(bucket)
    }

    /// From now on it is asked all the time whether to stop.
    pub(super) fn stopped_by(&self, is_stopped: impl Fn() -> bool + Send + Sync + 'static) {
        self.waiter.stopped_by(is_stopped);
    }

    /// An error where it is the folder of a cache that runs use themselves, whose files lie
    /// otherwise, or in one, which would take its files for damage.
    pub(super) fn refuse_own_cache(&self) -> Result<(), RemoteError> {
        let own = self.folder.ancestors().find(|folder| is_own_cache(folder));
        match own.filter(|_| self.is_folder()) {
            Some(cache) => Err(RemoteError::NotShared { path: cache.to_owned() }),
            None => Ok(()),
        }
    }

    /// An error where it is a folder that holds something else, such as a data set.
    pub(super) fn refuse_other_files(&self) -> Result<(), RemoteError> {
        // Without its `format` it can be used again; hidden files are those of a share or of git.
        let is_other = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_own = shared_folders().contains(&&*name) || name == "format";
            !is_own && !name.starts_with('.') && name != "lost+found"
        };
        // One that cannot be read is told by what is asked of it.
        let found = self.is_folder().then(|| fs::read_dir(&self.folder).ok()).flatten();
        if found.into_iter().flatten().flatten().any(is_other) {
            return Err(RemoteError::NotEmpty { path: self.folder.clone() });
        }
        Ok(())
    }

    fn is_folder(&self) -> bool {
        self.place.service == Service::Folder
    }

    #[cfg(test)]
    pub(super) fn of(objects: impl ObjectStore + MultipartStore, patience: Patience) -> Self {
        let address = "s3://bucket/".to_owned();
        let place = Place { address, endpoint: None, service: Service::S3 };
        let (objects, parts) = both(objects);
        Self { parts: Some(parts), ..Self::over(objects.into(), place, patience).unwrap() }
    }

    fn error(&self, error: &Error) -> RemoteError {
        RemoteError::of(error, &self.place)
    }

    /// What is not there is no error.
    fn found<T>(&self, result: object_store::Result<T>) -> Result<Option<T>, RemoteError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ Error::NotFound { .. }) if !is_bucket_missing(&error) => Ok(None),
            Err(error) => Err(self.error(&error)),
        }
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
            let _ = self.objects.set(below(&self.folder, &self.place)?);
        }
        Ok(self.objects())
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// The bytes with this name, a record or a list of items. One that is longer than such a file
    /// can be counts as one without a byte, which is none that anybody wrote.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let (path, most) = (self.path(name), of_name(name));
        let mut options = GetOptions::default();
        options.extensions.insert(Most(most));
        let got = self.waiter.wait(async {
            let got = self.objects().get_opts(&path, options).await?;
            if got.meta.size > most { Ok(Bytes::new()) } else { got.bytes().await }
        });
        if got.as_ref().is_err_and(is_too_much) {
            return Ok(Some(Vec::new()));
        }
        Ok(self.found(got)?.map(|bytes| bytes.to_vec()))
    }

    /// How many bytes have this name.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>, RemoteError> {
        let path = self.path(name);
        let head = self.waiter.wait(self.objects().head(&path));
        Ok(self.found(head)?.map(|meta| meta.size))
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
            let part = self.waiter.wait(self.objects().get_range(&path, at..end));
            if part.as_ref().is_err_and(is_too_much) {
                // Not what has this name, whatever it is: refused by its digest, as what is too
                // short.
                return Ok(true);
            }
            let Some(part) = self.found(part)? else { return Ok(false) };
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
            match self.waiter.wait(put) {
                Ok(_) => return Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(false),
                // Whether it was written before the connection broke, the next answer says.
                Err(error) if attempt < ATTEMPTS && is_passing(&error) => attempt += 1,
                Err(error) => return Err(self.error(&error)),
            }
        }
    }

    /// Writes bytes under a name, whatever was there.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let path = self.path(name);
        let put = self.waiter.wait(self.objects_to_change()?.put(&path, bytes.into()));
        put.map(drop).map_err(|error| self.error(&error))
    }

    /// Sends a file, in parts if it is long, whatever was there. What was sent of it is noted in
    /// the cache.
    pub(super) fn upload(
        &self,
        name: &str,
        file: &path::Path,
        store: &Store,
    ) -> Result<(), RemoteError> {
        let local = |e: std::io::Error| RemoteError::Local(e.to_string());
        let size = fs::metadata(file).map_err(local)?.len();
        if size <= PART {
            return self.put(name, fs::read(file).map_err(local)?);
        }
        let (path, objects) = (self.path(name), self.objects_to_change()?);
        let mut file = fs::File::open(file).map_err(local)?;
        let sent = match &self.parts {
            None => self.waiter.wait(parts::copy(&**objects, &path, &mut file)),
            Some(InParts(parts)) => {
                let uploads = Uploads { objects: &**objects, parts, pause: self.pause };
                let note = self.notes(store).of(path.as_ref(), (size, parts::length(size)));
                self.waiter.wait(uploads.send(&path, (&mut file, size), &note))
            }
        };
        sent.map_err(|error| match error {
            PartsError::Local(error) => local(error),
            PartsError::Store(error) => self.error(&error),
        })
    }

    fn notes(&self, store: &Store) -> Notes {
        Notes::new(store, &self.place.address)
    }

    /// Removes what was sent of objects that nobody went on with for long.
    pub(super) fn give_up_old(&self, store: &Store) {
        let Some(InParts(parts)) = &self.parts else { return };
        for (begun, note) in self.notes(store).given_up() {
            let path = Path::from(begun.object.as_str());
            match self.waiter.wait(parts.abort_multipart(&path, &begun.upload)) {
                Ok(()) | Err(Error::NotFound { .. }) => notes::forget(&note),
                Err(error) => tracing::debug!("an unfinished upload stays: {error}"),
            }
        }
    }

    /// The names that begin with this folder, with their sizes.
    pub(super) fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, RemoteError> {
        let listed = self.list_all(folder)?;
        Ok(listed.iter().filter_map(|meta| Some((self.below(meta)?, meta.size))).collect())
    }

    /// The names that begin with this folder, those that were written last first.
    pub(super) fn list_latest(&self, folder: &str) -> Result<Vec<String>, RemoteError> {
        let mut listed = self.list_all(folder)?;
        listed.sort_by(|a, b| {
            b.last_modified.cmp(&a.last_modified).then_with(|| a.location.cmp(&b.location))
        });
        Ok(listed.iter().filter_map(|meta| self.below(meta)).collect())
    }

    /// Removes what has these names; what is not there is no error.
    pub(super) fn remove(&self, names: &[String]) -> Result<(), RemoteError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let removed = self.waiter.wait(async {
            use futures_util::{StreamExt, TryStreamExt, stream};
            let paths = stream::iter(paths).boxed();
            self.objects().delete_stream(paths).map_ok(drop).try_collect::<Vec<()>>().await
        });
        self.found(removed).map(drop)
    }

    /// A name without what stands before all names.
    fn below(&self, meta: &ObjectMeta) -> Option<String> {
        let rest: Vec<_> = meta.location.prefix_match(&self.prefix)?.collect();
        Some(rest.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/"))
    }

    fn list_all(&self, folder: &str) -> Result<Vec<ObjectMeta>, RemoteError> {
        let folder = self.path(folder);
        let listed = self.waiter.wait(async {
            use futures_util::TryStreamExt;
            self.objects().list(Some(&folder)).try_collect::<Vec<_>>().await
        });
        Ok(self.found(listed)?.unwrap_or_default())
    }
}

/// A store as what it can do.
fn both<T: ObjectStore + MultipartStore>(objects: T) -> (Arc<dyn ObjectStore>, InParts) {
    let objects = Arc::new(objects);
    (Arc::clone(&objects) as _, InParts(objects))
}

/// Whether the next try may go better.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Generic { .. })
}

/// The files below a folder, which is there.
fn below(folder: &path::Path, place: &Place) -> Result<Arc<dyn ObjectStore>, RemoteError> {
    let objects = LocalFileSystem::new_with_prefix(folder);
    Ok(Arc::new(objects.map_err(|error| RemoteError::of(&error, place))?))
}
