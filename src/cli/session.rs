//! What all commands share: global options, the terminal, settings, the store.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{error::CliError, exit};
use crate::{
    config::{
        self, LoadOptions, Pipeline,
        settings::{Settings, SettingsError, SomeSettings},
    },
    report::{human::Screen, style::Style},
    stages::CancelFlag,
    store::Store,
};

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Folder of the cache
    #[arg(long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub cache: Option<PathBuf>,
    /// Where to compute: auto, cpu or cuda:N
    #[arg(long, global = true, value_name = "DEVICE", help_heading = HEADING)]
    pub device: Option<String>,
    /// Stages to run at once
    #[arg(long, short, global = true, value_name = "N", help_heading = HEADING)]
    pub jobs: Option<usize>,
    /// Say more: list reused stages; twice or thrice to log what happens inside
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = HEADING)]
    pub verbose: u8,
    /// What to log to stderr, as in `info` or `pipe::exec=debug`
    #[arg(long, global = true, value_name = "FILTER", help_heading = HEADING)]
    pub log: Option<String>,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = HEADING)]
    pub color: ColorChoice,
}

const HEADING: &str = "Global options";

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColorChoice {
    fn style(self, is_terminal: bool) -> Style {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let color = match self {
            Self::Auto => is_terminal && wanted,
            Self::Always => true,
            Self::Never => false,
        };
        Style { color }
    }
}

/// A pipeline file and what the command line adds to it.
#[derive(Debug, Args)]
pub(super) struct PipelineArgs {
    /// The pipeline file
    pub file: PathBuf,
    #[command(flatten)]
    pub layers: LayerArgs,
}

impl PipelineArgs {
    /// Reads the file.
    pub fn load(&self) -> Result<Pipeline, CliError> {
        Ok(config::load(&self.file, &self.layers.options())?)
    }
}

/// What the command line adds to a pipeline file.
#[derive(Debug, Args)]
pub(super) struct LayerArgs {
    /// Apply a profile of the file
    #[arg(long, short, value_name = "NAME")]
    pub profile: Option<String>,
    /// Set a value, as in `lora.steps=100`, `params.size=[64,96]` or `seed=7`
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl LayerArgs {
    pub fn options(&self) -> LoadOptions {
        LoadOptions { profile: self.profile.clone(), set: self.set.clone() }
    }
}

/// One invocation of the program.
pub(super) struct Session {
    /// Global options.
    pub global: GlobalArgs,
    /// How talk looks.
    pub stderr: Style,
    bars: Option<MultiProgress>,
}

impl Session {
    /// Looks at the terminal and starts logging.
    pub fn new(global: GlobalArgs) -> Self {
        let stderr = global.color.style(io::stderr().is_terminal());
        let bars = io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        start_logging(&global, stderr, bars.clone());
        Self { global, stderr, bars }
    }

    /// Writes a result.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        let written = match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::ClosedPipe),
            Err(error) => {
                Err(CliError::environment(format!("cannot write to standard output: {error}")))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Says something to the person in front of the screen.
    pub fn talk(&self, text: &str) {
        // With stderr closed there is nobody to tell that it is.
        let _ = match &self.bars {
            Some(bars) => bars.println(text),
            None => writeln!(io::stderr(), "{text}"),
        };
    }

    /// Where a run is told.
    pub fn screen(&self) -> Screen {
        match &self.bars {
            Some(bars) => Screen::Bars(bars.clone()),
            None => Screen::Lines(Box::new(io::stderr())),
        }
    }

    /// The settings of this machine.
    pub fn settings(&self) -> Result<Settings, CliError> {
        Ok(load_settings(&self.global)?)
    }

    /// The store of the cache folder.
    pub fn store(&self) -> Result<Store, CliError> {
        Ok(Store::open(&self.settings()?.cache)?)
    }
}

fn load_settings(global: &GlobalArgs) -> Result<Settings, SettingsError> {
    Settings::load(&SomeSettings {
        cache: global.cache.clone(),
        device: global.device.clone(),
        jobs: global.jobs,
        log: global.log.clone(),
    })
}

fn start_logging(global: &GlobalArgs, style: Style, bars: Option<MultiProgress>) {
    // Settings that cannot be read are told by the command that needs them.
    let settings = load_settings(global).unwrap_or_default();
    let filter = match global.verbose {
        0 | 1 => settings.log.as_str(),
        2 => "warn,pipe=info",
        _ => "warn,pipe=debug",
    };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second call in one process, as in tests, keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(style.color)
        .with_target(false)
        .without_time()
        .with_writer(LogWriter(bars))
        .try_init();
}

/// Writes log lines above the bars.
struct LogWriter(Option<MultiProgress>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self.0.as_ref())
    }
}

struct LogLine<'a>(Option<&'a MultiProgress>);

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A flag that the first Ctrl-C or SIGTERM sets; the second ends the program at once.
pub(super) fn cancel_on_signal() -> CancelFlag {
    let flag = CancelFlag::default();
    let handler = {
        let flag = flag.clone();
        move || {
            if flag.is_cancelled() {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            flag.cancel();
            let _ =
                writeln!(io::stderr(), "stopping at the next safe point; again to stop at once");
        }
    };
    // It fails only where a handler is set already; the first one then stays.
    if let Err(error) = ctrlc::try_set_handler(handler) {
        tracing::warn!("Ctrl-C ends the program at once: {error}.");
    }
    flag
}

/// Says that a panic is our fault and what to send us.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        let message = panic.payload_as_str().unwrap_or("no message");
        let _ = writeln!(
            io::stderr(),
            "this is a bug in pipe {}: {message} (at {})\n\
             please report it with the pipeline file and the command",
            env!("CARGO_PKG_VERSION"),
            place.unwrap_or_default(),
        );
    }));
}
