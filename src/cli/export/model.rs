//! Parts of models, in whose folders there may be files already.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    CliError,
    files::{Exporter, folder_of},
};
use crate::{
    artifact::{FileNames, Item, Manifest},
    models::INDEX_ENDING,
};

pub(super) const CONFIG: &str = "config.json";

/// Refuses folders in which other weights would be read in the place of those that are exported, and notes the
/// configurations that say something else. Nothing is written.
pub(super) fn check(
    exporter: &Exporter<'_>,
    manifest: &Manifest,
    folder: &Path,
) -> Result<(), CliError> {
    let mut names = FileNames::default();
    for item in &manifest.items {
        let folder = folder_of(manifest, item, folder, &mut names);
        if let Some(index) = index_beside(item, &folder) {
            return Err(other_weights(&folder, &index));
        }
        if let Some(path) = other_config(exporter, item, &folder)? {
            exporter.replaced.borrow_mut().push(path);
        }
    }
    Ok(())
}

/// The index of shards that goes before weights of this item.
fn index_beside(item: &Item, folder: &Path) -> Option<String> {
    let mut indexes = item.files.keys().map(|file| format!("{file}{INDEX_ENDING}"));
    indexes.find(|index| folder.join(index).exists())
}

fn other_weights(folder: &Path, index: &str) -> CliError {
    let shown = folder.display();
    let message = format!(
        "`{shown}` holds other weights, in shards: by `{index}` they would be read in the place of those that \
         are exported"
    );
    let help = format!(
        "export to a new folder and put it in the place of `{shown}`, or remove the index and its shards first"
    );
    CliError::usage(message).with_help(help)
}

/// A configuration that is there and says something else than that of the item, however it is written.
fn other_config(
    exporter: &Exporter<'_>,
    item: &Item,
    folder: &Path,
) -> Result<Option<PathBuf>, CliError> {
    let path = folder.join(CONFIG);
    let Ok(there) = std::fs::read(&path) else { return Ok(None) };
    if !item.files.contains_key(CONFIG) {
        return Ok(None);
    }
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let exported = parsed(&exporter.read(item, CONFIG)?);
    Ok((parsed(&there) != exported).then_some(path))
}
