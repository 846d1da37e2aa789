//! Several pipeline files of one command.

use std::path::PathBuf;

use super::{error::CliError, session::Session};
use crate::{
    config::{self, Code, ConfigError, ConfigErrors, LoadOptions, Pipeline},
    report::style::count,
};

/// What came of reading files.
pub(super) struct Loaded {
    /// Those that are right.
    pub pipelines: Vec<Pipeline>,
    /// Those that are not, with the exit code of each.
    pub wrong: Vec<(String, u8)>,
}

/// Reads several files, each with the profile, or, where it has no such profile and another file has,
/// with its own values.
pub(super) fn several(files: &[PathBuf], options: &LoadOptions, session: &Session) -> Loaded {
    let lacks_profile = |errors: &ConfigErrors| lacks_profile(errors, options);
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
    let (mut pipelines, mut wrong) = (Vec::new(), Vec::new());
    for (file, found) in files.iter().zip(loaded) {
        match found {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(errors) => wrong.push((file.display().to_string(), refuse(errors, session))),
        }
    }
    Loaded { pipelines, wrong }
}

/// Whether a file has no such profile as is asked for. What is wrong with one that is there is another error.
pub(super) fn lacks_profile(errors: &ConfigErrors, options: &LoadOptions) -> bool {
    let is_of_command_line = |error: &ConfigError| {
        error.code == Code::Profile
            && error.place.as_ref().is_some_and(|place| place.file == "--profile")
    };
    options.profile.is_some() && errors.errors.iter().any(is_of_command_line)
}

/// Whether one of several files has the profile that is asked for; if none has, it is misspelt.
pub(super) fn have_profile(files: &[PathBuf], options: &LoadOptions) -> bool {
    let options = LoadOptions { look_at_files: false, ..options.clone() };
    let has = |file: &PathBuf| {
        !config::load(file, &options).is_err_and(|errors| lacks_profile(&errors, &options))
    };
    files.len() > 1 && files.iter().any(has)
}

/// Says what is wrong with one of several files, and gives the exit code.
fn refuse(errors: ConfigErrors, session: &Session) -> u8 {
    let message = format!("`{}` cannot run: {}", errors.file, count(errors.errors.len(), "error"));
    let is_set = errors.errors.iter().any(|error| error.code == Code::Set);
    let help = is_set.then_some("`--set` is laid on every file: run this one apart, without it");
    let code = CliError::Config(errors).report(session);
    session.talk(session.stderr.message_block(&message, help).trim_end());
    code
}
