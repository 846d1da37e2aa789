//! A folder of pairs: `input/` and `target/` with equal names, if wanted below `train/` and `test/`.

use std::collections::BTreeMap;

use crate::{stages::StageError, store::SourceReader};

/// The files of one pair, below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The file name without its ending.
    pub name: String,
    /// What the model sees.
    pub input: String,
    /// What it is to answer.
    pub target: String,
}

/// How a folder of pairs may look.
pub const LAYOUT: &str = "put the images into `input/` and `target/` with equal names, or side by side \
                      as `name_in.png` and `name_out.png`; below `train/` and `test/` if they differ";

/// The pairs of a split, by name; without split folders, the same pairs serve both.
///
/// A folder without `input/` may hold the pairs side by side as `name_in.png` and `name_out.png`.
pub fn pairs(sources: &SourceReader, split: &str) -> Result<Vec<PairFiles>, StageError> {
    let below = split_folder(sources, split)?;
    if !names(sources, below.trim_end_matches('/'))?.iter().any(|name| name == "input/") {
        return side_by_side(sources, &below);
    }
    let inputs = images(sources, &format!("{below}input"))?;
    let mut targets = images(sources, &format!("{below}target"))?;
    let mut found = Vec::new();
    for (name, input) in inputs {
        let Some(target) = targets.remove(&name) else {
            return Err(without_partner(&input));
        };
        found.push(PairFiles { name, input, target });
    }
    if let Some(target) = targets.into_values().next() {
        return Err(without_partner(&target));
    }
    Ok(found)
}

/// The images of a split, by name, for tasks that are made from plain images.
pub fn plain_images(
    sources: &SourceReader,
    split: &str,
) -> Result<Vec<(String, String)>, StageError> {
    let below = split_folder(sources, split)?;
    Ok(images(sources, below.trim_end_matches('/'))?.into_iter().collect())
}

/// `train/` or `test/` if there is such a folder, else nothing.
fn split_folder(sources: &SourceReader, split: &str) -> Result<String, StageError> {
    let split = format!("{split}/");
    Ok(if names(sources, "")?.contains(&split) { split } else { String::new() })
}

/// `name_in.png` and `name_out.png`.
fn side_by_side(sources: &SourceReader, below: &str) -> Result<Vec<PairFiles>, StageError> {
    let mut targets = BTreeMap::new();
    let mut inputs = Vec::new();
    for (stem, path) in images(sources, below.trim_end_matches('/'))? {
        if let Some(name) = stem.strip_suffix("_in") {
            inputs.push((name.to_owned(), path));
        } else if let Some(name) = stem.strip_suffix("_out") {
            targets.insert(name.to_owned(), path);
        }
    }
    let mut found = Vec::new();
    for (name, input) in inputs {
        let target = targets.remove(&name).ok_or_else(|| without_partner(&input))?;
        found.push(PairFiles { name, input, target });
    }
    if let Some(target) = targets.values().next() {
        return Err(without_partner(target));
    }
    if found.is_empty() {
        return Err(StageError::failed("the folder holds no pairs").with_help(LAYOUT));
    }
    Ok(found)
}

fn without_partner(path: &str) -> StageError {
    StageError::failed(format!("`{path}` has no partner")).with_help(LAYOUT)
}

fn names(sources: &SourceReader, folder: &str) -> Result<Vec<String>, StageError> {
    sources.list(folder).map_err(|e| {
        StageError::environment(format!("cannot read the folder of images: {e}")).with_help(LAYOUT)
    })
}

/// Image files of a folder by stem.
fn images(sources: &SourceReader, folder: &str) -> Result<BTreeMap<String, String>, StageError> {
    let names = names(sources, folder)?;
    let mut images = BTreeMap::new();
    for name in names {
        let Some((stem, ending)) = name.rsplit_once('.') else { continue };
        if !["png", "jpg", "jpeg", "webp", "bmp"].contains(&ending.to_ascii_lowercase().as_str()) {
            continue;
        }
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if let Some(other) = images.insert(stem.to_owned(), path.clone()) {
            return Err(StageError::failed(format!("`{other}` and `{path}` have one name"))
                .with_help("give each image a name of its own"));
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
    }

    fn found(files: &[&str], split: &str) -> Result<Vec<String>, String> {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), files);
        pairs(&SourceReader::new(root.path()), split)
            .map(|pairs| {
                pairs.iter().map(|p| format!("{} {} {}", p.name, p.input, p.target)).collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_layouts_give_pairs_by_name() {
        assert_eq!(
            found(
                &["input/b.png", "input/a.jpg", "target/a.png", "target/b.PNG", "notes.txt"],
                "test"
            ),
            Ok(vec!["a input/a.jpg target/a.png".into(), "b input/b.png target/b.PNG".into()])
        );
        assert_eq!(
            found(
                &[
                    "train/input/a.png",
                    "train/target/a.png",
                    "test/input/q.png",
                    "test/target/q.png"
                ],
                "test"
            ),
            Ok(vec!["q test/input/q.png test/target/q.png".into()])
        );
        assert_eq!(
            found(&["x_in.png", "x_out.png", "other.png"], "train"),
            Ok(vec!["x x_in.png x_out.png".into()])
        );
    }

    #[test]
    fn lonely_images_are_named() {
        assert_eq!(
            found(&["input/a.png", "input/b.png", "target/a.png"], "train"),
            Err("`input/b.png` has no partner".into())
        );
        assert_eq!(
            found(&["input/a.png", "target/a.png", "target/c.png"], "train"),
            Err("`target/c.png` has no partner".into())
        );
        assert_eq!(found(&["x_out.png"], "train"), Err("`x_out.png` has no partner".into()));
        assert_eq!(found(&["x.png"], "train"), Err("the folder holds no pairs".into()));
        assert_eq!(
            found(&["input/a.png", "input/a.jpg", "target/a.png"], "train"),
            Err("`input/a.jpg` and `input/a.png` have one name".into())
        );
    }
}
