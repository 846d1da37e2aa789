//! Files as they are, or as they were in a git revision.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::error::CliError;
use crate::{
    config::{self, LoadOptions, Pipeline},
    stages::STAGES,
};

/// A file, or `REVISION:FILE` for a file as it was in git.
pub(super) struct Versioned {
    revision: Option<String>,
    /// The file, at this revision.
    pub path: PathBuf,
}

impl Versioned {
    /// Reads an argument; a file of that very name is that file.
    pub fn parse(argument: &Path) -> Self {
        match argument.to_str().and_then(|text| text.split_once(':')) {
            Some((revision, path)) if !argument.exists() => {
                Self { revision: Some(revision.to_owned()), path: path.into() }
            }
            _ => Self { revision: None, path: argument.to_owned() },
        }
    }

    /// Whether it is the file as it is now.
    pub fn is_current(&self) -> bool {
        self.revision.is_none()
    }

    /// Whether git has the revision, and the file in it.
    pub fn check(&self) -> Result<(), CliError> {
        let Some(revision) = &self.revision else { return Ok(()) };
        let (commit, path) = (format!("{revision}^{{commit}}"), self.path.display());
        let folder = folder_of(&self.path);
        let asked = git(folder, &["rev-parse", "--git-dir"]).map_err(|error| {
            CliError::environment(format!("git cannot be run: {error}"))
                .with_help(format!("install git to read `{path}` as it was in `{revision}`"))
        })?;
        let folder = folder.display();
        if !asked.status.success() {
            return Err(CliError::usage(format!("`{folder}` is in no git repository"))
                .with_help(format!("`{revision}:` names a revision in git; name a file instead")));
        }
        let has = |args: &[&str]| {
            git(folder_of(&self.path), args).is_ok_and(|output| output.status.success())
        };
        if !has(&["rev-parse", "--verify", "--quiet", &commit]) {
            return Err(CliError::usage(format!("git has no revision `{revision}` in `{folder}`"))
                .with_help(format!("`git log --oneline -- {path}` lists those of the file")));
        }
        if !has(&["cat-file", "-e", &object(revision, &self.path)]) {
            return Err(CliError::usage(format!("`{path}` is not in the revision `{revision}`"))
                .with_help(format!("`git ls-tree --name-only {revision}` lists what is there")));
        }
        Ok(())
    }

    /// Reads a file, such as one that this one extends, at this one's revision.
    pub fn read(&self, path: &Path) -> io::Result<String> {
        let Some(revision) = &self.revision else { return std::fs::read_to_string(path) };
        let output = git(folder_of(path), &["show", &object(revision, path)])?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(io::Error::other);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(message))
    }

    /// The pipeline of the file, which may have no stages.
    pub fn load(&self, options: &LoadOptions) -> Result<Pipeline, CliError> {
        Ok(config::load_with(STAGES, &self.path, options, &|path| self.read(path))?)
    }
}

impl fmt::Display for Versioned {
    /// As a person writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(revision) = &self.revision {
            write!(f, "{revision}:")?;
        }
        write!(f, "{}", self.path.display())
    }
}

/// The folder of a file, if it is there now, else the current one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| folder.is_dir()).unwrap_or(Path::new("."))
}

/// A file as it was in a revision, by its name in git, asked in its folder.
fn object(revision: &str, path: &Path) -> String {
    let below = path.strip_prefix(folder_of(path)).unwrap_or(path);
    format!("{revision}:./{}", below.display())
}

fn git(folder: &Path, args: &[&str]) -> io::Result<Output> {
    Command::new("git").arg("-C").arg(folder).args(args).output()
}
