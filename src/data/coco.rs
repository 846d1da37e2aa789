//! COCO 2017: person keypoints and instance masks in the official layout.

use std::collections::{BTreeMap, BTreeSet};

use image::GrayImage;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Person, Sample, rle::Segmentation};
use crate::{stages::StageError, store::SourceReader};

#[derive(Deserialize)]
struct File<A> {
    images: Vec<Image>,
    annotations: Vec<A>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
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
    num_keypoints: u32,
}

#[derive(Deserialize)]
struct InstanceAnnotation {
    id: u64,
    image_id: u64,
    category_id: u64,
    segmentation: Segmentation,
}

/// The images of a split that a task can use, by id, with what is to be drawn on them.
pub struct Index {
    split: &'static str,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Default)]
struct Entry {
    file_name: String,
    persons: Vec<Person>,
    masks: Vec<(u64, Segmentation)>,
}

/// The split's name in file names: `train2017` or `val2017`.
pub fn split_name(train: bool) -> &'static str {
    if train { "train2017" } else { "val2017" }
}

impl Index {
    /// Images with at least one labelled person keypoint.
    pub fn persons(sources: &SourceReader, train: bool) -> Result<Self, StageError> {
        let split = split_name(train);
        let path = format!("annotations/person_keypoints_{split}.json");
        let file: File<PersonAnnotation> = read_json(sources, &path)?;
        let mut entries = images(file.images);
        let mut used = BTreeSet::new();
        for annotation in file.annotations.into_iter().filter(|a| a.num_keypoints > 0) {
            let person = person(&annotation).map_err(|e| e.in_file(&path))?;
            let entry = entry_of(&mut entries, annotation.image_id, annotation.id, &path)?;
            entry.persons.push(person);
            used.insert(annotation.image_id);
        }
        entries.retain(|id, _| used.contains(id));
        Ok(Self { split, entries })
    }

    /// Images with at least one instance of the class, crowds included.
    pub fn instances(sources: &SourceReader, train: bool, class: &str) -> Result<Self, StageError> {
        let split = split_name(train);
        let path = format!("annotations/instances_{split}.json");
        let file: File<InstanceAnnotation> = read_json(sources, &path)?;
        let Some(category) = file.categories.iter().find(|c| c.name == class) else {
            let names: Vec<_> = file.categories.iter().map(|c| c.name.as_str()).collect();
            return Err(StageError::failed(format!("`{path}` has no category `{class}`"))
                .with_help(format!("the categories are: {}", names.join(", "))));
        };
        let mut entries = images(file.images);
        let mut used = BTreeSet::new();
        for annotation in file.annotations.into_iter().filter(|a| a.category_id == category.id) {
            let entry = entry_of(&mut entries, annotation.image_id, annotation.id, &path)?;
            entry.masks.push((annotation.id, annotation.segmentation));
            used.insert(annotation.image_id);
        }
        entries.retain(|id, _| used.contains(id));
        Ok(Self { split, entries })
    }

    /// The ids of the images, ascending.
    pub fn ids(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    /// Reads one image with its annotations.
    pub fn sample(&self, sources: &SourceReader, id: u64) -> Result<Sample, StageError> {
        let entry = &self.entries[&id];
        let path = format!("{}/{}", self.split, entry.file_name);
        let image = super::read_image(sources, &path)?;
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

fn images(list: Vec<Image>) -> BTreeMap<u64, Entry> {
    list.into_iter()
        .map(|image| (image.id, Entry { file_name: image.file_name, ..Entry::default() }))
        .collect()
}

fn entry_of<'a>(
    entries: &'a mut BTreeMap<u64, Entry>,
    image: u64,
    annotation: u64,
    path: &str,
) -> Result<&'a mut Entry, StageError> {
    entries.get_mut(&image).ok_or_else(|| {
        StageError::failed(format!(
            "`{path}`: annotation {annotation} names image {image}, which the file does not list"
        ))
    })
}

struct KeypointError {
    annotation: u64,
    found: usize,
}

impl KeypointError {
    fn in_file(&self, path: &str) -> StageError {
        StageError::failed(format!(
            "`{path}`: annotation {} must have 51 finite keypoint numbers, but has {}",
            self.annotation, self.found
        ))
    }
}

fn person(annotation: &PersonAnnotation) -> Result<Person, KeypointError> {
    let values = &annotation.keypoints;
    if values.len() != 51 || values.iter().any(|v| !v.is_finite()) {
        return Err(KeypointError { annotation: annotation.id, found: values.len() });
    }
    let mut keypoints = [[0.0; 3]; 17];
    for (keypoint, value) in keypoints.iter_mut().zip(values.chunks(3)) {
        keypoint.copy_from_slice(value);
    }
    Ok(Person { keypoints })
}
