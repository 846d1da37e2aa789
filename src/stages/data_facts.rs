//! Whether data holds what is asked of it, told before anything runs.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Cause, Misfit};
use crate::{
    data::{
        DataError, Request,
        sets::{Images, Knowledge},
    },
    store::SourceReader,
};

/// Images up to which those of a stage are decoded; larger sets would take longer than a check may.
pub const MOST_DECODED: usize = 30;

/// Images that cannot be used of which it is said why.
const MOST_NAMED: usize = 5;

/// What is known of the data of a pipeline: each part is looked at once, and only if asked for, since
/// the annotations of a large data set take seconds to read.
#[derive(Default)]
pub struct KnownData {
    look: bool,
    parts: RefCell<HashMap<Choosable, Part>>,
    /// What was said of images that cannot be used, by root; another cell or stage that takes one of them
    /// does not say it again.
    told: RefCell<HashSet<(PathBuf, String)>>,
    undecoded: Cell<bool>,
}

/// All that decides which images a request may choose from, as its parameters.
#[derive(PartialEq, Eq, Hash)]
struct Choosable(Value);

impl Choosable {
    fn of(request: &Request) -> Self {
        // All but which of the images are taken, and how they are drawn, may decide their number.
        // What is cut off at the sides of a picture does not count, so that it depends on its shape, too.
        let has_shape =
            matches!(request.task.needs(), Knowledge::Persons | Knowledge::Mask | Knowledge::Scene);
        let size = if has_shape { request.size } else { [0; 2] };
        let any = Request { count: None, subset: 0, size, seed: None, ..request.clone() };
        Self(serde_json::to_value(any).expect("parameters are plain values"))
    }
}

/// What is known of all images that a request may choose from.
struct Part {
    count: Result<Option<usize>, Misfit>,
    /// What is wrong with those that were decoded, by place.
    decoded: HashMap<usize, Option<Misfit>>,
}

impl KnownData {
    /// Looks at the data where `look`, else knows nothing.
    pub fn new(look: bool) -> Self {
        Self { look, ..Self::default() }
    }

    /// Whether images that are here were not decoded, because a stage takes too many.
    pub fn undecoded(&self) -> bool {
        self.undecoded.get()
    }

    /// What the data of a request does not give, if it is there.
    pub(super) fn misfit(&self, request: &Request) -> Option<Misfit> {
        let root = Path::new(request.source.root.as_deref().unwrap_or_default());
        let is_on_disk = request.source.source.is_on_disk();
        if !self.look || is_on_disk && !root.is_dir() {
            return None;
        }
        let sources = SourceReader::new(root);
        let mut look = Look { request, sources: &sources, images: None };
        let mut parts = self.parts.borrow_mut();
        let part = parts
            .entry(Choosable::of(request))
            .or_insert_with(|| Part { count: look.count(), decoded: HashMap::new() });
        let count = match &part.count {
            Ok(count) => *count,
            Err(misfit) => return Some(misfit.clone()),
        };
        match request.choose(count) {
            Ok(_) if !is_on_disk => None,
            Ok(places) if places.len() > MOST_DECODED => {
                self.undecoded.set(true);
                None
            }
            Ok(places) => {
                let mut told = self.told.borrow_mut();
                let mut broken = part.broken(&mut look, &places);
                broken.retain(|misfit| told.insert((root.to_owned(), misfit.message.clone())));
                in_one(broken)
            }
            Err(error) => Some(misfit(Cause::Param("count"), error)),
        }
    }
}

impl Part {
    /// What is wrong with those of these images that cannot be used; each is decoded once.
    fn broken(&mut self, look: &mut Look<'_>, places: &[usize]) -> Vec<Misfit> {
        let decode =
            |place| self.decoded.entry(place).or_insert_with(|| look.decode(place).err()).clone();
        places.iter().copied().filter_map(decode).collect()
    }
}

/// The images that a request may choose from, opened when they are first asked for.
struct Look<'a> {
    request: &'a Request,
    sources: &'a SourceReader,
    images: Option<Box<dyn Images + 'a>>,
}

impl<'a> Look<'a> {
    fn images(&mut self) -> Result<&(dyn Images + 'a), DataError> {
        let images = match self.images.take() {
            Some(images) => images,
            None => self.request.source.source.open(self.request, self.sources)?,
        };
        Ok(&**self.images.insert(images))
    }

    /// How many images fit the request; none if they have no end.
    fn count(&mut self) -> Result<Option<usize>, Misfit> {
        let request = self.request;
        let images = self.images().map_err(of_source)?;
        Ok(request.task.count(images))
    }

    /// Makes the pair of an image as the stage will.
    fn decode(&mut self, place: usize) -> Result<(), Misfit> {
        let request = self.request;
        let images = self.images().map_err(of_source)?;
        request.task.pair(images, place, request).map(drop).map_err(of_source)
    }
}

/// The first of several images that cannot be used, with the others in the lines below.
fn in_one(broken: Vec<Misfit>) -> Option<Misfit> {
    let mut broken = broken.into_iter();
    let mut first = broken.next()?;
    let lines = broken.by_ref().take(MOST_NAMED - 1).map(|misfit| format!("\n{}", misfit.message));
    let lines: String = lines.collect();
    let more = match broken.count() {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    first.message = first.message + &lines + &more;
    Some(first)
}

fn of_source(error: DataError) -> Misfit {
    misfit(Cause::Param("source"), error)
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
        let images = folder.path().join("train2017");
        std::fs::create_dir(&images).unwrap();
        image::RgbImage::new(100, 20).save(images.join("a.jpg")).unwrap();
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
