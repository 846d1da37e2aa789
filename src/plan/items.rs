//! The items of a mapped stage, each with its own key.

use std::collections::BTreeSet;

use super::{
    Decider, PlanError,
    fingerprint::{ItemKeys, action_key},
    key::Key,
};
use crate::{
    artifact::{Item, crossed_name},
    store::{Digest, Fingerprint, Ingredients, ItemRecord, Record},
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

impl Decider<'_> {
    /// The items that a mapped stage makes, and which of them are cached.
    pub(crate) fn items(&self, index: usize, key: &Key) -> Result<Option<Items>, PlanError> {
        let work = &self.pipeline.instances[index].work;
        let inputs = &key.ingredients.inputs;
        let Some((port, digest)) =
            work.mapped_port().and_then(|port| Some((port, inputs.get(port)?)))
        else {
            return Ok(None);
        };
        let digests: Vec<Digest> =
            self.store.manifest(*digest)?.items.iter().map(Item::digest).collect();
        let crossed = work.crossed_port().and_then(|port| Some((port, inputs.get(port)?)));
        let Some((other, others)) = crossed else {
            let group = self.item_group(&key.ingredients, port, &digests)?;
            return Ok(Some(Items { groups: vec![group] }));
        };
        let others = self.store.manifest(*others)?;
        let mut ingredients = key.ingredients.clone();
        let mut groups = Vec::with_capacity(others.items.len());
        for (item, prefix) in others.crossed() {
            ingredients.inputs.insert(other.to_owned(), item.digest());
            groups.push(ItemGroup {
                prefix: prefix.map(str::to_owned),
                with: Some(item.clone()),
                ..self.item_group(&ingredients, port, &digests)?
            });
        }
        Ok(Some(Items { groups }))
    }

    /// Keeps the items of a result of a mapped stage that was brought from elsewhere, each under
    /// its key, as if they had been made here. To bring their records would be a request for each.
    pub(super) fn keep_items(&self, index: usize, record: &Record) -> Result<(), PlanError> {
        let ingredients = &record.ingredients;
        let work = &self.pipeline.instances[index].work;
        let input = work.mapped_port().and_then(|port| ingredients.inputs.get(port));
        // Of a record that is not what it says, nothing follows; one that was only looked at has no
        // content.
        let Some(input) = input.filter(|_| action_key(ingredients) == record.fingerprint) else {
            return Ok(());
        };
        let key =
            Key { direct: record.fingerprint, trajectory: None, ingredients: ingredients.clone() };
        let Some(items) = self.items(index, &key)? else { return Ok(()) };
        if items.cached() == items.total() || !self.store.is_whole(record) {
            return Ok(());
        }
        let (input, made) = (self.store.manifest(*input)?, self.store.manifest(record.output)?);
        let mut wanted = Vec::with_capacity(items.total());
        for group in &items.groups {
            let prefix = group.prefix.as_deref();
            let names = input.items.iter().map(|item| crossed_name(prefix, &item.name));
            wanted.extend(names.zip(&group.items));
        }
        let is_as_made =
            wanted.iter().map(|(name, _)| name).eq(made.items.iter().map(|item| &item.name));
        if !is_as_made {
            return Ok(());
        }
        for ((_, (key, found)), item) in wanted.into_iter().zip(&made.items) {
            if found.is_none() {
                self.store.commit_item(*key, item.files.clone())?;
            }
        }
        Ok(())
    }

    /// The same for what an instance last was, which may have been fetched as a whole.
    pub(crate) fn keep_last_items(&self, index: usize) {
        let kept = self.last(index).map_or(Ok(()), |last| self.keep_items(index, &last));
        if let Err(error) = kept {
            tracing::debug!("the last result is not known item by item: {error}");
        }
    }

    fn item_group(
        &self,
        ingredients: &Ingredients,
        port: &str,
        digests: &[Digest],
    ) -> Result<ItemGroup, PlanError> {
        let keys = ItemKeys::new(ingredients, port);
        let look_up = |digest: &Digest| {
            let key = keys.of(*digest);
            Ok((key, self.store.lookup_item(key)?))
        };
        let items = digests.iter().map(look_up).collect::<Result<_, PlanError>>()?;
        Ok(ItemGroup { with: None, prefix: None, stem: keys.stem(), items })
    }
}
