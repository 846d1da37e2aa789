//! Pixels: reading, making and transforming images and clips. No model tensors here.

pub mod arc;
pub mod coco;
pub mod figures;
pub mod folder;
pub mod interpolation;
pub mod pose;
pub mod resize;
pub mod rle;
mod select;
pub mod source;
pub mod transforms;

pub use select::{SelectError, select};

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use crate::{stages::StageError, store::SourceReader};

/// One annotated image of a data set, before any task is applied.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image's name in its data set.
    pub id: String,
    /// RGB.
    pub image: RgbImage,
    /// The people in it.
    pub persons: Vec<Person>,
    /// 255 where the class of interest is.
    pub mask: Option<GrayImage>,
}

/// A person in COCO's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// COCO's 17 keypoints: x and y in pixels, visibility 0 (not labelled), 1 (hidden), 2 (visible).
    pub keypoints: [[f32; 3]; 17],
}

impl Person {
    /// Area of the smallest box around the labelled keypoints.
    pub fn span(&self) -> f64 {
        let labelled = || self.keypoints.iter().filter(|keypoint| keypoint[2] > 0.0);
        let side = |axis: usize| {
            let values = labelled().map(|keypoint| f64::from(keypoint[axis]));
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
            (high - low).max(0.0)
        };
        side(0) * side(1)
    }
}

/// Rounds 0..=255 half to even: beyond 2^23 an f32 has no fraction left. (The library's function is
/// a call on processors without an instruction for it.)
fn round(value: f32) -> u8 {
    const NO_FRACTION: f32 = 8_388_608.0;
    ((value + NO_FRACTION) - NO_FRACTION) as u8
}

/// Reads a file of a data set; `what` says what it is when it is missing.
pub fn read_source(sources: &SourceReader, path: &str, what: &str) -> Result<Vec<u8>, StageError> {
    sources.read(path).map_err(|error| {
        StageError::environment(format!("cannot read {what}: {error}"))
            .with_help("check the data set's `root`, and that the download is complete")
    })
}

/// Reads and decodes an image of a data set.
pub fn read_image(sources: &SourceReader, path: &str) -> Result<RgbImage, StageError> {
    decode_image(&read_source(sources, path, "an image")?).map_err(|error| {
        // Decoders break their messages into lines.
        let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        StageError::failed(format!("`{path}` is not a whole image: {error}"))
            .with_help("the file may be cut short; copy or download it again")
    })
}

/// Why bytes are not an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The decoder refuses it.
    #[error(transparent)]
    Format(#[from] image::ImageError),
    /// Decoders fill what is missing with grey and say nothing.
    #[error("the JPEG data ends before the end of the image")]
    Cut,
}

/// Decodes an image file of any known format to RGB; a JPEG that is cut short is an error.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, ImageFileError> {
    let image = image::load_from_memory(bytes)?;
    if bytes.starts_with(&[0xff, 0xd8]) && !is_whole_jpeg(bytes) {
        return Err(ImageFileError::Cut);
    }
    Ok(image.into_rgb8())
}

/// Whether the end-of-image marker comes after the last scan. Image data never contains the bytes
/// of a marker, and a thumbnail with markers of its own comes before the first scan.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::ImageFormat;

    use super::*;

    fn file(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, 9]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn whole_files_decode_and_cut_ones_do_not() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
            let bytes = file(format);
            assert_eq!(decode_image(&bytes).unwrap().dimensions(), (64, 48), "{format:?}");
            for len in [0, 10, bytes.len() / 2, bytes.len() - 2] {
                if format == ImageFormat::Png && len == bytes.len() - 2 {
                    continue; // Only the end chunk's checksum is missing; no pixel is.
                }
                assert!(decode_image(&bytes[..len]).is_err(), "{format:?} cut to {len}");
            }
        }
    }

    #[test]
    fn a_cut_image_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = file(ImageFormat::Jpeg);
        std::fs::write(folder.path().join("a.jpg"), &bytes[..bytes.len() - 40]).unwrap();
        let error = read_image(&SourceReader::new(folder.path()), "a.jpg").unwrap_err();
        let StageError::Failed { message, help, .. } = error else { panic!("{error}") };
        insta::assert_snapshot!(message, @"`a.jpg` is not a whole image: the JPEG data ends before the end of the image");
        insta::assert_snapshot!(help.unwrap(), @"the file may be cut short; copy or download it again");
    }

    #[test]
    fn a_missing_image_is_the_machines_fault() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_image(&SourceReader::new(folder.path()), "b.jpg").unwrap_err();
        assert!(matches!(error, StageError::Environment { .. }), "{error}");
        assert!(error.to_string().contains("b.jpg"), "{error}");
    }
}
