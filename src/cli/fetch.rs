//! Downloads what a run needs of the models that its file names on the hub.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{error::CliError, exit, session::Session};
use crate::{
    config::Pipeline,
    models::hub::{self, FetchError, Hub, Name},
    plan::{self, PlanOptions},
    report::{
        human::Screen,
        style::{bytes, duration},
    },
    stages::CancelFlag,
};

/// The time between two lines where there is no bar.
const EVERY: Duration = Duration::from_secs(30);

/// Fetches the parts of models that the stages asked for need and the cache lacks.
pub(super) fn models(
    pipeline: &Pipeline,
    wanted: &PlanOptions,
    session: &Session,
    cancel: &CancelFlag,
) -> Result<(), CliError> {
    if hub::is_offline() {
        return Ok(());
    }
    for (model, parts) in plan::absent_models(pipeline, wanted)? {
        let Some(repository) = model.0.strip_prefix("hf:") else { continue };
        // A wrong name is told with all else that is wrong.
        let Ok(name) = Name::parse(repository) else { continue };
        one(&name, &parts, session, cancel)?;
    }
    Ok(())
}

fn one(
    name: &Name<'_>,
    parts: &[&str],
    session: &Session,
    cancel: &CancelFlag,
) -> Result<(), CliError> {
    let cache = hub::cache_folder();
    let start = Instant::now();
    let model = format!("{} at {}", name.id, name.revision);
    session.talk(&format!("fetching {model} ({}) into {}", parts.join(", "), cache.display()));
    let bar = bar(session);
    let mut told = start;
    let mut total = 0;
    let fetched = hub::fetch(&Hub::from_env(), &cache, name, parts, &mut |progress| {
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
        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
            Err(CliError::Told(exit::INTERRUPTED))
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

fn bar(session: &Session) -> ProgressBar {
    match session.screen() {
        Screen::Lines(_) => ProgressBar::hidden(),
        Screen::Bars(bars) => {
            let bar = bars.add(ProgressBar::new(0));
            let template = "{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}  {wide_msg}";
            bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
            bar
        }
    }
}
