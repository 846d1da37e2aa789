//! ADE20K in both published layouts.
//!
//! The scene parsing benchmark has `images/`, `annotations/` (the class 0 to 150 as a grey value)
//! and `objectInfo150.txt`. The full data has `images/ADE/<split>/.../NAME.jpg` with `NAME_seg.png`
//! (the class in red and green) and `NAME.json`, which names the classes of the picture.

use std::collections::{BTreeMap, BTreeSet};

use image::{DynamicImage, GrayImage, Luma, RgbImage};
use serde::Deserialize;

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Labels, Request, Sample, SceneLabels, class_names,
        files::{is_any_picture, list, read_picture, read_source, read_stored_image},
        folder, resize,
    },
    store::SourceReader,
};

const LAYOUT: &str = "`root` holds `images/`, `annotations/` and `objectInfo150.txt`, or \
                      `images/ADE/training/` and `images/ADE/validation/`";

/// What to do about a file that is not as published.
const AGAIN: &str = "copy the picture and its annotation from the archive again";

const PARTNER: &str = "`images/` and `annotations/` hold files of equal names, `.jpg` and `.png`; add the missing \
                       one, or move the other away";

pub(super) struct Ade20k;

/// A picture and its annotation.
struct Files {
    name: String,
    image: String,
    labels: String,
    /// The names of its classes by number, where they differ from picture to picture.
    classes: BTreeMap<u16, String>,
}

impl DataSet for Ade20k {
    fn name(&self) -> &'static str {
        "ade20k"
    }

    fn doc(&self) -> &'static str {
        "ADE20K: the scene parsing benchmark (150 classes) or the full data."
    }

    fn params(&self) -> &'static [&'static str] {
        &["class", "holdout", "holdout_seed"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Mask, Knowledge::Scene]
    }

    fn revision(&self) -> u32 {
        // 1: a class is the one of its whole name, though that is among the names of another.
        1
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let folders = list(sources, "images", LAYOUT)?;
        let (files, names) = if folders.iter().any(|name| name == "ADE/") {
            folder::no_picture_beside(&folders, "images", LAYOUT)?;
            full(request, sources)?
        } else {
            (benchmark(request, sources)?, benchmark_names(sources)?)
        };
        let names: std::sync::Arc<[String]> = names.into();
        let classes = match request.task.needs() {
            Knowledge::Mask => Some(numbers(&names, &request.class)?),
            _ => None,
        };
        let kept = match &classes {
            Some(classes) => Showing { sources, names: &names, classes }.of(files, request.size)?,
            None => files,
        };
        Ok(Box::new(Listing::new(
            kept,
            |file| [&file.name, &file.image],
            move |file| {
                let image = read_stored_image(sources, &file.image)?;
                let mut sample = Sample { id: file.name.clone(), ..Sample::default() };
                if request.task.needs() != Knowledge::Image {
                    let labels = read_labels(sources, file, &names)?;
                    if labels.dimensions() != image.dimensions() {
                        return Err(DataError::failed(format!(
                            "`{}` and `{}` differ in size",
                            file.image, file.labels
                        ))
                        .with_help(AGAIN));
                    }
                    sample.mask = classes.as_ref().map(|classes| mask(&labels, classes));
                    sample.scene = Some(SceneLabels { labels, names: names.clone() });
                }
                sample.image = image;
                Ok(sample)
            },
        )?))
    }
}

/// The labels of these classes.
fn numbers(names: &[String], classes: &[String]) -> Result<Vec<u16>, DataError> {
    classes.iter().map(|class| Ok(class_names::find(names, class)? as u16 + 1)).collect()
}

fn mask(labels: &Labels, classes: &[u16]) -> GrayImage {
    GrayImage::from_fn(labels.width(), labels.height(), |x, y| {
        Luma([if classes.contains(&labels.get_pixel(x, y).0[0]) { 255 } else { 0 }])
    })
}

/// Which pictures show one of some classes.
struct Showing<'a> {
    sources: &'a SourceReader,
    names: &'a [String],
    classes: &'a [u16],
}

impl Showing<'_> {
    /// Those of which a pixel shows one of them at `size`.
    fn of(&self, files: Vec<Files>, size: [usize; 2]) -> Result<Vec<Files>, DataError> {
        let (mut kept, mut named, mut seen) = (Vec::new(), 0, 0);
        for file in files.into_iter().filter(|file| self.may_be_in(file)) {
            named += usize::from(!file.classes.is_empty());
            let labels = read_labels(self.sources, &file, self.names)?;
            let is_set = |x, y| self.classes.contains(&labels.get_pixel(x, y).0[0]);
            seen += usize::from(labels.iter().any(|label| self.classes.contains(label)));
            if resize::is_shown([labels.height(), labels.width()], size, is_set) {
                kept.push(file);
            }
        }
        if named > 0 && seen == 0 {
            let message = format!(
                "no pixel of a `_seg.png` shows {}, though {named} of the JSON files name it",
                self.called().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
            );
            return Err(DataError::failed(message).with_help(
                "parts of objects lie in `_parts_*.png`, which are not read; take the class of the \
                 whole object",
            ));
        }
        Ok(kept)
    }

    /// Whether the picture's JSON file, which also lists the parts of objects, names a class; of
    /// the benchmark, every picture may show one.
    fn may_be_in(&self, file: &Files) -> bool {
        let is_asked = |name: &String| self.called().any(|other| other == name);
        file.classes.is_empty() || file.classes.values().any(is_asked)
    }

    /// The names of the classes.
    fn called(&self) -> impl Iterator<Item = &String> {
        self.classes.iter().map(|class| &self.names[usize::from(*class) - 1])
    }
}

/// The labels of a picture, as places in `names` from 1.
fn read_labels(
    sources: &SourceReader,
    file: &Files,
    names: &[String],
) -> Result<Labels, DataError> {
    let picture = read_picture(sources, &file.labels, false)?;
    let wrong =
        |what: String| DataError::failed(format!("`{}`: {what}", file.labels)).with_help(AGAIN);
    if file.labels.ends_with("_seg.png") {
        let coded: RgbImage = picture.into_rgb8();
        let mut places = BTreeMap::from([(0, 0)]);
        for (number, name) in &file.classes {
            let place = names.iter().position(|other| other == name);
            places.insert(*number, place.map_or(0, |place| place as u16 + 1));
        }
        let mut labels = Labels::new(coded.width(), coded.height());
        for (label, code) in labels.pixels_mut().zip(coded.pixels()) {
            let number = u16::from(code.0[0] / 10) * 256 + u16::from(code.0[1]);
            let place = places.get(&number).ok_or_else(|| {
                wrong(format!("class {number} is not among the objects of its JSON file"))
            })?;
            label.0 = [*place];
        }
        return Ok(labels);
    }
    let DynamicImage::ImageLuma8(grey) = picture else {
        return Err(wrong("the classes must be an 8-bit grey picture".to_owned()));
    };
    if let Some(class) = grey.iter().find(|class| usize::from(**class) > names.len()) {
        return Err(wrong(format!("there is no class {class}, but {} classes", names.len())));
    }
    let values = grey.iter().map(|class| u16::from(*class)).collect();
    Ok(Labels::from_raw(grey.width(), grey.height(), values).expect("one label a pixel"))
}

/// The pictures of the benchmark; a sample without split folders is divided here.
fn benchmark(request: &Request, sources: &SourceReader) -> Result<Vec<Files>, DataError> {
    let split = if request.is_train() { "training" } else { "validation" };
    let names = list(sources, "images", LAYOUT)?;
    let has = |split: &str| names.iter().any(|name| name.strip_suffix('/') == Some(split));
    let divided = has("training") || has("validation");
    if divided && !has(split) {
        return Err(DataError::failed(format!("`images` is divided, but has no `{split}`"))
            .with_help(format!("add `images/{split}/` and `annotations/{split}/`; {LAYOUT}")));
    }
    let read = |folder: &str| {
        if !divided {
            return folder::only_images(sources, folder, LAYOUT);
        }
        folder::no_picture_beside(&list(sources, folder, LAYOUT)?, folder, LAYOUT)?;
        folder::only_images(sources, &format!("{folder}/{split}"), LAYOUT)
    };
    let files = folder::matched(read("images")?, read("annotations")?, PARTNER)?;
    let files = files.into_iter().map(|f| Files {
        name: f.name,
        image: f.input,
        labels: f.target,
        classes: BTreeMap::new(),
    });
    let files: Vec<Files> = files.collect();
    if divided { Ok(files) } else { request.part(files) }
}

/// The 150 names, from the last column of `objectInfo150.txt`.
fn benchmark_names(sources: &SourceReader) -> Result<Vec<String>, DataError> {
    const LIST: &str = "objectInfo150.txt";
    const LIST_AGAIN: &str =
        "copy the list from the archive again, or from the benchmark's repository";
    let bytes = read_source(sources, LIST, "the classes of ADE20K")?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().zip(1..).skip(1).filter(|(line, _)| !line.trim().is_empty());
    let names = lines.map(|(line, number)| {
        let name = line.split('\t').nth(4).map(str::trim).filter(|name| !name.is_empty());
        name.map(str::to_owned).ok_or_else(|| {
            // The number of a class is its line, so none may be passed over.
            DataError::failed(format!(
                "line {number} of `{LIST}` must have five columns divided by tabs, but is `{line}`"
            ))
            .with_help(LIST_AGAIN)
        })
    });
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err(DataError::failed(format!("`{LIST}` lists no classes")).with_help(LIST_AGAIN));
    }
    Ok(names)
}

#[derive(Deserialize)]
struct Annotated {
    annotation: Annotation,
}

#[derive(Deserialize)]
struct Annotation {
    object: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    name_ndx: u16,
}

/// The pictures of a split of the full data, and the classes of all splits: a class has the same
/// number, and so the same colour, in each.
fn full(request: &Request, sources: &SourceReader) -> Result<(Vec<Files>, Vec<String>), DataError> {
    let wanted = if request.is_train() { "training" } else { "validation" };
    let mut files = None;
    let mut names = BTreeSet::new();
    let splits = list(sources, "images/ADE", LAYOUT)?;
    folder::no_picture_beside(&splits, "images/ADE", LAYOUT)?;
    for split in splits.iter().filter_map(|name| name.strip_suffix('/')) {
        let found = pictures(split, sources)?;
        names.extend(found.iter().flat_map(|file| file.classes.values().cloned()));
        if split == wanted {
            files = Some(found);
        }
    }
    let files = match files {
        Some(files) => files,
        // Says what is missing.
        None => pictures(wanted, sources)?,
    };
    Ok((files, names.into_iter().collect()))
}

/// The name without ending, if it is that of a photograph.
fn photograph(name: &str) -> Option<&str> {
    let (stem, ending) = name.rsplit_once('.')?;
    ["jpg", "jpeg"].contains(&ending.to_ascii_lowercase().as_str()).then_some(stem)
}

/// Whether a picture is a photograph, or shows its classes or the parts of its objects.
fn belongs(name: &str, photographs: &BTreeMap<&str, &str>) -> bool {
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let whole = |(whole, part): (&str, &str)| {
        let is_part = part.strip_prefix("parts_").is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        (part == "seg" || is_part) && photographs.contains_key(whole)
    };
    let mut cuts = stem.match_indices('_').map(|(at, _)| (&stem[..at], &stem[at + 1..]));
    photographs.values().any(|photograph| *photograph == name) || cuts.any(whole)
}

/// The pictures of a split with the classes that each shows.
fn pictures(split: &str, sources: &SourceReader) -> Result<Vec<Files>, DataError> {
    let mut folders = vec![format!("images/ADE/{split}")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let names = list(sources, &folder, LAYOUT)?;
        let photographs: BTreeMap<&str, &str> =
            names.iter().filter_map(|name| Some((photograph(name)?, name.as_str()))).collect();
        for name in &names {
            let path = format!("{folder}/{name}");
            if let Some(below) = name.strip_suffix('/') {
                // One called as a photograph holds the outlines of its objects.
                if !photographs.contains_key(below) {
                    folders.push(format!("{folder}/{below}"));
                }
            } else if is_any_picture(name) && !belongs(name, &photographs) {
                let message = format!("`{path}` is neither a photograph (.jpg) nor made of one");
                return Err(DataError::failed(message).with_help(LAYOUT));
            }
        }
        for (stem, name) in photographs {
            let path = |ending: &str| format!("{folder}/{stem}{ending}");
            files.push(Files {
                name: stem.to_owned(),
                image: format!("{folder}/{name}"),
                labels: path("_seg.png"),
                classes: objects(sources, &path(".json"))?,
            });
        }
    }
    files.sort_by(|a, b| (&a.name, &a.image).cmp(&(&b.name, &b.image)));
    Ok(files)
}

/// The classes of a picture by number. The files are in the Latin alphabet of the nineties.
fn objects(sources: &SourceReader, path: &str) -> Result<BTreeMap<u16, String>, DataError> {
    let bytes = read_source(sources, path, "an annotation of ADE20K")?;
    let text: String = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    };
    let read: Annotated = serde_json::from_str(&text).map_err(|e| {
        DataError::failed(format!("`{path}` is not an annotation of ADE20K: {e}")).with_help(AGAIN)
    })?;
    Ok(read.annotation.object.into_iter().map(|object| (object.name_ndx, object.name)).collect())
}

#[cfg(test)]
mod tests;
