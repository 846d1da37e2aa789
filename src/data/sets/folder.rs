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
        &["holdout", "holdout_seed"]
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
            let files = part(request, plain_images(sources, split)?)?;
            return Ok(Box::new(Listing::new(
                files,
                |(name, path)| [name, path],
                move |(name, path)| {
                    let image = read_image(sources, path)?;
                    Ok(Sample { id: name.clone(), image, ..Sample::default() })
                },
            )?));
        }
        let files = part(request, pairs(sources, split)?)?;
        Ok(Box::new(Listing::new(
            files,
            |files| [&files.name, &files.input],
            move |files| read_pair(sources, files),
        )?))
    }
}

/// A folder without `train/` and `test/` is divided here.
fn part<T>(request: &Request, Parts { files, divided }: Parts<T>) -> Result<Vec<T>, DataError> {
    if divided { Ok(files) } else { request.part(files) }
}

/// Whether one size is the other at another scale, but for sides rounded to whole pixels.
fn are_alike(a: (u32, u32), b: (u32, u32)) -> bool {
    let [(aw, ah), (bw, bh)] = [a, b].map(|(width, height)| (u64::from(width), u64::from(height)));
    (aw * bh).abs_diff(bw * ah) <= (aw + ah).max(bw + bh)
}

/// Reads both images of a pair.
pub(super) fn read_pair(sources: &SourceReader, files: &PairFiles) -> Result<Sample, DataError> {
    let image = read_image(sources, &files.input)?;
    let answer = read_image(sources, &files.target)?;
    if !are_alike(image.dimensions(), answer.dimensions()) {
        let size = |image: &image::RgbImage| format!("{}x{}", image.width(), image.height());
        return Err(DataError::failed(format!(
            "`{}` is {}, but `{}` is {}: they differ in shape",
            files.input,
            size(&image),
            files.target,
            size(&answer)
        ))
        .with_help("cut both to one shape; their sizes may differ"));
    }
    // Spec A.3: where the two differ in size, the target is brought to the input's.
    let answer = if answer.dimensions() == image.dimensions() {
        answer
    } else {
        resize::resize_image(&answer, [image.height() as usize, image.width() as usize])
    };
    Ok(Sample { id: files.name.clone(), image, answer: Some(answer), ..Sample::default() })
}

#[cfg(test)]
mod tests {
    use super::are_alike;

    #[test]
    fn sizes_are_alike_up_to_whole_pixels() {
        for (a, b) in [
            ((64, 48), (64, 48)),
            ((640, 480), (64, 48)),
            ((641, 480), (64, 48)),
            ((500, 333), (100, 66)),
        ] {
            assert!(are_alike(a, b) && are_alike(b, a), "{a:?} {b:?}");
        }
        for (a, b) in [((64, 48), (10, 200)), ((64, 48), (48, 64)), ((640, 480), (640, 400))] {
            assert!(!are_alike(a, b) && !are_alike(b, a), "{a:?} {b:?}");
        }
    }
}
