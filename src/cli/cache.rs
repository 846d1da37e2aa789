//! `pipe cache`.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::json;

use super::{error::CliError, exit, session::Session};
use crate::{
    report::{
        SCHEMA_VERSION,
        style::{bytes, count},
    },
    store::{GcReport, Store, StoreStats},
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
    /// Remove what the latest run of every pipeline does not need
    Gc {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Check all content against its digest and remove what is damaged
    Verify,
}

pub(super) fn cache(args: &CacheArgs, session: &Session) -> Result<(), CliError> {
    let store = session.store()?;
    match &args.command {
        CacheCommand::Stats { json } => {
            let stats = store.stats()?;
            session.print(&if *json {
                stats_json(&store, &stats)
            } else {
                stats_text(&store, &stats)
            })
        }
        CacheCommand::Gc { dry_run } => {
            let keep = store.latest()?;
            session.print(&gc_text(&store.gc(&keep, *dry_run)?, *dry_run))
        }
        CacheCommand::Verify => verify(&store, session),
    }
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
    out
}

fn stats_json(store: &Store, stats: &StoreStats) -> String {
    let document = json!({
        "schema_version": SCHEMA_VERSION,
        "cache": store.root(),
        "folders": stats.folders,
    });
    format!("{document:#}\n")
}

fn gc_text(report: &GcReport, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut out = String::new();
    for (folder, removed) in &report.removed {
        if removed.files > 0 {
            let files = count(removed.files as usize, "file");
            let _ = writeln!(out, "{verb} {files} of {folder}, {}", bytes(removed.bytes));
        }
    }
    if out.is_empty() {
        let _ = writeln!(out, "nothing to remove");
    }
    let _ = writeln!(
        out,
        "kept {}, {}",
        count(report.kept.files as usize, "object"),
        bytes(report.kept.bytes)
    );
    if report.unfinished > 0 {
        let trainings = count(report.unfinished as usize, "unfinished training");
        let _ = writeln!(out, "kept the checkpoints of {trainings}");
    }
    out
}

fn verify(store: &Store, session: &Session) -> Result<(), CliError> {
    let report = store.verify()?;
    let checked = count(report.checked as usize, "object");
    session.print(&format!("checked {checked}, {}\n", bytes(report.bytes)))?;
    if report.damaged.is_empty() {
        return Ok(());
    }
    for digest in &report.damaged {
        session.print(&format!("damaged and removed: {digest}\n"))?;
    }
    session.talk("the next `pipe run` makes it again");
    Err(CliError::Told(exit::DIFFERENT))
}
