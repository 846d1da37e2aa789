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

const LAYOUT: &str = "put the images into `input/` and `target/` with equal names, \
                      or into `train/input/`, `train/target/`, `test/input/` and `test/target/`";

/// The pairs of a split, by name; without split folders, the same pairs serve both.
pub fn pairs(sources: &SourceReader, split: &str) -> Result<Vec<PairFiles>, StageError> {
    let top = sources.list("").map_err(|e| {
        StageError::environment(format!("cannot read the folder of pairs: {e}")).with_help(LAYOUT)
    })?;
    let below = if top.iter().any(|name| name.trim_end_matches('/') == split) {
        format!("{split}/")
    } else {
        String::new()
    };
    let inputs = images(sources, &format!("{below}input"))?;
    let mut targets = images(sources, &format!("{below}target"))?;
    let mut found = Vec::new();
    for (name, input) in inputs {
        let Some(target) = targets.remove(&name) else {
            return Err(StageError::failed(format!(
                "`{input}` has no partner in `{below}target/`"
            ))
            .with_help(LAYOUT));
        };
        found.push(PairFiles { name, input, target });
    }
    if let Some(target) = targets.into_values().next() {
        return Err(StageError::failed(format!("`{target}` has no partner in `{below}input/`"))
            .with_help(LAYOUT));
    }
    Ok(found)
}

/// Image files of a folder by stem.
fn images(sources: &SourceReader, folder: &str) -> Result<BTreeMap<String, String>, StageError> {
    let names = sources.list(folder).map_err(|e| {
        StageError::environment(format!("cannot read `{folder}/`: {e}")).with_help(LAYOUT)
    })?;
    let mut images = BTreeMap::new();
    for name in names {
        let Some((stem, ending)) = name.rsplit_once('.') else { continue };
        if !["png", "jpg", "jpeg", "webp", "bmp"].contains(&ending.to_ascii_lowercase().as_str()) {
            continue;
        }
        let path = format!("{folder}/{name}");
        if let Some(other) = images.insert(stem.to_owned(), path.clone()) {
            return Err(StageError::failed(format!("`{other}` and `{path}` have one name"))
                .with_help("give each image a name of its own"));
        }
    }
    Ok(images)
}
