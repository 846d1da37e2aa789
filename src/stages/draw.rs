//! Which part of its data a stage takes, so that two stages can be seen to take the same.

use std::ops::Range;

use crate::data::{Request, Split, sets::Knowledge, source::DataSource};

/// A block of some data that is shuffled by a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
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
    holdout: f64,
    needs: Knowledge,
    /// The class whose mask must be there.
    class: Option<String>,
    min_share: f64,
    seed: u64,
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
    let needs = request.task.needs();
    let pool = Pool {
        source: request.source.clone(),
        split: request.split,
        holdout: request.holdout,
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
