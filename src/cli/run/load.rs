//! The files of a run, all read before the first one runs.

use super::{CliError, RunArgs, Session, exit};
use crate::{
    cli::load::{self, Loaded},
    config::{self, LoadOptions, ToRun},
};

/// Reads all files. With an error in one of them none is to run, unless it is to keep going.
pub(super) fn load(args: &RunArgs, session: &Session) -> Result<Loaded, CliError> {
    let options = LoadOptions { to_run: ToRun::only(&args.only), ..args.layers.options() };
    if let [file] = &args.files[..] {
        return Ok(Loaded { pipelines: vec![config::load(file, &options)?], wrong: Vec::new() });
    }
    if !(args.only.is_empty() && args.force.is_empty()) {
        return Err(CliError::usage("`--only` and `--force` name stages of one file")
            .with_help("run that file alone"));
    }
    let loaded = load::several(&args.files, &options, session);
    if loaded.wrong.is_empty() || args.keep_going && !loaded.pipelines.is_empty() {
        return Ok(loaded);
    }
    if !loaded.pipelines.is_empty() {
        session.talk("nothing was run; `--keep-going` runs the files without errors");
    }
    Err(CliError::Told(exit::USAGE))
}
