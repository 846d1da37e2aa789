//! Where values were written: files, byte ranges and the layer that put them there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::Place;

/// The layer of a pipeline that wrote a value, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A file named by `extends`.
    Base,
    /// The pipeline file itself.
    File,
    /// `--profile`.
    Profile,
    /// `--set`.
    Set,
}

/// The byte range of a value in one of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub(super) file: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    /// Who wrote it.
    pub layer: Layer,
}

/// A text that values come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file as the user named it, or `--set KEY=VALUE`.
    pub name: String,
    /// The whole text.
    pub text: Arc<str>,
    /// The folder that relative paths in it are meant from.
    pub folder: PathBuf,
    lines: Vec<usize>,
}

/// How the name of an argument of the command line begins.
const SET: &str = "--set ";
/// Characters of an argument that its name shows.
const SHOWN: usize = 60;

/// All texts of one pipeline.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a text and returns its number.
    pub fn add(&mut self, name: &str, text: &str, folder: &Path) -> u32 {
        let lines =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let source =
            Source { name: name.to_owned(), text: text.into(), folder: folder.to_owned(), lines };
        self.0.push(source);
        u32::try_from(self.0.len() - 1).expect("a pipeline has few files")
    }

    /// Adds the `KEY=VALUE` of a `--set`, which is its own name, and returns its number.
    pub fn add_argument(&mut self, text: &str) -> u32 {
        let end = text.char_indices().nth(SHOWN).map_or(text.len(), |(at, _)| at);
        let more = if end < text.len() { "…" } else { "" };
        self.add(&format!("{SET}{}{more}", &text[..end]), text, Path::new(""))
    }

    /// The files among the texts, in the order they were read, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for source in self.0.iter().filter(|source| !is_argument(&source.name)) {
            let path = PathBuf::from(&source.name);
            if !files.contains(&path) {
                files.push(path);
            }
        }
        files
    }

    /// The text that `origin` lies in.
    pub fn of(&self, origin: Origin) -> &Source {
        &self.0[origin.file as usize]
    }

    /// The written form of a value.
    pub fn slice(&self, origin: Origin) -> &str {
        self.of(origin).text.get(origin.start as usize..origin.end as usize).unwrap_or_default()
    }

    /// The first place inside `origin` where `needle` stands, or `origin` itself.
    pub fn find(&self, origin: Origin, needle: &str) -> Origin {
        match self.slice(origin).find(needle) {
            Some(at) => {
                let start = origin.start + at as u32;
                Origin { start, end: start + needle.len() as u32, ..origin }
            }
            None => origin,
        }
    }

    /// File, line and column of the start of a value.
    pub fn place(&self, origin: Origin) -> Place {
        self.place_at(origin, origin.start as usize)
    }

    /// File, line and column of the end of a value.
    pub fn end(&self, origin: Origin) -> Place {
        self.place_at(origin, origin.end as usize)
    }

    fn place_at(&self, origin: Origin, at: usize) -> Place {
        let source = self.of(origin);
        let at = at.min(source.text.len());
        let line = source.lines.partition_point(|start| *start <= at) - 1;
        let before = source.text.get(source.lines[line]..at).unwrap_or_default();
        Place { file: source.name.clone(), line: line + 1, column: before.chars().count() + 1 }
    }
}

/// Whether the name of a text is that of an argument, which stands in one line and names itself.
pub(super) fn is_argument(name: &str) -> bool {
    name.starts_with(SET)
}

/// `path` without `.` parts, and without parts that a following `..` takes back.
pub fn normalise(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("a.toml", "x = 1\nä = \"ü\"\n", Path::new(""));
        let origin = Origin { file, start: 11, end: 15, layer: Layer::File };
        assert_eq!(sources.slice(origin), "\"ü\"");
        assert_eq!(sources.place(origin).to_string(), "a.toml:2:5");
        assert_eq!(sources.end(origin).to_string(), "a.toml:2:8");
    }

    #[test]
    fn an_argument_is_named_by_itself() {
        let mut sources = Sources::default();
        let long = format!("params.list=[{}]", "1, ".repeat(40));
        for (text, name) in [
            ("lora.rank=7", "--set lora.rank=7".to_owned()),
            (&long, format!("--set {}…", &long[..60])),
        ] {
            let file = sources.add_argument(text);
            let origin = Origin { file, start: 10, end: 11, layer: Layer::Set };
            assert_eq!(sources.place(origin).to_string(), name);
            assert_eq!(sources.place(origin).column, 11);
        }
        assert!(sources.files().is_empty());
    }

    #[test]
    fn normalising_takes_back_parents() {
        assert_eq!(normalise(Path::new("a/./b/../c.toml")), Path::new("a/c.toml"));
        assert_eq!(normalise(Path::new("../a")), Path::new("../a"));
    }
}
