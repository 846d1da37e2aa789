//! A run on a cache that cannot be written: it shows what is up to date, and runs nothing.

use std::collections::BTreeMap;

use super::{
    CliError, RunArgs, Session, exit,
    results::{locked_outputs, write_lock},
};
use crate::{
    config::Pipeline,
    plan::{self, Freshness, Lock, Locked, Plan},
    report::{
        results::{Outputs, tables},
        style::count,
        table::{Format, render},
    },
    store::{Store, StoreError},
};

/// Shows the results, and writes the lock, if all is up to date; else says what would have to run.
/// `error` is why the cache cannot be written.
pub(super) fn show(
    pipeline: &Pipeline,
    args: &RunArgs,
    error: &StoreError,
    store: &Store,
    session: &Session,
) -> Result<(), CliError> {
    if args.lock {
        Lock::check_place(pipeline)?;
    }
    let locked = if args.locked { locked_outputs(pipeline, store)? } else { BTreeMap::new() };
    let plan = plan::build(pipeline, store, &args.plan_options())?;
    if let Some(missing) = missing(&plan) {
        let message = format!("{error}, and {missing}");
        let help = error.help().map(str::to_owned);
        return Err(CliError::Message { code: exit::ENVIRONMENT, message, help });
    }
    let deviations = deviations(&plan, &locked);
    if !deviations.is_empty() {
        return Err(CliError::Messages { code: exit::DIFFERENT, parts: deviations });
    }
    session.talk("all is up to date, which cannot be noted: the cache cannot be written");
    // It lies beside the pipeline.
    let lock = args.lock.then(|| write_lock(pipeline, store)).transpose()?;
    if args.only.is_empty() {
        let tables = tables(pipeline, &Outputs::of_plan(&plan), store)?;
        CliError::unless_unread(session.print(&render(&tables, Format::Text)))?;
    }
    if let Some(lock) = lock {
        session.talk(&format!("locked in {}", lock.display()));
    }
    Ok(())
}

/// What is otherwise than the lock says.
fn deviations(plan: &Plan<'_>, locked: &BTreeMap<String, Locked>) -> Vec<(String, Option<String>)> {
    let nodes = plan.nodes.iter().zip(&plan.pipeline.instances).filter(|(node, _)| node.needed);
    let deviations = nodes.filter_map(|(node, instance)| {
        let Freshness::Fresh(record) = &node.freshness else { return None };
        let name = instance.to_string();
        let (deviation, _) = locked.get(&name)?.deviation(record)?;
        Some((format!("stage `{name}`: {deviation}"), None))
    });
    deviations.collect()
}

/// Which stage would have to run first, and how many; nothing if all are up to date.
fn missing(plan: &Plan<'_>) -> Option<String> {
    let nodes = plan.nodes.iter().zip(&plan.pipeline.instances);
    let missing =
        nodes.filter(|(node, _)| node.needed && !matches!(node.freshness, Freshness::Fresh(_)));
    let (waiting, first): (Vec<_>, Vec<_>) =
        missing.partition(|(node, _)| matches!(node.freshness, Freshness::Pending { .. }));
    let (_, name) = first.first().or(waiting.first())?;
    let then = match waiting.len() {
        0 => String::new(),
        waiting => format!(", then perhaps {}", count(waiting, "more stage")),
    };
    Some(match first.len() {
        0 | 1 => format!("`{name}` would have to run{then}"),
        several => format!("{} would have to run, first `{name}`{then}", count(several, "stage")),
    })
}
