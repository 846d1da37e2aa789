//! One request: it follows redirects itself, and whoever waits for it can stop.

use std::{
    io::{self, Read},
    panic::resume_unwind,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use ureq::{Agent, Response};
use url::Url;

/// Redirects that are followed; the hub needs two.
const MOST_REDIRECTS: usize = 10;
/// The time between two looks whether the user wants to stop.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long an answer is waited for before that is told.
const SILENCE: Duration = Duration::from_secs(3);
/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// Asked whether the user wants to stop.
pub(super) type Stopped = dyn Fn() -> bool + Send + Sync;

/// The user asked to stop.
pub(super) struct Stop;

/// Why a request gave nothing.
pub(super) enum Failure {
    /// The connection broke, or the answer is an error.
    Refused(Box<ureq::Error>),
    /// The answer ended early.
    Cut(io::Error),
    /// It leads to an address that is none of the web.
    Address(String),
    /// It leads on and on.
    Circle,
    /// The answer took longer than the whole of it may.
    Slow,
}

/// What is asked for.
pub(super) struct Get {
    pub agent: Agent,
    pub url: Url,
    /// Goes to the host of `url` alone: a file may lie on another, which must not see it.
    pub token: Option<String>,
    /// The first byte that is wanted.
    pub start: u64,
    /// The time for all of it; without one, the time between two bytes is limited.
    pub limit: Option<Duration>,
}

impl Get {
    /// The answer's head. `ureq` would follow an address without a host into a panic.
    pub fn call(self) -> Result<Response, Failure> {
        let end = self.limit.map(|limit| Instant::now() + limit);
        let mut url = self.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.request_url("GET", &url);
            if self.start > 0 {
                request = request.set("Range", &format!("bytes={}-", self.start));
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_same_host(&self.url, &url)) {
                request = request.set("Authorization", &format!("Bearer {token}"));
            }
            if let Some(end) = end {
                request = request.timeout(end.saturating_duration_since(Instant::now()));
            }
            let late = || end.is_some_and(|end| Instant::now() >= end);
            let response = request.call().map_err(|error| match error {
                ureq::Error::Transport(_) if late() => Failure::Slow,
                error => Failure::Refused(Box::new(error)),
            })?;
            if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let to = response.header("location").unwrap_or_default();
            let next = url.join(to).ok().filter(|next| !to.is_empty() && is_of_web(next));
            url = next.ok_or_else(|| Failure::Address(to.chars().take(200).collect()))?;
        }
        Err(Failure::Circle)
    }

    /// The whole answer, but no more than `longest` bytes of it.
    pub fn text(self, longest: u64) -> Result<Vec<u8>, Failure> {
        let end = self.limit.map(|limit| Instant::now() + limit);
        let mut text = Vec::new();
        match self.call()?.into_reader().take(longest).read_to_end(&mut text) {
            Ok(_) => Ok(text),
            Err(_) if end.is_some_and(|end| Instant::now() >= end) => Err(Failure::Slow),
            Err(error) => Err(Failure::Cut(error)),
        }
    }
}

/// Whether an address can be asked over HTTP.
pub(super) fn is_of_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// Whether `to` is the host of `home`, asked no less safely.
fn is_same_host(home: &Url, to: &Url) -> bool {
    let same_service =
        home.scheme() == to.scheme() && home.port_or_known_default() == to.port_or_known_default();
    let safer = home.scheme() == "http" && to.scheme() == "https";
    home.host_str() == to.host_str() && (same_service || safer)
}

/// What `ask` gives, asked on a thread of its own, unless the user wants to stop first. The thread
/// then ends with its connection. Where the answer takes long, `tell` is called.
pub(super) fn waiting<T: Send + 'static>(
    stopped: &Stopped,
    tell: impl FnOnce(),
    ask: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stop> {
    let (sender, receiver) = sync_channel(1);
    let asking = thread::spawn(move || {
        // Nobody listens any more once the user stopped.
        let _ = sender.send(ask());
    });
    let start = Instant::now();
    let is_long = || stopped() || start.elapsed() >= SILENCE;
    let answer = match next(&receiver, &is_long) {
        Err(Stop) if !stopped() => {
            tell();
            next(&receiver, stopped)?
        }
        answer => answer?,
    };
    match answer {
        Some(answer) => Ok(answer),
        // It ended without an answer.
        None => resume_unwind(asking.join().expect_err("an answer is sent unless it panics")),
    }
}

/// The bytes of an answer, read on a thread of its own.
pub(super) struct Chunks(Receiver<Vec<u8>>);

impl Chunks {
    pub fn of(mut reader: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(1);
        thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// The next bytes; none at their end, also where the connection broke.
    pub fn next(&self, stopped: &Stopped) -> Result<Option<Vec<u8>>, Stop> {
        next(&self.0, stopped)
    }
}

fn next<T>(receiver: &Receiver<T>, stopped: &dyn Fn() -> bool) -> Result<Option<T>, Stop> {
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if stopped() => return Err(Stop),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_with_its_host() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (home, to, same) in [
            ("https://hub.co/a", "https://hub.co/b", true),
            ("https://hub.co/a", "https://hub.co:443/b", true),
            ("http://hub.co/a", "https://hub.co/a", true),
            ("https://hub.co/a", "http://hub.co/a", false),
            ("https://hub.co/a", "https://hub.co:8443/a", false),
            ("https://hub.co/a", "https://cdn.hub.co/a", false),
        ] {
            assert_eq!(is_same_host(&url(home), &url(to)), same, "{home} {to}");
        }
    }

    #[test]
    fn a_long_wait_is_told_once_and_the_answer_taken() {
        let told = std::cell::Cell::new(0);
        let tell = || told.set(told.get() + 1);
        let answer = waiting(&|| false, tell, || {
            thread::sleep(SILENCE + 3 * LOOK);
            7
        });
        assert!(matches!(answer, Ok(7)) && told.get() == 1);
        assert!(matches!(waiting(&|| false, tell, || 7), Ok(7)) && told.get() == 1);
    }

    #[test]
    fn only_addresses_of_the_web_are_asked() {
        let is_of_web = |text: &str| is_of_web(&Url::parse(text).unwrap());
        assert!(is_of_web("http://127.0.0.1:80/x") && is_of_web("https://hub.co"));
        assert!(!is_of_web("file:///etc/passwd") && !is_of_web("data:text/plain,x"));
        assert!(!is_of_web("ftp://hub.co/x") && !is_of_web("unix:/run/socket"));
    }
}
