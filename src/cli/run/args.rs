//! The arguments of `pipe run`.

use std::path::PathBuf;

use crate::{cli::session::LayerArgs, plan::PlanOptions};

/// Bring the results of pipelines up to date
///
/// Computes what is not in the cache, prints a line per finished stage and then the tables.
///
/// Of several files, all are read first: with an error in one of them none runs, unless with
/// `--keep-going`. One without the profile runs with its own values, and says so.
///
/// A training leaves a checkpoint where it is interrupted, and each time it has made `save_every`
/// steps (100 unless set, of `pretrain` 200), from which it goes on: `kill -9` loses the steps
/// since the last.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(in crate::cli) struct RunArgs {
    /// The pipeline files
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) layers: LayerArgs,
    /// Only this stage, or cell, and what it needs; may be given several times
    #[arg(long, value_name = "STAGE")]
    pub(super) only: Vec<String>,
    /// Run this stage, or cell, even if it is cached; may be given several times
    #[arg(long, value_name = "STAGE")]
    pub(super) force: Vec<String>,
    /// After a failure, go on with what does not depend on it, and with other files, also where one
    /// of them has errors
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Write events to a file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    /// Let `command` stages run shell commands
    #[arg(long)]
    pub(super) allow_commands: bool,
    /// Afterwards write what everything was made from, and what it gave, to `<pipeline>.lock`
    #[arg(long, conflicts_with_all = ["only", "locked"])]
    pub(super) lock: bool,
    /// Refuse to deviate from `<pipeline>.lock`
    #[arg(long)]
    pub(super) locked: bool,
}

impl RunArgs {
    /// Which stages are meant.
    pub(super) fn plan_options(&self) -> PlanOptions {
        PlanOptions { force: self.force.clone(), only: self.only.clone() }
    }
}
