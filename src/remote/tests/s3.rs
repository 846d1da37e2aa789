//! An S3 server on this machine that checks signatures (version 4) and conditional writes as the
//! real one does, written from its documentation, with the faults of networks.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use ring::{digest, hmac};

pub const KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// What happens to one of the next answers.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Half of the body is sent.
    Cut,
    /// The answer is 500.
    Broken,
    /// The answer is this status, with a code and a message.
    Says(&'static str, &'static str, &'static str),
    /// The answer comes late.
    Slow(Duration),
    /// The body comes byte by byte, each after this time, until nobody reads it any more.
    Drip(Duration),
    /// The body has so many zeros behind it, and the answer says so.
    Longer(usize),
    /// The write is done, but the connection ends before the answer.
    Silent,
}

/// The most keys of one listing, as at Amazon.
const PAGE: usize = 1000;

struct State {
    page: AtomicUsize,
    /// Milliseconds before each answer.
    delay: AtomicUsize,
    /// Requests that are being answered, and the most there were.
    busy: AtomicUsize,
    busiest: AtomicUsize,
    /// Uploads that were begun.
    begun: AtomicUsize,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    uploads: Mutex<BTreeMap<String, BTreeMap<usize, Vec<u8>>>>,
    /// Faults of requests in whose line (`METHOD PATH?QUERY RANGE`) this stands.
    faults: Mutex<VecDeque<(&'static str, Fault)>>,
    log: Mutex<Vec<String>>,
}

/// A server with one bucket, `bucket`.
pub struct S3 {
    state: Arc<State>,
    pub endpoint: String,
}

impl State {
    fn new() -> Self {
        Self {
            page: AtomicUsize::new(PAGE),
            delay: AtomicUsize::default(),
            busy: AtomicUsize::default(),
            busiest: AtomicUsize::default(),
            begun: AtomicUsize::default(),
            objects: Mutex::default(),
            uploads: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
        }
    }
}

impl S3 {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::new());
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&serving);
                thread::spawn(move || serve(&state, stream));
            }
        });
        Self { state, endpoint }
    }

    pub fn fault(&self, on: &'static str, fault: Fault) {
        self.state.faults.lock().unwrap().push_back((on, fault));
    }

    /// Lists no more keys at once.
    pub fn list_at_once(&self, keys: usize) {
        self.state.page.store(keys, Ordering::Relaxed);
    }

    /// Answers each request only after this time.
    pub fn delay(&self, time: Duration) {
        self.state.delay.store(time.as_millis() as usize, Ordering::Relaxed);
    }

    /// The most requests that it answered at once.
    pub fn busiest(&self) -> usize {
        self.state.busiest.load(Ordering::Relaxed)
    }

    /// Uploads that were neither completed nor aborted: what they hold is charged for.
    pub fn unfinished(&self) -> usize {
        self.state.uploads.lock().unwrap().len()
    }

    /// Removes them, as a server does that keeps them for some days.
    pub fn forget_unfinished(&self) {
        self.state.uploads.lock().unwrap().clear();
    }

    /// Faults that did not happen yet.
    pub fn faults_left(&self) -> usize {
        self.state.faults.lock().unwrap().len()
    }

    /// The requests since the last call: method, path with query, and range.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }

    /// No fault happens from here on.
    pub fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.state.objects.lock().unwrap();
        objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub fn remove(&self, key: &str) {
        self.state.objects.lock().unwrap().remove(key).unwrap();
    }

    pub fn change(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.state.objects.lock().unwrap().get_mut(key).unwrap());
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

fn answer(status: &'static str, body: impl Into<Vec<u8>>) -> Answer {
    let headers = "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\nETag: \"1\"\r\n".to_owned();
    Answer { status, headers, body: body.into() }
}

fn serve(state: &State, mut stream: TcpStream) {
    let Some(request) = read(&stream) else { return };
    let range = request.headers.get("range").map_or("", String::as_str);
    let what = format!("{} {}?{} {range}", request.method, request.path, request.query);
    state.log.lock().unwrap().push(what.clone());
    let busy = state.busy.fetch_add(1, Ordering::Relaxed) + 1;
    state.busiest.fetch_max(busy, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(state.delay.load(Ordering::Relaxed) as u64));
    state.busy.fetch_sub(1, Ordering::Relaxed);
    let fault = {
        let mut faults = state.faults.lock().unwrap();
        let due = faults.front().is_some_and(|(on, _)| what.contains(on));
        due.then(|| faults.pop_front()).flatten().map(|(_, fault)| fault)
    };
    let mut answer = match fault {
        Some(Fault::Broken) => answer("500 Internal Server Error", ""),
        Some(Fault::Says(status, code, message)) => answer(
            status,
            format!(
                "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
                 <StringToSign>secret</StringToSign></Error>"
            ),
        ),
        _ if !is_signed(&request) => answer("403 Forbidden", "<Code>SignatureDoesNotMatch</Code>"),
        _ => act(state, &request),
    };
    if let Some(Fault::Longer(zeros)) = fault {
        answer.body.extend_from_slice(&vec![0; zeros]);
    }
    let length = answer.body.len();
    match fault {
        Some(Fault::Silent) => return,
        Some(Fault::Slow(time)) => thread::sleep(time),
        Some(Fault::Cut) => answer.body.truncate(length / 2),
        Some(Fault::Broken | Fault::Says(..) | Fault::Drip(_) | Fault::Longer(_)) | None => {}
    }
    let _ = write!(
        stream,
        "HTTP/1.1 {}\r\nContent-Length: {length}\r\nConnection: close\r\n{}\r\n",
        answer.status, answer.headers
    );
    if let Some(Fault::Drip(time)) = fault {
        let drip = |byte: &u8| {
            thread::sleep(time);
            stream.write_all(&[*byte]).is_ok()
        };
        let _ = answer.body.iter().all(drip);
    } else if request.method != "HEAD" {
        let _ = stream.write_all(&answer.body);
    }
}

fn act(state: &State, request: &Request) -> Answer {
    let mut objects = state.objects.lock().unwrap();
    let query: BTreeMap<&str, &str> =
        request.query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let key = request.path.strip_prefix("/bucket").unwrap().trim_start_matches('/').to_owned();
    match (request.method.as_str(), query.get("uploadId")) {
        ("GET", _) if query.contains_key("list-type") => {
            list(&objects, &query, state.page.load(Ordering::Relaxed))
        }
        ("GET" | "HEAD", _) => match objects.get(&key) {
            Some(bytes) => ranged(bytes, request.headers.get("range")),
            None => answer("404 Not Found", "<Code>NoSuchKey</Code>"),
        },
        ("PUT", None) => {
            let create = request.headers.get("if-none-match").is_some_and(|value| value == "*");
            if create && objects.contains_key(&key) {
                return answer("412 Precondition Failed", "<Code>PreconditionFailed</Code>");
            }
            objects.insert(key, request.body.clone());
            answer("200 OK", "")
        }
        ("PUT", Some(upload)) => {
            let mut uploads = state.uploads.lock().unwrap();
            let Some(parts) = uploads.get_mut(*upload) else { return no_such_upload() };
            parts.insert(query["partNumber"].parse().unwrap(), request.body.clone());
            answer("200 OK", "")
        }
        ("POST", None) if request.query.starts_with("delete") => {
            let body = String::from_utf8_lossy(&request.body);
            let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            keys.for_each(|key| drop(objects.remove(key)));
            answer("200 OK", "<DeleteResult></DeleteResult>")
        }
        ("POST", None) => {
            let mut uploads = state.uploads.lock().unwrap();
            let id = format!("upload{}", state.begun.fetch_add(1, Ordering::Relaxed));
            uploads.insert(id.clone(), BTreeMap::new());
            let text = format!(
                "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>{key}</Key>\
                 <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            answer("200 OK", text)
        }
        ("POST", Some(upload)) => {
            let parts = state.uploads.lock().unwrap().remove(*upload);
            let Some(parts) = parts else { return no_such_upload() };
            let listed = String::from_utf8_lossy(&request.body).matches("<PartNumber>").count();
            if listed != parts.len() || parts.keys().copied().ne(1..=listed) {
                return answer("400 Bad Request", "<Error><Code>InvalidPart</Code></Error>");
            }
            objects.insert(key.clone(), parts.into_values().flatten().collect());
            let text = format!(
                "<CompleteMultipartUploadResult><Location>x</Location><Bucket>bucket</Bucket>\
                 <Key>{key}</Key><ETag>\"1\"</ETag></CompleteMultipartUploadResult>"
            );
            answer("200 OK", text)
        }
        ("DELETE", Some(upload)) => match state.uploads.lock().unwrap().remove(*upload) {
            Some(_) => answer("204 No Content", ""),
            None => no_such_upload(),
        },
        _ => answer("405 Method Not Allowed", ""),
    }
}

fn no_such_upload() -> Answer {
    answer("404 Not Found", "<Error><Code>NoSuchUpload</Code></Error>")
}

fn ranged(bytes: &[u8], range: Option<&String>) -> Answer {
    let Some(range) = range else { return answer("200 OK", bytes) };
    let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    if from >= bytes.len() {
        return answer("416 Range Not Satisfiable", "");
    }
    let to = to.parse().unwrap_or(usize::MAX).min(bytes.len() - 1);
    let mut answer = answer("206 Partial Content", &bytes[from..=to]);
    let _ = write!(answer.headers, "Content-Range: bytes {from}-{to}/{}\r\n", bytes.len());
    answer
}

/// One page of the keys with a prefix. Where it goes on, the token says: the last key of the page
/// before.
fn list(objects: &BTreeMap<String, Vec<u8>>, query: &BTreeMap<&str, &str>, page: usize) -> Answer {
    let decoded = |name| query.get(name).copied().unwrap_or_default().replace("%2F", "/");
    let (prefix, after) = (decoded("prefix"), decoded("continuation-token"));
    let keys = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let keys: Vec<_> = keys.take(page + 1).collect();
    let is_truncated = keys.len() > page;
    let keys = &keys[..keys.len().min(page)];
    let mut text = format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>");
    if is_truncated && let Some((last, _)) = keys.last() {
        let _ = write!(text, "<NextContinuationToken>{last}</NextContinuationToken>");
    }
    for (key, bytes) in keys {
        let _ = write!(
            text,
            "<Contents><Key>{key}</Key><Size>{}</Size>\
             <LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag></Contents>",
            bytes.len()
        );
    }
    answer("200 OK", text + "</ListBucketResult>")
}

/// Whether a request has the signature that its sender could only make with the secret.
fn is_signed(request: &Request) -> bool {
    check(request).unwrap_or(false)
}

fn check(request: &Request) -> Option<bool> {
    let authorization = request.headers.get("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let fields: BTreeMap<&str, &str> =
        authorization.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let (key, scope) = fields.get("Credential")?.split_once('/')?;
    let signed = fields.get("SignedHeaders")?;
    let payload = request.headers.get("x-amz-content-sha256")?;
    if key != KEY || payload != "UNSIGNED-PAYLOAD" && *payload != sha256(&request.body) {
        return Some(false);
    }
    let mut query: Vec<String> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    query.sort();
    let mut canonical = format!("{}\n{}\n{}\n", request.method, request.path, query.join("&"));
    for name in signed.split(';') {
        let _ = writeln!(canonical, "{name}:{}", request.headers.get(name)?.trim());
    }
    let _ = write!(canonical, "\n{signed}\n{payload}");
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        request.headers.get("x-amz-date")?,
        sha256(canonical.as_bytes())
    );
    let sign = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let secret = format!("AWS4{SECRET}").into_bytes();
    let key = scope.split('/').fold(secret, |key, part| sign(&key, part));
    Some(hex(&sign(&key, &text)) == **fields.get("Signature")?)
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
