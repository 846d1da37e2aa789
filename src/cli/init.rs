//! `pipe init`.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use super::{
    error::CliError,
    session::{Session, argument},
};
use crate::{
    data::{fifth, folder, held_out},
    report::style::count,
    store::SourceReader,
};

/// Write a commented pipeline file to start from
///
/// By default it learns to draw the pose of built-in figures; with `--data` it learns from your
/// own pairs of images.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The pipeline's name; the file is `NAME.toml`
    #[arg(default_value = "experiment")]
    name: String,
    /// A folder of your pairs: `input/` and `target/` with equal file names
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

const TEMPLATE: &str = include_str!("init.toml");

pub(super) fn init(args: &InitArgs, session: &Session) -> Result<(), CliError> {
    let stem = args.name.strip_suffix(".toml").unwrap_or(&args.name);
    if stem.trim().is_empty() {
        return Err(CliError::usage("the name is empty").with_help("`pipe init NAME`"));
    }
    if stem.chars().any(char::is_control) {
        return Err(CliError::usage("the name of a pipeline cannot have control characters")
            .with_help("`pipe init NAME`"));
    }
    let path = PathBuf::from(format!("{stem}.toml"));
    let split = args.data.as_deref().map_or(Ok(Split::FIGURES), Split::of)?;
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                CliError::usage(format!("`{}` is already there", path.display()))
                    .with_help("choose another name: `pipe init NAME`")
            } else {
                CliError::file("write", &path, &error)
            }
        })?;
    let data = args.data.as_deref().map(|data| from_file(&path, data));
    let text = text(&name.unwrap_or_default(), data.as_deref(), split);
    file.write_all(text.as_bytes()).map_err(|error| CliError::file("write", &path, &error))?;
    let path = path.display();
    session.print(&format!("{path}\n"))?;
    if let (Some(data), true) = (&args.data, split.test < FEW) {
        session.talk(&format!(
            "`{}` has few pairs: {} to answer, so scores will be rough; add pairs and init anew",
            data.display(),
            split.test
        ));
    }
    let path = argument(&path);
    session.talk(&format!("next: `pipe plan {path}`, then `pipe run {path}`"));
    Ok(())
}

/// The folder of the data as it is meant in a file at `path`: from the file's folder.
fn from_file(path: &Path, data: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => {
            std::path::absolute(data).unwrap_or_else(|_| data.to_owned())
        }
        _ => data.to_owned(),
    }
}

/// Answers below which a score says little.
const FEW: usize = 6;

/// How many pairs are learnt from and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    /// The most examples to learn from.
    train: usize,
    test: usize,
}

impl Split {
    const FIGURES: Self = Self { train: 4, test: 12 };

    /// The split of the pairs in a folder. The data set keeps the two apart.
    fn of(root: &Path) -> Result<Self, CliError> {
        if !root.is_dir() {
            let message = format!("there is no folder `{}`", root.display());
            let help = format!("check the path of `--data`; in the folder, {}", folder::LAYOUT);
            return Err(CliError::usage(message).with_help(help));
        }
        let pairs = |split| {
            folder::pairs(&SourceReader::new(root), split).map_err(|error| {
                let message = format!("`{}` cannot be used: {error}", root.display());
                CliError::usage(message).with_help(folder::LAYOUT)
            })
        };
        let all = pairs("train")?;
        let (train, test) = if all.divided {
            (all.files.len(), pairs("test")?.files.len())
        } else {
            let held = held_out(all.files.len(), fifth());
            (all.files.len() - held, held)
        };
        if train == 0 || test == 0 {
            let (root, pairs) = (root.display(), count(train + test, "pair"));
            let message = format!("`{root}` has {pairs}, but at least 2 are needed");
            return Err(CliError::usage(message)
                .with_help("one to learn from and another one to answer: add pairs"));
        }
        Ok(Self { train: train.min(Self::FIGURES.train), test: test.min(Self::FIGURES.test) })
    }

    fn examples(self) -> String {
        if self.train == 1 { "[1]".to_owned() } else { format!("[1, {}]", self.train) }
    }
}

/// The starter for built-in figures or for a folder of pairs.
fn text(name: &str, data: Option<&Path>, split: Split) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let (source, task, metric, value) = match data {
        None => ("{ source = \"builtin:figures\" }".to_owned(), "pose", "pose", "f1"),
        Some(root) => {
            let root = quoted(&root.display().to_string());
            (format!("{{ source = \"folder\", root = {root} }}"), "pairs", "image", "psnr")
        }
    };
    TEMPLATE
        .replace("\"@NAME@\"", &quoted(name))
        .replace("@SOURCE@", &source)
        .replace("@TASK@", task)
        .replace("@METRIC@", metric)
        .replace("@VALUE@", value)
        .replace("@N@", &split.examples())
        .replace("@COUNT@", &split.test.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load};

    fn check(data: Option<&Path>, split: Split) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("first.toml");
        let text = text("first \"quoted\"", data, split);
        let marks = ["NAME", "SOURCE", "TASK", "METRIC", "VALUE", "N", "COUNT"];
        for mark in marks.map(|mark| format!("@{mark}@")) {
            assert!(TEMPLATE.contains(&mark) && !text.contains(&mark), "{mark} in {text}");
        }
        std::fs::write(&path, text).unwrap();
        let pipeline = load(&path, &LoadOptions::default()).unwrap();
        assert_eq!(pipeline.name, "first \"quoted\"");
        assert_eq!(pipeline.tables.len(), 1);
    }

    #[test]
    fn the_starter_is_a_correct_pipeline() {
        check(None, Split::FIGURES);
    }

    #[test]
    fn the_starter_for_own_pairs_is_a_correct_pipeline() {
        check(Some(Path::new("my data")), Split { train: 1, test: 1 });
        check(Some(Path::new("my data")), Split::FIGURES);
    }

    fn split(files: &[&str]) -> Result<Split, CliError> {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        Split::of(root.path())
    }

    #[test]
    fn the_starter_asks_for_no_more_pairs_than_there_are() {
        for count in 2..60 {
            let files: Vec<_> =
                (0..count).flat_map(|i| [format!("{i}_in.png"), format!("{i}_out.png")]).collect();
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            let Split { train, test } = split(&files).unwrap();
            let held = held_out(count, fifth());
            assert!((1..=count - held).contains(&train) && (1..=held).contains(&test), "{count}");
        }
        assert!(split(&["a_in.png", "a_out.png"]).is_err());
        let folders = ["train/a_in.png", "train/a_out.png", "test/b_in.png", "test/b_out.png"];
        assert_eq!(split(&folders).unwrap(), Split { train: 1, test: 1 });
    }
}
