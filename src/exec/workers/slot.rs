//! A device beside others, and how the process is started that computes on it.

use std::{ffi::OsString, fmt, path::PathBuf, process::Command, sync::Arc, time::Duration};

/// One of several devices of a run.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name in records.
    pub name: String,
    /// What the driver's tool calls a card of its kind, for records.
    pub card_name: Option<String>,
    /// Whether it is the CPU.
    pub on_host: bool,
    /// The memory that its worker may fill with models, if it is known.
    pub memory: Option<u64>,
    /// How its worker is started.
    pub launch: Launch,
}

/// How a worker is started: a program that serves on its standard input and output.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables that it has beside those of this process.
    pub env: Vec<(String, String)>,
    /// How long it may take until it is ready.
    pub patience: Duration,
}

impl Launch {
    /// How long a worker may take until it is ready: a driver that wakes eight cards up takes its
    /// time.
    pub const PATIENCE: Duration = Duration::from_mins(2);

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // The program may be named by its place in `/proc`.
            command.arg0("pipe");
        }
        command
    }
}

/// Where the lines go that workers write to their standard error: what they log, and what libraries
/// say.
#[derive(Clone)]
pub struct Talk(Arc<dyn Fn(&str) + Send + Sync>);

impl Talk {
    /// Passes each line on.
    pub fn to(line: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(line))
    }

    pub(super) fn line(&self, line: &str) {
        (self.0)(line);
    }
}

impl Default for Talk {
    /// Says nothing.
    fn default() -> Self {
        Self::to(|_| {})
    }
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Talk")
    }
}
