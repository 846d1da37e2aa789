//! The files of a run, all read before the first one runs.

use std::path::PathBuf;

use super::{CliError, RunArgs, Session, exit};
use crate::config::{self, Code, ConfigErrors, LoadOptions, Pipeline};

/// Reads all files.
pub(super) fn load(args: &RunArgs, session: &Session) -> Result<Vec<Pipeline>, CliError> {
    let options = args.layers.options();
    let [file] = &args.files[..] else {
        if !(args.only.is_empty() && args.force.is_empty()) {
            return Err(CliError::usage("`--only` and `--force` name stages of one file")
                .with_help("run that file alone"));
        }
        return load_several(&args.files, &options, session);
    };
    Ok(vec![config::load(file, &options)?])
}

/// Reads several files, each with the profile, or, where it has no such profile and another file has,
/// with its own values.
fn load_several(
    files: &[PathBuf],
    options: &LoadOptions,
    session: &Session,
) -> Result<Vec<Pipeline>, CliError> {
    let lacks_profile = |errors: &ConfigErrors| {
        options.profile.is_some() && errors.errors.iter().any(|error| error.code == Code::Profile)
    };
    let mut loaded: Vec<_> = files.iter().map(|file| config::load(file, options)).collect();
    if loaded.iter().any(|found| !found.as_ref().is_err_and(lacks_profile)) {
        for (file, found) in files.iter().zip(&mut loaded) {
            if found.as_ref().is_err_and(lacks_profile) {
                *found = config::load(file, &LoadOptions { profile: None, ..options.clone() });
                session.talk(&format!(
                    "{}: there is no profile `{}`, so it runs with the values of the file itself",
                    file.display(),
                    options.profile.as_deref().unwrap_or_default()
                ));
            }
        }
    }
    let (pipelines, wrong): (Vec<_>, Vec<_>) = loaded.into_iter().partition(Result::is_ok);
    for errors in wrong.into_iter().filter_map(Result::err) {
        CliError::Config(errors).report(session);
    }
    if pipelines.len() < files.len() {
        return Err(CliError::Told(exit::USAGE));
    }
    Ok(pipelines.into_iter().flatten().collect())
}
