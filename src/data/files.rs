//! Reading files of a data set, and what is done about unusual pictures.
//!
//! Grey, 16-bit and CMYK pictures become 8-bit RGB, transparency is dropped, and a photograph is
//! turned upright as its EXIF orientation says, unless its annotations are for the stored pixels.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage, metadata::Orientation};
use serde::de::DeserializeOwned;

use super::DataError;
use crate::store::SourceReader;

/// The longest side of a picture that is decoded: more is an accident or a decompression bomb.
const MAX_SIDE: u32 = 16_384;
/// The most pixels: those of the largest cameras.
const MAX_PIXELS: u64 = 160_000_000;

/// Reads a file of a data set; `what` says what it is when it is missing.
pub fn read_source(sources: &SourceReader, path: &str, what: &str) -> Result<Vec<u8>, DataError> {
    sources.read(path).map_err(|error| {
        DataError::environment(format!("cannot read {what}: {error}")).with_help(
            error
                .help()
                .unwrap_or("check the data set's `root`, and that the download is complete"),
        )
    })
}

/// Reads a JSON file of a data set; `what` says what it is.
pub fn read_json<T: DeserializeOwned>(
    sources: &SourceReader,
    path: &str,
    what: &str,
) -> Result<T, DataError> {
    serde_json::from_slice(&read_source(sources, path, what)?)
        .map_err(|e| DataError::failed(format!("`{path}` is not {what}: {e}")))
}

/// The names in a folder of a data set; folders end in `/`.
pub fn list(sources: &SourceReader, folder: &str, layout: &str) -> Result<Vec<String>, DataError> {
    sources.list(folder).map_err(|e| {
        DataError::environment(format!("cannot read the folder of images: {e}"))
            .with_help(e.help().unwrap_or(layout))
    })
}

/// The endings of pictures that are read.
const READ: &[&str] = &["png", "jpg", "jpeg", "webp", "bmp"];

/// Those of pictures that are not, and would be missed if they were passed over.
const UNREAD: &[&str] = &[
    "tif", "tiff", "gif", "heic", "heif", "avif", "jxl", "jp2", "jpe", "jfif", "ppm", "pgm", "pbm",
    "pnm", "tga", "exr", "hdr", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2",
];

fn ends_in(name: &str, endings: &[&str]) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

/// Whether a file's name ends as a picture's does.
pub fn is_picture(name: &str) -> bool {
    ends_in(name, READ)
}

/// The names of the pictures in a folder of a data set. One of a format that is not read is an error: the
/// picture would be missing without a word.
pub fn pictures(
    sources: &SourceReader,
    folder: &str,
    layout: &str,
) -> Result<Vec<String>, DataError> {
    let mut names = list(sources, folder, layout)?;
    if let Some(name) = names.iter().find(|name| ends_in(name, UNREAD)) {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let message = format!("`{path}` is a picture of a format that is not read");
        return Err(DataError::failed(message).with_help(
            "PNG, JPEG, WebP and BMP are read, with the endings .png, .jpg, .jpeg, .webp and .bmp; convert \
             it, or move it out of the folder",
        ));
    }
    names.retain(|name| is_picture(name));
    Ok(names)
}

/// Reads an image of a data set and turns it upright.
pub fn read_image(sources: &SourceReader, path: &str) -> Result<RgbImage, DataError> {
    Ok(read_picture(sources, path, true)?.into_rgb8())
}

/// Reads an image whose annotations are for its pixels as they are stored.
pub fn read_stored_image(sources: &SourceReader, path: &str) -> Result<RgbImage, DataError> {
    Ok(read_picture(sources, path, false)?.into_rgb8())
}

/// Reads an image with its own kind of pixels.
pub fn read_picture(
    sources: &SourceReader,
    path: &str,
    upright: bool,
) -> Result<DynamicImage, DataError> {
    decode(&read_source(sources, path, "an image")?, upright).map_err(|error| {
        // Decoders break their messages into lines.
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        match error {
            ImageFileError::Large { .. } => DataError::failed(format!("`{path}` {text}"))
                .with_help("make a smaller copy of the picture"),
            _ => DataError::failed(format!("`{path}` is not a whole image: {text}"))
                .with_help("the file may be cut short; copy or download it again"),
        }
    })
}

/// Why bytes are not an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The decoder refuses it.
    #[error(transparent)]
    Format(#[from] image::ImageError),
    /// Nothing is in it.
    #[error("it is empty")]
    NoBytes,
    /// Neither its name nor its first bytes are known.
    #[error("its first bytes are those of no known format")]
    Unknown,
    /// Decoders fill what is missing with grey and say nothing.
    #[error("the JPEG data ends before the end of the image")]
    Cut,
    /// No pixels.
    #[error("it is {0}x{1}, so it has no pixels")]
    Empty(u32, u32),
    /// More than fits in memory.
    #[error(
        "is {width}x{height}, but at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are read"
    )]
    Large {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
}

/// Refuses pictures of more pixels than fit in memory.
pub fn check_size(width: u32, height: u32) -> Result<(), ImageFileError> {
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(ImageFileError::Large { width, height });
    }
    Ok(())
}

/// Decodes an image file of any known format to RGB; a JPEG that is cut short is an error.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, ImageFileError> {
    Ok(decode(bytes, true)?.into_rgb8())
}

fn decode(bytes: &[u8], upright: bool) -> Result<DynamicImage, ImageFileError> {
    if bytes.is_empty() {
        return Err(ImageFileError::NoBytes);
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(image::ImageError::IoError)?;
    if reader.format().is_none() {
        return Err(ImageFileError::Unknown);
    }
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageFileError::Empty(width, height));
    }
    check_size(width, height)?;
    decoder.set_limits(Limits::no_limits())?;
    let orientation = if upright { decoder.orientation()? } else { Orientation::NoTransforms };
    let mut image = DynamicImage::from_decoder(decoder)?;
    if bytes.starts_with(&[0xff, 0xd8]) && !is_whole_jpeg(bytes) {
        return Err(ImageFileError::Cut);
    }
    image.apply_orientation(orientation);
    Ok(image)
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
        let DataError::Failed { message, help, .. } = error else { panic!("{error}") };
        insta::assert_snapshot!(message, @"`a.jpg` is not a whole image: the JPEG data ends before the end of the image");
        insta::assert_snapshot!(help.unwrap(), @"the file may be cut short; copy or download it again");
    }

    #[test]
    fn a_missing_image_is_the_machines_fault() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_image(&SourceReader::new(folder.path()), "b.jpg").unwrap_err();
        assert!(matches!(error, DataError::Environment { .. }), "{error}");
        assert!(error.to_string().contains("b.jpg"), "{error}");
    }

    #[test]
    fn unusual_pictures_are_read_as_pillow_reads_them() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pictures");
        let text = std::fs::read(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for (name, wanted) in expected.as_object().unwrap() {
            let image = read_image(&SourceReader::new(&folder), name).unwrap();
            assert_eq!(
                serde_json::json!([image.width(), image.height()]),
                wanted["size"],
                "{name}"
            );
            for channel in 0..3 {
                let sum: f64 = image.pixels().map(|pixel| f64::from(pixel.0[channel])).sum();
                let mean = sum / f64::from(image.width() * image.height());
                let theirs = wanted["mean"][channel].as_f64().unwrap();
                assert!((mean - theirs).abs() < 1.5, "{name}: {mean} {theirs}");
                let first = f64::from(image.get_pixel(0, 0).0[channel]);
                let theirs = wanted["first"][channel].as_f64().unwrap();
                assert!((first - theirs).abs() < 4.0, "{name}: {first} {theirs}");
            }
        }
        let stored = read_stored_image(&SourceReader::new(&folder), "rotated.jpg").unwrap();
        assert_eq!(stored.dimensions(), (32, 16));
    }

    #[test]
    fn empty_and_huge_pictures_are_refused_before_they_are_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let sources = SourceReader::new(folder.path());
        let bitmap = |width: u32, height: u32| {
            let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
            bytes.extend(width.to_le_bytes());
            bytes.extend(height.to_le_bytes());
            bytes.extend(b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
            bytes
        };
        let error = |width, height| {
            std::fs::write(folder.path().join("a.bmp"), bitmap(width, height)).unwrap();
            read_image(&sources, "a.bmp").unwrap_err().to_string()
        };
        insta::assert_snapshot!(error(60_000, 60_000), @"`a.bmp` is 60000x60000, but at most 16384 pixels a side and 160000000 in all are read");
        assert!(error(0, 5).contains("is not a whole image"));
        std::fs::write(folder.path().join("a.png"), "no picture").unwrap();
        let error = read_image(&sources, "a.png").unwrap_err();
        insta::assert_snapshot!(error, @"`a.png` is not a whole image: its first bytes are those of no known format");
    }
}
