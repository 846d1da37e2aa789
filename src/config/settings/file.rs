//! A file of settings.

use std::{collections::BTreeMap, io, path::Path};

use serde::Deserialize;

use super::{Names, SomeSettings};
use crate::config::{
    ConfigErrors, Layer,
    error::{Code, Problem, Problems},
    origin::Sources,
    value::{Node, ValueError, parse_document},
};

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

/// Reads a settings file with our own parser, so that an error has its place; one that is not there has no settings.
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
