//! COCO 2017: person keypoints and instance masks in the official layout.

mod extent;
mod file;
mod instance;

use std::{collections::BTreeMap, sync::Arc};

use image::{GrayImage, Luma};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    extent::Outside,
    file::{Category, File, Flag, Image, InstanceAnnotation, PersonAnnotation, read_json},
    instance::{Instance, Place, draw},
};
use super::{DataError, Labels, Person, Sample, SceneLabels, files, pose::Visibility, resize};
use crate::store::SourceReader;

/// What to do about an entry of an annotation file that is wrong.
const REPAIR: &str = "correct the entry, or take it out; the official annotations come as one zip archive, from which the \
                      file can be copied again";

/// The images of a split that a task can use, by id, with what is to be drawn on them.
#[derive(Debug)]
pub struct Index {
    split: &'static str,
    /// The annotation file.
    annotations: String,
    entries: BTreeMap<u64, Entry>,
    /// The names of all categories, if scenes are wanted.
    scenes: Option<Arc<[String]>>,
}

#[derive(Debug)]
struct Entry {
    file_name: String,
    /// Height and width.
    size: [u32; 2],
    persons: Vec<Person>,
    instances: Vec<Instance>,
}

/// Which images are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Those of `train2017`, else of `val2017`.
    pub train: bool,
    /// Height and width that images are brought to; what the crop cuts off does not count.
    pub size: [usize; 2],
    /// The least share of the image that persons or instances must take.
    pub min_share: f64,
    /// What is done with crowds.
    pub crowd: Crowd,
    /// Which keypoints make a person.
    pub visibility: Visibility,
}

/// What is done with regions that COCO marks as a crowd of instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Crowd {
    /// They are instances like others.
    #[default]
    Keep,
    /// They are left out, as if they were not annotated.
    Skip,
}

impl Crowd {
    fn keeps(self, iscrowd: Flag) -> bool {
        self == Self::Keep || !iscrowd.is_set()
    }
}

/// The split's name in file names: `train2017` or `val2017`.
pub fn split_name(train: bool) -> &'static str {
    if train { "train2017" } else { "val2017" }
}

impl Index {
    /// Images on which, once resized to `size`, a person keypoint is left, and a person whose
    /// keypoints span at least `min_share` of the image.
    pub fn persons(sources: &SourceReader, wanted: Wanted) -> Result<Self, DataError> {
        let Wanted { train, size, min_share, crowd, visibility } = wanted;
        let path = format!("annotations/person_keypoints_{}.json", split_name(train));
        let file: File<PersonAnnotation> = read_json(sources, &path)?;
        let mut index = Self::new(train, file.images.0, &path)?;
        let mut outside = Outside::default();
        for annotation in file.annotations.0 {
            let person = person(&annotation, &path)?;
            let PersonAnnotation { id, image_id, .. } = annotation;
            let entry = index.entry(image_id, id, &path)?;
            outside.see_person(&person, (image_id, id), entry.size, &path);
            if crowd.keeps(annotation.iscrowd) {
                entry.persons.extend(visibility.of(&[person]));
            }
        }
        outside.check(&index, sources)?;
        index.entries.retain(|_, entry| {
            resize::resize_persons(&entry.persons, entry.size, size)
                .iter()
                .any(|person| person.span() >= min_share * (size[0] * size[1]) as f64)
        });
        Ok(index)
    }

    /// Images on which, once resized to `size`, a pixel of one of the classes is left, and whose
    /// instances cover at least `min_share` of the image, as annotated.
    pub fn instances(
        sources: &SourceReader,
        wanted: Wanted,
        classes: &[impl AsRef<str>],
    ) -> Result<Self, DataError> {
        let Wanted { train, size, min_share, crowd, .. } = wanted;
        let path = format!("annotations/instances_{}.json", split_name(train));
        let file: File<InstanceAnnotation> = read_json(sources, &path)?;
        check_categories(&file.categories, &path)?;
        let ids = classes.iter().map(|class| category(&file.categories, class.as_ref(), &path));
        let (wanted, labels) = (ids.collect::<Result<Vec<_>, _>>()?, labels(&file.categories));
        let mut index = Self::new(train, file.images.0, &path)?;
        let mut outside = Outside::default();
        for annotation in file.annotations.0 {
            let entry = index.entry(annotation.image_id, annotation.id, &path)?;
            label(&labels, &annotation, &path)?;
            outside.see_instance(&annotation, entry.size);
            if wanted.contains(&annotation.category_id) && crowd.keeps(annotation.iscrowd) {
                entry.instances.push(Instance::new(annotation, 1, &path)?);
            }
        }
        outside.check(&index, sources)?;
        index.measure()?;
        index.entries.retain(|_, entry| {
            let whole = f64::from(entry.size[0]) * f64::from(entry.size[1]);
            let area: f64 = entry.instances.iter().map(Instance::area).sum();
            !entry.instances.is_empty() && area >= min_share * whole
        });
        index.keep_shown(size)?;
        Ok(index)
    }

    /// Images on which, once resized to `size`, a pixel of some instance is left; each class has a
    /// label of its own.
    pub fn scenes(sources: &SourceReader, wanted: Wanted) -> Result<Self, DataError> {
        let Wanted { train, size, crowd, .. } = wanted;
        let path = format!("annotations/instances_{}.json", split_name(train));
        let file: File<InstanceAnnotation> = read_json(sources, &path)?;
        check_categories(&file.categories, &path)?;
        let labels = labels(&file.categories);
        let mut index = Self::new(train, file.images.0, &path)?;
        let mut outside = Outside::default();
        for annotation in file.annotations.0 {
            let entry = index.entry(annotation.image_id, annotation.id, &path)?;
            let label = label(&labels, &annotation, &path)?;
            outside.see_instance(&annotation, entry.size);
            if crowd.keeps(annotation.iscrowd) {
                entry.instances.push(Instance::new(annotation, label, &path)?);
            }
        }
        outside.check(&index, sources)?;
        index.measure()?;
        index.entries.retain(|_, entry| {
            // The largest first, so that what stands before it stays visible.
            entry.instances.sort_by(|a, b| b.area().total_cmp(&a.area()));
            !entry.instances.is_empty()
        });
        index.keep_shown(size)?;
        index.scenes = Some(file.categories.into_iter().map(|category| category.name).collect());
        Ok(index)
    }

    /// Where an image lies below the root.
    fn path(&self, entry: &Entry) -> String {
        path_of(self.split, entry)
    }

    /// Counts the pixels of instances whose annotations do not say how many they are.
    fn measure(&mut self) -> Result<(), DataError> {
        let Self { split, annotations, entries, .. } = self;
        let measured = entries.par_iter_mut().map(|(_, entry)| {
            let image = path_of(split, entry);
            let place = Place { image: &image, size: entry.size, annotations };
            entry.instances.iter_mut().try_for_each(|instance| instance.measure(place))
        });
        // The first error by id, whichever comes first.
        measured.collect::<Vec<_>>().into_iter().collect()
    }

    /// Leaves out images of whose instances no pixel is left at `size`.
    fn keep_shown(&mut self, size: [usize; 2]) -> Result<(), DataError> {
        let entries = std::mem::take(&mut self.entries).into_par_iter();
        let shown = entries.map(|(id, entry)| {
            let image = path_of(self.split, &entry);
            let place = Place { image: &image, size: entry.size, annotations: &self.annotations };
            for instance in &entry.instances {
                let mask = instance.mask(place)?;
                if resize::is_shown(entry.size, size, |x, y| mask.get_pixel(x, y).0[0] > 0) {
                    return Ok(Some((id, entry)));
                }
            }
            Ok(None)
        });
        // The first error by id, whichever comes first.
        let shown: Vec<Result<_, DataError>> = shown.collect();
        self.entries = shown.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// All images, without annotations.
    pub fn images(sources: &SourceReader, train: bool) -> Result<Self, DataError> {
        let path = format!("annotations/instances_{}.json", split_name(train));
        let file: File<serde::de::IgnoredAny> = read_json(sources, &path)?;
        Self::new(train, file.images.0, &path)
    }

    fn new(train: bool, images: Vec<Image>, path: &str) -> Result<Self, DataError> {
        let mut entries = BTreeMap::new();
        let mut names = BTreeMap::new();
        for Image { id, file_name, width, height } in images {
            if file_name.is_empty() || file_name.contains(['/', '\\']) {
                return Err(DataError::failed(format!(
                    "`{path}`: image {id} is `{file_name}`, which is not a plain file name"
                ))
                .with_help(REPAIR));
            }
            if width == 0 || height == 0 {
                return Err(DataError::failed(format!(
                    "`{path}`: image {id} is {width}x{height}, so it has no pixels"
                ))
                .with_help(REPAIR));
            }
            if let Err(error) = files::check_size(width, height) {
                return Err(
                    DataError::failed(format!("`{path}`: image {id} {error}")).with_help(REPAIR)
                );
            }
            if let Some(other) = names.insert(stem(&file_name).to_owned(), file_name.clone()) {
                return Err(DataError::failed(format!(
                    "`{path}`: `{other}` and `{file_name}` have one name"
                ))
                .with_help("give each image a name of its own"));
            }
            let entry = Entry {
                file_name,
                size: [height, width],
                persons: Vec::new(),
                instances: Vec::new(),
            };
            if entries.insert(id, entry).is_some() {
                return Err(DataError::failed(format!("`{path}`: two images have the id {id}"))
                    .with_help("number the images of the file, and their annotations, anew"));
            }
        }
        let (split, annotations) = (split_name(train), path.to_owned());
        Ok(Self { split, annotations, entries, scenes: None })
    }

    fn entry(&mut self, image: u64, annotation: u64, path: &str) -> Result<&mut Entry, DataError> {
        self.entries.get_mut(&image).ok_or_else(|| {
            DataError::failed(format!(
                "`{path}`: annotation {annotation} names image {image}, which the file does not list"
            ))
            .with_help(REPAIR)
        })
    }

    /// The ids of the images, ascending, with the names of their files.
    pub fn files(&self) -> Vec<(u64, String)> {
        self.entries.iter().map(|(id, entry)| (*id, entry.file_name.clone())).collect()
    }

    /// Reads one image with its annotations; `id` must be one of [`Self::files`].
    pub fn sample(&self, sources: &SourceReader, id: u64) -> Result<Sample, DataError> {
        let entry = &self.entries[&id];
        let path = self.path(entry);
        let image = files::read_stored_image(sources, &path)?;
        entry.check_size([image.height(), image.width()], &path)?;
        let name = stem(&entry.file_name).to_owned();
        let mut sample = Sample { id: name, persons: entry.persons.clone(), ..Sample::default() };
        let place = Place { image: &path, size: entry.size, annotations: &self.annotations };
        if let Some(names) = &self.scenes {
            sample.scene =
                Some(SceneLabels { labels: draw(&entry.instances, place)?, names: names.clone() });
        } else if !entry.instances.is_empty() {
            let labels = draw(&entry.instances, place)?;
            sample.mask = Some(GrayImage::from_fn(image.width(), image.height(), |x, y| {
                Luma([if labels.get_pixel(x, y).0[0] > 0 { 255 } else { 0 }])
            }));
        }
        sample.image = image;
        Ok(sample)
    }
}

fn path_of(split: &str, entry: &Entry) -> String {
    format!("{split}/{}", entry.file_name)
}

impl Entry {
    /// Refuses the file at `path` if it has another height and width than stated.
    fn check_size(&self, found: [u32; 2], path: &str) -> Result<(), DataError> {
        if found == self.size {
            return Ok(());
        }
        let [[height, width], [stated_height, stated_width]] = [found, self.size];
        let message = format!(
            "`{path}` is {width}x{height}, but its annotations are for {stated_width}x{stated_height}"
        );
        Err(DataError::failed(message)
            .with_help("take images and annotations from the same release"))
    }
}

/// What an item is called: the name of its file without the ending.
pub fn stem(file_name: &str) -> &str {
    file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem)
}

/// Refuses a file without categories, which every file of instances has.
fn check_categories(categories: &[Category], path: &str) -> Result<(), DataError> {
    if !categories.is_empty() {
        return Ok(());
    }
    Err(DataError::failed(format!("`{path}` lists no categories")).with_help(
        "add `categories`, a list of objects with `id` and `name`, as the official files have",
    ))
}

/// The id of the category of this name.
fn category(categories: &[Category], class: &str, path: &str) -> Result<u64, DataError> {
    let found = categories.iter().find(|category| category.name == class);
    found.map(|category| category.id).ok_or_else(|| {
        let names: Vec<_> = categories.iter().map(|category| category.name.as_str()).collect();
        DataError::failed(format!("`{path}` has no category `{class}`"))
            .with_help(format!("the categories are: {}", names.join(", ")))
    })
}

/// The place of each category in the file, from 1, by its id.
fn labels(categories: &[Category]) -> BTreeMap<u64, u16> {
    categories.iter().zip(1..).map(|(category, label)| (category.id, label)).collect()
}

/// The place of an annotation's category.
fn label(
    labels: &BTreeMap<u64, u16>,
    annotation: &InstanceAnnotation,
    path: &str,
) -> Result<u16, DataError> {
    let InstanceAnnotation { id, category_id, .. } = annotation;
    labels.get(category_id).copied().ok_or_else(|| {
        DataError::failed(format!(
            "`{path}`: annotation {id} is of category {category_id}, which the file does not list"
        ))
        .with_help(REPAIR)
    })
}

fn person(annotation: &PersonAnnotation, path: &str) -> Result<Person, DataError> {
    let PersonAnnotation { id, keypoints: values, .. } = annotation;
    let wrong = |text: String| {
        let message = format!("`{path}`: annotation {id} must {text}");
        Err(DataError::failed(message).with_help(REPAIR))
    };
    if values.len() != 51 {
        return wrong(format!("have 51 keypoint numbers, but has {}", values.len()));
    }
    let mut keypoints = [[0.0; 3]; 17];
    for ((keypoint, value), place) in keypoints.iter_mut().zip(values.chunks(3)).zip(0..) {
        if ![0.0, 1.0, 2.0].contains(&value[2]) {
            let found = value[2];
            return wrong(format!(
                "have visibilities 0, 1 or 2, but has {found} at keypoint {place}"
            ));
        }
        keypoint.copy_from_slice(value);
    }
    Ok(Person { keypoints })
}

#[cfg(test)]
mod tests;
