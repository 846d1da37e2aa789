//! Several pipeline files of one command.

use std::{
    collections::VecDeque,
    iter,
    path::{Path, PathBuf},
};

use super::{error::CliError, session::Session};
use crate::{
    config::{self, Code, ConfigError, ConfigErrors, LoadOptions, Pipeline},
    report::style::count,
};

/// What came of reading one file.
pub(super) struct ReadFile<'a> {
    /// Where it is.
    pub file: &'a Path,
    /// The pipeline, or what is wrong with it.
    pub found: Result<Pipeline, ConfigErrors>,
    /// The profile that is asked for, where this file has none of that name and was read without
    /// it.
    pub without_profile: Option<&'a str>,
}

impl ReadFile<'_> {
    /// Says so if the file was read without the profile; `so` is what follows from it.
    pub fn tell_profile(&self, so: &str, session: &Session) {
        if let Some(profile) = self.without_profile {
            let file = self.file.display();
            session.talk(&format!("{file}: there is no profile `{profile}`, so {so}"));
        }
    }
}

/// Reads several files one after the other as they are asked for, each with the profile, or, where
/// it has no such profile and another file has, with its own values. If none has it, it is
/// misspelt.
pub(super) fn each<'a>(
    files: &'a [PathBuf],
    options: &'a LoadOptions,
) -> impl Iterator<Item = ReadFile<'a>> {
    let load = |file: &'a PathBuf| (file, config::load(file, options));
    let lacks = |found: &Result<Pipeline, ConfigErrors>| {
        found.as_ref().is_err_and(|errors| lacks_profile(errors, options))
    };
    let mut unread = files.iter();
    // Read to see whether they have the profile.
    let mut ahead = VecDeque::new();
    let mut some_has_profile = false;
    iter::from_fn(move || {
        let (file, mut found) = ahead.pop_front().or_else(|| unread.next().map(load))?;
        let mut without_profile = None;
        if lacks(&found) {
            while !some_has_profile && let Some(next) = unread.next().map(load) {
                some_has_profile = !lacks(&next.1);
                ahead.push_back(next);
            }
            if some_has_profile {
                without_profile = options.profile.as_deref();
                found = config::load(file, &LoadOptions { profile: None, ..options.clone() });
            }
        } else {
            some_has_profile = true;
        }
        Some(ReadFile { file, found, without_profile })
    })
}

/// Whether a file has no such profile as is asked for. What is wrong with one that is there is
/// another error.
fn lacks_profile(errors: &ConfigErrors, options: &LoadOptions) -> bool {
    let is_of_command_line = |error: &ConfigError| {
        error.code == Code::Profile
            && error.place.as_ref().is_some_and(|place| place.file == "--profile")
    };
    options.profile.is_some() && errors.errors.iter().any(is_of_command_line)
}

/// What came of reading files.
pub(super) struct Loaded {
    /// Those that are right.
    pub pipelines: Vec<Pipeline>,
    /// Those that are not, with the exit code of each.
    pub wrong: Vec<(String, u8)>,
}

/// Reads all files before one runs, and says what is wrong with each.
pub(super) fn several(files: &[PathBuf], options: &LoadOptions, session: &Session) -> Loaded {
    let told = "it runs with the values of the file itself";
    let read: Vec<_> =
        each(files, options).inspect(|read| read.tell_profile(told, session)).collect();
    let (mut pipelines, mut wrong) = (Vec::new(), Vec::new());
    for ReadFile { file, found, .. } in read {
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
