//! BSDS500: photographs with the boundaries that several people drew.

use std::collections::BTreeMap;

use image::{Rgb, RgbImage};

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Request, Sample,
        files::{list, read_picture, read_stored_image},
        folder,
    },
    store::SourceReader,
};

const LAYOUT: &str = "`root` holds `images/<split>/ID.jpg` and `boundaries_png/<split>/ID_K.png`, \
                      the field `groundTruth{K}.Boundaries` of each `ID.mat` as a black and white \
                      picture";

pub(super) struct Bsds500;

impl DataSet for Bsds500 {
    fn name(&self) -> &'static str {
        "bsds500"
    }

    fn doc(&self) -> &'static str {
        "BSDS500 with boundaries as pictures; tests use `test`, or `val` if it is not there."
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
        let split = match request.is_train() {
            true => "train",
            false if splits.iter().any(|name| name == "test/") => "test",
            false => "val",
        };
        let images = folder::images(sources, &format!("images/{split}"))?;
        if request.task.needs() == Knowledge::Image {
            let images: Vec<_> = images.into_iter().collect();
            return Ok(Box::new(Listing::new(images, move |(id, path)| {
                let image = read_stored_image(sources, path)?;
                Ok(Sample { id: id.clone(), image, ..Sample::default() })
            })));
        }
        let mut drawings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (stem, path) in folder::images(sources, &format!("boundaries_png/{split}"))
            .map_err(|e| e.with_help(LAYOUT))?
        {
            let id = stem.rsplit_once('_').map_or(&*stem, |(id, _)| id).to_owned();
            drawings.entry(id).or_default().push(path);
        }
        let mut items = Vec::new();
        for (id, path) in images {
            let drawn = drawings.remove(&id).ok_or_else(|| {
                DataError::failed(format!("`{path}` has no boundaries")).with_help(LAYOUT)
            })?;
            items.push((id, path, drawn));
        }
        let least = request.boundaries.min_annotators;
        Ok(Box::new(Listing::new(items, move |(id, path, drawn)| {
            let image = read_stored_image(sources, path)?;
            let answer = Some(boundaries(sources, drawn, image.dimensions(), least)?);
            Ok(Sample { id: id.clone(), image, answer, ..Sample::default() })
        })))
    }
}

/// White where at least `least` people drew.
fn boundaries(
    sources: &SourceReader,
    drawn: &[String],
    size: (u32, u32),
    least: usize,
) -> Result<RgbImage, DataError> {
    let mut counts = vec![0usize; (size.0 * size.1) as usize];
    for path in drawn {
        let lines = read_picture(sources, path, false)?.into_luma8();
        if lines.dimensions() != size {
            return Err(DataError::failed(format!(
                "`{path}` is {}x{}, but its photograph is {}x{}",
                lines.width(),
                lines.height(),
                size.0,
                size.1
            )));
        }
        for (count, value) in counts.iter_mut().zip(lines.iter()) {
            *count += usize::from(*value >= 128);
        }
    }
    Ok(RgbImage::from_fn(size.0, size.1, |x, y| {
        Rgb(if counts[(y * size.0 + x) as usize] >= least { [255; 3] } else { [0; 3] })
    }))
}
