//! The other cells of a stage: what a new cell most likely was before.
//!
//! One that the pipeline has no more is what the new cell was, unless one that is still there is
//! nearer: where the baseline of a sweep moves off a value that is also listed, the cell of that
//! value stays, and it alone differs in nothing else.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use crate::store::Fingerprint;

/// Cells that are looked at one by one; of more, only those that differ in one axis are found.
const FEW: usize = 256;

/// Cells that one is compared with.
const COMPARED: usize = 64;

/// How near a cell is, the nearest first: the axis values that differ, then whether it is still
/// there, then how often those values were left with the cells that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nearness {
    distance: usize,
    is_present: bool,
    left: Reverse<usize>,
}

/// The cells of one stage that ran before.
#[derive(Default)]
pub(super) struct Siblings {
    gone: Cells,
    present: Cells,
    /// How many of the cells that are gone have an axis value.
    left: HashMap<String, usize>,
}

impl Siblings {
    /// The cells of these instances, such as `lora[n=1, rank=8]`, with what they last were: those
    /// that are no longer in the file, and those that are.
    pub fn new<'a>(
        gone: impl Iterator<Item = (&'a str, Fingerprint)>,
        present: impl Iterator<Item = (&'a str, Fingerprint)>,
    ) -> Self {
        let gone = Cells::new(gone);
        if gone.cells.is_empty() {
            // A cell is new then, and nothing else changed.
            return Self::default();
        }
        let mut left = HashMap::new();
        for value in gone.cells.iter().flat_map(|(values, _)| values) {
            *left.entry(value.clone()).or_default() += 1;
        }
        Self { gone, present: Cells::new(present), left }
    }

    /// The nearest of them to an instance, and what they were.
    pub fn nearest(&self, instance: &str) -> Vec<(Nearness, Fingerprint)> {
        let own = values(instance);
        let mut found: Vec<_> = self
            .gone
            .nearest(&own)
            .into_iter()
            .map(|(distance, index)| {
                let nearness = Nearness { distance, is_present: false, left: Reverse(0) };
                (nearness, self.gone.cells[index].1)
            })
            .collect();
        let nearest = found.first().map(|(nearness, _)| nearness.distance);
        for (distance, index) in self.present.nearest(&own) {
            if nearest.is_none_or(|nearest| distance < nearest) {
                let (values, key) = &self.present.cells[index];
                let others = values.iter().filter(|value| own.binary_search(value).is_err());
                let left = others.filter_map(|value| self.left.get(value)).sum();
                found.push((Nearness { distance, is_present: true, left: Reverse(left) }, *key));
            }
        }
        found.sort_by_key(|(nearness, _)| *nearness);
        found.truncate(COMPARED);
        found
    }
}

/// Cells by their axis values, with what they last were.
#[derive(Default)]
struct Cells {
    cells: Vec<(Vec<String>, Fingerprint)>,
    /// Where they are many, the first ones by their axis values, all of them and all but one.
    near: HashMap<String, Vec<usize>>,
}

impl Cells {
    fn new<'a>(instances: impl Iterator<Item = (&'a str, Fingerprint)>) -> Self {
        let cells: Vec<_> = instances.map(|(name, key)| (values(name), key)).collect();
        let mut near: HashMap<String, Vec<usize>> = HashMap::new();
        if cells.len() > FEW {
            for (index, (values, _)) in cells.iter().enumerate() {
                for text in texts(values) {
                    let found = near.entry(text).or_default();
                    if found.len() < COMPARED {
                        found.push(index);
                    }
                }
            }
        }
        Self { cells, near }
    }

    /// The nearest of them to a cell: in how many axis values each differs, and its index.
    fn nearest(&self, own: &[String]) -> Vec<(usize, usize)> {
        let of = |index: usize| (distance(own, &self.cells[index].0), index);
        let mut found: Vec<_> = if self.cells.len() <= FEW {
            (0..self.cells.len()).map(of).collect()
        } else {
            let near = texts(own).filter_map(|text| self.near.get(&text)).flatten();
            let mut seen = HashSet::new();
            near.copied().filter(|index| seen.insert(*index)).map(of).collect()
        };
        found.sort_by_key(|(distance, _)| *distance);
        found.truncate(COMPARED);
        found
    }
}

/// `n=1` and `rank=8` of `lora[n=1, rank=8]`, in the order of the text.
fn values(instance: &str) -> Vec<String> {
    let cell = instance.split_once('[').map_or("", |(_, cell)| cell.trim_end_matches(']'));
    let mut values: Vec<_> =
        cell.split(", ").filter(|value| !value.is_empty()).map(str::to_owned).collect();
    values.sort();
    values.dedup();
    values
}

/// The values as one text, and each time without one of them.
fn texts(values: &[String]) -> impl Iterator<Item = String> {
    let without = move |left_out: usize| {
        let kept = values.iter().enumerate().filter(move |(at, _)| *at != left_out);
        kept.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
    };
    (0..=values.len()).map(without)
}

/// In how many values two cells differ; both are sorted.
fn distance(a: &[String], b: &[String]) -> usize {
    let shared = a.iter().filter(|value| b.binary_search(value).is_ok()).count();
    a.len() + b.len() - 2 * shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Fingerprint {
        Fingerprint::of(name.as_bytes())
    }

    fn siblings(gone: &[String], present: &[String]) -> Siblings {
        let cells = |names: &[String]| -> Vec<_> {
            names.iter().map(|name| (name.clone(), key(name))).collect()
        };
        let (gone, present) = (cells(gone), cells(present));
        Siblings::new(
            gone.iter().map(|(name, key)| (name.as_str(), *key)),
            present.iter().map(|(name, key)| (name.as_str(), *key)),
        )
    }

    /// The nearest ones with the number of axis values they differ in.
    fn nearest(siblings: &Siblings, instance: &str) -> Vec<(usize, Fingerprint)> {
        let found = siblings.nearest(instance).into_iter();
        found.map(|(nearness, key)| (nearness.distance, key)).collect()
    }

    #[test]
    fn the_nearest_cell_comes_first() {
        let names = ["lora[n=1, rank=8]", "lora[n=3, rank=16]", "lora[n=3, rank=8]", "lora"];
        let found = nearest(&siblings(&names.map(str::to_owned), &[]), "lora[n=5, rank=8]");
        let wanted =
            [(2, key(names[0])), (2, key(names[2])), (2, key(names[3])), (4, key(names[1]))];
        assert_eq!(found, wanted);
        assert_eq!(nearest(&siblings(&[], &[]), "lora[n=5]"), []);
    }

    #[test]
    fn a_cell_that_is_still_there_explains_only_where_it_is_nearer() {
        let gone = ["lora[modules=qk, rank=64]"].map(str::to_owned);
        let present = ["lora[modules=qkvo, rank=16]", "lora[modules=qkvo, rank=64]"];
        let all = siblings(&gone, &present.map(str::to_owned));
        // Of two that are as near, the one whose rank was left comes first.
        let found = nearest(&all, "lora[modules=qkvo, rank=32]");
        assert_eq!(found, [(2, key(present[1])), (2, key(present[0])), (4, key(&gone[0]))]);
        assert_eq!(nearest(&all, "lora[modules=qk, rank=32]"), [(2, key(&gone[0]))]);
        // Where none is gone, a cell is new.
        let all = siblings(&[], &present.map(str::to_owned));
        assert_eq!(nearest(&all, "lora[modules=qkvo, rank=32]"), []);
    }

    #[test]
    fn of_many_cells_those_that_differ_in_one_axis_are_found() {
        let names: Vec<_> = (0..30)
            .flat_map(|n| (0..30).map(move |rank| format!("lora[n={n}, rank={rank}]")))
            .collect();
        let many = siblings(&names, &names);
        let found = nearest(&many, "lora[n=7, rank=99]");
        assert_eq!(found.len(), 30);
        assert!(found.iter().all(|(distance, _)| *distance == 2));
        assert!(found.contains(&(2, key("lora[n=7, rank=3]"))));
        // An axis more, and one less.
        let more = nearest(&many, "lora[n=7, rank=3, steps=5]");
        assert_eq!(more[0], (1, key("lora[n=7, rank=3]")));
        assert!(nearest(&many, "lora[n=7]").iter().all(|(distance, _)| *distance == 1));
        assert_eq!(nearest(&many, "lora[n=98, rank=99]"), [], "it differs in both");
        let beside = siblings(&["lora[n=98, rank=1]".to_owned()], &names);
        assert_eq!(nearest(&beside, "lora[n=7, rank=99]").len(), 31);
    }

    /// Each of 30,000 against each of 30,000 would take an hour; this takes a second or two.
    #[test]
    fn many_new_cells_beside_many_old_ones_take_no_product() {
        const CELLS: usize = 30_000;
        let name = |n: usize, steps: usize| format!("lora[n={n}, rank=8, steps={steps}]");
        let names: Vec<_> = (0..CELLS).map(|n| name(n, 100)).collect();
        let many = siblings(&names, &[]);
        let start = std::time::Instant::now();
        for n in 0..CELLS {
            assert_eq!(nearest(&many, &name(n, 200))[0], (2, key(&name(n, 100))));
        }
        assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    }
}
