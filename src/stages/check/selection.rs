//! Which part of its data a stage takes, so that two stages can be seen to take the same.

use std::ops::Range;

use crate::data::{Classes, HoldoutBy, Request, Split, sets::Knowledge, source::DataSource};

/// A block of some data that is shuffled by a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSelection {
    /// The data and its order.
    pub pool: Pool,
    /// The places that are taken.
    pub block: Range<usize>,
}

/// All that decides which images there are to take, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    source: DataSource,
    split: Split,
    /// How data that is not divided is, where the data set does that.
    division: Option<(f64, u64, HoldoutBy)>,
    needs: Knowledge,
    /// The classes of which a mask must be there.
    class: Option<Classes>,
    min_share: f64,
    seed: u64,
}

impl DataSelection {
    /// The block that a data set's parameters name. Splits have no image in common; what else
    /// decides which images fit tells pools apart that may have some, but at other places.
    pub(in crate::stages) fn of(request: &Request) -> Self {
        let needs = request.task.needs();
        let divides = request.source.source.params().contains(&"holdout");
        let pool = Pool {
            source: request.source.clone(),
            split: request.split,
            division: divides.then_some((
                request.holdout,
                request.holdout_seed,
                request.holdout_by,
            )),
            needs,
            class: (needs == Knowledge::Mask).then(|| request.class.clone()),
            min_share: request.min_share,
            seed: request.seed(),
        };
        let block = match request.count {
            None => 0..usize::MAX,
            Some(count) => {
                let start = request.subset.saturating_mul(count);
                start..start.saturating_add(count)
            }
        };
        Self { pool, block }
    }

    /// Whether some image is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.block, &other.block);
        self.pool == other.pool && a.start < b.end && b.start < a.end
    }

    /// Whether one shows grids of images that may be in the other: both take images of one part of
    /// one source, and an image has one name there. Of built-in images, a name says nothing without
    /// a seed.
    pub fn may_share_in_grids(&self, other: &Self) -> bool {
        let (a, b) = (&self.pool, &other.pool);
        let same = a.source == b.source && a.split == b.split && a.source.source.is_on_disk();
        same && [a.needs, b.needs].contains(&Knowledge::Class)
    }

    /// Whether both are parts of one source, but it is divided otherwise for one than for the
    /// other: then the parts may share images, whatever they are called.
    pub fn divides_otherwise(&self, other: &Self) -> bool {
        let (a, b) = (&self.pool, &other.pool);
        a.source == b.source && a.split != b.split && a.division != b.division
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selection(params: &Value) -> DataSelection {
        let mut all = json!({ "source": "builtin:figures", "task": "pose", "size": [64, 64] });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        DataSelection::of(&serde_json::from_value(all).unwrap())
    }

    #[test]
    fn blocks_of_one_shuffle_meet_where_their_places_do() {
        let one = selection(&json!({ "count": 4 }));
        assert!(one.overlaps(&selection(&json!({ "count": 12 }))));
        assert!(!one.overlaps(&selection(&json!({ "count": 12, "subset": 1 }))));
        assert!(
            selection(&json!({ "count": 13 }))
                .overlaps(&selection(&json!({ "count": 12, "subset": 1 })))
        );
        assert!(!one.overlaps(&selection(&json!({ "count": 4, "split": "test" }))));
        assert!(!one.overlaps(&selection(&json!({ "count": 4, "seed": 5 }))));
    }

    #[test]
    fn grids_share_images_of_one_part_of_one_source() {
        let of = |root: &str, split: &str, task: &str, seed: u64| {
            let source = json!({ "source": "tiny_imagenet", "root": root });
            selection(
                &json!({ "source": source, "task": task, "split": split, "count": 3, "seed": seed }),
            )
        };
        let train = of("a", "train", "symbols", 1);
        for (other, may) in [
            (of("a", "train", "symbols", 2), true),
            (of("a", "train", "images", 2), true),
            (of("a", "test", "symbols", 2), false),
            (of("b", "train", "symbols", 2), false),
        ] {
            assert_eq!(
                (train.may_share_in_grids(&other), other.may_share_in_grids(&train)),
                (may, may)
            );
        }
        let images = of("a", "train", "images", 1);
        assert!(!images.may_share_in_grids(&of("a", "train", "images", 2)));
        let drawn = selection(&json!({ "task": "symbols", "count": 3 }));
        assert!(!drawn.may_share_in_grids(&drawn), "of the drawn world");
    }

    #[test]
    fn parts_of_one_source_must_be_divided_alike() {
        let of = |source: Value, split: &str, holdout: f64| {
            let task = if source["source"] == "coco" { "pose" } else { "images" };
            selection(
                &json!({ "source": source, "task": task, "split": split, "holdout": holdout }),
            )
        };
        let folder = || json!({ "source": "folder", "root": "a" });
        let train = of(folder(), "train", 0.2);
        assert!(train.divides_otherwise(&of(folder(), "test", 0.5)));
        assert!(!train.divides_otherwise(&of(folder(), "test", 0.2)));
        assert!(!train.divides_otherwise(&of(folder(), "train", 0.5)));
        let other =
            json!({ "source": folder(), "task": "images", "split": "test", "holdout_seed": 1 });
        assert!(train.divides_otherwise(&selection(&other)));
        let other = json!({ "source": "folder", "root": "b" });
        assert!(!train.divides_otherwise(&of(other, "test", 0.5)));
        let coco = || json!({ "source": "coco", "root": "a" });
        assert!(!of(coco(), "train", 0.2).divides_otherwise(&of(coco(), "test", 0.5)));
    }
}
