//! What the store holds of instances, for a plan. Where a cache is behind the store, many are
//! looked up at once, since each waits for an answer from afar.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Decider, Found, Freshness, Graph, Key, PlanError, PlanNode, Selection};
use crate::{store::StoreError, sync::Unpoisoned};

/// Requests under way at once. They wait rather than work.
const THREADS: usize = 16;

/// What is known of an instance.
pub(super) enum Looked {
    /// It cannot be looked up yet, or not here.
    Undecided(PlanNode),
    /// What the store holds of its key.
    Found(Box<Key>, Found),
}

/// All instances, inputs before their users, in batches that can be looked up at once: one by one
/// where nothing is behind the store.
pub(super) struct Batches<'a> {
    order: Cow<'a, [usize]>,
    /// Where each batch ends; nowhere if each is of one.
    ends: Vec<usize>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(graph: &'a Graph, is_behind: bool) -> Self {
        if is_behind {
            Self::levels(graph.order(), |index| graph.inputs(index))
        } else {
            Self { order: Cow::Borrowed(graph.order()), ends: Vec::new() }
        }
    }

    fn levels(order: &[usize], inputs: impl Fn(usize) -> Vec<usize>) -> Self {
        let mut depths = vec![0; order.len()];
        for &index in order {
            let above = inputs(index).into_iter().map(|input| depths[input] + 1);
            depths[index] = above.max().unwrap_or(0);
        }
        let mut order = order.to_vec();
        order.sort_by_key(|index| depths[*index]);
        let changes = order.windows(2).enumerate();
        let changes = changes.filter(|(_, pair)| depths[pair[0]] != depths[pair[1]]);
        let ends = changes.map(|(at, _)| at + 1).chain([order.len()]).collect();
        Self { order: Cow::Owned(order), ends }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[usize]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let levels = starts.zip(&self.ends).map(|(start, end)| &self.order[start..*end]);
        let singles = if self.ends.is_empty() { &self.order[..] } else { &[] };
        levels.chain(singles.chunks(1))
    }
}

/// Looks a batch up, each with its index.
pub(super) fn look_up(
    decider: &Decider<'_>,
    selection: &Selection,
    batch: &[usize],
    nodes: &[Option<PlanNode>],
) -> Vec<(usize, Result<Looked, PlanError>)> {
    let look = |index: usize| (index, look_at(decider, index, nodes, selection.needed[index]));
    let threads = THREADS.min(batch.len());
    if threads < 2 {
        return batch.iter().map(|index| look(*index)).collect();
    }
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(batch.len())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(index) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let looked = look(*index);
                    all.lock().unpoisoned().push(looked);
                }
            });
        }
    });
    all.into_inner().unpoisoned()
}

/// Looks one instance up; a cache behind the store is asked only for what is `needed`.
fn look_at(
    decider: &Decider<'_>,
    index: usize,
    nodes: &[Option<PlanNode>],
    needed: bool,
) -> Result<Looked, PlanError> {
    let instance = &decider.pipeline.instances[index];
    let undecided = |freshness| Ok(Looked::Undecided(PlanNode::of(freshness)));
    if let Some(lack) = decider.lack(instance) {
        return undecided(Freshness::Blocked(lack));
    }
    let (mut inputs, mut upstream) = (BTreeMap::new(), Vec::new());
    for (port, input) in &instance.inputs {
        match nodes[*input].as_ref().map(|node| &node.freshness) {
            Some(Freshness::Fresh(record)) => {
                inputs.insert(port.clone(), record.output);
            }
            _ => upstream.push(*input),
        }
    }
    if !upstream.is_empty() {
        return undecided(Freshness::after(upstream));
    }
    let key = match decider.key(index, inputs) {
        Err(PlanError::Lack { lack, .. }) => return undecided(Freshness::Blocked(*lack)),
        // An input whose list of items turns out damaged is made again first.
        Err(PlanError::Store(StoreError::Damaged { .. })) => {
            return undecided(Freshness::after(instance.inputs.values().copied().collect()));
        }
        key => key?,
    };
    let found = if needed { decider.find(index, &key)? } else { decider.find_here(index, &key)? };
    Ok(Looked::Found(Box::new(key), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_what_can_be_looked_up_at_once() {
        // One below two, one below that and one of the two, and one alone.
        let inputs: [&[usize]; 5] = [&[], &[], &[0, 1], &[2, 0], &[]];
        let order = [4, 1, 0, 2, 3];
        let levels = Batches::levels(&order, |index| inputs[index].to_vec());
        assert_eq!(levels.iter().collect::<Vec<_>>(), [&[4, 1, 0][..], &[2], &[3]]);
        let singles = Batches { order: Cow::Borrowed(&order), ends: Vec::new() };
        assert_eq!(singles.iter().collect::<Vec<_>>(), [[4], [1], [0], [2], [3]]);
        assert_eq!(Batches::levels(&[], |_| Vec::new()).iter().flatten().count(), 0);
    }
}
