//! Requests to the hub: what a revision holds, and the bytes of a file.

use std::{
    io::{self, Read},
    time::Duration,
};

use serde::Deserialize;
use ureq::{Agent, AgentBuilder, RedirectAuthHeaders, Request, Response};

use super::{super::LoadError, Name, home, missing, plain, variable};

/// The longest list of files that is read.
const LONGEST_LISTING: u64 = 32 << 20;

/// The hub, or a mirror that speaks its protocol.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
    /// The wait after a first failure; each further one doubles it.
    pub(super) pause: Duration,
}

/// What a revision holds.
pub(super) struct Listing {
    /// The commit it is at.
    pub commit: String,
    /// Its files.
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
    Passing(String),
    /// It will not.
    Final(LoadError),
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
            .timeout_read(Duration::from_mins(1))
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            // A file lies on another host, which must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .try_proxy_from_env(!here.iter().any(|here| endpoint.starts_with(here)));
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            agent: agent.build(),
            pause: Duration::from_millis(500),
        }
    }

    /// The same hub, asked again this long after a first failure; each further one doubles it.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    fn get(&self, path: &str) -> Request {
        let request = self.agent.get(&format!("{}/{path}", self.endpoint));
        match &self.token {
            Some(token) => request.set("Authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    /// The commit a revision is at, and that commit's files.
    pub(super) fn listing(&self, name: &Name<'_>) -> Result<Listing, RequestError> {
        let Name { id, revision } = name;
        let revision = revision.replace('/', "%2F");
        let request = self.get(&format!("api/models/{id}/revision/{revision}?blobs=true"));
        let response = request.call().map_err(|error| self.refusal(error, name))?;
        let mut text = Vec::new();
        let body = response.into_reader().take(LONGEST_LISTING).read_to_end(&mut text);
        body.map_err(|error| RequestError::Passing(error.to_string()))?;
        read_listing(&text, id).map_err(RequestError::Final)
    }

    /// The bytes of a file from `start` on, and where they begin: a server may give all of them.
    pub(super) fn read(
        &self,
        name: &Name<'_>,
        commit: &str,
        path: &str,
        start: u64,
    ) -> Result<(impl Read + use<>, u64), RequestError> {
        let mut request = self.get(&format!("{}/resolve/{commit}/{path}", name.id));
        if start > 0 {
            request = request.set("Range", &format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| self.refusal(error, name))?;
        let begins = if response.status() == 206 { start } else { 0 };
        Ok((response.into_reader(), begins))
    }

    /// What a failed request means to the user.
    fn refusal(&self, error: ureq::Error, name: &Name<'_>) -> RequestError {
        let endpoint = &self.endpoint;
        match error {
            ureq::Error::Transport(error) => {
                RequestError::Passing(format!("`{endpoint}` cannot be reached: {error}"))
            }
            ureq::Error::Status(code @ (429 | 500..), _) => {
                RequestError::Passing(format!("`{endpoint}` answers {code}"))
            }
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
    let mut files = Vec::new();
    for sibling in info.siblings {
        let (hash, size) = match sibling.lfs {
            Some(lfs) => (Some(lfs.sha256), Some(lfs.size)),
            None => (sibling.blob_id, sibling.size),
        };
        // Others, such as `.gitattributes`, are no part of a model.
        let (true, Some(hash), Some(size)) = (plain(&sibling.rfilename), hash, size) else {
            continue;
        };
        if is_hash(&hash, &[40, 64]) {
            let hash = hash.to_ascii_lowercase();
            files.push(RemoteFile { path: sibling.rfilename, size, hash });
        }
    }
    Ok(Listing { commit: info.sha, files })
}

fn is_hash(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        Self::Passing(error.to_string())
    }
}
