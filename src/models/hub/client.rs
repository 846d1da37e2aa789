//! Requests to the hub: what a revision holds, and the bytes of a file.

use std::{io::Read, sync::Arc, time::Duration};

use serde::Deserialize;
use ureq::{Agent, AgentBuilder, Response};
use url::Url;

use super::{
    super::LoadError,
    Name, home, missing, plain,
    request::{Failure, Get, Stopped, is_of_web, waiting},
    variable,
};

/// The longest list of files that is read.
const LONGEST_LISTING: u64 = 32 << 20;
/// The time a list of files may take; it is a few hundred kilobytes.
const LISTING_TIME: Duration = Duration::from_secs(30);

/// The longest wait that a hub may ask for before the next attempt; its limits are of five minutes.
const LONGEST_REST: Duration = Duration::from_mins(5);

/// The hub, or a mirror that speaks its protocol.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
    /// The wait after a first failure; each further one doubles it.
    pub(super) pause: Duration,
    /// The time for a list of files.
    listing_time: Duration,
    pub(super) stopped: Arc<Stopped>,
}

/// What a revision holds.
pub(super) struct Listing {
    /// The commit it is at.
    pub commit: String,
    /// The names of its files.
    pub names: Vec<String>,
    /// Those of which sizes and hashes are stated.
    pub files: Vec<RemoteFile>,
}

/// A file of a commit.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    /// Where it is in the repository.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of its content (64 digits), or its hash as a git object (40 digits).
    pub hash: String,
}

/// Why a request gave nothing.
pub(super) enum RequestError {
    /// It may work later: the connection broke, the hub is busy.
    Passing {
        /// What happened.
        message: String,
        /// How long the hub asks to be left alone.
        rest: Duration,
    },
    /// It will not.
    Final(LoadError),
    /// The user asked to stop.
    Stopped,
}

impl RequestError {
    fn passing(message: String) -> Self {
        Self::Passing { message, rest: Duration::ZERO }
    }
}

/// The seconds that a header `Retry-After` asks for. A date is no wait of ours: clocks differ.
fn rest(header: Option<&str>) -> Duration {
    let seconds = header.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    Duration::from_secs(seconds).min(LONGEST_REST)
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Files by name. That of one of them no size and hash are stated is an error, since what
    /// arrives could not be checked.
    pub fn files(&self, id: &str, names: &[&str]) -> Result<Vec<&RemoteFile>, LoadError> {
        let find = |name: &&str| {
            self.files.iter().find(|file| file.path == *name).ok_or_else(|| {
                missing(
                    format!(
                        "the hub's list of the files of `{id}` states no size and hash of `{name}`, so what \
                         arrives cannot be checked"
                    ),
                    "set `HF_ENDPOINT` to a hub that states them, such as `https://huggingface.co`, or name \
                     a local folder in diffusers' layout",
                )
            })
        };
        names.iter().map(find).collect()
    }
}

impl Hub {
    /// The hub that the environment names: `HF_ENDPOINT`, with the token of `HF_TOKEN`, or else the
    /// one that `hf auth login` wrote.
    pub fn from_env() -> Self {
        let endpoint = variable("HF_ENDPOINT").unwrap_or("https://huggingface.co".to_owned());
        let file = variable("HF_TOKEN_PATH").map_or_else(|| home().join("token"), Into::into);
        let token = variable("HF_TOKEN")
            .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(file).ok());
        Self::new(&endpoint, token)
    }

    /// The hub at this address.
    pub fn new(endpoint: &str, token: Option<String>) -> Self {
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let here = ["http://127.0.0.1", "http://localhost"];
        let agent = AgentBuilder::new()
            .timeout_connect(Duration::from_secs(20))
            .timeout_read(Duration::from_secs(30))
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            // On one that is used again `ureq` sets no limit: `Stream::reset` of its version 2
            // takes it off.
            .max_idle_connections(0)
            // They are followed in `request.rs`.
            .redirects(0)
            .try_proxy_from_env(!here.iter().any(|here| endpoint.starts_with(here)));
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            agent: agent.build(),
            pause: Duration::from_millis(500),
            listing_time: LISTING_TIME,
            stopped: Arc::new(|| false),
        }
    }

    /// The same hub, asked again this long after a first failure; each further one doubles it.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The same hub, which may take so long for a list of files.
    #[must_use]
    pub fn with_listing_time(self, listing_time: Duration) -> Self {
        Self { listing_time, ..self }
    }

    /// The same hub; `stopped` is asked all the time whether the user wants to stop.
    #[must_use]
    pub fn with_stop(self, stopped: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { stopped: Arc::new(stopped), ..self }
    }

    fn get(&self, path: &str) -> Result<Get, RequestError> {
        let url = Url::parse(&format!("{}/{path}", self.endpoint)).ok().filter(is_of_web);
        let url = url.ok_or_else(|| {
            let message = format!("`{}` is not the address of a hub", self.endpoint);
            let help =
                "set `HF_ENDPOINT` to an address such as `https://huggingface.co`, or unset it";
            RequestError::Final(missing(message, help))
        })?;
        let (agent, token) = (self.agent.clone(), self.token.clone());
        Ok(Get { agent, url, token, start: 0, limit: None })
    }

    /// The commit a revision is at, and that commit's files.
    pub(super) fn listing(&self, name: &Name<'_>) -> Result<Listing, RequestError> {
        let Name { id, revision } = name;
        let revision = revision.replace('/', "%2F");
        let get = self.get(&format!("api/models/{id}/revision/{revision}?blobs=true"))?;
        let get = Get { limit: Some(self.listing_time), ..get };
        let text = waiting(&*self.stopped, || self.tell_of_wait(), || get.text(LONGEST_LISTING));
        let text = text.map_err(|_| RequestError::Stopped)?.map_err(|e| self.failure(e, name))?;
        read_listing(&text, id).map_err(RequestError::Final)
    }

    /// The bytes of a file from `start` on, and where they begin: a server may give all of them.
    pub(super) fn read(
        &self,
        name: &Name<'_>,
        commit: &str,
        path: &str,
        start: u64,
    ) -> Result<(impl Read + Send + use<>, u64), RequestError> {
        let get = Get { start, ..self.get(&format!("{}/resolve/{commit}/{path}", name.id))? };
        let response = waiting(&*self.stopped, || self.tell_of_wait(), || get.call());
        let response =
            response.map_err(|_| RequestError::Stopped)?.map_err(|e| self.failure(e, name))?;
        let begins = if response.status() == 206 { start } else { 0 };
        Ok((response.into_reader(), begins))
    }

    fn tell_of_wait(&self) {
        tracing::warn!("Waiting for an answer of `{}`.", self.endpoint);
    }

    fn failure(&self, failure: Failure, name: &Name<'_>) -> RequestError {
        let endpoint = &self.endpoint;
        let help = "check `HF_ENDPOINT` and what lies between here and the hub, or name a local folder in \
                    diffusers' layout";
        let refused = |message: String| RequestError::Final(missing(message, help));
        match failure {
            Failure::Refused(error) => self.refusal(*error, name),
            Failure::Cut(error) => RequestError::passing(error.to_string()),
            Failure::Address(to) => {
                refused(format!("`{endpoint}` redirects to an address that cannot be used: `{to}`"))
            }
            Failure::Circle => refused(format!("`{endpoint}` redirects without an end")),
            Failure::Slow => refused(format!(
                "`{endpoint}` takes more than {} s to list the files of `{}`",
                self.listing_time.as_secs_f64(),
                name.id
            )),
        }
    }

    /// What a failed request means to the user.
    fn refusal(&self, error: ureq::Error, name: &Name<'_>) -> RequestError {
        let endpoint = &self.endpoint;
        match error {
            ureq::Error::Transport(error) => {
                RequestError::passing(format!("`{endpoint}` cannot be reached: {error}"))
            }
            ureq::Error::Status(code @ (429 | 500..), response) => RequestError::Passing {
                message: format!("`{endpoint}` answers {code}"),
                rest: rest(response.header("retry-after")),
            },
            ureq::Error::Status(code, response) => {
                RequestError::Final(self.answer(code, &response, name))
            }
        }
    }

    fn answer(&self, code: u16, response: &Response, name: &Name<'_>) -> LoadError {
        let (Name { id, revision }, endpoint) = (name, &self.endpoint);
        match (code, response.header("x-error-code").unwrap_or_default()) {
            (404, "RevisionNotFound") => missing(
                format!("the repository `{id}` has no revision `{revision}`"),
                format!("see its branches at {endpoint}/{id}/tree/main"),
            ),
            (401 | 403, "GatedRepo") | (403, _) => missing(
                format!("`{endpoint}` does not give `{id}` to you: it is gated ({code})"),
                format!(
                    "accept its terms at {endpoint}/{id} and set `HF_TOKEN` to a token of that account"
                ),
            ),
            (401 | 404, _) => missing(
                format!("`{endpoint}` has no repository `{id}` for you ({code})"),
                match self.token {
                    Some(_) => "check the name, and that the token may read it",
                    None => {
                        "check the name; if it is private, set `HF_TOKEN` to a token that may read it"
                    }
                },
            ),
            _ => missing(
                format!("`{endpoint}` answers {code} when asked for `{id}` at `{revision}`"),
                "try again later, or name a local folder in diffusers' layout",
            ),
        }
    }
}

fn read_listing(text: &[u8], id: &str) -> Result<Listing, LoadError> {
    let error = |what: &str| {
        missing(
            format!("the hub's list of the files of `{id}` cannot be used: {what}"),
            "check `HF_ENDPOINT`, or name a local folder in diffusers' layout",
        )
    };
    let info: ModelInfo = serde_json::from_slice(text).map_err(|e| error(&e.to_string()))?;
    if !is_hash(&info.sha, &[40]) {
        return Err(error("it names no commit"));
    }
    let (mut names, mut files) = (Vec::new(), Vec::new());
    // Others, such as `.gitattributes`, are no part of a model.
    for sibling in info.siblings.into_iter().filter(|sibling| plain(&sibling.rfilename)) {
        names.push(sibling.rfilename.clone());
        let (hash, size) = match sibling.lfs {
            Some(lfs) => (Some(lfs.sha256), Some(lfs.size)),
            None => (sibling.blob_id, sibling.size),
        };
        let (Some(hash), Some(size)) = (hash, size) else { continue };
        if is_hash(&hash, &[40, 64]) {
            let hash = hash.to_ascii_lowercase();
            files.push(RemoteFile { path: sibling.rfilename, size, hash });
        }
    }
    Ok(Listing { commit: info.sha, names, files })
}

fn is_hash(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
