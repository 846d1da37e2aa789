//! Which pictures are of results that are kept, by their names.
//!
//! A picture is called `<stage>-<cell>-<predictions>-<all>-<own>.png`: the short digests of the
//! predictions that it shows, of all that it may show, and its own. Older versions left out its own, and
//! before that gave one digest only, which tells no owner.

use std::{collections::HashSet, path::Path};

use crate::store::{Digest, Fingerprint, Root};

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

    /// Whether a picture is kept. One that tells no owner may be of any result of its stage; a run that
    /// draws it anew removes it.
    pub fn has(&self, picture: &Path) -> bool {
        if let Some(predictions) = predictions(picture) {
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

/// Whether a file among the pictures has a name that was given here.
pub(super) fn is_ours(name: &str) -> bool {
    let own = name.strip_suffix(".png").and_then(|bare| bare.rsplit('-').next());
    own.is_some_and(Digest::is_short)
}

/// The short digest of the predictions, where the name has it.
fn predictions(picture: &Path) -> Option<&str> {
    let name = picture.file_stem()?.to_str()?;
    let digests = name.rsplit('-').take(3).take_while(|part| Digest::is_short(part));
    let digests: Vec<_> = digests.collect();
    digests.last().copied().filter(|_| digests.len() > 1)
}
