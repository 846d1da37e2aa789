//! A worker as the run sees it: a process with a pipe in each direction.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use super::{
    Slot, Talk,
    protocol::{Order, Report},
};
use crate::{stages::CommandGuard, sync::Unpoisoned};

/// How many of the last lines of a worker's standard error are told when it dies.
const LAST_LINES: usize = 12;
/// How long a worker may take to end once it is to.
const GRACE: Duration = Duration::from_secs(2);

/// A worker.
pub(super) struct Process {
    child: Child,
    /// Ends it with the run, where it cannot hear that its orders have ended.
    guard: Arc<CommandGuard>,
    /// Gone once it is to end.
    orders: Option<ChildStdin>,
    /// Ends with the worker.
    reports: Receiver<Report>,
    /// The last lines that it wrote to its standard error.
    lines: Arc<Mutex<VecDeque<String>>>,
    /// Ends with them.
    talked: Receiver<()>,
    /// Calls so far.
    pub calls: u64,
}

/// What was heard of a worker.
pub(super) enum Heard {
    Report(Report),
    /// Nothing for a while.
    Nothing,
    /// It is dead, or will never say anything again.
    End,
}

/// How a worker died.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Death {
    /// `was killed by signal 9 (SIGKILL)`.
    pub how: String,
    /// Whether a signal did it.
    pub was_killed: bool,
    /// The last lines of its standard error.
    pub lines: Vec<String>,
}

impl Process {
    /// Starts the worker of a slot; the lines of its standard error are passed on as they come.
    pub fn start(slot: &Slot, talk: &Talk, guard: Arc<CommandGuard>) -> io::Result<Self> {
        let mut child = slot
            .launch
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let piped = || io::Error::other("the worker has no pipes");
        let orders = child.stdin.take().ok_or_else(piped)?;
        let reports = listen(child.stdout.take().ok_or_else(piped)?, talk.clone());
        let lines = Arc::<Mutex<VecDeque<String>>>::default();
        let talked =
            pass_on(child.stderr.take().ok_or_else(piped)?, talk.clone(), Arc::clone(&lines));
        let orders = Some(orders);
        let process = Self { child, guard, orders, reports, lines, talked, calls: 0 };
        process.guard.add(&process.child)?;
        Ok(process)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is dead already.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it something. That it is dead is heard by [`Self::hear`].
    pub fn tell(&mut self, order: &Order) -> serde_json::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        if let Some(orders) = &mut self.orders
            && let Err(error) = orders.write_all(&line).and_then(|()| orders.flush())
        {
            tracing::debug!("Worker {} does not listen: {error}.", self.id());
        }
        Ok(())
    }

    /// Waits for what it says.
    pub fn hear(&self, patience: Duration) -> Heard {
        match self.reports.recv_timeout(patience) {
            Ok(report) => Heard::Report(report),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Has it end, in the middle of a call, if there is one.
    pub fn dismiss(&mut self) {
        drop(self.orders.take());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // Where that fails it is dead.
        let _ = self.child.kill();
    }

    /// How it died; ends it, if it only went silent.
    pub fn death(mut self) -> Death {
        let (how, was_killed) = match self.end() {
            Some(status) => (describe(status), status.code().is_none()),
            None => ("ended, nobody knows how".to_owned(), false),
        };
        // What it said last is on its way. Who has its pipe and lives on is not waited for.
        let _ = self.talked.recv_timeout(GRACE);
        let lines = self.lines.lock().unpoisoned();
        Death { how, was_killed, lines: lines.iter().cloned().collect() }
    }

    /// Whether somebody has stopped it, as far as the system tells.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.trim_start().starts_with(['T', 't'])
    }

    /// Has it end, by itself if it can.
    fn end(&mut self) -> Option<ExitStatus> {
        self.dismiss();
        let start = Instant::now();
        while start.elapsed() < GRACE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
        self.kill();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        self.guard.remove(&self.child);
    }
}

/// Reads what a worker says, until it says no more. What is no report was written by a library.
fn listen(out: impl Read + Send + 'static, talk: Talk) -> Receiver<Report> {
    let (sender, reports) = channel();
    std::thread::spawn(move || {
        for line in lines_of(out) {
            match serde_json::from_str(&line) {
                Ok(report) => {
                    if sender.send(report).is_err() {
                        return;
                    }
                }
                Err(_) => talk.line(&line),
            }
        }
    });
    reports
}

/// Passes lines on and keeps the last ones; what is given ends with them.
fn pass_on(
    err: impl Read + Send + 'static,
    talk: Talk,
    kept: Arc<Mutex<VecDeque<String>>>,
) -> Receiver<()> {
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        let _sender = sender;
        for line in lines_of(err) {
            talk.line(&line);
            let mut kept = kept.lock().unpoisoned();
            kept.push_back(line);
            if kept.len() > LAST_LINES {
                kept.pop_front();
            }
        }
    });
    ended
}

/// Lines in whatever encoding; one that is cut short by a death counts.
fn lines_of(read: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(read)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(unix)]
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::Signal;

    match (status.signal(), status.code()) {
        (Some(signal), _) => match Signal::try_from(signal) {
            Ok(name) => format!("was killed by signal {signal} ({name})"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, code) => describe_code(code),
    }
}

#[cfg(not(unix))]
fn describe(status: ExitStatus) -> String {
    describe_code(status.code())
}

fn describe_code(code: Option<i32>) -> String {
    code.map_or_else(|| "ended".to_owned(), |code| format!("ended with exit code {code}"))
}
