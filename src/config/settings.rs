//! Settings of the machine: defaults, the user's file, `pipe.toml`, `PIPE_*`, flags.

use std::{
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Provider,
    providers::{Env, Serialized},
};
use serde::{Deserialize, Serialize};

use super::{
    ConfigErrors, Layer,
    error::{Code, Problem, Problems},
    origin::Sources,
    value::{ValueError, parse_document},
};

/// The names of the settings, as in `PIPE_CACHE`.
const NAMES: &[&str] = &["cache", "device", "jobs", "locks", "log", "remote"];

/// Where and how pipelines run on this machine; nothing here changes a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The folder of the store.
    pub cache: PathBuf,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// How many stages run at once; the machine decides if not set.
    pub jobs: Option<NonZeroUsize>,
    /// By what processes keep out of each other's way in the store: `auto`, `flock` or `lease`.
    pub locks: String,
    /// What is logged, as a filter such as `info` or `pipe=debug`.
    pub log: String,
    /// The address of the remote cache.
    pub remote: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache: "cache".into(),
            device: "auto".to_owned(),
            jobs: None,
            locks: "auto".to_owned(),
            log: "warn".to_owned(),
            remote: None,
        }
    }
}

/// The settings of one layer: a file or the command line's flags.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SomeSettings {
    /// `--cache`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// `--device`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `--jobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<NonZeroUsize>,
    /// In files only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<String>,
    /// `--log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// `--remote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

/// Why the settings could not be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SettingsError {
    /// A settings file is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] ConfigErrors),
    /// A `PIPE_*` variable is wrong.
    #[error("a `PIPE_*` variable is wrong: {0}")]
    Environment(Box<figment::Error>),
}

impl Settings {
    /// The settings for the current folder under `flags`.
    #[expect(clippy::disallowed_methods, reason = "settings are what the environment is for")]
    pub fn load(flags: &SomeSettings) -> Result<Self, SettingsError> {
        // An empty variable is how scripts unset one; `PIPE_CACHE=` must not mean this folder.
        let empty = |name: &str| {
            let name = format!("PIPE_{}", name.to_uppercase());
            std::env::var_os(name).is_some_and(|value| value.is_empty())
        };
        let names: Vec<&str> = NAMES.iter().copied().filter(|name| !empty(name)).collect();
        let environment = Env::prefixed("PIPE_").only(&names);
        Self::layered(user_file().as_deref(), Path::new("pipe.toml"), environment, flags)
    }

    /// Lays defaults, two files (which need not exist), `environment` and `flags` on each other.
    pub fn layered(
        user: Option<&Path>,
        project: &Path,
        environment: impl Provider,
        flags: &SomeSettings,
    ) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        for path in user.into_iter().chain([project]) {
            figment = figment.merge(Serialized::defaults(read(path)?));
        }
        // The path of a flag may be no UTF-8, so it does not go through figment's values.
        let others = SomeSettings { cache: None, ..flags.clone() };
        let settings: Self = figment
            .merge(environment)
            .merge(Serialized::defaults(others))
            .extract()
            .map_err(|error| SettingsError::Environment(Box::new(error)))?;
        Ok(match &flags.cache {
            Some(cache) => Self { cache: cache.clone(), ..settings },
            None => settings,
        })
    }
}

/// `$XDG_CONFIG_HOME/pipe/config.toml` or `~/.config/pipe/config.toml`.
#[expect(clippy::disallowed_methods, reason = "settings are what the environment is for")]
fn user_file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(folder.join("pipe").join("config.toml"))
}

/// What to do about settings that cannot be read.
fn unreadable(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::IsADirectory => "a folder stands where the file would: move it away",
        io::ErrorKind::InvalidData => "settings are TOML, in UTF-8",
        _ => {
            "make it a file that you may read, or let `XDG_CONFIG_HOME` name a folder with settings \
             of yours"
        }
    }
}

/// Reads a settings file with our own parser, so that an error has its place.
fn read(path: &Path) -> Result<SomeSettings, ConfigErrors> {
    let name = path.display().to_string();
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // Nor can there be one below a file.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(SomeSettings::default());
        }
        Err(error) => {
            let message = format!("cannot read the settings `{name}`: {error}");
            problems.add(Problem::new(Code::Io, message).help(unreadable(&error)));
            return Err(problems.finish(&name, &sources));
        }
    };
    let file = sources.add(&name, &text, Path::new(""));
    let mut node = match parse_document(&text, file, Layer::File) {
        Ok(node) => node,
        Err(errors) => {
            for error in errors {
                let problem = Problem::new(Code::Syntax, error.message);
                problems.add(problem.at(Some(error.origin), "here"));
            }
            return Err(problems.finish(&name, &sources));
        }
    };
    loop {
        let error: ValueError = match SomeSettings::deserialize(&node) {
            Ok(settings) if problems.is_empty() => return Ok(settings),
            Ok(_) => break,
            Err(error) => error,
        };
        problems.add(Problem::from(&error));
        if !node.remove(error.path()) {
            break;
        }
    }
    Err(problems.finish(&name, &sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win() {
        let folder = tempfile::tempdir().unwrap();
        let (user, project) = (folder.path().join("user.toml"), folder.path().join("pipe.toml"));
        std::fs::write(&user, "cache = \"u\"\ndevice = \"cpu\"\nlog = \"info\"\njobs = 7").unwrap();
        std::fs::write(&project, "cache = \"p\"\njobs = 2").unwrap();
        let flags = SomeSettings { device: Some("cuda:1".to_owned()), ..SomeSettings::default() };
        let settings = Settings::layered(Some(&user), &project, ("jobs", 3), &flags).unwrap();
        assert_eq!(
            settings,
            Settings {
                cache: "p".into(),
                device: "cuda:1".to_owned(),
                jobs: NonZeroUsize::new(3),
                log: "info".to_owned(),
                ..Settings::default()
            }
        );
    }

    #[test]
    fn without_files_the_defaults_hold() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none.toml");
        let empty = SomeSettings::default();
        let settings = Settings::layered(None, &none, Serialized::defaults(&empty), &empty);
        assert_eq!(settings.unwrap(), Settings::default());
    }

    #[test]
    fn all_wrong_keys_of_a_file_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("pipe.toml");
        std::fs::write(&project, "devise = \"cpu\"\njobs = \"two\"\n").unwrap();
        let error = read(&project).unwrap_err();
        let text: Vec<_> =
            error.errors.iter().map(|e| (e.message.as_str(), e.help.as_deref())).collect();
        assert_eq!(
            text,
            [
                ("unknown key `devise`", Some("did you mean `device`?")),
                ("`jobs` must be a whole number, one or more, but is the string \"two\"", None),
            ]
        );
    }
}
