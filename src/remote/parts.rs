//! Objects that are sent in parts: each part is tried again on its own, and what was sent of an object
//! that does not get through is removed, since servers keep and charge for it.

use std::{fs::File, io::Read, sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{
    Error, GetOptions, MultipartUpload, ObjectStore, PutMultipartOptions, Result,
    path::Path,
    retry::{RetryContext, RetryFailure, RetryPolicy},
};
use tokio::task::JoinSet;

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

/// Sends what is in `file`, `size` bytes.
pub(super) async fn upload(
    objects: &dyn ObjectStore,
    path: &Path,
    (file, size): (&mut File, u64),
    pause: Duration,
) -> std::result::Result<(), PartsError> {
    let options = PutMultipartOptions::default().with_retry_policy(Arc::new(Rounds { pause }));
    let upload = objects.put_multipart_opts(path, options).await?;
    let mut parts = Parts { upload, sending: JoinSet::new() };
    let sent = match parts.send(file, length(size)).await {
        Ok(()) => parts.upload.complete().await.map(drop).map_err(PartsError::from),
        Err(error) => Err(error),
    };
    let Err(error) = sent else { return Ok(()) };
    if let PartsError::Store(Error::NotFound { .. }) = error
        && is_there(objects, path, size).await
    {
        return Ok(());
    }
    parts.abort().await;
    Err(error)
}

/// Whether an upload was completed though the answer was lost: asked again, the server knows none.
async fn is_there(objects: &dyn ObjectStore, path: &Path, size: u64) -> bool {
    let head = objects.get_opts(path, GetOptions::new().with_head(true)).await;
    head.is_ok_and(|head| head.meta.size == size)
}

/// How long the parts of an object are.
fn length(size: u64) -> u64 {
    PART.max(size.div_ceil(MOST))
}

/// An upload that goes on.
struct Parts {
    upload: Box<dyn MultipartUpload>,
    sending: JoinSet<Result<()>>,
}

impl Parts {
    async fn send(&mut self, file: &mut File, length: u64) -> std::result::Result<(), PartsError> {
        loop {
            let mut part = Vec::new();
            file.take(length).read_to_end(&mut part).map_err(PartsError::Local)?;
            if part.is_empty() {
                break;
            }
            self.wait(AT_ONCE - 1).await?;
            self.sending.spawn(self.upload.put_part(part.into()));
        }
        Ok(self.wait(0).await?)
    }

    /// Until no more than `most` parts are on their way.
    async fn wait(&mut self, most: usize) -> Result<()> {
        while self.sending.len() > most {
            let Some(sent) = self.sending.join_next().await else { break };
            sent.map_err(|source| Error::JoinError { source })??;
        }
        Ok(())
    }

    /// Removes what was sent. A part that arrived after that would stay, so those on their way are
    /// waited for.
    async fn abort(&mut self) {
        while self.sending.join_next().await.is_some() {}
        if let Err(error) = self.upload.abort().await {
            tracing::debug!("an unfinished upload was left behind: {error}");
        }
    }
}

/// Sends parts again after faults that pass.
#[derive(Debug)]
struct Rounds {
    pause: Duration,
}

#[async_trait]
impl RetryPolicy for Rounds {
    async fn retry(&self, context: RetryContext) -> bool {
        let passes = match context.failure {
            RetryFailure::Status(status) => {
                status.is_success() || status.is_server_error() || status.as_u16() == 429
            }
            RetryFailure::Transport(_) => true,
            _ => false,
        };
        if !passes || context.attempt >= ROUNDS {
            return false;
        }
        tokio::time::sleep(self.pause * 8).await;
        true
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
