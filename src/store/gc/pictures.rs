//! Which pictures are of results that are kept, by their names.

use std::{collections::HashSet, path::Path};

use crate::store::{Digest, Fingerprint, PictureName, Root};

/// What pictures are kept for.
#[derive(Default)]
pub(super) struct Pictures {
    /// The short digests of predictions.
    shown: HashSet<String>,
    /// The folders of pictures, each with a stage of which results are kept.
    drawn: HashSet<(String, String)>,
}

impl Pictures {
    /// Keeps those of an output.
    pub fn show(&mut self, output: Digest) {
        self.shown.insert(output.short());
    }

    /// Keeps those that may be of the results of a pipeline that are `kept`.
    pub fn draw(&mut self, root: &Root, kept: &HashSet<Fingerprint>) {
        let Some(owner) = &root.owner else { return };
        let folder = owner.folder_name();
        for (_, name) in root.names.iter().filter(|(key, _)| kept.contains(key)) {
            let stage = name.split('[').next().unwrap_or_default();
            self.drawn.insert((folder.clone(), stage.to_owned()));
        }
    }

    /// Whether a picture is kept. One that tells no owner may be of any result of its stage; a run
    /// that draws it anew removes it.
    pub fn has(&self, picture: &Path) -> bool {
        if let Some(predictions) = PictureName::of(picture).and_then(|name| name.predictions) {
            return self.shown.contains(predictions);
        }
        let name = picture.file_name().unwrap_or_default().to_string_lossy();
        let folder = picture.parent().and_then(Path::file_name).unwrap_or_default();
        let may_be = |(of, stage): &(String, String)| {
            *folder == **of && name.strip_prefix(stage).is_some_and(|rest| rest.starts_with('-'))
        };
        self.drawn.iter().any(may_be)
    }
}
