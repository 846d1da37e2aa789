//! COCO 2017: person keypoints and instance masks in the official layout.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use image::GrayImage;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, SeqAccess, Visitor},
};

use super::{Person, Sample, resize, rle::Segmentation};
use crate::{stages::StageError, store::SourceReader};

#[derive(Deserialize)]
struct File<A> {
    images: Listed<Image>,
    annotations: Listed<A>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct PersonAnnotation {
    id: u64,
    image_id: u64,
    keypoints: Vec<f32>,
}

#[derive(Deserialize)]
struct InstanceAnnotation {
    id: u64,
    image_id: u64,
    category_id: u64,
    #[serde(default)]
    area: f64,
    segmentation: Segmentation,
}

/// The images of a split that a task can use, by id, with what is to be drawn on them.
#[derive(Debug)]
pub struct Index {
    split: &'static str,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    file_name: String,
    /// Height and width.
    size: [u32; 2],
    persons: Vec<Person>,
    masks: Vec<(u64, Segmentation)>,
    /// Pixels of the masks, as annotated.
    area: f64,
}

/// The split's name in file names: `train2017` or `val2017`.
pub fn split_name(train: bool) -> &'static str {
    if train { "train2017" } else { "val2017" }
}

impl Index {
    /// Images on which, once resized to `size`, a person keypoint is left, and a person whose
    /// keypoints span at least `min_share` of the image.
    pub fn persons(
        sources: &SourceReader,
        train: bool,
        size: [usize; 2],
        min_share: f64,
    ) -> Result<Self, StageError> {
        let path = format!("annotations/person_keypoints_{}.json", split_name(train));
        let file: File<PersonAnnotation> = read_json(sources, &path)?;
        let mut index = Self::new(train, file.images.0, &path)?;
        for annotation in file.annotations.0 {
            let person = person(&annotation).map_err(|e| e.in_file(&path))?;
            let entry = index.entry(annotation.image_id, annotation.id, &path)?;
            if person.keypoints.iter().any(|keypoint| keypoint[2] > 0.0) {
                entry.persons.push(person);
            }
        }
        index.entries.retain(|_, entry| {
            resize::resize_persons(&entry.persons, entry.size, size)
                .iter()
                .any(|person| person.span() >= min_share * (size[0] * size[1]) as f64)
        });
        Ok(index)
    }

    /// Images with at least one instance of the class, crowds included, whose instances cover at
    /// least `min_share` of the image.
    pub fn instances(
        sources: &SourceReader,
        train: bool,
        class: &str,
        min_share: f64,
    ) -> Result<Self, StageError> {
        let path = format!("annotations/instances_{}.json", split_name(train));
        let file: File<InstanceAnnotation> = read_json(sources, &path)?;
        let Some(category) = file.categories.iter().find(|c| c.name == class) else {
            let names: Vec<_> = file.categories.iter().map(|c| c.name.as_str()).collect();
            return Err(StageError::failed(format!("`{path}` has no category `{class}`"))
                .with_help(format!("the categories are: {}", names.join(", "))));
        };
        let mut index = Self::new(train, file.images.0, &path)?;
        for annotation in file.annotations.0 {
            let entry = index.entry(annotation.image_id, annotation.id, &path)?;
            if annotation.category_id == category.id {
                entry.masks.push((annotation.id, annotation.segmentation));
                entry.area += annotation.area;
            }
        }
        index.entries.retain(|_, entry| {
            let whole = f64::from(entry.size[0]) * f64::from(entry.size[1]);
            !entry.masks.is_empty() && entry.area >= min_share * whole
        });
        Ok(index)
    }

    /// All images, without annotations.
    pub fn images(sources: &SourceReader, train: bool) -> Result<Self, StageError> {
        let path = format!("annotations/instances_{}.json", split_name(train));
        let file: File<serde::de::IgnoredAny> = read_json(sources, &path)?;
        Self::new(train, file.images.0, &path)
    }

    fn new(train: bool, images: Vec<Image>, path: &str) -> Result<Self, StageError> {
        let mut entries = BTreeMap::new();
        for Image { id, file_name, width, height } in images {
            if file_name.is_empty() || file_name.contains(['/', '\\']) {
                return Err(StageError::failed(format!(
                    "`{path}`: image {id} is `{file_name}`, which is not a plain file name"
                )));
            }
            if width == 0 || height == 0 {
                return Err(StageError::failed(format!(
                    "`{path}`: image {id} is {width}x{height}, so it has no pixels"
                )));
            }
            let entry = Entry {
                file_name,
                size: [height, width],
                persons: Vec::new(),
                masks: Vec::new(),
                area: 0.0,
            };
            entries.insert(id, entry);
        }
        Ok(Self { split: split_name(train), entries })
    }

    fn entry(&mut self, image: u64, annotation: u64, path: &str) -> Result<&mut Entry, StageError> {
        self.entries.get_mut(&image).ok_or_else(|| {
            StageError::failed(format!(
                "`{path}`: annotation {annotation} names image {image}, which the file does not list"
            ))
        })
    }

    /// The ids of the images, ascending.
    pub fn ids(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    /// Reads one image with its annotations; `id` must be one of [`Self::ids`].
    pub fn sample(&self, sources: &SourceReader, id: u64) -> Result<Sample, StageError> {
        let entry = &self.entries[&id];
        let path = format!("{}/{}", self.split, entry.file_name);
        let image = super::read_image(sources, &path)?;
        if [image.height(), image.width()] != entry.size {
            return Err(StageError::failed(format!(
                "`{path}` is {}x{}, but its annotations are for {}x{}",
                image.width(),
                image.height(),
                entry.size[1],
                entry.size[0]
            ))
            .with_help("take images and annotations from the same release"));
        }
        let mut mask = None;
        if !entry.masks.is_empty() {
            let mut drawn = GrayImage::new(image.width(), image.height());
            for (annotation, segmentation) in &entry.masks {
                segmentation.draw(&mut drawn).map_err(|e| {
                    StageError::failed(format!("annotation {annotation} of `{path}`: {e}"))
                })?;
            }
            mask = Some(drawn);
        }
        let name = entry.file_name.rsplit_once('.').map_or(&*entry.file_name, |(stem, _)| stem);
        Ok(Sample { id: name.to_owned(), image, persons: entry.persons.clone(), mask })
    }
}

fn read_json<T: DeserializeOwned>(sources: &SourceReader, path: &str) -> Result<T, StageError> {
    let bytes = super::read_source(sources, path, "an annotation file of COCO 2017")?;
    serde_json::from_slice(&bytes).map_err(|e| {
        StageError::failed(format!("`{path}` is not a COCO annotation file: {e}"))
            .with_help("download the annotations again; they come as one zip archive")
    })
}

/// A list whose errors say which element is wrong.
struct Listed<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Listed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Listed<T>, A::Error> {
                let mut list = Vec::new();
                loop {
                    match seq.next_element() {
                        Ok(Some(element)) => list.push(element),
                        Ok(None) => return Ok(Listed(list)),
                        Err(error) => {
                            let place = list.len();
                            return Err(serde::de::Error::custom(format_args!(
                                "element {place} of the list (from 0): {error}"
                            )));
                        }
                    }
                }
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

struct KeypointError {
    annotation: u64,
    found: usize,
}

impl KeypointError {
    fn in_file(&self, path: &str) -> StageError {
        StageError::failed(format!(
            "`{path}`: annotation {} must have 51 keypoint numbers, but has {}",
            self.annotation, self.found
        ))
    }
}

fn person(annotation: &PersonAnnotation) -> Result<Person, KeypointError> {
    let values = &annotation.keypoints;
    if values.len() != 51 {
        return Err(KeypointError { annotation: annotation.id, found: values.len() });
    }
    let mut keypoints = [[0.0; 3]; 17];
    for (keypoint, value) in keypoints.iter_mut().zip(values.chunks(3)) {
        keypoint.copy_from_slice(value);
    }
    Ok(Person { keypoints })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A data set of one black 8x6 image with the given annotations.
    fn write(folder: &Path, name: &str, annotations: &str) -> SourceReader {
        for sub in ["annotations", "train2017"] {
            std::fs::create_dir_all(folder.join(sub)).unwrap();
        }
        let json = format!(
            r#"{{"images": [{{"id": 7, "file_name": "7.png", "width": 8, "height": 6}}],
                "categories": [{{"id": 18, "name": "dog"}}, {{"id": 17, "name": "cat"}}],
                "annotations": [{annotations}]}}"#
        );
        let file = folder.join(format!("annotations/{name}_train2017.json"));
        std::fs::write(file, json).unwrap();
        image::RgbImage::new(8, 6).save(folder.join("train2017/7.png")).unwrap();
        SourceReader::new(folder)
    }

    fn failure(annotations: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let sources = write(folder.path(), "instances", annotations);
        Index::instances(&sources, true, "dog", 0.0).unwrap_err().to_string()
    }

    #[test]
    fn the_union_of_a_class_is_its_mask() {
        let folder = tempfile::tempdir().unwrap();
        let sources = write(
            folder.path(),
            "instances",
            r#"{"id": 1, "image_id": 7, "category_id": 18, "iscrowd": 0, "area": 4,
                "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
               {"id": 2, "image_id": 7, "category_id": 18, "iscrowd": 1, "area": 2,
                "segmentation": {"size": [6, 8], "counts": [42, 2, 4]}},
               {"id": 3, "image_id": 7, "category_id": 17, "iscrowd": 0, "area": 48,
                "segmentation": [[0, 0, 8, 0, 8, 6, 0, 6]]}"#,
        );
        let index = Index::instances(&sources, true, "dog", 0.0).unwrap();
        let sample = index.sample(&sources, index.ids()[0]).unwrap();
        assert_eq!(sample.id, "7");
        let mask = sample.mask.unwrap();
        let set: Vec<_> =
            mask.enumerate_pixels().filter(|p| p.2.0[0] > 0).map(|p| (p.0, p.1)).collect();
        assert_eq!(set, [(0, 0), (1, 0), (7, 0), (0, 1), (1, 1), (7, 1)]);
        assert_eq!(Index::instances(&sources, true, "dog", 0.2).unwrap().ids(), [0u64; 0]);
        assert_eq!(Index::images(&sources, true).unwrap().ids(), [7]);
    }

    #[test]
    fn a_person_counts_only_if_a_keypoint_is_left_after_the_crop() {
        let folder = tempfile::tempdir().unwrap();
        let person = |x: u32| {
            let rest = ", 0".repeat(45);
            format!(
                r#"{{"id": 1, "image_id": 7, "num_keypoints": 2,
                    "keypoints": [{x}, 1, 2, {x}, 3, 1{rest}]}}"#
            )
        };
        let sources = write(folder.path(), "person_keypoints", &person(4));
        assert_eq!(Index::persons(&sources, true, [6, 6], 0.0).unwrap().ids(), [7]);
        let sources = write(folder.path(), "person_keypoints", &person(0));
        assert_eq!(Index::persons(&sources, true, [6, 6], 0.0).unwrap().ids(), [0u64; 0]);
        assert_eq!(Index::persons(&sources, true, [6, 8], 0.0).unwrap().ids(), [7]);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        insta::assert_snapshot!(
            failure(r#"{"id": 1, "image_id": 9, "category_id": 18, "segmentation": []}"#),
            @"`annotations/instances_train2017.json`: annotation 1 names image 9, which the file does not list"
        );
        insta::assert_snapshot!(
            failure(r#"{"id": 1, "image_id": 7, "category_id": 18, "segmentation": []},
                       {"id": 2, "image_id": 7, "category_id": 18, "segmentation": "x"}"#),
            @"`annotations/instances_train2017.json` is not a COCO annotation file: element 1 of the list (from 0): polygons, or run lengths with `size` and `counts` at line 4 column 87"
        );
        assert!(failure("{").contains("element 0 of the list"));
        let folder = tempfile::tempdir().unwrap();
        let sources = write(folder.path(), "instances", "");
        let error = Index::instances(&sources, true, "dragon", 0.0).unwrap_err();
        assert!(error.to_string().contains("has no category `dragon`"), "{error}");
        let error = Index::instances(&sources, false, "dog", 0.0).unwrap_err();
        assert!(error.to_string().contains("instances_val2017.json"), "{error}");
        let sources = write(
            folder.path(),
            "person_keypoints",
            r#"{"id": 5, "image_id": 7, "keypoints": [1, 2, 2]}"#,
        );
        let error = Index::persons(&sources, true, [6, 8], 0.0).unwrap_err();
        insta::assert_snapshot!(error, @"`annotations/person_keypoints_train2017.json`: annotation 5 must have 51 keypoint numbers, but has 3");
    }

    #[test]
    fn a_damaged_mask_names_its_annotation() {
        let folder = tempfile::tempdir().unwrap();
        let sources = write(
            folder.path(),
            "instances",
            r#"{"id": 12, "image_id": 7, "category_id": 18,
                "segmentation": {"size": [6, 8], "counts": [42, 2]}}"#,
        );
        let index = Index::instances(&sources, true, "dog", 0.0).unwrap();
        let error = index.sample(&sources, 7).unwrap_err();
        insta::assert_snapshot!(error, @"annotation 12 of `train2017/7.png`: the run lengths cover 44 pixels, but the mask has 48");
    }
}
