//! Requests of `object_store` over `ureq`, which the program has anyway: a second HTTP stack would
//! bring a second TLS and double what is built.

use std::{
    io::{self, Read},
    time::Duration,
};

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

/// How long that is waited for: it is near, or not there.
const NEAR: Duration = Duration::from_secs(1);

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
        let agent = AgentBuilder::new()
            .timeout_connect(self.connect)
            .timeout_read(self.read)
            .timeout_write(self.read)
            .redirects(0)
            .max_idle_connections_per_host(super::PARALLEL)
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            .try_proxy_from_env(true);
        let near = AgentBuilder::new().timeout_connect(NEAR).timeout_read(NEAR).build();
        Ok(HttpClient::new(Client { agent: agent.build(), near, metadata: self.metadata }))
    }
}

#[derive(Debug)]
struct Client {
    agent: Agent,
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
        let agent = if is_near { &self.near } else { &self.agent };
        let mut request = agent.request(parts.method.as_str(), &parts.uri.to_string());
        for (name, value) in &parts.headers {
            let value = value.to_str().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
            request = request.set(name.as_str(), value);
        }
        let bodiless = parts.method.is_safe();
        let sent = tokio::task::spawn_blocking(move || send(request, bodiless, &body));
        let answer = sent.await.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        if is_near && !answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
            // Of a kind that is not asked again.
            return Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials));
        }
        answer
    }
}

/// Sends a request and reads the whole answer, so that one that breaks off is asked for again.
fn send(request: Request, bodiless: bool, body: &[u8]) -> Result<HttpResponse, HttpError> {
    let is_head = request.method() == "HEAD";
    let sent = if bodiless { request.call() } else { request.send_bytes(body) };
    let response = match sent {
        Ok(response) | Err(ureq::Error::Status(_, response)) => response,
        Err(ureq::Error::Transport(error)) => return Err(transport(error)),
    };
    let mut answer = http::Response::builder().status(response.status());
    for name in response.headers_names() {
        for value in response.all(&name) {
            answer = answer.header(&name, value);
        }
    }
    let body = if is_head { Vec::new() } else { read(response).map_err(interrupted)? };
    answer.body(body.into()).map_err(|e| HttpError::new(HttpErrorKind::Decode, e))
}

fn read(response: Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    response.into_reader().read_to_end(&mut body)?;
    Ok(body)
}

fn interrupted(error: io::Error) -> HttpError {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpErrorKind::Timeout,
        _ => HttpErrorKind::Interrupted,
    };
    HttpError::new(kind, error)
}

fn transport(error: ureq::Transport) -> HttpError {
    let kind = match error.kind() {
        ErrorKind::Dns | ErrorKind::ConnectionFailed | ErrorKind::ProxyConnect => {
            HttpErrorKind::Connect
        }
        ErrorKind::Io | ErrorKind::BadStatus | ErrorKind::BadHeader => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
