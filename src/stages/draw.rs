//! Which part of its data a stage takes, so that two stages can be seen to take the same.

use std::ops::Range;

use crate::data::{Request, sets::Knowledge};

/// A block of some data that is shuffled by a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Names the data and its order.
    pub pool: String,
    /// The places that are taken.
    pub block: Range<usize>,
}

impl Draw {
    /// Whether some image is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.block, &other.block);
        self.pool == other.pool && a.start < b.end && b.start < a.end
    }
}

/// The block that a data set's parameters name. Splits have no image in common; what else decides
/// which images fit tells pools apart that may have some, but at other places.
pub(super) fn dataset(request: &Request) -> Draw {
    let Request { source, split, holdout, min_share, .. } = request;
    let needs = request.task.needs();
    let class = (needs == Knowledge::Mask).then_some(&request.class);
    let seed = request.seed();
    let pool = format!("{source:?} {split:?} {holdout} {needs:?} {class:?} {min_share} {seed}");
    let block = match request.count {
        None => 0..usize::MAX,
        Some(count) => {
            let start = request.subset.saturating_mul(count);
            start..start.saturating_add(count)
        }
    };
    Draw { pool, block }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn draw(params: &Value) -> Draw {
        let mut all = json!({ "source": "builtin:figures", "task": "pose", "size": [64, 64] });
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        dataset(&serde_json::from_value(all).unwrap())
    }

    #[test]
    fn blocks_of_one_shuffle_meet_where_their_places_do() {
        let one = draw(&json!({ "count": 4 }));
        assert!(one.overlaps(&draw(&json!({ "count": 12 }))));
        assert!(!one.overlaps(&draw(&json!({ "count": 12, "subset": 1 }))));
        assert!(
            draw(&json!({ "count": 13 })).overlaps(&draw(&json!({ "count": 12, "subset": 1 })))
        );
        assert!(!one.overlaps(&draw(&json!({ "count": 4, "split": "test" }))));
        assert!(!one.overlaps(&draw(&json!({ "count": 4, "seed": 5 }))));
    }
}
