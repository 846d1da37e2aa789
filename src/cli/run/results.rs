//! What a run shows and writes when it is over, and what a lock asks of it.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    CliError, Session, exit,
    pictures::{self, Pictures},
};
use crate::{
    config::Pipeline,
    plan::{self, Lock, Locked, PlanOptions},
    report::{
        results::{Outputs, ResultsError, tables, tables_of_ours},
        table::{Format, render},
    },
    store::Store,
};

/// What the lock says that a run must give; a pipeline that deviates from the lock is refused.
pub(super) fn locked_outputs(
    pipeline: &Pipeline,
    store: &Store,
) -> Result<BTreeMap<String, Locked>, CliError> {
    let lock = Lock::read(pipeline)?;
    let deviations = lock.deviations(pipeline, store)?;
    if deviations.is_empty() {
        return Ok(lock.locked());
    }
    let parts = deviations.iter().map(|deviation| (deviation.to_string(), None));
    let help = "run without --locked to go on, and with --lock to lock what comes of it";
    let path = Lock::path_of(pipeline);
    let last = (format!("this deviates from `{}`", path.display()), Some(help.to_owned()));
    Err(CliError::Messages { code: exit::DIFFERENT, parts: parts.chain([last]).collect() })
}

/// Writes the lock and says where.
pub(super) fn write_lock(pipeline: &Pipeline, store: &Store) -> Result<PathBuf, CliError> {
    let lock = Lock::of_plan(&plan::build(pipeline, store, &PlanOptions::default())?)?;
    Ok(lock.write(pipeline)?)
}

pub(super) fn show_results(
    pipeline: &Pipeline,
    outputs: &Outputs,
    store: &Store,
    session: &Session,
) -> Result<(), CliError> {
    let (tables, failed) = match tables(pipeline, outputs, store) {
        // They were right when the run began; what it computed is shown all the same.
        Err(error @ ResultsError::Reference(_)) => {
            (tables_of_ours(pipeline, outputs, store)?, Some(error))
        }
        tables => (tables?, None),
    };
    session.print(&render(&tables, Format::Text))?;
    if let Some(Pictures { folder, damaged }) = pictures::write(pipeline, outputs, store)? {
        let again = match damaged {
            0 => String::new(),
            damaged => format!("; {damaged} of them damaged, drawn again"),
        };
        session.talk(&format!("pictures (input, target, prediction): {}{again}", folder.display()));
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
