//! `pipe completions`.

use clap::CommandFactory;

use super::{Cli, error::CliError, session::Session};

/// Print a completion script for a shell
///
/// As in `pipe completions bash > ~/.local/share/bash-completion/completions/pipe`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn completions(args: &CompletionsArgs, session: &Session) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pipe", &mut script);
    session.print(&String::from_utf8_lossy(&script))
}
