//! `pipe init`.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::PathBuf,
};

use super::{error::CliError, session::Session};

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
    let path = PathBuf::from(format!("{stem}.toml"));
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
    let text = text(&name.unwrap_or_default(), args.data.as_deref());
    file.write_all(text.as_bytes()).map_err(|error| CliError::file("write", &path, &error))?;
    let path = path.display();
    session.print(&format!("{path}\n"))?;
    session.talk(&format!("next: `pipe plan {path}`, then `pipe run {path}`"));
    Ok(())
}

/// The starter for built-in figures or for a folder of pairs.
fn text(name: &str, data: Option<&std::path::Path>) -> String {
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
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadOptions, load};

    fn check(data: Option<&Path>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("first.toml");
        let text = text("first \"quoted\"", data);
        for mark in ["@NAME@", "@SOURCE@", "@TASK@", "@METRIC@", "@VALUE@"] {
            assert!(TEMPLATE.contains(mark) && !text.contains(mark), "{mark} in {text}");
        }
        std::fs::write(&path, text).unwrap();
        let pipeline = load(&path, &LoadOptions::default()).unwrap();
        assert_eq!(pipeline.name, "first \"quoted\"");
        assert_eq!(pipeline.tables.len(), 1);
    }

    #[test]
    fn the_starter_is_a_correct_pipeline() {
        check(None);
    }

    #[test]
    fn the_starter_for_own_pairs_is_a_correct_pipeline() {
        check(Some(Path::new("my data")));
    }
}
