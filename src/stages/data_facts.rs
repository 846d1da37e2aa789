//! Whether data holds what is asked of it, told before anything runs.

use std::{cell::RefCell, collections::HashMap};

use super::{Cause, Misfit};
use crate::{
    data::{DataError, Request, sets::Knowledge},
    store::SourceReader,
};

/// What is known of the data of a pipeline: each part is looked at once, and only if asked for, since
/// the annotations of a large data set take seconds to read.
#[derive(Default)]
pub struct KnownData {
    look: bool,
    counts: RefCell<HashMap<String, Result<Option<usize>, Misfit>>>,
}

impl KnownData {
    /// Looks at the data where `look`, else knows nothing.
    pub fn new(look: bool) -> Self {
        Self { look, counts: RefCell::default() }
    }

    /// What the data of a request does not give, if it is there.
    pub(super) fn misfit(&self, request: &Request) -> Option<Misfit> {
        let root = request.source.root.as_deref().unwrap_or_default();
        if !self.look || request.source.source.is_on_disk() && !std::path::Path::new(root).is_dir()
        {
            return None;
        }
        // All but which of the images are taken, and how they are drawn, may decide their number.
        // Persons are cut off at the sides of a picture, so that theirs depends on its shape, too.
        let has_shape = request.task.needs() == Knowledge::Persons;
        let size = if has_shape { request.size } else { [0; 2] };
        let same = Request { count: None, subset: 0, size, seed: None, ..request.clone() };
        let key = format!("{same:?}");
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(key).or_insert_with(|| {
            available(request, root).map_err(|error| misfit(Cause::Param("source"), error))
        });
        match count {
            Ok(count) => {
                request.choose(*count).err().map(|error| misfit(Cause::Param("count"), error))
            }
            Err(misfit) => Some(misfit.clone()),
        }
    }
}

/// How many images fit a request; none if they have no end.
fn available(request: &Request, root: &str) -> Result<Option<usize>, DataError> {
    let sources = SourceReader::new(std::path::Path::new(root));
    let images = request.source.source.open(request, &sources)?;
    Ok(request.task.count(&*images))
}

fn misfit(cause: Cause, error: DataError) -> Misfit {
    let message = error.to_string();
    let (DataError::Failed { help, .. } | DataError::Environment { help, .. }) = error;
    Misfit { cause, message, help }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A person at the left of a wide picture, whose middle alone fills a square one.
    #[test]
    fn persons_are_counted_at_the_size_of_the_stage() {
        let folder = tempfile::tempdir().unwrap();
        let mut keypoints = vec![0.0; 51];
        keypoints[..6].copy_from_slice(&[2.0, 5.0, 2.0, 6.0, 15.0, 2.0]);
        let file = json!({
            "images": [{ "id": 1, "file_name": "a.jpg", "width": 100, "height": 20 }],
            "annotations": [{
                "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "keypoints": keypoints,
            }],
            "categories": [{ "id": 1, "name": "person" }],
        });
        let annotations = folder.path().join("annotations");
        std::fs::create_dir(&annotations).unwrap();
        let path = annotations.join("person_keypoints_train2017.json");
        std::fs::write(path, file.to_string()).unwrap();
        let request = |size: [usize; 2]| -> Request {
            serde_json::from_value(json!({
                "source": { "source": "coco", "root": folder.path() }, "task": "pose", "count": 1,
                "size": size,
            }))
            .unwrap()
        };
        let known = KnownData::new(true);
        assert!(known.misfit(&request([20, 20])).is_some());
        assert_eq!(known.misfit(&request([20, 100])), None);
        assert!(known.misfit(&request([20, 20])).is_some());
    }
}
