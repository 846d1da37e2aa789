//! `pipe cache`.

mod gc;
mod pins;
mod remote;
mod verify;

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::json;

use super::{error::CliError, session::Session};
use crate::{
    config::Pipeline,
    plan::{self, Freshness, PlanError, PlanOptions, owner_of},
    report::{SCHEMA_VERSION, style::count},
    store::{Record, Store, StoreStats},
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
    Verify(verify::VerifyArgs),
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
        CacheCommand::Verify(args) => verify::verify(args, &store()?, session),
    }
}

/// How what is in no cache that was looked into is called.
const NOT_COMPUTED: &str = "not computed yet";

/// What of a pipeline, or of `only` some stages and what they need, is in the store as it stands.
struct Present {
    /// The results, with their names.
    results: Vec<(String, Record)>,
    /// The names of what is not computed.
    missing: Vec<String>,
}

/// Names of what is missing that are said.
const MOST_MISSING: usize = 6;

impl Present {
    /// Says what of it is `absent`; `run` is the command that computes it.
    fn tell_missing(&self, absent: &str, run: &str, session: &Session) {
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
        session.talk(&format!("{not} {absent}: {named}{more}; `{run}` computes {them}"));
    }
}

/// What is said behind the name of a result that has others as well.
fn and_others(others: &[String]) -> &'static str {
    if others.is_empty() { "" } else { ", and others" }
}

/// The results of a pipeline that are in the store as it stands, with their names.
fn fresh(pipeline: &Pipeline, store: &Store) -> Result<Vec<(String, Record)>, PlanError> {
    Ok(present(pipeline, &[], store)?.results)
}

/// What is in the store of a pipeline, or of `only` some stages and what they need, and what is
/// not.
fn present(pipeline: &Pipeline, only: &[String], store: &Store) -> Result<Present, PlanError> {
    let options = PlanOptions { only: only.to_vec(), ..PlanOptions::default() };
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
    let unfinished = stats.unfinished();
    if unfinished.files > 0 {
        let _ = writeln!(
            out,
            "{} in `tmp` are being written, or were left by processes that were killed; `pipe cache gc` removes these",
            bytes(unfinished.bytes)
        );
    }
    if stats.pins > 0 {
        let _ = writeln!(out, "{} pinned", count(stats.pins, "result"));
    }
    out
}

fn stats_json(store: &Store, stats: &StoreStats) -> String {
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "cache": store.root().to_string_lossy(),
        "folders": stats.folders,
        "pins": stats.pins,
    });
    format!("{document:#}\n")
}
