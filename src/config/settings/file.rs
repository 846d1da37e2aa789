//! A file of settings.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Names, SomeSettings};
use crate::config::{
    ConfigErrors, Layer,
    origin::Sources,
    problem::{Code, Problem, Problems},
    value::{Node, ValueError, parse_document},
};

const PROJECT: &str = "pipe.toml";

/// The settings of a project: `pipe.toml` in the current folder or the nearest one above it, as
/// seen from there. One above counts if it belongs to who has the current folder, or to root: in a
/// folder that all may write to, such as `/tmp`, it may be anybody's.
pub(super) fn of_project(current: &Path) -> PathBuf {
    let here = PathBuf::from(PROJECT);
    let owner = current.metadata().ok();
    if owner.is_none() || current.join(PROJECT).symlink_metadata().is_ok() {
        return here;
    }
    let is_ours = |path: &Path| {
        let found = path.metadata();
        found.is_ok_and(|found| found.is_file() && is_trusted(&found, owner.as_ref()))
    };
    let above = current.ancestors().enumerate().skip(1);
    let found =
        above.map(|(up, folder)| (up, folder.join(PROJECT))).find(|(_, path)| is_ours(path));
    found.map_or(here, |(up, _)| Path::new("..").join("../".repeat(up - 1)).join(PROJECT))
}

#[cfg(unix)]
fn is_trusted(file: &Metadata, current: Option<&Metadata>) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.uid() == 0 || current.is_some_and(|current| current.uid() == file.uid())
}

#[cfg(not(unix))]
fn is_trusted(_: &Metadata, _: Option<&Metadata>) -> bool {
    true
}

impl SomeSettings {
    /// Relative paths are meant from the folder of the file that names them.
    pub(super) fn seen_from(self, folder: &Path) -> Self {
        // What has a colon is an address, or a mistake in one.
        let remote = self.remote.map(|remote| match folder.join(&remote).to_str() {
            Some(path) if !remote.is_empty() && !remote.contains(':') => path.to_owned(),
            _ => remote,
        });
        Self { cache: self.cache.map(|cache| folder.join(cache)), remote, ..self }
    }
}

/// The name of a folder; an empty one would be the current folder, with all that is in it.
pub(super) fn folder_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.is_empty() {
        Err(D::Error::custom("`cache` must name a folder, but is empty"))
    } else {
        Ok(Some(name.into()))
    }
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

/// Reads a settings file with our own parser, so that an error has its place; one that is not there
/// has no settings.
pub(super) fn read(path: &Path) -> Result<(SomeSettings, Names), ConfigErrors> {
    let name = path.display().to_string();
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // Nor can there be one below a file.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Default::default());
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
    let places = places(&node, &sources);
    loop {
        let error: ValueError = match SomeSettings::deserialize(&node) {
            Ok(settings) if problems.is_empty() => return Ok((settings, places)),
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

/// Where each setting is written: `pipe.toml:1:10`.
fn places(node: &Node, sources: &Sources) -> Names {
    let Some(table) = node.as_table() else { return BTreeMap::new() };
    let places = table.iter().filter_map(|(name, entry)| {
        Some((name.clone(), sources.place(entry.node.origin?).to_string()))
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_name_is_no_folder_for_a_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROJECT);
        std::fs::write(&path, "jobs = 1\ncache = \"\"").unwrap();
        let error = format!("{:?}", read(&path).unwrap_err());
        assert!(error.contains("`cache` must name a folder, but is empty"), "{error}");
        std::fs::write(&path, "cache = \"c\"").unwrap();
        assert_eq!(read(&path).unwrap().0.cache, Some("c".into()));
    }

    #[test]
    fn the_nearest_settings_above_count() {
        let folder = tempfile::tempdir().unwrap();
        let [top, middle, current] = ["", "a", "a/b/c"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(&current).unwrap();
        std::fs::write(top.join(PROJECT), "jobs = 1").unwrap();
        assert_eq!(of_project(&current), Path::new("../../../pipe.toml"));
        std::fs::write(middle.join(PROJECT), "jobs = 2").unwrap();
        assert_eq!(of_project(&current), Path::new("../../pipe.toml"));
        // No file is passed over.
        std::fs::create_dir(current.parent().unwrap().join(PROJECT)).unwrap();
        assert_eq!(of_project(&current), Path::new("../../pipe.toml"));
        std::fs::create_dir(current.join(PROJECT)).unwrap();
        assert_eq!(of_project(&current), Path::new(PROJECT), "which is then told to be none");
    }

    #[test]
    fn paths_are_meant_from_the_folder_of_the_file() {
        let seen = |remote: &str| {
            let remote = Some(remote.to_owned());
            let settings =
                SomeSettings { cache: Some("c".into()), remote, ..SomeSettings::default() };
            let seen = settings.seen_from(Path::new("../.."));
            (seen.cache.unwrap(), seen.remote.unwrap())
        };
        assert_eq!(seen("shared"), ("../../c".into(), "../../shared".to_owned()));
        for same in ["", "/shared", "s3://bucket/x", "s3:"] {
            assert_eq!(seen(same).1, same);
        }
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
