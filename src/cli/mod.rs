//! The command line: one file per subcommand, whose `Args` are its help.
//!
//! Results go to stdout, everything else to stderr.

mod attest;
mod cache;
mod check;
mod completions;
mod device;
mod diff;
mod disk;
mod error;
pub mod exit;
mod explain;
mod export;
mod fetch;
mod gpus;
mod init;
mod link;
mod load;
mod logging;
mod memory;
mod overwrite;
mod plan;
mod run;
mod schema;
mod session;
mod show;
mod signals;
mod table;
mod verify;
mod versioned;
mod worker;

use std::{
    ffi::OsString,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use error::CliError;

use crate::{
    device::{DeviceFailure, text_of},
    huge_pages,
};
use session::{GlobalArgs, Session};

/// Declarative, incremental pipelines for few-shot experiments on video diffusion models
///
/// A pipeline file states a whole experiment; `pipe run` computes what is not in the cache yet.
#[derive(Debug, Parser)]
#[command(name = "pipe", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 a stage failed, 2 usage or pipeline file wrong, 3 environment (no device, \
disk full, weights missing), 4 `verify` or `attest` found a difference, `cache verify` damage, or \
`--locked` a deviation, 101 a bug of ours, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).

Start with `pipe init`, or with `pipe run pipelines/pose_ablation.toml`.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Plan(plan::PlanArgs),
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Table(table::TableArgs),
    Show(show::ShowArgs),
    Diff(diff::DiffArgs),
    Export(export::ExportArgs),
    Verify(verify::VerifyArgs),
    Attest(attest::AttestArgs),
    Cache(cache::CacheArgs),
    Schema(schema::SchemaArgs),
    Init(init::InitArgs),
    Completions(completions::CompletionsArgs),
    Version(VersionArgs),
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

/// Print the version
#[derive(Debug, clap::Args)]
struct VersionArgs {}

impl Command {
    fn run(&self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Run(args) => run::run(args, session),
            Self::Plan(args) => plan::plan(args, session),
            Self::Check(args) => check::check(args, session),
            Self::Explain(args) => explain::explain(args, session),
            Self::Table(args) => table::table(args, session),
            Self::Show(args) => show::show(args, session),
            Self::Diff(args) => diff::diff(args, session),
            Self::Export(args) => export::export(args, session),
            Self::Verify(args) => verify::verify(args, session),
            Self::Attest(args) => attest::attest(args, session),
            Self::Cache(args) => cache::cache(args, session),
            Self::Schema(args) => schema::schema(args, session),
            Self::Init(args) => init::init(args, session),
            Self::Completions(args) => completions::completions(args, session),
            Self::Worker(args) => worker::worker(args, session),
            Self::Version(VersionArgs {}) => {
                session.print(&format!("pipe {}\n", env!("CARGO_PKG_VERSION")))
            }
        }
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    ExitCode::from(run_with(std::env::args_os()))
}

fn run_with(args: impl IntoIterator<Item = OsString>) -> u8 {
    session::install_panic_hook();
    huge_pages::save();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results, the rest is usage; a closed pipe ends both quietly.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::DONE };
        }
    };
    let session = Session::new(cli.global);
    match catch_unwind(AssertUnwindSafe(|| cli.command.run(&session))) {
        Ok(Ok(())) => exit::DONE,
        Ok(Err(error)) => error.report(&session),
        Err(panic) => {
            device_failure(text_of(&*panic)).map_or(exit::BUG, |failure| failure.report(&session))
        }
    }
}

/// A panic outside of stages that is the fault of a device; any other is told when it happens.
fn device_failure(text: &str) -> Option<CliError> {
    let failure = DeviceFailure::of(text)?;
    Some(CliError::environment(failure.message(text)).with_help(failure.help()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_device_that_fails_outside_of_stages_is_no_bug() {
        let told = |text: &str| match device_failure(text) {
            Some(CliError::Message { code, message, help }) => {
                format!("{code} {message} | {}", help.unwrap_or_default())
            }
            other => format!("{other:?}"),
        };
        insta::assert_snapshot!(told("out of device memory allocating 9 bytes"), @"3 the device ran out of memory | see that no other program uses the device, run fewer stages at once (`--jobs 1`), or use `--device cpu`");
        insta::assert_snapshot!(told("The device is poisoned\nCaused by:\n  an illegal address"), @"3 the device is lost to this process: an illegal address | run again; what is done stays done");
        assert_eq!(told("index out of bounds"), "None");
    }

    #[test]
    fn every_subcommand_and_argument_has_a_help() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), argument.get_id());
                assert!(argument.get_help().is_some(), "{name} has no help");
            }
        }
    }
}
