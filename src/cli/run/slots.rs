//! The processes of a run on several devices: this program again, each with one of them.

use std::{ffi::OsString, path::PathBuf};

use super::{CliError, Session};
use crate::{
    cli::device::{Chosen, DeviceProcess, Outlook},
    config::settings::Settings,
    exec::{Launch, Slot},
};

/// The slots of what was chosen.
pub(super) fn slots(
    chosen: &Chosen,
    outlook: &Outlook,
    settings: &Settings,
    session: &Session,
) -> Result<Vec<Slot>, CliError> {
    if chosen.processes.is_empty() {
        return Ok(Vec::new());
    }
    let program = program()?;
    let count = chosen.processes.len();
    // Of the memory of the machine, each has its share for the models that it keeps.
    let share = outlook.memory.filter(|_| outlook.on_host).map(|all| all / count as u64);
    let slot = |(index, process): (usize, &DeviceProcess)| {
        let card = outlook.cards.get(index).and_then(Option::as_ref);
        let mut args = shared_args(settings, session);
        args.extend(["worker", "--device", process.inside].map(OsString::from));
        if let Some(card) = card {
            args.extend(["--card".into(), OsString::from(&card.uuid)]);
        }
        let env = match &process.visible {
            Some(visible) => Some(("CUDA_VISIBLE_DEVICES".to_owned(), visible.clone())),
            None => threads(count),
        };
        let launch = Launch {
            program: program.clone(),
            args,
            env: env.into_iter().collect(),
            patience: Launch::PATIENCE,
        };
        let memory = share.or(card.and_then(|card| card.free));
        let card_name = card.map(|card| card.name.clone());
        Slot { name: process.name.clone(), card_name, on_host: outlook.on_host, memory, launch }
    };
    Ok(chosen.processes.iter().enumerate().map(slot).collect())
}

/// What a worker must do as this process does.
fn shared_args(settings: &Settings, session: &Session) -> Vec<OsString> {
    let mut cache = OsString::from("--cache=");
    cache.push(&settings.cache);
    let color = if session.stderr.color { "always" } else { "never" };
    let log = format!("--log={}", settings.log);
    let verbose = std::iter::repeat_n("-v".into(), usize::from(session.global.verbose));
    [cache, log.into(), format!("--color={color}").into()].into_iter().chain(verbose).collect()
}

/// This program. On Linux it is named so that it is this one still when another one has been put in
/// its place; elsewhere workers of another version are noticed by that.
fn program() -> Result<PathBuf, CliError> {
    let own = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && own.exists() {
        return Ok(own);
    }
    std::env::current_exe().map_err(|error| {
        let message =
            format!("cannot tell where this program is, to start it for each device: {error}");
        CliError::environment(message).with_help("use one device")
    })
}

/// Of the threads of the machine, each process takes its share, unless the user has said how many.
#[expect(
    clippy::disallowed_methods,
    reason = "it is the variable of a library, not a setting of ours"
)]
fn threads(processes: usize) -> Option<(String, String)> {
    const NAME: &str = "RAYON_NUM_THREADS";
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let share = (all / processes).max(1).to_string();
    std::env::var_os(NAME).is_none().then(|| (NAME.to_owned(), share))
}
