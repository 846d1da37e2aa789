//! Settings of the machine: defaults, the user's file, `pipe.toml`, `PIPE_*`, flags.

mod file;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use figment::{Figment, providers::Serialized};
use serde::{Deserialize, Serialize};

use super::ConfigErrors;

/// Where and how pipelines run on this machine; nothing here changes a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The folder of the store.
    pub cache: PathBuf,
    /// `auto`, `cpu` or `cuda:N`; with a process for each, `cuda:0,1`, `all` or `cpu:N`.
    pub device: String,
    /// How many stages run at once; the machine decides if not set.
    pub jobs: Option<NonZeroUsize>,
    /// By what processes keep out of each other's way in the store: `auto`, `flock` or `lease`.
    pub locks: String,
    /// What is logged, as a filter such as `info` or `pipe=debug`.
    pub log: String,
    /// The address of the remote cache.
    pub remote: Option<String>,
    /// Who has set what by which name; neither defaults nor flags are in it.
    #[serde(skip)]
    names: Names,
}

/// For names of settings, a place in a file or a variable.
type Names = BTreeMap<String, String>;

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache: "cache".into(),
            device: "auto".to_owned(),
            jobs: None,
            locks: "auto".to_owned(),
            log: "warn".to_owned(),
            remote: None,
            names: Names::new(),
        }
    }
}

/// The settings of one layer: a file or the command line's flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SomeSettings {
    /// `--cache`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "file::folder_name"
    )]
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
    /// A variable of the environment is wrong.
    #[error("`{name}` must be {wanted}, but is `{}`", found.escape_debug())]
    #[diagnostic(help("set it to such a value, or unset it"))]
    Environment {
        /// Which, as `PIPE_JOBS`.
        name: String,
        /// What it has to be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
}

impl Settings {
    /// The settings for the current folder under `flags`.
    #[expect(clippy::disallowed_methods, reason = "settings are what the environment is for")]
    pub fn load(flags: &SomeSettings) -> Result<Self, SettingsError> {
        let environment = environment(|name| std::env::var_os(name))?;
        let current = std::env::current_dir().unwrap_or_default();
        let project = file::of_project(&current);
        Self::layered(user_file().as_deref(), &project, &environment, flags)
    }

    /// Lays defaults, two files (which need not exist), `environment` and `flags` on each other.
    pub fn layered(
        user: Option<&Path>,
        project: &Path,
        environment: &SomeSettings,
        flags: &SomeSettings,
    ) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        let mut names = Names::new();
        let of_project = project.parent().unwrap_or(Path::new(""));
        for (path, folder) in
            user.map(|path| (path, Path::new(""))).into_iter().chain([(project, of_project)])
        {
            let (settings, places) = file::read(path)?;
            figment = figment.merge(Serialized::defaults(settings.seen_from(folder)));
            names.extend(places);
        }
        names.extend(environment.set().map(|name| {
            let variable = format!("PIPE_{}", name.to_uppercase());
            (name, variable)
        }));
        flags.set().for_each(|name| drop(names.remove(&name)));
        for layer in [environment, flags] {
            // A path from outside may be no UTF-8, so it does not go through figment's values.
            figment =
                figment.merge(Serialized::defaults(SomeSettings { cache: None, ..layer.clone() }));
        }
        let settings: Self = figment.extract().expect("all layers have types of their own");
        let cache = flags.cache.as_ref().or(environment.cache.as_ref());
        let cache = cache.cloned().unwrap_or(settings.cache);
        Ok(Self { cache, names, ..settings })
    }

    /// Where a setting comes from, to be added to what is wrong with it, as in ` (set by
    /// PIPE_JOBS)`; nothing of a flag, which the user has in front of them, or a default.
    pub fn set_by(&self, name: &str) -> String {
        self.names.get(name).map(|by| format!(" (set by `{by}`)")).unwrap_or_default()
    }
}

impl SomeSettings {
    /// The names of those that are there.
    fn set(&self) -> impl Iterator<Item = String> {
        let Self { cache, device, jobs, locks, log, remote } = self;
        let all = [
            ("cache", cache.is_some()),
            ("device", device.is_some()),
            ("jobs", jobs.is_some()),
            ("locks", locks.is_some()),
            ("log", log.is_some()),
            ("remote", remote.is_some()),
        ];
        all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned())
    }
}

/// The settings of the environment, whose variables `get` gives. Each is plain text: `PIPE_CACHE=7`
/// is a folder of that name.
fn environment(get: impl Fn(&str) -> Option<OsString>) -> Result<SomeSettings, SettingsError> {
    let wrong = |name: &str, wanted, found: &str| SettingsError::Environment {
        name: name.to_owned(),
        wanted,
        found: found.to_owned(),
    };
    // An empty variable is how scripts unset one; `PIPE_CACHE=` must not mean this folder.
    let get = |name: &str| get(name).filter(|value| !value.is_empty());
    let text = |name: &str| {
        let text = get(name).map(OsString::into_string).transpose();
        text.map_err(|found| wrong(name, "text in UTF-8", &found.to_string_lossy()))
    };
    let jobs = text("PIPE_JOBS")?.map(|text| {
        let number = text.trim().parse();
        number.map_err(|_| wrong("PIPE_JOBS", "a whole number, one or more", &text))
    });
    Ok(SomeSettings {
        cache: get("PIPE_CACHE").map(PathBuf::from),
        device: text("PIPE_DEVICE")?,
        jobs: jobs.transpose()?,
        locks: text("PIPE_LOCKS")?,
        log: text("PIPE_LOG")?,
        remote: text("PIPE_REMOTE")?,
    })
}

/// `$XDG_CONFIG_HOME/pipe/config.toml` or `~/.config/pipe/config.toml`.
#[expect(clippy::disallowed_methods, reason = "settings are what the environment is for")]
fn user_file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(folder.join("pipe").join("config.toml"))
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
        let environment = SomeSettings { jobs: NonZeroUsize::new(3), ..SomeSettings::default() };
        let settings = Settings::layered(Some(&user), &project, &environment, &flags).unwrap();
        assert_eq!(
            settings,
            Settings {
                cache: folder.path().join("p"),
                device: "cuda:1".to_owned(),
                jobs: NonZeroUsize::new(3),
                log: "info".to_owned(),
                names: settings.names.clone(),
                ..Settings::default()
            }
        );
        let said = ["cache", "device", "jobs", "locks"].map(|name| settings.set_by(name));
        let place = project.display();
        let wanted = [
            format!(" (set by `{place}:1:9`)"),
            String::new(),
            " (set by `PIPE_JOBS`)".into(),
            String::new(),
        ];
        assert_eq!(said, wanted);
    }

    #[test]
    fn without_files_the_defaults_hold() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none.toml");
        let empty = SomeSettings::default();
        let settings = Settings::layered(None, &none, &empty, &empty);
        assert_eq!(settings.unwrap(), Settings::default());
    }

    #[test]
    fn variables_are_text_and_a_wrong_one_is_named() {
        let of = |variables: &[(&str, &str)]| {
            environment(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let settings = of(&[("PIPE_CACHE", "7"), ("PIPE_JOBS", " 2 "), ("PIPE_LOG", "")]).unwrap();
        let expected = SomeSettings {
            cache: Some("7".into()),
            jobs: NonZeroUsize::new(2),
            ..SomeSettings::default()
        };
        assert_eq!(settings, expected);
        let told = ["abc", "0", "-1", "1.5", "\u{1b}[2J"].map(|value| {
            let error = of(&[("PIPE_JOBS", value)]).unwrap_err();
            format!("{error}")
        });
        insta::assert_snapshot!(told.join("\n"), @r"
        `PIPE_JOBS` must be a whole number, one or more, but is `abc`
        `PIPE_JOBS` must be a whole number, one or more, but is `0`
        `PIPE_JOBS` must be a whole number, one or more, but is `-1`
        `PIPE_JOBS` must be a whole number, one or more, but is `1.5`
        `PIPE_JOBS` must be a whole number, one or more, but is `\u{1b}[2J`
        ");
    }
}
