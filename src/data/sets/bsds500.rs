//! BSDS500: photographs with the boundaries that several people drew.

use std::collections::BTreeMap;

use image::{Rgb, RgbImage};

use super::{DataSet, Images, Knowledge, Listing, matlab};
use crate::{
    data::{
        DataError, Request, Sample,
        files::{list, read_picture, read_source, read_stored_image},
        folder,
    },
    store::SourceReader,
};

const LAYOUT: &str = "`root` is `BSDS500/data`, which holds `images/<split>/ID.jpg` and \
                      `groundTruth/<split>/ID.mat`, or in its place the boundaries as pictures, \
                      `boundaries_png/<split>/ID_K.png` for person K";

/// What to do about a file that does not belong to its photograph.
const SAME: &str = "copy the photograph and what was drawn on it from the archive again, in which they have one size";

pub(super) struct Bsds500;

impl DataSet for Bsds500 {
    fn name(&self) -> &'static str {
        "bsds500"
    }

    fn doc(&self) -> &'static str {
        "BSDS500 with what people drew; tests use `test`, or `val` if it is not there."
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Boundaries]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let splits = list(sources, "images", LAYOUT)?;
        let split = if request.is_train() {
            "train"
        } else if splits.iter().any(|name| name == "test/") {
            "test"
        } else {
            "val"
        };
        folder::no_picture_beside(&splits, "images", LAYOUT)?;
        let images = folder::only_images(sources, &format!("images/{split}"), LAYOUT)?;
        if request.task.needs() == Knowledge::Image {
            let images: Vec<_> = images.into_iter().collect();
            return Ok(Box::new(Listing::new(
                images,
                |(id, path)| [id, path],
                move |(id, path)| {
                    let image = read_stored_image(sources, path)?;
                    Ok(Sample { id: id.clone(), image, ..Sample::default() })
                },
            )?));
        }
        let mut drawings = drawings(sources, split)?;
        let mut items = Vec::new();
        for (id, path) in images {
            let drawn = drawings.remove(&id).ok_or_else(|| {
                DataError::failed(format!("`{path}` has no boundaries")).with_help(LAYOUT)
            })?;
            items.push((id, path, drawn));
        }
        if let Some(drawing) = drawings.into_values().flatten().next() {
            return Err(DataError::failed(format!("`{drawing}` has no photograph"))
                .with_help("add the photograph, or move what was drawn on it out of the folder"));
        }
        let least = request.boundaries.min_annotators;
        Ok(Box::new(Listing::new(
            items,
            |(id, path, _)| [id, path],
            move |(id, path, drawn)| {
                let image = read_stored_image(sources, path)?;
                let drawn = drawn_lines(sources, drawn, image.dimensions())?;
                if drawn.len() < least {
                    return Err(too_few(path, drawn.len(), least));
                }
                let answer = Some(boundaries(&drawn, image.dimensions(), least));
                Ok(Sample { id: id.clone(), image, answer, ..Sample::default() })
            },
        )?))
    }
}

/// The files with what people drew, by photograph.
fn drawings(
    sources: &SourceReader,
    split: &str,
) -> Result<BTreeMap<String, Vec<String>>, DataError> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let has = |folder: &str, names: &[String]| names.iter().any(|name| name == folder);
    if has("groundTruth/", &list(sources, "", LAYOUT)?) {
        let folder = format!("groundTruth/{split}");
        for name in list(sources, &folder, LAYOUT)? {
            if let Some(id) = name.strip_suffix(".mat") {
                found.insert(id.to_owned(), vec![format!("{folder}/{name}")]);
            }
        }
        return Ok(found);
    }
    for (stem, path) in folder::only_images(sources, &format!("boundaries_png/{split}"), LAYOUT)? {
        let id = stem.rsplit_once('_').map_or(&*stem, |(id, _)| id).to_owned();
        found.entry(id).or_default().push(path);
    }
    Ok(found)
}

/// What each person drew, row by row.
fn read_lines(
    sources: &SourceReader,
    path: &str,
    (width, height): (u32, u32),
) -> Result<Vec<Vec<bool>>, DataError> {
    let fits = |found: (u32, u32)| {
        if found == (width, height) {
            return Ok(());
        }
        Err(DataError::failed(format!(
            "`{path}` is {}x{}, but its photograph is {width}x{height}",
            found.0, found.1
        ))
        .with_help(SAME))
    };
    if path.strip_suffix(".mat").is_none() {
        let lines = read_picture(sources, path, false)?.into_luma8();
        fits(lines.dimensions())?;
        return Ok(vec![lines.iter().map(|value| *value >= 128).collect()]);
    }
    let bytes = read_source(sources, path, "the boundaries of a photograph")?;
    let drawn = matlab::fields(&bytes, "Boundaries")
        .map_err(|e| DataError::failed(format!("`{path}` cannot be read: {e}")).with_help(SAME))?;
    if drawn.is_empty() {
        return Err(DataError::failed(format!("`{path}` holds no `Boundaries`")).with_help(SAME));
    }
    let rows = |lines: matlab::Bytes| {
        fits((lines.columns as u32, lines.rows as u32))?;
        let at =
            |place: usize| lines.values[place % lines.columns * lines.rows + place / lines.columns];
        Ok((0..lines.values.len()).map(|place| at(place) > 0).collect())
    };
    drawn.into_iter().map(rows).collect()
}

/// What each person drew on a photograph.
fn drawn_lines(
    sources: &SourceReader,
    files: &[String],
    size: (u32, u32),
) -> Result<Vec<Vec<bool>>, DataError> {
    let mut drawn = Vec::new();
    for path in files {
        drawn.extend(read_lines(sources, path, size)?);
    }
    Ok(drawn)
}

fn too_few(photograph: &str, people: usize, least: usize) -> DataError {
    let people = if people == 1 { "1 person".to_owned() } else { format!("{people} people") };
    let message = format!(
        "{people} drew the boundaries of `{photograph}`, but `boundaries.min_annotators` is {least}, so \
         nothing could be one"
    );
    DataError::failed(message).with_help("lower it: 1 takes every line")
}

/// White where at least `least` people drew.
fn boundaries(drawn: &[Vec<bool>], size: (u32, u32), least: usize) -> RgbImage {
    let mut counts = vec![0usize; (size.0 * size.1) as usize];
    for lines in drawn {
        for (count, is_drawn) in counts.iter_mut().zip(lines) {
            *count += usize::from(*is_drawn);
        }
    }
    RgbImage::from_fn(size.0, size.1, |x, y| {
        Rgb(if counts[(y * size.0 + x) as usize] >= least { [255; 3] } else { [0; 3] })
    })
}
