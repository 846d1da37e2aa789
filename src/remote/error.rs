//! Why a remote could not do its work, in words that say where and what to do.

use std::{fmt, path::PathBuf};

use object_store::client::{HttpError, HttpErrorKind};

use super::{http::NoCredentials, wait};
use crate::store::{Digest, FORMAT_VERSION};

/// What `object_store` says of a redirect that does not say where to.
const NO_LOCATION: &str = "redirect without LOCATION";

/// Whose server a remote is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A folder.
    Folder,
    /// S3, of Amazon or others.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "a folder",
            Self::S3 => "S3",
            Self::Google => "Google Cloud Storage",
            Self::Azure => "Azure Blob Storage",
        })
    }
}

/// Where a remote is, without what only its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: String,
    /// The server, where the environment names one.
    pub endpoint: Option<String>,
    /// Whose it is.
    pub service: Service,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.address)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at `{endpoint}`"),
            None => Ok(()),
        }
    }
}

/// Why a remote could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not an address of a kind that is known.
    #[error("no remote cache can be at an address that begins with `{scheme}:`")]
    Address {
        /// How it begins.
        scheme: String,
    },
    /// It begins as an address, and does not go on as one.
    #[error("`{address}` does not say where the remote cache is")]
    Incomplete {
        /// What was given.
        address: String,
    },
    /// An address of a folder that is none.
    #[error("`{address}` is no folder of this machine: {reason}")]
    NoFolder {
        /// What was given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Nobody gave this program credentials.
    #[error(
        "there are no credentials for the remote cache: none are set, and this machine has no role \
         of its own"
    )]
    NoCredentials {
        /// Whose server asks for them.
        service: Service,
    },
    /// The address and the environment do not say enough, or what nobody understands.
    #[error("{service} cannot be asked for the remote cache: {reason}; {set}")]
    Setup {
        /// Whose server would be asked.
        service: Service,
        /// Why not.
        reason: String,
        /// Which variables are set for it.
        set: String,
    },
    /// The remote refuses.
    #[error("the remote cache {place} refuses: {reason}")]
    Refused {
        /// Where.
        place: Place,
        /// Why.
        reason: String,
    },
    /// The bucket or container is not there.
    #[error("there is no bucket for the remote cache {place}: {reason}")]
    NoBucket {
        /// Where.
        place: Place,
        /// What the server says.
        reason: String,
    },
    /// The remote does not answer.
    #[error("the remote cache {place} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        place: Place,
        /// Why.
        reason: String,
    },
    /// The remote answers with errors of its own.
    #[error("the remote cache {place} fails: {reason}")]
    Failing {
        /// Where.
        place: Place,
        /// Which.
        reason: String,
    },
    /// The folder that the remote is cannot be made.
    #[error("the folder `{}` of the remote cache cannot be made: {error}", path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Something at this end.
    #[error("{0}")]
    Local(String),
    /// Content that was to be sent is not what it was.
    #[error(
        "the content of {digest} is damaged here; `pipe cache verify` removes it, and `pipe run` makes \
         it again"
    )]
    Damaged {
        /// The content.
        digest: Digest,
    },
    /// Written by a newer `pipe`.
    #[error(
        "the remote cache has format {found}, but this `pipe` knows formats up to {FORMAT_VERSION}"
    )]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The address holds something else, or a cache whose format file is damaged.
    #[error("what is at the address of the remote cache has a file `format` that no `pipe` wrote")]
    NotACache,
    /// The folder is the cache of a machine, whose files lie otherwise.
    #[error(
        "`{path}` is a cache that runs use themselves (`--cache`), not one that machines share"
    )]
    NotShared {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("`{path}` is no remote cache, and is not empty")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing is at the address.
    #[error("there is no remote cache at `{address}`")]
    Nothing {
        /// Where.
        address: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
}

impl RemoteError {
    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Address { .. } | Self::Incomplete { .. } => {
                "an address is `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder`, \
                 `file:///folder` or a folder"
            }
            Self::NoFolder { .. } => {
                "write the path of the folder alone, as in `/mnt/shared`, or `file:///mnt/shared`"
            }
            Self::NoCredentials { service } | Self::Setup { service, .. } => credentials(*service),
            Self::Refused { place, .. } => refused(place.service),
            Self::NoBucket { .. } => {
                "create the bucket with the tools of its server, or correct the address: `pipe` makes folders \
                 in a bucket, but no buckets"
            }
            Self::Unreachable { place, .. } => unreachable(place.service),
            Self::Failing { place: Place { service: Service::Folder, .. }, .. } => {
                "see that the folder is there, may be read and written, and has space left"
            }
            Self::Failing { .. } => {
                "try again later: the fault is the server's, unless another kind of server is at this \
                 address"
            }
            Self::Newer { .. } => "use the newer `pipe` that wrote it, or another address",
            Self::NotShared { .. } | Self::NotEmpty { .. } => {
                "name another folder: one that is empty or absent becomes a remote cache by the first push"
            }
            Self::Folder { .. } => "name a folder that is there, or may be made there",
            Self::NotACache => {
                "if it is your cache, remove its file `format`, which the next `pipe cache push` writes \
                 anew; else name an address where nothing is yet"
            }
            Self::Nothing { .. } => {
                "see that the address is right; `pipe cache push`, or a run with `--remote`, makes a \
                 cache there, also where only its file `format` is lost"
            }
            Self::Local(_) | Self::Damaged { .. } | Self::Stopped => return None,
        })
    }

    /// Whether nothing that is sent later gets there, either, as long as the address and this
    /// `pipe` stay.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Newer { .. } | Self::NotACache | Self::NotShared { .. } | Self::NotEmpty { .. }
        )
    }

    /// What an error of `object_store` means for who uses the remote at `place`.
    pub(super) fn of(error: &object_store::Error, place: &Place) -> Self {
        use object_store::Error;
        if causes(error).any(<dyn std::error::Error>::is::<NoCredentials>) {
            return Self::NoCredentials { service: place.service };
        }
        if causes(error).any(<dyn std::error::Error>::is::<wait::Stopped>) {
            return Self::Stopped;
        }
        let (place, reason) = (place.clone(), plain(error));
        if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_transport)) {
            return Self::Unreachable { place, reason };
        }
        match error {
            _ if is_bucket_missing(error) => Self::NoBucket { place, reason },
            Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::InvalidPath { .. } => Self::Refused { place, reason },
            _ if is_refusal(error) => Self::Refused { place, reason },
            _ => Self::Failing { place, reason },
        }
    }
}

fn credentials(service: Service) -> &'static str {
    match service {
        Service::Folder => "see that you may read and write the folder",
        Service::S3 => {
            "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and for a server that is not Amazon's \
             `AWS_ENDPOINT_URL`; profiles in `~/.aws` are not read"
        }
        Service::Google => {
            "set `GOOGLE_APPLICATION_CREDENTIALS`, or `GOOGLE_SERVICE_ACCOUNT`, to the JSON file of a key, as the \
             console of Google Cloud gives it for a service account"
        }
        Service::Azure => {
            "set `AZURE_STORAGE_ACCOUNT_NAME`, and `AZURE_STORAGE_ACCOUNT_KEY` to a key as the portal shows it, in \
             base64; for Azurite `AZURE_STORAGE_USE_EMULATOR` to `true`, and `AZURITE_BLOB_STORAGE_URL` to its \
             address if that is another one than `http://127.0.0.1:10000`"
        }
    }
}

fn refused(service: Service) -> &'static str {
    match service {
        Service::Folder => "see that you may read and write the folder and what is in it",
        Service::S3 => {
            "see that `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` belong to an account that may read \
             and write there, that `AWS_REGION` is the bucket's (`us-east-1` if not set), and that \
             `AWS_ENDPOINT_URL` names the server if it is not Amazon's; profiles in `~/.aws` are not read"
        }
        Service::Google => {
            "see that the account in the file that `GOOGLE_APPLICATION_CREDENTIALS` names may read and \
             write there"
        }
        Service::Azure => {
            "see that `AZURE_STORAGE_ACCOUNT_NAME` and `AZURE_STORAGE_ACCOUNT_KEY` belong to an account \
             that may read and write there"
        }
    }
}

fn unreachable(service: Service) -> &'static str {
    match service {
        Service::Folder => "see that the disk of the folder is there",
        Service::S3 => {
            "see that the network is there, and `AWS_ENDPOINT_URL` right for a server that is not \
             Amazon's (else `AWS_REGION`); `HTTPS_PROXY` and `HTTP_PROXY` name a proxy"
        }
        Service::Google | Service::Azure => {
            "see that the network is there and the address right; `HTTPS_PROXY` names a proxy"
        }
    }
}

/// An error and what caused it.
pub(super) fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether an answer did not come, or not whole.
fn is_transport(error: &HttpError) -> bool {
    !matches!(error.kind(), HttpErrorKind::Decode | HttpErrorKind::Unknown)
}

/// Whether it is no object that is missing, but the place for all.
pub(super) fn is_bucket_missing(error: &object_store::Error) -> bool {
    let text = innermost(error);
    between(&text, "Code").is_some_and(|code| ["NoSuchBucket", "ContainerNotFound"].contains(&code))
}

/// Whether the server answered that this request is wrong. `object_store` has no other way to tell
/// than its text: `… status code: 400 Bad Request: …`, and one of its own for a redirect to
/// nowhere.
fn is_refusal(error: &object_store::Error) -> bool {
    let text = innermost(error);
    let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3));
    match status.and_then(|status| status.parse().ok()) {
        Some(408 | 429) => false,
        Some(300..=499) => true,
        Some(_) => false,
        None => text.contains(NO_LOCATION),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The innermost cause of an error in one line, without what addresses may carry after a `?`. Of a
/// server's answer, its status and what it says of it.
pub(super) fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let text = innermost(error);
    let text = text.strip_prefix("Server returned non-2xx status code: ").unwrap_or(&text);
    if let Some(code) = between(text, "Code") {
        let status = text.split(": <").next().filter(|status| !status.contains('<'));
        let status = status.map(|status| format!("{status}, ")).unwrap_or_default();
        let message = between(text, "Message").map(|said| format!(": {said}")).unwrap_or_default();
        return format!("{status}{code}{message}").trim_end_matches('.').to_owned();
    }
    if text.contains(NO_LOCATION) {
        return "it redirects to nowhere, as for a bucket of another region".to_owned();
    }
    let line = text.lines().next().unwrap_or_default();
    let words: Vec<_> =
        line.split(' ').map(|word| word.split('?').next().unwrap_or_default()).collect();
    words.join(" ").trim_end_matches([':', ' ']).to_owned()
}

/// What stands in this element.
fn between<'t>(text: &'t str, element: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{element}>"))?;
    let (inside, _) = rest.split_once(&format!("</{element}>"))?;
    inside.lines().next().filter(|inside| !inside.is_empty())
}
