//! Whether data holds what is asked of it, told before anything runs.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    rc::Rc,
};

use serde_json::Value;

use super::{Cause, CheckError, CheckWarning};
use crate::{
    data::{
        DataError, Request,
        sets::{Images, Knowledge},
        tasks::depth::Reach,
    },
    store::{Digest, SourceReader},
};

/// Images up to which those of a stage are decoded; larger sets would take longer than a check may.
pub const MOST_DECODED: usize = 30;

/// Pictures with distances that are looked at, also of larger sets: wrong units show in each.
const MOST_MEASURED: usize = 8;

/// Images that cannot be used of which it is said why.
const MOST_NAMED: usize = 5;

/// What is known of the data of a pipeline: each part is looked at once, and only if asked for,
/// since the annotations of a large data set take seconds to read.
#[derive(Default)]
pub struct KnownData {
    look: bool,
    parts: RefCell<HashMap<Choosable, Part>>,
    /// What was said of images that cannot be used or reach too far, by root; another cell or stage
    /// that takes one of them does not say it again.
    told: RefCell<HashSet<(PathBuf, String)>>,
    undecoded: Cell<bool>,
}

/// All that decides which images a request may choose from, as its parameters.
#[derive(PartialEq, Eq, Hash)]
struct Choosable(Value);

impl Choosable {
    fn of(request: &Request) -> Self {
        // All but which of the images are taken, and how they are drawn, may decide their number.
        // What is cut off at the sides of a picture does not count, so that it depends on its
        // shape, too.
        let has_shape =
            matches!(request.task.needs(), Knowledge::Persons | Knowledge::Mask | Knowledge::Scene);
        let size = if has_shape { request.size } else { [0; 2] };
        let any = Request { count: None, subset: 0, size, seed: None, ..request.clone() };
        Self(serde_json::to_value(any).expect("parameters are plain values"))
    }
}

/// What was seen of an image.
struct Seen {
    /// Its name.
    name: String,
    /// The content of the pair's input.
    input: Digest,
    /// How far its distances reach.
    reach: Reach,
}

/// What is known of all images that a request may choose from.
struct Part {
    count: Result<Option<usize>, CheckError>,
    /// What those that were decoded show, or what is wrong with them, by place.
    decoded: HashMap<usize, Result<Rc<Seen>, CheckError>>,
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
    pub(in crate::stages) fn check(&self, request: &Request) -> Option<CheckError> {
        let root = root_of(request);
        let is_on_disk = request.source.source.is_on_disk();
        if !self.look || is_on_disk && !root.is_dir() {
            return None;
        }
        let sources = SourceReader::new(root);
        let mut look = Look { request, sources: &sources, images: None };
        let mut parts = self.parts.borrow_mut();
        let part = parts.entry(Choosable::of(request)).or_insert_with(|| Part::new(&mut look));
        let count = match &part.count {
            Ok(count) => *count,
            Err(error) => return Some(error.clone()),
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
                broken.retain(|error| told.insert((root.to_owned(), error.message.clone())));
                in_one(broken)
            }
            Err(error) => Some(error_of(Cause::Param("count"), error)),
        }
    }

    /// Distances that mostly lie beyond the range of the colours, as those in other units do.
    pub(in crate::stages) fn warning(&self, request: &Request) -> Option<CheckWarning> {
        let root = root_of(request);
        let measures = request.task.needs() == Knowledge::Depth;
        if !self.look || !measures || !request.source.source.is_on_disk() || !root.is_dir() {
            return None;
        }
        let sources = SourceReader::new(root);
        let mut look = Look { request, sources: &sources, images: None };
        let mut parts = self.parts.borrow_mut();
        let part = parts.entry(Choosable::of(request)).or_insert_with(|| Part::new(&mut look));
        let count = part.count.as_ref().ok().copied()?;
        let mut places = request.choose(count).ok()?;
        places.truncate(MOST_MEASURED);
        let seen = places.iter().filter_map(|place| part.decoded(&mut look, *place).ok());
        let range @ [near, far] = request.depth.range;
        let doubt = seen.map(|seen| seen.reach).reduce(Reach::and)?.doubt(range)?;
        let told = (root.to_owned(), format!("[{near}, {far}]"));
        let is_new = self.told.borrow_mut().insert(told);
        is_new.then(|| CheckWarning {
            param: Some("source"),
            message: format!("takes pictures with {doubt}"),
        })
    }

    /// The inputs of the pairs of a request, with their names, where they are few enough to be
    /// decoded.
    pub(in crate::stages) fn pictures(&self, request: &Request) -> Option<Vec<(Digest, String)>> {
        let root = root_of(request);
        if !self.look || !request.source.source.is_on_disk() || !root.is_dir() {
            return None;
        }
        let sources = SourceReader::new(root);
        let mut look = Look { request, sources: &sources, images: None };
        let mut parts = self.parts.borrow_mut();
        let part = parts.entry(Choosable::of(request)).or_insert_with(|| Part::new(&mut look));
        let count = part.count.as_ref().ok().copied()?;
        let places = request.choose(count).ok().filter(|places| places.len() <= MOST_DECODED)?;
        let seen = places.iter().filter_map(|place| part.decoded(&mut look, *place).ok());
        Some(seen.map(|seen| (seen.input, seen.name.clone())).collect())
    }
}

fn root_of(request: &Request) -> &Path {
    Path::new(request.source.root.as_deref().unwrap_or_default())
}

impl Part {
    fn new(look: &mut Look<'_>) -> Self {
        Self { count: look.count(), decoded: HashMap::new() }
    }

    /// What is wrong with those of these images that cannot be used.
    fn broken(&mut self, look: &mut Look<'_>, places: &[usize]) -> Vec<CheckError> {
        places.iter().filter_map(|place| self.decoded(look, *place).err()).collect()
    }

    /// What is known of an image; each is decoded once.
    fn decoded(&mut self, look: &mut Look<'_>, place: usize) -> Result<Rc<Seen>, CheckError> {
        self.decoded.entry(place).or_insert_with(|| look.decode(place)).clone()
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
    fn count(&mut self) -> Result<Option<usize>, CheckError> {
        let request = self.request;
        let images = self.images().map_err(of_source)?;
        Ok(request.task.count(images))
    }

    /// Makes the pair of an image as the stage will, and looks at it.
    fn decode(&mut self, place: usize) -> Result<Rc<Seen>, CheckError> {
        let request = self.request;
        let images = self.images().map_err(of_source)?;
        let (name, pair) = request.task.pair(images, place, request).map_err(of_source)?;
        let reach = pair.depth.map(|depth| Reach::of(&depth, request.depth.range));
        let (width, height) = pair.input.dimensions();
        let sides = [width.to_le_bytes(), height.to_le_bytes()].concat();
        let input = Digest::of(&[&sides, pair.input.as_raw().as_slice()].concat());
        Ok(Rc::new(Seen { name, input, reach: reach.unwrap_or_default() }))
    }
}

/// The first of several images that cannot be used, with the others in the lines below.
fn in_one(broken: Vec<CheckError>) -> Option<CheckError> {
    let mut broken = broken.into_iter();
    let mut first = broken.next()?;
    let lines = broken.by_ref().take(MOST_NAMED - 1).map(|error| format!("\n{}", error.message));
    let lines: String = lines.collect();
    let more = match broken.count() {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    first.message = first.message + &lines + &more;
    Some(first)
}

fn of_source(error: DataError) -> CheckError {
    error_of(Cause::Param("source"), error)
}

fn error_of(cause: Cause, error: DataError) -> CheckError {
    let message = error.to_string();
    let (DataError::Failed { help, .. } | DataError::Environment { help, .. }) = error;
    CheckError { cause, message, help }
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
        assert!(known.check(&request([20, 20])).is_some());
        assert_eq!(known.check(&request([20, 100])), None);
        assert!(known.check(&request([20, 20])).is_some());
    }

    /// TUM's pictures without its lists: depths of 5000 units per metre, read as millimetres.
    #[test]
    fn distances_that_mostly_lie_beyond_the_colours_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let depth = |far: u32| {
            image::ImageBuffer::<image::Luma<u16>, _>::from_fn(16, 16, |x, _| {
                image::Luma([if x < far { 15_000 } else { 7_500 }])
            })
        };
        for (name, far) in [("1", 12), ("2", 12)] {
            let path = |what: &str| folder.path().join(format!("{name}_{what}.png"));
            image::RgbImage::new(16, 16).save(path("color")).unwrap();
            depth(far).save(path("depth")).unwrap();
        }
        let request = |units: u32, count: usize| -> Request {
            let source = json!({ "source": "rgbd", "root": folder.path(), "units": units });
            serde_json::from_value(json!({
                "source": source, "task": "depth", "count": count, "size": [16, 16], "holdout": 0.0,
            }))
            .unwrap()
        };
        let known = KnownData::new(true);
        assert_eq!(known.check(&request(1000, 2)), None, "a quarter is inside");
        let warning = known.warning(&request(1000, 2)).unwrap();
        assert_eq!(warning.param, Some("source"));
        insta::assert_snapshot!(warning.message, @"takes pictures with 75 % of the known distances beyond `depth.range` = [0.5, 10], up to 15.0 m away; they are drawn as its ends: give a range that holds them or, if they seem wrong, check `units` of `source`");
        assert_eq!(known.warning(&request(1000, 1)), None, "it was told");
        assert_eq!(KnownData::new(true).warning(&request(5000, 2)), None);
        assert_eq!(KnownData::new(false).warning(&request(1000, 2)), None, "nothing is looked at");
    }
}
