//! Objects that are sent in parts. Each part is tried again on its own. What was sent of an object
//! that does not get through is removed, since servers keep and charge for it; where it cannot be,
//! as after a `kill -9` or without a network, the next run goes on with it
//! ([`notes`](super::notes)).

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    sync::Arc,
    time::Duration,
};

use object_store::{
    Error, GetOptions, MultipartUpload as _, ObjectStore, PutMultipartOptions, PutPayload, Result,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::task::JoinSet;

use super::notes::{Begun, Note};

/// A longer object is sent and fetched in parts of this length.
pub(super) const PART: u64 = 8 << 20;

/// Parts of one object that are on their way at once.
const AT_ONCE: usize = 4;

/// How many parts the servers allow an object.
const MOST: u64 = 10_000;

/// How often a part is sent, each time with the retries of its request: anew, with credentials that
/// may have been renewed.
pub(super) const ROUNDS: usize = 3;

/// Why an object did not get through.
pub(super) enum PartsError {
    /// Reading it.
    Local(std::io::Error),
    /// Sending it.
    Store(Error),
}

impl From<Error> for PartsError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

type Sent<T> = std::result::Result<T, PartsError>;

/// How long the parts of an object are.
pub(super) fn length(size: u64) -> u64 {
    PART.max(size.div_ceil(MOST))
}

/// Where objects go in parts.
pub(super) struct Uploads<'a> {
    pub(super) objects: &'a dyn ObjectStore,
    pub(super) parts: &'a Arc<dyn MultipartStore>,
    /// Between rounds of a part.
    pub(super) pause: Duration,
}

impl Uploads<'_> {
    /// Sends what is in `file`, `size` bytes; goes on with an upload that was begun.
    pub(super) async fn send(
        &self,
        path: &Path,
        (file, size): (&mut File, u64),
        note: &Note,
    ) -> Sent<()> {
        if let Some(begun) = note.begun() {
            match self.finish(path, file, begun, note).await {
                // The server has removed it, or somebody else completed it.
                Err(PartsError::Store(Error::NotFound { .. })) => {}
                sent => return sent,
            }
        }
        let begun = note.begin(self.parts.create_multipart(path).await?);
        note.write(&begun);
        match self.finish(path, file, begun, note).await {
            // Completed, and the answer was lost: asked again, the server knows of no upload.
            Err(PartsError::Store(Error::NotFound { .. })) if self.is_there(path, size).await => {
                Ok(())
            }
            sent => sent,
        }
    }

    /// Sends the parts that are missing, and completes the upload.
    async fn finish(
        &self,
        path: &Path,
        file: &mut File,
        mut begun: Begun,
        note: &Note,
    ) -> Sent<()> {
        let error = match self.send_parts(path, file, &mut begun, note).await {
            Ok(()) => match self.complete(path, &begun).await {
                Ok(()) => {
                    note.forget();
                    return Ok(());
                }
                Err(error) => error.into(),
            },
            Err(error) => error,
        };
        if matches!(error, PartsError::Store(Error::NotFound { .. })) {
            note.forget();
        } else {
            match self.parts.abort_multipart(path, &begun.upload).await {
                Ok(()) => note.forget(),
                Err(error) => tracing::debug!("the next run goes on with an upload: {error}"),
            }
        }
        Err(error)
    }

    async fn complete(&self, path: &Path, begun: &Begun) -> Result<()> {
        let parts = begun.parts.values().map(|id| PartId { content_id: id.clone() });
        let completed = self.parts.complete_multipart(path, &begun.upload, parts.collect());
        completed.await.map(drop)
    }

    async fn send_parts(
        &self,
        path: &Path,
        file: &mut File,
        begun: &mut Begun,
        note: &Note,
    ) -> Sent<()> {
        let mut sending = JoinSet::new();
        let mut sent = Ok(());
        for index in 0.. {
            if begun.parts.contains_key(&index) {
                continue;
            }
            let part = read_part(file, index, begun.length).map_err(PartsError::Local);
            let part = match part {
                Ok(part) if part.is_empty() => break,
                Ok(part) => part,
                Err(error) => {
                    sent = Err(error);
                    break;
                }
            };
            sent = wait(&mut sending, AT_ONCE - 1, begun, note).await;
            if sent.is_err() {
                break;
            }
            let (parts, path, upload) =
                (Arc::clone(self.parts), path.clone(), begun.upload.clone());
            let pause = self.pause;
            sending.spawn(async move {
                let sent = put_part(&*parts, &path, &upload, (index, part.into()), pause).await;
                sent.map(|id| (index, id))
            });
        }
        // One that arrived after an upload was given up would stay, so those on their way are
        // waited for.
        let rest = wait(&mut sending, 0, begun, note).await;
        sent.and(rest)
    }

    /// Whether an object of this size is there.
    async fn is_there(&self, path: &Path, size: u64) -> bool {
        let head = self.objects.get_opts(path, GetOptions::new().with_head(true)).await;
        head.is_ok_and(|head| head.meta.size == size)
    }
}

/// Sends what is in `file` to a folder, of which nothing is seen before it is there whole.
pub(super) async fn copy(objects: &dyn ObjectStore, path: &Path, file: &mut File) -> Sent<()> {
    let mut upload = objects.put_multipart_opts(path, PutMultipartOptions::default()).await?;
    for index in 0.. {
        let sent = match read_part(file, index, PART) {
            Ok(part) if part.is_empty() => break,
            Ok(part) => upload.put_part(part.into()).await.map_err(PartsError::from),
            Err(error) => Err(PartsError::Local(error)),
        };
        if sent.is_err() {
            let _ = upload.abort().await;
            return sent;
        }
    }
    Ok(upload.complete().await.map(drop)?)
}

/// The bytes of a part; none behind the last one.
fn read_part(file: &mut File, index: usize, length: u64) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.seek(SeekFrom::Start(index as u64 * length))?;
    file.take(length).read_to_end(&mut part)?;
    Ok(part)
}

/// Until no more than `most` parts are on their way; notes those that arrived. Of several that do
/// not, the first is told.
async fn wait(
    sending: &mut JoinSet<Result<(usize, PartId)>>,
    most: usize,
    begun: &mut Begun,
    note: &Note,
) -> Sent<()> {
    let mut failed = None;
    while sending.len() > most
        && let Some(sent) = sending.join_next().await
    {
        match sent.map_err(|source| Error::JoinError { source }).flatten() {
            Ok((index, id)) => {
                begun.parts.insert(index, id.content_id);
                note.write(begun);
            }
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Sends a part, and again after faults that pass.
async fn put_part(
    parts: &dyn MultipartStore,
    path: &Path,
    upload: &String,
    (index, part): (usize, PutPayload),
    pause: Duration,
) -> Result<PartId> {
    let mut round = 1;
    loop {
        match parts.put_part(path, upload, index, part.clone()).await {
            Err(Error::Generic { .. }) if round < ROUNDS => {
                tokio::time::sleep(pause * 8).await;
                round += 1;
            }
            sent => return sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_no_more_parts_than_servers_allow() {
        assert_eq!(length(PART + 1), PART);
        for size in [MOST * PART, MOST * PART + 1, 5 << 40] {
            assert!(length(size) >= PART && size.div_ceil(length(size)) <= MOST, "{size}");
        }
    }
}
