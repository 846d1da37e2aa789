//! Requests of `object_store` over `ureq`, which the program has anyway: a second HTTP stack would
//! bring a second TLS and double what is built.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::bounds::{MOST, TooMuch, of_answer};
use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::{
    ClientOptions, Result as StoreResult,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    },
};
use ureq::{Agent, AgentBuilder, ErrorKind, Request, Response};

/// Where a machine of a cloud learns who it is.
pub(super) const METADATA: &[&str] =
    &["169.254.169.254", "169.254.170.2", "metadata.google.internal"];

/// The largest body, in bytes, that is sent over a connection that is used again.
const SMALL: usize = 16 << 10;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// How long that is waited for: it is near, or not there.
const NEAR: Duration = Duration::from_secs(1);

/// The bytes a second that an answer, or a request, has at least: what comes more slowly drips. A
/// line that 16 requests share may be slow.
const LEAST_RATE: u64 = 4 << 10;

/// The answer comes so slowly that it would never end.
#[derive(Debug, thiserror::Error)]
#[error("less than {LEAST_RATE} bytes a second arrive")]
struct Drips;

/// Nobody gave this program credentials, and its machine has none of its own.
#[derive(Debug, thiserror::Error)]
#[error("no credentials")]
pub(super) struct NoCredentials;

/// Makes clients with these limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connector {
    pub(super) connect: Duration,
    pub(super) read: Duration,
    /// Hosts that know the credentials of the machine.
    pub(super) metadata: &'static [&'static str],
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> StoreResult<HttpClient> {
        let kept = self.agent().max_idle_connections_per_host(super::PARALLEL).build();
        Ok(HttpClient::new(self.client(kept)))
    }
}

impl Connector {
    fn agent(&self) -> AgentBuilder {
        AgentBuilder::new()
            .timeout_connect(self.connect)
            .timeout_read(self.read)
            .timeout_write(self.read)
            .redirects(0)
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            .try_proxy_from_env(true)
    }

    fn client(&self, kept: Agent) -> Client {
        Client {
            kept,
            fresh: self.agent().max_idle_connections(0).build(),
            has_stalled: AtomicBool::new(false),
            limit: self.connect + self.read,
            read: self.read,
            near: AgentBuilder::new().timeout_connect(NEAR).timeout_read(NEAR).build(),
            metadata: self.metadata,
        }
    }
}

#[derive(Debug)]
struct Client {
    /// Uses connections again. `ureq` 2 takes the limits off one that goes back to its pool
    /// (`stream.rs`, `Stream::reset`), so each request has one limit in all, and a small body.
    kept: Agent,
    /// Makes a connection for each request, which has limits for the next bytes.
    fresh: Agent,
    /// Whether a request over `kept` reached its limit: a silent server, or a slow line, which
    /// `fresh` is for.
    has_stalled: AtomicBool,
    /// How long a request over `kept` may take.
    limit: Duration,
    /// How long the next bytes of an answer may take.
    read: Duration,
    /// For the machine itself, which no proxy stands before.
    near: Agent,
    metadata: &'static [&'static str],
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let is_near = parts.uri.host().is_some_and(|host| self.metadata.contains(&host));
        // What fits the system's buffers is written without a wait.
        let is_kept = !is_near && body.len() <= SMALL && !self.has_stalled.load(Relaxed);
        let agent = match (is_near, is_kept) {
            (true, _) => &self.near,
            (_, true) => &self.kept,
            (_, false) => &self.fresh,
        };
        let mut request = agent.request(parts.method.as_str(), &parts.uri.to_string());
        if is_kept {
            request = request.timeout(self.limit);
        }
        for (name, value) in &parts.headers {
            let value = value.to_str().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
            request = request.set(name.as_str(), value);
        }
        let bodiless = parts.method.is_safe();
        let is_head = parts.method == http::Method::HEAD;
        let (most, patience) = (of_answer(&parts), self.read);
        // Beside the limits on single bytes: a head may drip, too.
        let until_head = self.limit + patience + for_bytes(body.len());
        let answer = async {
            let sent = tokio::task::spawn_blocking(move || send(request, bodiless, &body));
            let sent = tokio::time::timeout(until_head, sent).await;
            let response =
                joined(sent.map_err(|_| HttpError::new(HttpErrorKind::Timeout, Drips))?)?;
            joined(
                tokio::task::spawn_blocking(move || take(response, is_head, most, patience)).await,
            )
        };
        let answer = answer.await;
        if is_kept && answer.as_ref().is_err_and(|e| e.kind() == HttpErrorKind::Timeout) {
            self.has_stalled.store(true, Relaxed);
        }
        if is_near && !answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
            // Of a kind that is not asked again.
            return Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials));
        }
        answer
    }
}

/// What came of work in another thread.
fn joined<T>(done: Result<Result<T, HttpError>, tokio::task::JoinError>) -> Result<T, HttpError> {
    done.unwrap_or_else(|e| Err(HttpError::new(HttpErrorKind::Unknown, e)))
}

/// The time that so many bytes take at least rate.
fn for_bytes(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1000 / LEAST_RATE)
}

/// Sends a request; gives the head of the answer.
fn send(request: Request, bodiless: bool, body: &[u8]) -> Result<Response, HttpError> {
    let sent = if bodiless { request.call() } else { request.send_bytes(body) };
    match sent {
        Ok(response) | Err(ureq::Error::Status(_, response)) => Ok(response),
        Err(ureq::Error::Transport(error)) => Err(transport(error)),
    }
}

/// Reads the whole answer, so that one that breaks off is asked for again.
fn take(
    response: Response,
    is_head: bool,
    most: u64,
    patience: Duration,
) -> Result<HttpResponse, HttpError> {
    let mut answer = http::Response::builder().status(response.status());
    for name in response.headers_names() {
        for value in response.all(&name) {
            answer = answer.header(&name, value);
        }
    }
    // What an error says is not what was asked for.
    let most = if response.status() < 300 { most } else { MOST };
    let body = if is_head { Vec::new() } else { read(response, most, patience)? };
    answer.body(body.into()).map_err(|e| HttpError::new(HttpErrorKind::Decode, e))
}

fn read(response: Response, most: u64, patience: Duration) -> Result<Vec<u8>, HttpError> {
    let too_much = || HttpError::new(HttpErrorKind::Decode, TooMuch(most));
    let stated = response.header("content-length").and_then(|length| length.parse::<u64>().ok());
    if stated.is_some_and(|stated| stated > most) {
        return Err(too_much());
    }
    let (mut body, mut chunk) = (Vec::new(), vec![0; CHUNK]);
    let (mut reader, start) = (response.into_reader(), Instant::now());
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(body),
            Ok(len) => body.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(interrupted(error)),
        }
        if body.len() as u64 > most {
            return Err(too_much());
        }
        if start.elapsed() > patience + for_bytes(body.len()) {
            return Err(HttpError::new(HttpErrorKind::Timeout, Drips));
        }
    }
}

fn interrupted(error: io::Error) -> HttpError {
    let is_late = is_late(&error);
    HttpError::new(if is_late { HttpErrorKind::Timeout } else { HttpErrorKind::Interrupted }, error)
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn transport(error: ureq::Transport) -> HttpError {
    let cause = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<io::Error>());
    let kind = match error.kind() {
        ErrorKind::Io if cause.is_some_and(is_late) => HttpErrorKind::Timeout,
        ErrorKind::Dns | ErrorKind::ConnectionFailed | ErrorKind::ProxyConnect => {
            HttpErrorKind::Connect
        }
        ErrorKind::Io | ErrorKind::BadStatus | ErrorKind::BadHeader => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

#[cfg(test)]
mod tests;
