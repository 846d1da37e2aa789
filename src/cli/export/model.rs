//! Parts of models, in whose folders there may be files already.

use std::path::Path;

use super::{
    CliError,
    files::{Exporter, folder_of},
    replaced::{New, is_another, noted},
};
use crate::{
    artifact::{FileNames, Item, Manifest, file_name},
    models::INDEX_ENDING,
};

/// Writes the parts of an artifact, and notes the files that they replace. Nothing is written where
/// in one of the folders other weights would be read in the place of those that are exported.
pub(super) fn export(
    exporter: &Exporter<'_>,
    manifest: &Manifest,
    folder: &Path,
) -> Result<(), CliError> {
    let (mut names, mut files) = (FileNames::default(), Vec::new());
    for item in &manifest.items {
        let folder = folder_of(manifest, item, folder, &mut names);
        if let Some(index) = index_beside(item, &folder) {
            return Err(other_weights(&folder, &index));
        }
        files.extend(item.files.keys().map(|file| (folder.join(file_name(file)), item, file)));
    }
    for (path, item, file) in files {
        let is_another = is_another(exporter, New::Of(item, file), &path)?;
        noted(exporter, is_another, &path, || exporter.put(item, file, &path))?;
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
