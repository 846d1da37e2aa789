//! A folder of outside files whose list changed: which files came or went.

use std::{collections::BTreeSet, path::Path};

use super::freshness::{SourceChange, StaleReason};
use crate::store::{Ingredients, is_missing, names_before};

/// How many of the files that came are named.
const NAMED: usize = 20;

/// Says of a changed list the names that were added, as far as they can be known. Files that were
/// read and went are reasons themselves.
pub(super) fn named(reasons: Vec<StaleReason>, old: &Ingredients, root: &Path) -> Vec<StaleReason> {
    let name = |reason: StaleReason| -> Vec<StaleReason> {
        let StaleReason::SourceChanged { path: folder, change: SourceChange::Changed } = &reason
        else {
            return vec![reason];
        };
        let Some(digest) = old.sources.get(folder).filter(|_| folder.ends_with('/')) else {
            return vec![reason];
        };
        let below = folder.strip_prefix("./").unwrap_or(folder);
        let read = old.sources.iter().filter(|(_, digest)| !is_missing(**digest));
        let known = read.filter_map(|(path, _)| path.strip_prefix(below)).filter(|name| {
            // Of a folder in it, the name with its slash.
            name.find('/').is_none_or(|at| at + 1 == name.len())
                && !name.is_empty()
                && *name != "./"
        });
        let known: BTreeSet<String> = known.map(str::to_owned).collect();
        let Some(added) = names_before(&root.join(folder), *digest, &known) else {
            return vec![reason];
        };
        let added = added.into_iter().take(NAMED).map(|name| StaleReason::SourceChanged {
            path: format!("{below}{name}"),
            change: SourceChange::Added,
        });
        added.collect()
    };
    reasons.into_iter().flat_map(name).collect()
}
