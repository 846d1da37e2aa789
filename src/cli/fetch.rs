//! Downloads what a run needs of the models that its file names on the hub.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{error::CliError, session::Session, signals::Stop};
use crate::{
    config::Pipeline,
    models::hub::{self, FetchError, Hub, Name},
    plan::{self, PlanOptions},
    report::style::duration,
    units::bytes,
};

/// The time between two lines where there is no bar.
const EVERY: Duration = Duration::from_secs(30);

/// Fetches the parts of models that the stages asked for need and the cache lacks; `refuse` is asked before
/// the first one, as nobody wants to wait for tens of gigabytes to be told of a mistake. Says whether there were
/// any.
pub(super) fn models(
    pipeline: &Pipeline,
    wanted: &PlanOptions,
    session: &Session,
    stop: &Stop,
    refuse: impl FnOnce() -> Result<(), CliError>,
) -> Result<bool, CliError> {
    if hub::is_offline() {
        return Ok(false);
    }
    let absent = plan::absent_models(pipeline, wanted)?;
    // A wrong name is told with all else that is wrong.
    let named = absent.iter().filter_map(|(model, parts)| {
        Some((Name::parse(model.0.strip_prefix("hf:")?).ok()?, parts))
    });
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        refuse()?;
    }
    named.iter().try_for_each(|(name, parts)| one(name, parts, session, stop))?;
    Ok(!named.is_empty())
}

fn one(name: &Name<'_>, parts: &[&str], session: &Session, stop: &Stop) -> Result<(), CliError> {
    let cache = hub::cache_folder();
    let start = Instant::now();
    let model = format!("{} at {}", name.id, name.revision);
    session.talk(&format!("fetching {model} ({}) into {}", parts.join(", "), cache.display()));
    let bar = session.bar("{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}  {wide_msg}");
    let mut told = start;
    let mut total = 0;
    let flag = stop.flag.clone();
    let hub = Hub::from_env().with_stop(move || flag.is_cancelled());
    let fetched = hub::fetch(&hub, &cache, name, parts, &mut |progress| {
        total = progress.total;
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if bar.message() != progress.file {
            bar.set_message(progress.file.to_owned());
        }
        if bar.is_hidden() && told.elapsed() >= EVERY {
            told = Instant::now();
            session.talk(&so_far(progress.done, progress.total, progress.file));
        }
        if stop.flag.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    match fetched {
        Ok(_) => {
            let took = duration(start.elapsed().as_secs_f64());
            session.talk(&format!("fetched {model}: {} in {took}", bytes(total)));
            Ok(())
        }
        Err(FetchError::Stopped) => {
            session.talk("stopped; what was fetched is kept, the same command goes on from here");
            Err(CliError::Told(stop.exit_code()))
        }
        Err(FetchError::Load(error)) => {
            let help = error.help().unwrap_or_default().to_owned();
            Err(CliError::environment(error.to_string()).with_help(help))
        }
    }
}

/// `fetching 1.2 GiB of 20.1 GiB, transformer/...`, where there is no bar.
fn so_far(done: u64, total: u64, file: &str) -> String {
    format!("fetching {} of {}, {file}", bytes(done), bytes(total))
}
