//! Several pipeline files of one command.

use std::path::PathBuf;

use super::{error::CliError, session::Session};
use crate::{
    config::{self, Code, ConfigErrors, LoadOptions, Pipeline},
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
    let (mut pipelines, mut wrong) = (Vec::new(), Vec::new());
    for (file, found) in files.iter().zip(loaded) {
        match found {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(errors) => wrong.push((file.display().to_string(), refuse(errors, session))),
        }
    }
    Loaded { pipelines, wrong }
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
