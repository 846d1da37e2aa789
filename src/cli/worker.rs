//! `pipe worker`: what `pipe run` starts for each of several devices.

use std::io;

use super::{
    device::{self, Chosen},
    error::CliError,
    session::{Session, open_store},
    signals,
};
use crate::{
    device::wake,
    exec::{Fitting, serve, unfit},
};

/// Compute stages for a run on several devices; `pipe run` starts it
///
/// It takes orders from its standard input and ends with that.
#[derive(Debug, clap::Args)]
pub(super) struct WorkerArgs {
    /// What `nvidia-smi` calls the card
    #[arg(long, value_name = "UUID")]
    card: Option<String>,
}

pub(super) fn worker(args: &WorkerArgs, session: &Session) -> Result<(), CliError> {
    signals::leave_to_parent();
    match fitting(args, session) {
        Ok(fitting) => serve(fitting, io::stdin(), io::stdout()),
        Err(CliError::Message { message, help, .. }) => {
            CliError::unless_unread(unfit(message, help, &mut io::stdout()).map_err(|error| {
                CliError::environment(format!("cannot write to standard output: {error}"))
            }))?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn fitting(args: &WorkerArgs, session: &Session) -> Result<Fitting, CliError> {
    let settings = session.settings()?;
    let store = open_store(&settings)?;
    let Chosen { device, .. } = device::open(&settings)?;
    wake(&device).map_err(|error| {
        CliError::environment(error.to_string())
            .with_help("check the driver with `nvidia-smi`, or leave the card out of `--device`")
    })?;
    Ok(Fitting { store, device, card: args.card.clone() })
}
