//! A hub on this machine, with the faults of real ones: what `hub.rs` and `cli/hub.rs` download
//! from.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::json;

/// The commit that the branch `main` is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What happens to one of the next answers with a file's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The connection ends after this many bytes.
    Cut(usize),
    /// A byte is another one.
    Wrong,
    /// The answer is 503.
    Busy,
    /// The answer is 429, and asks for a wait of so many seconds.
    Rest(u64),
    /// All bytes come though only the rest was asked for.
    NoRange,
    /// The answer leads to this address.
    Redirect(&'static str),
    /// Nothing comes after this many bytes, and the connection stays.
    Stall(usize),
}

/// A hub with one repository, `org/tiny`.
pub struct FakeHub {
    state: Arc<State>,
    /// Its address, for `HF_ENDPOINT`.
    pub endpoint: String,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Where files lie: another host than the hub's.
    files_at: String,
    token: Option<String>,
    faults: Mutex<VecDeque<Fault>>,
    /// Whether the list of files comes byte by byte.
    drips: AtomicBool,
    /// Whether it states only the names of files.
    bare: AtomicBool,
    log: Mutex<Vec<String>>,
}

impl FakeHub {
    /// A hub with these files, which wants `token` if there is one.
    pub fn new(files: BTreeMap<String, Vec<u8>>, token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            files,
            files_at: format!("http://localhost:{port}"),
            token: token.map(str::to_owned),
            ..State::default()
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&serving);
                thread::spawn(move || serve(&state, stream));
            }
        });
        Self { state, endpoint: format!("http://127.0.0.1:{port}") }
    }

    /// A hub with the built-in model as a repository.
    pub fn tiny(token: Option<&str>) -> Self {
        fn walk(root: &Path, at: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, files);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin_tiny");
        let mut files = BTreeMap::new();
        walk(&root, &root, &mut files);
        Self::new(files, token)
    }

    /// Adds faults to the next answers with files, in this order.
    pub fn faults(&self, faults: &[Fault]) {
        self.state.faults.lock().unwrap().extend(faults);
    }

    /// Lists of files come byte by byte from now on, twenty in a second.
    pub fn drip(&self) {
        self.state.drips.store(true, Ordering::Relaxed);
    }

    /// Lists of files state only names from now on.
    pub fn bare(&self) {
        self.state.bare.store(true, Ordering::Relaxed);
    }

    /// The requests since the last call: path, range, and whether the token came along.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }
}

fn serve(state: &State, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let (range, token) = (header("range"), header("authorization"));
    let mut entry = path.to_owned();
    let _ = write!(entry, "{}", range.as_deref().map(|r| format!(" {r}")).unwrap_or_default());
    entry.push_str(if token.is_some() { " with token" } else { "" });
    state.log.lock().unwrap().push(entry);
    let start = range.and_then(|range| range[6..].trim_end_matches('-').parse().ok());
    let answer = answer(state, path, token.as_deref(), start.unwrap_or(0));
    let _ = send(stream, &answer);
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    /// Bytes that are sent of the body.
    sent: usize,
    drips: bool,
    stalls: bool,
}

impl Answer {
    fn new(status: &'static str, headers: &str, body: Vec<u8>) -> Self {
        let (sent, headers) = (body.len(), headers.to_owned());
        Self { status, headers, sent, body, drips: false, stalls: false }
    }
}

fn send(mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        answer.status,
        answer.body.len(),
        answer.headers
    )?;
    let body = &answer.body[..answer.sent];
    for piece in body.chunks(if answer.drips { 1 } else { body.len().max(1) }) {
        stream.write_all(piece)?;
        if answer.drips {
            thread::sleep(Duration::from_millis(50));
        }
    }
    if answer.stalls {
        // Longer than any test waits.
        thread::sleep(Duration::from_mins(5));
    }
    Ok(())
}

fn answer(state: &State, path: &str, token: Option<&str>, start: usize) -> Answer {
    let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
    if let Some(hash) = path.strip_prefix("/files/") {
        let file = state.files.values().find(|bytes| sha256(bytes) == hash).unwrap();
        return bytes(state, file, start);
    }
    if wanted.is_some() && token != wanted.as_deref() {
        let headers = "X-Error-Code: RepoNotFound\r\n";
        return Answer::new("401 Unauthorized", headers, Vec::new());
    }
    if let Some(revision) = path.strip_prefix("/api/models/org/tiny/revision/") {
        return match revision.strip_suffix("?blobs=true").unwrap() {
            "main" | COMMIT | "refs%2Fpr%2F1" => {
                let drips = state.drips.load(Ordering::Relaxed);
                Answer { drips, ..Answer::new("200 OK", "", listing(state)) }
            }
            _ => Answer::new("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", Vec::new()),
        };
    }
    let Some(file) = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/")) else {
        let headers = "X-Error-Code: RepoNotFound\r\n";
        return Answer::new("404 Not Found", headers, Vec::new());
    };
    let content = &state.files[file];
    if file.ends_with(".safetensors") {
        let location = format!("Location: {}/files/{}\r\n", state.files_at, sha256(content));
        return Answer::new("302 Found", &location, Vec::new());
    }
    bytes(state, content, start)
}

/// The bytes of a file from `start` on, with the next fault.
fn bytes(state: &State, file: &[u8], start: usize) -> Answer {
    let (from, status) = if start > 0 { (start, "206 Partial Content") } else { (0, "200 OK") };
    let mut answer = Answer::new(status, "", file[from..].to_vec());
    match state.faults.lock().unwrap().pop_front() {
        None => {}
        Some(Fault::Busy) => return Answer::new("503 Busy", "", Vec::new()),
        Some(Fault::Rest(seconds)) => {
            let header = format!("Retry-After: {seconds}\r\n");
            return Answer::new("429 Too Many Requests", &header, Vec::new());
        }
        Some(Fault::Cut(len)) => answer.sent = len.min(answer.sent),
        Some(Fault::Wrong) => answer.body[0] ^= 1,
        Some(Fault::NoRange) => answer = Answer::new("200 OK", "", file.to_vec()),
        Some(Fault::Redirect(to)) => {
            return Answer::new("302 Found", &format!("Location: {to}\r\n"), Vec::new());
        }
        Some(Fault::Stall(len)) => (answer.sent, answer.stalls) = (len.min(answer.sent), true),
    }
    answer
}

fn listing(state: &State) -> Vec<u8> {
    let siblings = state.files.iter().map(|(name, bytes)| {
        if state.bare.load(Ordering::Relaxed) {
            return json!({ "rfilename": name });
        }
        let mut file = json!({
            "rfilename": name, "size": bytes.len(), "blobId": git_hash(bytes),
        });
        if name.ends_with(".safetensors") {
            file["lfs"] = json!({ "sha256": sha256(bytes), "size": bytes.len() });
        }
        file
    });
    let siblings: Vec<_> = siblings.collect();
    json!({ "id": "org/tiny", "sha": COMMIT, "siblings": siblings }).to_string().into_bytes()
}

fn hex(context: Context) -> String {
    HEXLOWER.encode(context.finish().as_ref())
}

pub fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    hex(context)
}

fn git_hash(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    hex(context)
}
