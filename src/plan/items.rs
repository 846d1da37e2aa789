//! The items of a mapped stage, each with its own key.

use std::collections::BTreeSet;

use crate::{
    artifact::Item,
    store::{Fingerprint, ItemRecord},
};

/// What the store holds for the items of a mapped stage, in the order of its output.
pub(crate) struct Items {
    pub(crate) groups: Vec<ItemGroup>,
}

/// The items that are made in one go: all of a stage's or, where a port is crossed, those with one
/// item of that port.
pub(crate) struct ItemGroup {
    /// The item of the crossed port.
    pub(crate) with: Option<Item>,
    /// What stands before the names of the items, where there are several groups.
    pub(crate) prefix: Option<String>,
    /// What all their keys have in common.
    pub(crate) stem: Fingerprint,
    /// The key of each item of the mapped port, and its record if it is cached.
    pub(crate) items: Vec<(Fingerprint, Option<ItemRecord>)>,
}

impl Items {
    pub(crate) fn cached(&self) -> usize {
        let items = self.groups.iter().flat_map(|group| &group.items);
        items.filter(|(_, record)| record.is_some()).count()
    }

    pub(crate) fn total(&self) -> usize {
        self.groups.iter().map(|group| group.items.len()).sum()
    }

    /// The keys of all items, each once.
    pub(crate) fn keys(&self) -> Vec<Fingerprint> {
        self.those(|_| true)
    }

    /// The keys of those that are not cached.
    pub(crate) fn missing(&self) -> Vec<Fingerprint> {
        self.those(Option::is_none)
    }

    fn those(&self, wanted: impl Fn(&Option<ItemRecord>) -> bool) -> Vec<Fingerprint> {
        let items = self.groups.iter().flat_map(|group| &group.items);
        let keys: BTreeSet<_> =
            items.filter(|(_, record)| wanted(record)).map(|(key, _)| *key).collect();
        keys.into_iter().collect()
    }

    /// The same items, to be computed anew.
    pub(crate) fn none_cached(mut self) -> Self {
        for (_, record) in self.groups.iter_mut().flat_map(|group| &mut group.items) {
            *record = None;
        }
        self
    }
}
