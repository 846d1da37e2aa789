//! What all commands share: global options, the terminal, settings, the store.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{check, error::CliError, exit, logging};
use crate::{
    config::{
        self, LoadOptions, Pipeline,
        settings::{Settings, SettingsError, SomeSettings},
    },
    data::guard::is_guarded,
    device::{DeviceFailure, is_asked},
    remote::{Patience, Remote},
    report::{human::Screen, style::Style},
    store::{Locks, Store, StoreError},
};

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Folder of the cache
    #[arg(long, global = true, value_name = "DIR", help_heading = HEADING)]
    pub cache: Option<PathBuf>,
    /// Cache that several machines share: s3://, gs://, az:// or file://, or a folder
    #[arg(long, global = true, value_name = "URL", help_heading = HEADING)]
    pub remote: Option<String>,
    /// Where to compute: auto, cpu, cuda:N; with a process for each: cuda:0,1, all, cpu:N
    #[arg(long, global = true, value_name = "DEVICE", help_heading = HEADING)]
    pub device: Option<String>,
    /// Stages to run at once
    #[arg(long, short, global = true, value_name = "N", value_parser = at_least_one, help_heading = HEADING)]
    pub jobs: Option<NonZeroUsize>,
    /// Say more: list reused stages; twice or thrice to log what happens inside
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = HEADING)]
    pub verbose: u8,
    /// What to log to stderr, as in `info` or `pipe::exec=debug`
    #[arg(long, global = true, value_name = "FILTER", value_parser = log_filter, help_heading = HEADING)]
    pub log: Option<String>,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = HEADING)]
    pub color: ColorChoice,
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "must be a whole number, at least 1".to_owned())
}

/// Checks a filter, which is read when logging starts.
fn log_filter(text: &str) -> Result<String, String> {
    logging::filter(text).map(|_| text.to_owned())
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
    #[expect(clippy::disallowed_methods, reason = "`NO_COLOR` is about the terminal")]
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

    /// The same; with `json`, errors of the file are written as `pipe check --json` writes them.
    pub fn load_telling(&self, json: bool, session: &Session) -> Result<Pipeline, CliError> {
        match config::load(&self.file, &self.layers.options()) {
            Err(errors) if json => {
                session.print(&check::document_of_errors(&self.file, &errors))?;
                Err(CliError::Told(exit::USAGE))
            }
            loaded => Ok(loaded?),
        }
    }

    /// The command that does `verb` with this pipeline, as a person may copy it.
    pub fn command(&self, verb: &str) -> String {
        self.layers.command(verb, &self.file)
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
        let (profile, set) = (self.profile.clone(), self.set.clone());
        LoadOptions { profile, set, ..LoadOptions::default() }
    }

    /// The command that does `verb` with a file and these layers, as a person may copy it.
    pub fn command(&self, verb: &str, file: &Path) -> String {
        let profile = self.profile.iter().map(|name| format!(" --profile {}", quoted(name)));
        let set = self.set.iter().map(|value| format!(" --set {}", quoted(value)));
        let layers: String = profile.chain(set).collect();
        format!("pipe {verb} {}{layers}", argument(&file.display()))
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
        // Settings that cannot be read are told by the command that needs them.
        let settings = load_settings(&global).unwrap_or_default();
        logging::start(global.verbose, &settings.log, stderr, bars.clone());
        Self { global, stderr, bars }
    }

    /// Writes a result. Who reads it by a program gets it as it is.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        let style = Style { color: false };
        let text = if io::stdout().is_terminal() { style.shown(text) } else { Cow::Borrowed(text) };
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

    /// Says what of a pipeline is not wrong but seldom meant.
    pub fn warn(&self, pipeline: &Pipeline) {
        for warning in &pipeline.warnings {
            self.caution(warning);
        }
    }

    /// Says something to the person in front of the screen.
    pub fn talk(&self, text: &str) {
        (self.talker())(text);
    }

    /// Says things as [`Self::talk`] does, also from other threads.
    pub fn talker(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let (style, bars) = (self.stderr, self.bars.clone());
        move |text| {
            let text = style.shown(text);
            // With stderr closed there is nobody to tell that it is.
            let _ = match &bars {
                Some(bars) => bars.println(text),
                None => writeln!(io::stderr(), "{text}"),
            };
        }
    }

    /// Where a run is told.
    pub fn screen(&self) -> Screen {
        match &self.bars {
            Some(bars) => Screen::Bars(bars.clone()),
            None => Screen::Lines(Box::new(io::stderr())),
        }
    }

    /// Says what is not wrong but may not be meant, or not be known.
    pub fn caution(&self, text: &str) {
        self.talk(&format!("{}: {text}", self.stderr.warn("warning")));
    }

    /// A bar of this form; hidden where there is no terminal.
    pub fn bar(&self, template: &str) -> ProgressBar {
        let Some(bars) = &self.bars else { return ProgressBar::hidden() };
        let bar = bars.add(ProgressBar::new(0));
        bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
        bar
    }

    /// The settings of this machine.
    pub fn settings(&self) -> Result<Settings, CliError> {
        let settings = load_settings(&self.global)?;
        log_filter(&settings.log).map_err(|error| {
            let by = settings.set_by("log");
            CliError::usage(format!("the setting `log` is wrong{by}: {error}"))
                .with_help("write it as `info` or `pipe::exec=debug`")
        })?;
        Ok(settings)
    }

    /// The store of the cache folder, to read it: nothing is made of a folder that is no cache yet.
    pub fn store(&self) -> Result<Store, CliError> {
        let settings = self.settings()?;
        Ok(self.told_by(Store::look(&settings.cache)?.with_locks(locks(&settings)?)?))
    }

    /// A store that says here what takes long.
    pub fn told_by(&self, store: Store) -> Store {
        store.telling(self.talker())
    }

    /// The same where there is nothing to do without a cache: none there is an error, since the
    /// folder most likely is misspelt.
    pub fn store_that_is_there(&self) -> Result<Store, CliError> {
        Ok(self.store()?.must_exist()?)
    }

    /// The store of the cache folder, which is made if it is not there.
    pub fn store_to_change(&self) -> Result<Store, CliError> {
        Ok(self.told_by(open_store(&self.settings()?)?))
    }
}

/// The remote cache of these settings, if one is set.
pub(super) fn open_remote(settings: &Settings) -> Result<Option<Remote>, CliError> {
    let address = settings.remote.as_deref().filter(|address| !address.is_empty());
    Ok(address.map(|address| Remote::open(address, Patience::default())).transpose()?)
}

/// The store of these settings, which is made if it is not there.
pub(super) fn open_store(settings: &Settings) -> Result<Store, CliError> {
    Ok(Store::open(&settings.cache)?.settle_locks(locks(settings)?)?)
}

/// The same, but only to read where it cannot be written: what is up to date can be shown all the
/// same.
pub(super) fn open_or_look(settings: &Settings) -> Result<Store, CliError> {
    let locks = locks(settings)?;
    let opened = Store::open(&settings.cache).and_then(|store| store.settle_locks(locks));
    match opened {
        Err(StoreError::NotWritable { .. }) => Ok(Store::look(&settings.cache)?.with_locks(locks)?),
        opened => Ok(opened?),
    }
}

fn locks(settings: &Settings) -> Result<Locks, CliError> {
    match settings.locks.as_str() {
        "auto" => Ok(Locks::Auto),
        "flock" => Ok(Locks::Flock),
        "lease" => Ok(Locks::Lease),
        other => {
            let by = settings.set_by("locks");
            let message = format!("the setting `locks` is `{other}`{by}");
            Err(CliError::usage(message).with_help("it can be `auto`, `flock` or `lease`"))
        }
    }
}

fn load_settings(global: &GlobalArgs) -> Result<Settings, SettingsError> {
    Settings::load(&SomeSettings {
        cache: global.cache.clone(),
        device: global.device.clone(),
        jobs: global.jobs,
        locks: None,
        log: global.log.clone(),
        remote: global.remote.clone(),
    })
}

/// A path or a name as it stands in a command that a person may copy.
pub(super) fn quoted(text: &impl ToString) -> String {
    let text = text.to_string();
    // What no shell can take is shown as it is.
    shlex::try_quote(&text).map_or_else(|_| text.clone(), Cow::into_owned)
}

/// The same of a file that is an argument of its own, which must not look like an option.
pub(super) fn argument(file: &impl ToString) -> String {
    let file = file.to_string();
    let place = if file.starts_with('-') { "./" } else { "" };
    quoted(&format!("{place}{file}"))
}

/// Says that a panic is our fault and what to send us.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        let message = panic.payload_as_str().unwrap_or("no message");
        if DeviceFailure::of(message).is_some() || is_guarded() || is_asked() {
            // The stage it happened in fails with it, or the command.
            return;
        }
        let _ = writeln!(
            io::stderr(),
            "this is a bug in pipe {}: {message} (at {})\n\
             please report it with the pipeline file and the command",
            env!("CARGO_PKG_VERSION"),
            place.unwrap_or_default(),
        );
    }));
}
