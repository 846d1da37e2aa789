//! Reading files of a data set, and what is done about unusual pictures.
//!
//! Grey, 16-bit and CMYK pictures become 8-bit RGB, what is transparent is laid on white, and a
//! photograph is turned upright as its EXIF orientation says, unless its annotations are for the
//! stored pixels.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageReader, Limits, Rgb, RgbImage, metadata::Orientation,
};
use serde::de::DeserializeOwned;

use super::DataError;
use crate::store::SourceReader;

/// The longest side of a picture that is decoded: more is an accident or a decompression bomb.
const MAX_SIDE: u32 = 16_384;
/// The most pixels: those of the largest cameras.
const MAX_PIXELS: u64 = 160_000_000;
/// The most bytes that pixels are decoded to: four for each of the most.
const MAX_DECODED: u64 = 4 * MAX_PIXELS;
/// The most bytes of what a file holds beside pixels, such as a colour profile: the decoder leaves
/// out a profile that is larger once it is unpacked, and refuses other things.
const MAX_BESIDE: u64 = 64 << 20;

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

/// What a JSON text is that is no object, by its first character.
pub fn instead_of_object(text: &[u8]) -> Option<&'static str> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    Some(match first {
        None => "is empty",
        Some(b'{') => return None,
        Some(b'[') => "is a list",
        Some(b'"') => "is a string",
        Some(b'-' | b'0'..=b'9') => "is a number",
        Some(b't' | b'f' | b'n') => "is `true`, `false` or `null`",
        Some(_) => "is no JSON",
    })
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

/// Whether a file's name ends as a picture's does, also one of a format that is not read.
pub fn is_any_picture(name: &str) -> bool {
    is_picture(name) || ends_in(name, UNREAD)
}

/// The first picture in folders below `folder`, except hidden ones and caches of this program.
pub fn first_picture(
    sources: &SourceReader,
    folder: &str,
    layout: &str,
) -> Result<Option<String>, DataError> {
    /// More is no data set, or a circle of links.
    const MAX_LEVELS: usize = 4;
    // A cache is not listed: its names change with every run, and no picture of the data lies in
    // it.
    let is_cache = |path: &str| {
        let folder = sources.root().join(path);
        folder.join("format").is_file() && folder.join("objects").is_dir()
    };
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((above, level)) = open.pop() {
        let names = list(sources, &above, layout)?;
        let path = |name: &str| {
            if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
        };
        if level > 0
            && let Some(name) = names.iter().find(|name| is_any_picture(name))
        {
            return Ok(Some(path(name)));
        }
        let folders = names.iter().filter_map(|name| name.strip_suffix('/'));
        let seen = folders.filter(|name| !name.starts_with('.') && level < MAX_LEVELS);
        let below = seen.rev().map(path).filter(|path| !is_cache(path));
        open.extend(below.map(|path| (path, level + 1)));
    }
    Ok(None)
}

/// The names of the pictures in a folder of a data set. One of a format that is not read is an
/// error: the picture would be missing without a word.
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
    Ok(to_rgb(read_picture(sources, path, true)?))
}

/// Reads an image whose annotations are for its pixels as they are stored.
pub fn read_stored_image(sources: &SourceReader, path: &str) -> Result<RgbImage, DataError> {
    Ok(to_rgb(read_picture(sources, path, false)?))
}

/// The picture as 8-bit RGB; what is transparent lets white through.
fn to_rgb(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u32::from);
        let over = |value: u32| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        Rgb([red, green, blue].map(over))
    })
}

/// Reads an image with its own kind of pixels.
pub fn read_picture(
    sources: &SourceReader,
    path: &str,
    upright: bool,
) -> Result<DynamicImage, DataError> {
    decode(&read_source(sources, path, "an image")?, upright).map_err(|error| error.of_file(path))
}

/// The width and height of an image as it is stored; its pixels are not decoded.
pub fn stored_size(sources: &SourceReader, path: &str) -> Result<(u32, u32), DataError> {
    let bytes = read_source(sources, path, "an image")?;
    Ok(decoder(&bytes).map_err(|error| error.of_file(path))?.dimensions())
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
    /// Few enough pixels, but large ones.
    #[error(
        "is {width}x{height} with {bytes_per_pixel} bytes a pixel, {} MB, but at most {} MB are read",
        u64::from(*width) * u64::from(*height) * u64::from(*bytes_per_pixel) / 1_000_000,
        MAX_DECODED / 1_000_000
    )]
    Heavy {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// As they are decoded.
        bytes_per_pixel: u8,
    },
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

impl ImageFileError {
    /// What is told of the file at `path` of a data set.
    fn of_file(self, path: &str) -> DataError {
        // Decoders break their messages into lines.
        let text = self.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Large { .. } => DataError::failed(format!("`{path}` {text}"))
                .with_help("make a smaller copy of the picture"),
            Self::Heavy { .. } => DataError::failed(format!("`{path}` {text}"))
                .with_help("make a smaller copy of the picture, or one of 8 bits a channel"),
            Self::Format(image::ImageError::Limits(_)) => DataError::failed(format!(
                "`{path}` holds more than {} MiB beside its pixels",
                MAX_BESIDE >> 20
            ))
            .with_help("save the picture anew, without texts and profiles"),
            _ => DataError::failed(format!("`{path}` is not a whole image: {text}"))
                .with_help("the file may be cut short; copy or download it again"),
        }
    }
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
    Ok(to_rgb(decode(bytes, true)?))
}

/// What decodes a file; it has read all before the pixels.
fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder, ImageFileError> {
    if bytes.is_empty() {
        return Err(ImageFileError::NoBytes);
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(image::ImageError::IoError)?;
    if reader.format().is_none() {
        return Err(ImageFileError::Unknown);
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BESIDE);
    reader.limits(limits);
    reader.into_decoder().map_err(|error| match (error, size_of_png(bytes)) {
        // Some limits are those of the decoder's own arithmetic.
        (image::ImageError::Limits(_), Some((width, height)))
            if check_size(width, height).is_err() =>
        {
            ImageFileError::Large { width, height }
        }
        (error, _) => error.into(),
    })
}

/// The width and height that a PNG file states.
fn size_of_png(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let side = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    (header.get(4..8)? == b"IHDR").then(|| Some((side(8)?, side(12)?)))?
}

fn decode(bytes: &[u8], upright: bool) -> Result<DynamicImage, ImageFileError> {
    let mut decoder = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageFileError::Empty(width, height));
    }
    check_size(width, height)?;
    if decoder.total_bytes() > MAX_DECODED {
        let bytes_per_pixel = decoder.color_type().bytes_per_pixel();
        return Err(ImageFileError::Heavy { width, height, bytes_per_pixel });
    }
    // The pixels are counted.
    decoder.set_limits(Limits::no_limits())?;
    let orientation = if upright { decoder.orientation()? } else { Orientation::NoTransforms };
    let mut image = DynamicImage::from_decoder(decoder)?;
    if bytes.starts_with(&[0xff, 0xd8]) && !is_whole_jpeg(bytes) {
        return Err(ImageFileError::Cut);
    }
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether the image ends with its end-of-image marker, whatever follows it, as the video of a
/// photograph that moves. Segments before the first scan are passed over by their lengths: a
/// thumbnail in one has markers of its own.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const FILL: u8 = 0xff;
    let mut at = 0;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == FILL)) {
        at += offset + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // Fill bytes, bytes of image data, and markers without a segment: restarts, the start
            // of the image.
            Some(&FILL) => {}
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            // Image data follows the segment of a scan; it holds none of the other markers.
            Some(_) => {
                let Some(length) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests;
