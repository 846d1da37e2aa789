//! The items of a mapped stage: each is made once, also where several stages or runs want it at
//! once.
//!
//! Items are claimed in buckets, each by a lock that all stages share which give the same for an
//! item: as many as fill a call. What somebody else has claimed is left for later, and mostly there
//! by then.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    RunEvent,
    call::{Given, Made, narrowed},
    job::{Job, JobThread, Outside},
};
use crate::{
    artifact::{FileRef, Item, crossed_name},
    plan::{ItemGroup, Items},
    stages::{Progress, StageError},
    store::{Attempt, Fingerprint, KeyLock, KeyWait},
};

/// Into how many buckets items are put. A stage holds the locks of those that its next call is for,
/// and what it computes one by one it is called for once a bucket; so few of them would keep others
/// waiting and many would be slow.
const BUCKETS: u8 = 64;

/// The files of items by key.
type Files = HashMap<Fingerprint, BTreeMap<String, FileRef>>;

/// The items of a bucket that are to be made.
struct Bucket {
    lock: Fingerprint,
    items: Vec<(Fingerprint, Item)>,
}

/// An item that this stage is to make, and the lock of its bucket, which is held until all of the
/// bucket are made.
struct Claimed {
    key: Fingerprint,
    item: Item,
    lock: Rc<KeyLock>,
}

/// What is wanted of a group.
struct Wanted<'a> {
    port: &'a str,
    given: Given,
    outside: Outside<'a>,
    /// How many items are to be made.
    all: usize,
    /// How many items had files before.
    before: usize,
}

impl Wanted<'_> {
    /// How many of those that were to be made are there.
    fn there(&self, files: &Files) -> u64 {
        files.len().saturating_sub(self.before) as u64
    }
}

impl JobThread<'_> {
    /// Runs a mapped stage on the items that are not cached, each content once, and keeps each as
    /// soon as it is done.
    pub(super) fn run_items(
        &self,
        job: &Job,
        outside: Outside<'_>,
        found: &Items,
    ) -> Result<Made, StageError> {
        let work = &self.caller.pipeline.instances[job.index].work;
        let port = work.mapped_port().expect("only a mapped stage has items");
        let given = self.caller.given(&job.key.ingredients.inputs)?;
        let input = Arc::clone(&given[port]);
        let cached = found.groups.iter().flat_map(|group| &group.items);
        let mut files: Files = cached
            .filter_map(|(key, record)| Some((*key, record.as_ref()?.files.clone())))
            .collect();
        let mut items_run = 0;
        let mut items = Vec::with_capacity(found.total());
        for group in &found.groups {
            let given = match (work.crossed_port(), &group.with) {
                (Some(port), Some(item)) => narrowed(&given, port, vec![item.clone()]),
                _ => given.clone(),
            };
            let buckets = buckets(&input.items, group, &files);
            let all = buckets.iter().map(|bucket| bucket.items.len()).sum();
            let wanted = Wanted { port, given, outside, all, before: files.len() };
            items_run += self.run_buckets(job, &wanted, buckets, &mut files)?;
            for (item, (key, _)) in input.items.iter().zip(&group.items) {
                let files = files.get(key).cloned().ok_or_else(|| {
                    StageError::Bug(format!("the stage wrote nothing for item `{}`", item.name))
                })?;
                items.push(Item { name: crossed_name(group.prefix.as_deref(), &item.name), files });
            }
        }
        Ok(Made { items, items_run, steps: 0 })
    }

    /// Makes what is in the buckets, those first that nobody else has claimed; gives how many items
    /// it made itself. It waits only while it holds no bucket, so nobody waits in a circle.
    fn run_buckets(
        &self,
        job: &Job,
        wanted: &Wanted<'_>,
        buckets: Vec<Bucket>,
        files: &mut Files,
    ) -> Result<usize, StageError> {
        let store = self.caller.store;
        let side_by_side = self.caller.pipeline.instances[job.index].work.side_by_side().max(1);
        let wait = |bucket: Bucket| (store.key_wait(bucket.lock), bucket);
        let mut left: Vec<(KeyWait, Bucket)> = buckets.into_iter().map(wait).collect();
        let (mut claims, mut made, mut told) = (Vec::new(), 0, false);
        while !left.is_empty() {
            let (mut claimed, mut holder) = (false, None);
            for (mut wait, bucket) in std::mem::take(&mut left) {
                match wait.try_take()? {
                    Attempt::Taken(lock) => {
                        claimed = true;
                        self.claim(job, bucket, lock, &mut claims, files)?;
                        let full = claims.len() - claims.len() % side_by_side;
                        made += self.make_items(job, wanted, claims.drain(..full), files)?;
                    }
                    Attempt::Held(who) => {
                        holder = holder.or(who);
                        left.push((wait, bucket));
                    }
                }
            }
            // What fills no call is made all the same before others are waited for.
            made += self.make_items(job, wanted, claims.drain(..), files)?;
            let Some((wait, _)) = left.first_mut().filter(|_| !claimed) else { continue };
            if !std::mem::replace(&mut told, true) {
                self.tell_of_wait(job.index, holder.map(|holder| holder.told()));
            }
            self.caller.options.cancel.check()?;
            std::thread::sleep(wait.pause());
        }
        Ok(made)
    }

    /// Adds what is still missing of a bucket whose lock is held to what is to be made.
    fn claim(
        &self,
        job: &Job,
        bucket: Bucket,
        lock: KeyLock,
        claims: &mut Vec<Claimed>,
        files: &mut Files,
    ) -> Result<(), StageError> {
        let lock = Rc::new(lock);
        for (key, item) in bucket.items {
            // Somebody else may have made it before the lock was free.
            let found = if job.forced { None } else { self.caller.store.lookup_item(key)? };
            if let Some(record) = found {
                files.insert(key, record.files);
            } else {
                claims.push(Claimed { key, item, lock: Rc::clone(&lock) });
            }
        }
        Ok(())
    }

    /// Makes items in one call, and gives back their buckets; gives their number.
    fn make_items(
        &self,
        job: &Job,
        wanted: &Wanted<'_>,
        claims: impl Iterator<Item = Claimed>,
        files: &mut Files,
    ) -> Result<usize, StageError> {
        let Wanted { port, given, outside, all, .. } = wanted;
        // The locks are held to the end.
        let (mut keys, mut missing, mut locks) = (HashMap::new(), Vec::new(), Vec::new());
        for Claimed { key, item, lock } in claims {
            keys.insert(item.name.clone(), key);
            missing.push(item);
            locks.push(lock);
        }
        let (made, all) = (missing.len() as u64, *all as u64);
        if missing.is_empty() {
            return Ok(0);
        }
        let store = self.caller.store;
        let there = wanted.there(files);
        // The stage counts what it was given; told is how far all of it is.
        let progress = |Progress { done, total, message }: Progress| {
            let per_item = total / made.max(1);
            let done = done + there * per_item;
            self.progress(job, Progress { done, total: (all * per_item).max(total), message });
        };
        let given = narrowed(given, port, missing);
        self.call(job, given, *outside, &progress, &mut |item| {
            let key = keys.get(&item.name).ok_or_else(|| {
                let name = &item.name;
                StageError::Bug(format!("the stage wrote item `{name}`, which it was not given"))
            })?;
            store.commit_item(*key, item.files.clone())?;
            files.insert(*key, item.files.clone());
            self.caller.options.cancel.check()
        })?;
        Ok(made as usize)
    }

    /// Says that somebody else computes what this stage needs.
    pub(super) fn tell_of_wait(&self, index: usize, holder: Option<String>) {
        let stage = self.caller.pipeline.instances[index].to_string();
        self.event(RunEvent::StageWaiting { index, stage, holder });
    }
}

/// The items of a group that have no files yet, each content once, in the order of the first of
/// each bucket.
fn buckets(items: &[Item], group: &ItemGroup, files: &Files) -> Vec<Bucket> {
    let mut seen = HashSet::new();
    let mut places = HashMap::new();
    let mut buckets: Vec<Bucket> = Vec::new();
    for (item, (key, _)) in items.iter().zip(&group.items) {
        if files.contains_key(key) || !seen.insert(*key) {
            continue;
        }
        let lock = lock_of(group.stem, *key);
        let place = *places.entry(lock).or_insert_with(|| {
            buckets.push(Bucket { lock, items: Vec::new() });
            buckets.len() - 1
        });
        buckets[place].items.push((*key, item.clone()));
    }
    buckets
}

/// The lock of the bucket that an item is in.
fn lock_of(stem: Fingerprint, key: Fingerprint) -> Fingerprint {
    let bucket = key.as_bytes()[0] % BUCKETS;
    Fingerprint::of(format!("pipe bucket 1\n{stem} {bucket}").as_bytes())
}
