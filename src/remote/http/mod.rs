//! Requests of `object_store` over `ureq`, which the program has anyway: a second HTTP stack would
//! bring a second TLS and double what is built.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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

/// The largest body, in bytes, that is sent over a connection that is used again.
const SMALL: usize = 16 << 10;

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
        let agent = || {
            AgentBuilder::new()
                .timeout_connect(self.connect)
                .timeout_read(self.read)
                .timeout_write(self.read)
                .redirects(0)
                .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
                .try_proxy_from_env(true)
        };
        let near = AgentBuilder::new().timeout_connect(NEAR).timeout_read(NEAR).build();
        Ok(HttpClient::new(Client {
            kept: agent().max_idle_connections_per_host(super::PARALLEL).build(),
            fresh: agent().max_idle_connections(0).build(),
            has_stalled: AtomicBool::new(false),
            limit: self.connect + self.read,
            near,
            metadata: self.metadata,
        }))
    }
}

#[derive(Debug)]
struct Client {
    /// Uses connections again. `ureq` 2 takes the limits off one that goes back to its pool
    /// (`stream.rs`, `Stream::reset`), so each request has one limit in all, and a small body.
    kept: Agent,
    /// Makes a connection for each request, which has limits for the next bytes.
    fresh: Agent,
    /// Whether a request over `kept` reached its limit: a silent server, or a slow line, which `fresh` is for.
    has_stalled: AtomicBool,
    /// How long a request over `kept` may take.
    limit: Duration,
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
        let sent = tokio::task::spawn_blocking(move || send(request, bodiless, &body));
        let answer = sent.await.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
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
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::{TcpListener, TcpStream},
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::*;

    /// Answers requests without a body on one connection until `count` in all are answered, then none.
    fn answer(stream: TcpStream, count: &AtomicUsize) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let mut stream = stream;
        loop {
            while !lines.next()?.ok()?.is_empty() {}
            if count.fetch_sub(1, Relaxed) == 0 {
                // Open, and silent: until the other side goes.
                while lines.next()?.is_ok() {}
                return None;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
        }
    }

    #[test]
    fn a_server_that_falls_silent_on_a_connection_used_again_is_not_waited_for_without_end() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(3));
        let connections = Arc::new(AtomicUsize::new(0));
        thread::spawn({
            let connections = Arc::clone(&connections);
            move || {
                for stream in server.incoming().flatten() {
                    connections.fetch_add(1, Relaxed);
                    let count = Arc::clone(&count);
                    thread::spawn(move || answer(stream, &count));
                }
            }
        });
        let read = Duration::from_millis(300);
        let connector = Connector { connect: read, read, metadata: &[] };
        let client = connector.connect(&ClientOptions::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = || {
            let request = http::Request::get(format!("http://{address}/")).body(Vec::new().into());
            runtime.block_on(client.execute(request.unwrap())).map(|answer| answer.status())
        };
        for _ in 0..3 {
            assert!(ask().unwrap().is_success());
        }
        assert_eq!(connections.load(Relaxed), 1, "it is used again");
        assert_eq!(ask().unwrap_err().kind(), HttpErrorKind::Timeout);
        assert!(ask().unwrap().is_success(), "another connection answers");
        assert_eq!(connections.load(Relaxed), 2);
    }
}
