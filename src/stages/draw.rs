//! Which part of its data a stage takes, so that two stages can be seen to take the same.

use std::{ops::Range, path::Path};

use super::{
    Dataset,
    dataset::{Split, Task},
};
use crate::data::source::SourceName;

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

/// The block that a data set's parameters name.
pub(super) fn dataset(stage: &Dataset) -> Draw {
    let source = &stage.source;
    let mut split = Some(stage.split);
    if let (SourceName::Folder, Some(root)) = (source.source, &source.root) {
        let folder = |name| Path::new(root).join(name).is_dir();
        let (train, test) = (folder("train"), folder("test"));
        // A split without a folder of its own is read from the root.
        split = split.filter(|split| if *split == Split::Train { train } else { test });
    }
    let world = stage.task == Task::World;
    let mut pool = format!("{source:?} {split:?} {world} {:?}", stage.seed.unwrap_or(0));
    if source.source == SourceName::Coco {
        let of = (stage.task == Task::Segmentation).then_some(&stage.class);
        pool = format!("{pool} {:?} {of:?} {}", stage.task, stage.min_share);
    }
    let block = match stage.count {
        None => 0..usize::MAX,
        Some(count) => {
            let start = stage.subset.saturating_mul(count);
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

    #[test]
    fn a_folder_without_splits_is_one_pool() {
        let root = tempfile::tempdir().unwrap();
        let of = |split: &str| {
            let source = json!({ "source": "folder", "root": root.path() });
            draw(&json!({ "source": source, "task": "pairs", "split": split, "count": 4 }))
        };
        assert!(of("train").overlaps(&of("test")));
        std::fs::create_dir(root.path().join("train")).unwrap();
        std::fs::create_dir(root.path().join("test")).unwrap();
        assert!(!of("train").overlaps(&of("test")));
    }
}
