//! Downloads what a run needs of the models that its file names on the hub.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{error::CliError, session::Session, signals::Stop};
use crate::{
    config::Pipeline,
    models::{
        ModelRef,
        hub::{self, FetchError, Hub, Name, Observe},
    },
    plan::{self, PlanOptions},
    report::style::duration,
    units::bytes,
};

/// The time between two lines where there is no bar.
const EVERY: Duration = Duration::from_secs(30);

/// Fetches the parts of models that the stages asked for need and the cache lacks. As nobody wants
/// to wait for tens of gigabytes to be told of a mistake, `refuse` is asked before anything is
/// fetched, and `settle` once the configurations are here.
pub(super) fn models(
    pipeline: &Pipeline,
    wanted: &PlanOptions,
    session: &Session,
    stop: &Stop,
    refuse: impl FnOnce() -> Result<(), CliError>,
    settle: impl FnOnce() -> Result<(), CliError>,
) -> Result<(), CliError> {
    let absent =
        if hub::is_offline() { Vec::new() } else { plan::absent_models(pipeline, wanted)? };
    let named = named(&absent);
    for model in plan::models_of_hub(pipeline, wanted)? {
        if !absent.iter().any(|(absent, _)| *absent == model) {
            tell_commit(&model, session);
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    refuse()?;
    let cache = hub::cache_folder();
    for (name, parts) in &named {
        let (model, what) = (called(name), parts.join(", "));
        session.talk(&format!("fetching {model} ({what}) into {}", cache.display()));
        one(hub::fetch_settings, (name, parts), session, stop)?;
    }
    settle()?;
    // By their configurations it is known which parts other stages give.
    let absent = plan::absent_models(pipeline, wanted)?;
    for (name, parts) in self::named(&absent) {
        let start = Instant::now();
        let Fetched { commit, size } = one(hub::fetch, (&name, &parts), session, stop)?;
        let took = duration(start.elapsed().as_secs_f64());
        let pin = pin(&name, &commit).map(|pin| format!("; {pin}")).unwrap_or_default();
        session.talk(&format!("fetched {}: {} in {took}{pin}", called(&name), bytes(size)));
    }
    Ok(())
}

/// Says at which commit a branch or a tag is in the cache: it stays there, however old that is.
fn tell_commit(model: &ModelRef, session: &Session) {
    let told = || {
        let name = Name::parse(model.0.strip_prefix("hf:")?).ok()?;
        let pin = pin(&name, &model.resolve().ok()?.commit()?)?;
        Some(format!("{} is taken as the cache has it; {pin}", called(&name)))
    };
    if let Some(told) = told() {
        session.talk(&told);
    }
}

/// How to name a model so that it stays the same on every machine; nothing if it is named so.
fn pin(name: &Name<'_>, commit: &str) -> Option<String> {
    (name.revision != commit).then(|| format!("`hf:{}@{commit}` pins it", name.id))
}

/// Those on the hub; a wrong name is told with all else that is wrong.
fn named<'a>(models: &'a [(ModelRef, Vec<&'static str>)]) -> Vec<(Name<'a>, Vec<&'static str>)> {
    let named = models.iter().filter_map(|(model, parts)| {
        Some((Name::parse(model.0.strip_prefix("hf:")?).ok()?, parts.clone()))
    });
    named.collect()
}

/// `org/repo at main`.
fn called(name: &Name<'_>) -> String {
    format!("{} at {}", name.id, name.revision)
}

/// [`hub::fetch`], or the same without weights.
type Fetch = fn(&Hub, &Path, &Name<'_>, &[&str], &mut Observe<'_>) -> Result<PathBuf, FetchError>;

/// What came of a download.
struct Fetched {
    commit: String,
    size: u64,
}

/// Fetches what `fetch` does of a model.
fn one(
    fetch: Fetch,
    (name, parts): (&Name<'_>, &[&str]),
    session: &Session,
    stop: &Stop,
) -> Result<Fetched, CliError> {
    let bar = session.bar("{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}  {wide_msg}");
    let mut told = Instant::now();
    let mut size = 0;
    let flag = stop.flag.clone();
    let hub = Hub::from_env().with_stop(move || flag.is_cancelled());
    let fetched = fetch(&hub, &hub::cache_folder(), name, parts, &mut |progress| {
        size = progress.total;
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
        Ok(snapshot) => {
            let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Fetched { commit, size })
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
