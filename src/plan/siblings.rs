//! Cells of a stage that a pipeline has no more: what a new cell most likely was before.

use std::collections::{HashMap, HashSet};

use crate::store::Fingerprint;

/// Cells that are looked at one by one; of more, only those that differ in one axis are found.
const FEW: usize = 256;

/// Cells that one is compared with.
const COMPARED: usize = 64;

/// The cells of one stage that are no longer in the file.
#[derive(Default)]
pub(super) struct Siblings {
    cells: Vec<(Vec<String>, Fingerprint)>,
    /// Where they are many, the first ones by their axis values, all of them and all but one.
    near: HashMap<String, Vec<usize>>,
}

impl Siblings {
    /// The cells of these instances, such as `lora[n=1, rank=8]`, with what they last were.
    pub fn new<'a>(gone: impl Iterator<Item = (&'a str, Fingerprint)>) -> Self {
        let cells: Vec<_> = gone.map(|(name, key)| (values(name), key)).collect();
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

    /// The nearest of them: in how many axis values each differs from an instance, and what it was.
    pub fn nearest(&self, instance: &str) -> Vec<(usize, Fingerprint)> {
        let own = values(instance);
        let of = |index: usize| {
            let (values, key) = &self.cells[index];
            (distance(&own, values), *key)
        };
        let mut found: Vec<_> = if self.cells.len() <= FEW {
            (0..self.cells.len()).map(of).collect()
        } else {
            let near = texts(&own).filter_map(|text| self.near.get(&text)).flatten();
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

    fn siblings(names: &[String]) -> Siblings {
        Siblings::new(names.iter().map(|name| (name.as_str(), key(name))))
    }

    #[test]
    fn the_nearest_cell_comes_first() {
        let names = ["lora[n=1, rank=8]", "lora[n=3, rank=16]", "lora[n=3, rank=8]", "lora"];
        let found = siblings(&names.map(str::to_owned)).nearest("lora[n=5, rank=8]");
        let wanted =
            [(2, key(names[0])), (2, key(names[2])), (2, key(names[3])), (4, key(names[1]))];
        assert_eq!(found, wanted);
        assert_eq!(siblings(&[]).nearest("lora[n=5]"), []);
    }

    #[test]
    fn of_many_cells_those_that_differ_in_one_axis_are_found() {
        let names: Vec<_> = (0..30)
            .flat_map(|n| (0..30).map(move |rank| format!("lora[n={n}, rank={rank}]")))
            .collect();
        let many = siblings(&names);
        let found = many.nearest("lora[n=7, rank=99]");
        assert_eq!(found.len(), 30);
        assert!(found.iter().all(|(distance, _)| *distance == 2));
        assert!(found.contains(&(2, key("lora[n=7, rank=3]"))));
        // An axis more, and one less.
        let more = many.nearest("lora[n=7, rank=3, steps=5]");
        assert_eq!(more[0], (1, key("lora[n=7, rank=3]")));
        assert!(many.nearest("lora[n=7]").iter().all(|(distance, _)| *distance == 1));
        assert_eq!(many.nearest("lora[n=98, rank=99]"), [], "it differs in both");
    }

    /// Each of 30,000 against each of 30,000 would take an hour; this takes a second or two.
    #[test]
    fn many_new_cells_beside_many_old_ones_take_no_product() {
        const CELLS: usize = 30_000;
        let name = |n: usize, steps: usize| format!("lora[n={n}, rank=8, steps={steps}]");
        let names: Vec<_> = (0..CELLS).map(|n| name(n, 100)).collect();
        let many = siblings(&names);
        let start = std::time::Instant::now();
        for n in 0..CELLS {
            assert_eq!(many.nearest(&name(n, 200))[0], (2, key(&name(n, 100))));
        }
        assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
    }
}
