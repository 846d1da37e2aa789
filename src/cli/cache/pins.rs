//! `pipe cache pin`, `unpin` and `pins`.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{NOT_COMPUTED, Present, owner_of, present};
use crate::{
    cli::{
        error::CliError,
        exit,
        session::{PipelineArgs, Session},
    },
    report::style::count,
    store::Store,
};

/// Keep results whatever `gc` is asked to remove
///
/// With a stage, that stage and what it needs; else all results of the file.
#[derive(Debug, clap::Args)]
pub(super) struct PinArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or a cell of it as in `lora[n=10]`
    stage: Option<String>,
}

/// Let `gc` remove results again
#[derive(Debug, clap::Args)]
pub(super) struct UnpinArgs {
    #[command(flatten)]
    pinned: PinArgs,
}

pub(super) fn pin(args: &PinArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    // What is found must not go before it is pinned.
    let _use = store.in_use(&|| false)?;
    let found = results(args, store)?;
    for (name, record) in &found.results {
        store.pin(record.fingerprint, name)?;
    }
    if found.results.is_empty() {
        return Err(CliError::Message {
            code: exit::STAGE_FAILED,
            message: "nothing of this is in the cache".to_owned(),
            help: Some(format!("`{}` computes it", args.pipeline.command("run"))),
        });
    }
    session.print(&format!("pinned {}\n", count(found.results.len(), "result")))?;
    found.tell_missing(NOT_COMPUTED, &args.pipeline.command("run"), session);
    Ok(())
}

pub(super) fn unpin(args: &UnpinArgs, store: &Store, session: &Session) -> Result<(), CliError> {
    let pipeline = args.pinned.pipeline.load()?;
    let title = owner_of(&pipeline).title();
    let found = present(&pipeline, args.pinned.stage.as_slice(), store)?;
    let keys: BTreeSet<_> = found.results.iter().map(|(_, record)| record.fingerprint).collect();
    let (names, all) = (found.names(&title), format!("{title}: "));
    // Also by name, so that what was pinned before the file changed is found.
    let is_named = |name: &str| match args.pinned.stage {
        Some(_) => names.contains(name),
        None => name.starts_with(&all),
    };
    let mut taken = 0;
    for (key, name) in store.pins()? {
        if keys.contains(&key) || is_named(&name) {
            taken += usize::from(store.unpin(key)?);
        }
    }
    if taken == 0 {
        return Err(CliError::Message {
            code: exit::STAGE_FAILED,
            message: "nothing of this is pinned".to_owned(),
            help: Some("`pipe cache pins` lists what is".to_owned()),
        });
    }
    session.print(&format!("unpinned {}\n", count(taken, "result")))
}

pub(super) fn list(store: &Store, session: &Session) -> Result<(), CliError> {
    let mut lines: Vec<_> = store.pins()?.into_iter().map(|(key, name)| (name, key)).collect();
    lines.sort();
    let mut out = String::new();
    for (name, key) in lines {
        let _ = writeln!(out, "{}  {name}", key.short());
    }
    session.print(&out)
}

/// What the arguments mean, as far as it is in the cache.
fn results(args: &PinArgs, store: &Store) -> Result<Present, CliError> {
    Ok(present(&args.pipeline.load()?, args.stage.as_slice(), store)?)
}
