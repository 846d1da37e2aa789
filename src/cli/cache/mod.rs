//! `pipe cache`.

mod gc;
mod pins;
mod remote;

use std::{collections::BTreeSet, fmt::Write as _};

use clap::Subcommand;
use serde_json::json;

use super::{error::CliError, exit, session::Session};
use crate::{
    config::Pipeline,
    plan::{self, Freshness, PlanError, PlanOptions, owner_of},
    report::{SCHEMA_VERSION, style::count},
    store::{Damage, Gone, Record, Store, StoreStats, VerifyReport},
    units::bytes,
};

/// Look after the cache
#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Say how much is in the cache
    Stats {
        /// Write one document for other programs
        #[arg(long)]
        json: bool,
    },
    Gc(gc::GcArgs),
    Pin(pins::PinArgs),
    Unpin(pins::UnpinArgs),
    /// List what is pinned
    Pins,
    Push(remote::PushArgs),
    Pull(remote::PullArgs),
    /// Check all content, checkpoints and pictures against their digests, and all records; remove what is
    /// damaged
    Verify,
}

pub(super) fn cache(args: &CacheArgs, session: &Session) -> Result<(), CliError> {
    // Only `pull` makes a cache, to fetch into.
    let store = || session.store_that_is_there();
    match &args.command {
        CacheCommand::Stats { json } => stats(*json, &store()?, session),
        CacheCommand::Gc(args) if args.dry_run => gc::gc(args, &store()?, session),
        CacheCommand::Gc(args) => {
            store()?;
            gc::gc(args, &session.store_to_change()?, session)
        }
        CacheCommand::Pin(args) => pins::pin(args, &store()?, session),
        CacheCommand::Unpin(args) => pins::unpin(args, &store()?, session),
        CacheCommand::Pins => pins::list(&store()?, session),
        CacheCommand::Push(args) => remote::push(args, session),
        CacheCommand::Pull(args) => remote::pull(args, session),
        CacheCommand::Verify => verify(&store()?, session),
    }
}

/// What of a pipeline, or of `only` a stage and what it needs, is in the store as it stands.
struct Present {
    /// The results, with their names.
    results: Vec<(String, Record)>,
    /// The names of what is not computed.
    missing: Vec<String>,
}

/// Names of what is missing that are said.
const MOST_MISSING: usize = 6;

impl Present {
    /// The names of all of it, as pins carry them.
    fn names(self, title: &str) -> BTreeSet<String> {
        let missing = self.missing.iter().map(|instance| format!("{title}: {instance}"));
        self.results.into_iter().map(|(name, _)| name).chain(missing).collect()
    }

    /// Says what of it is not there; `run` is the command that computes it.
    fn tell_missing(&self, run: &str, session: &Session) {
        let number = self.missing.len();
        if number == 0 {
            return;
        }
        let named = self.missing.iter().take(MOST_MISSING).map(|name| format!("`{name}`"));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match number.saturating_sub(MOST_MISSING) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (not, them) = match number {
            1 => ("1 stage is", "it"),
            _ => (&*format!("{number} stages are"), "them"),
        };
        session.talk(&format!("{not} not computed yet: {named}{more}; `{run}` computes {them}"));
    }
}

/// The results of a pipeline that are in the store as it stands, with their names.
fn fresh(pipeline: &Pipeline, store: &Store) -> Result<Vec<(String, Record)>, PlanError> {
    Ok(present(pipeline, None, store)?.results)
}

/// What is in the store of a pipeline, or of `only` a stage and what it needs, and what is not.
fn present(
    pipeline: &Pipeline,
    only: Option<&String>,
    store: &Store,
) -> Result<Present, PlanError> {
    let options =
        PlanOptions { only: only.into_iter().cloned().collect(), ..PlanOptions::default() };
    let plan = plan::build(pipeline, store, &options)?;
    let title = owner_of(pipeline).title();
    let nodes = plan.nodes.iter().zip(&pipeline.instances).filter(|(node, _)| node.needed);
    let mut present = Present { results: Vec::new(), missing: Vec::new() };
    for (node, instance) in nodes {
        match &node.freshness {
            Freshness::Fresh(record) => {
                present.results.push((format!("{title}: {instance}"), (**record).clone()));
            }
            _ => present.missing.push(instance.to_string()),
        }
    }
    Ok(present)
}

fn stats(json: bool, store: &Store, session: &Session) -> Result<(), CliError> {
    let stats = store.stats()?;
    session.print(&if json { stats_json(store, &stats) } else { stats_text(store, &stats) })
}

fn stats_text(store: &Store, stats: &StoreStats) -> String {
    let mut out = format!("{}\n", store.root().display());
    for (folder, content) in &stats.folders {
        let _ =
            writeln!(out, "{folder:<12} {:>8} files  {:>10}", content.files, bytes(content.bytes));
    }
    let (files, size) = stats
        .folders
        .values()
        .fold((0, 0), |(files, size), content| (files + content.files, size + content.bytes));
    let _ = writeln!(out, "{:<12} {files:>8} files  {:>10}", "in all", bytes(size));
    if stats.pins > 0 {
        let _ = writeln!(out, "{} pinned", count(stats.pins, "result"));
    }
    out
}

fn stats_json(store: &Store, stats: &StoreStats) -> String {
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "cache": store.root(),
        "folders": stats.folders,
        "pins": stats.pins,
    });
    format!("{document:#}\n")
}

/// What was read.
fn checked(report: &VerifyReport) -> String {
    let mut text = format!("checked {}", count(report.objects, "object"));
    for (number, what) in [(report.checkpoints, "checkpoint"), (report.pictures, "picture")] {
        if number > 0 {
            let _ = write!(text, ", {}", count(number, what));
        }
    }
    let _ = writeln!(text, ", {}, and {}", bytes(report.bytes), count(report.records, "record"));
    text
}

fn verify(store: &Store, session: &Session) -> Result<(), CliError> {
    let report = store.verify()?;
    let mut text = checked(&report);
    for Damage { file, results } in &report.damaged {
        let _ = write!(text, "damaged and removed: {}", file.display());
        if let Some((first, more)) = results.split_first() {
            let more = if more.is_empty() { "" } else { ", and others" };
            let _ = write!(text, ", of `{first}`{more}");
        }
        text.push('\n');
    }
    for Gone { name, key, .. } in &report.gone {
        let alike = report.gone.iter().filter(|other| other.name == *name).count();
        // What one cell was at different times has one name.
        let which = if alike > 1 { format!(" ({})", key.short()) } else { String::new() };
        let _ = writeln!(text, "content is gone of `{name}`{which}");
    }
    for history in &report.histories {
        let _ = writeln!(text, "damaged: {}", history.display());
    }
    session.print(&text)?;
    if report.is_sound() {
        return Ok(());
    }
    if !report.histories.is_empty() {
        session.talk("the next `pipe run` of the pipeline writes its history anew");
    }
    let is_made_again = |damage: &Damage| !damage.is_checkpoint() && !damage.is_picture();
    let (wanted, left): (Vec<_>, Vec<_>) = report.gone.iter().partition(|gone| gone.is_live);
    if !wanted.is_empty() || report.damaged.iter().any(is_made_again) {
        session.talk("the next `pipe run` makes it again");
    }
    if !left.is_empty() {
        let results = count(left.len(), "result");
        session.talk(&format!(
            "`pipe cache gc` removes what is left of {results} that no pipeline has any more"
        ));
    }
    if report.damaged.iter().any(Damage::is_picture) {
        session.talk("the next `pipe run` of the pipeline draws the pictures again");
    }
    if report.damaged.iter().any(Damage::is_checkpoint) {
        session.talk(
            "a training that would go on from a checkpoint that is gone goes on from an earlier one, or \
             begins anew",
        );
    }
    Err(CliError::Told(exit::DIFFERENT))
}
