//! Your own images: pairs, or plain images.

use super::{DataSet, Images, Knowledge, Listing};
use crate::{
    data::{
        DataError, Request, Sample,
        folder::{PairFiles, Parts, pairs, plain_images},
        read_image, resize,
    },
    store::SourceReader,
};

pub(super) struct Folder;

impl DataSet for Folder {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn doc(&self) -> &'static str {
        "Your own images: `input/` and `target/` with equal file names, or plain images."
    }

    fn params(&self) -> &'static [&'static str] {
        &["holdout"]
    }

    fn offers(&self) -> &'static [Knowledge] {
        &[Knowledge::Image, Knowledge::Answer]
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        sources: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let split = request.split.name();
        if request.task.needs() == Knowledge::Image {
            let files = part(request, plain_images(sources, split)?);
            return Ok(Box::new(Listing::new(
                files,
                |(name, path)| [name, path],
                move |(name, path)| {
                    let image = read_image(sources, path)?;
                    Ok(Sample { id: name.clone(), image, ..Sample::default() })
                },
            )?));
        }
        let files = part(request, pairs(sources, split)?);
        Ok(Box::new(Listing::new(
            files,
            |files| [&files.name, &files.input],
            move |files| read_pair(sources, files),
        )?))
    }
}

/// A folder without `train/` and `test/` is divided here.
fn part<T>(request: &Request, Parts { files, divided }: Parts<T>) -> Vec<T> {
    if divided { files } else { request.part(files) }
}

/// Reads both images of a pair.
pub(super) fn read_pair(sources: &SourceReader, files: &PairFiles) -> Result<Sample, DataError> {
    let image = read_image(sources, &files.input)?;
    let answer = read_image(sources, &files.target)?;
    // Spec A.3: where the two differ in size, the target is brought to the input's.
    let answer = if answer.dimensions() == image.dimensions() {
        answer
    } else {
        resize::resize_image(&answer, [image.height() as usize, image.width() as usize])
    };
    Ok(Sample { id: files.name.clone(), image, answer: Some(answer), ..Sample::default() })
}
