//! Decoded clips: `clip.safetensors` as in [`super::videos`], and `prediction.png`, the last frame,
//! which is the model's answer.

use std::io::Cursor;

use image::{ImageBuffer, ImageFormat, Pixel, PixelWithColorType, RgbImage};

use super::videos::Clip;
pub use super::videos::FILE;

/// The last frame as an image file.
pub const PREDICTION: &str = "prediction.png";

/// The last frame of a clip.
pub fn prediction(clip: &Clip) -> RgbImage {
    clip.frame(clip.size[0] - 1).expect("a clip has at least one frame")
}

/// An image of 8 bits a channel as PNG.
pub fn to_png<P>(image: &ImageBuffer<P, Vec<u8>>) -> Vec<u8>
where
    P: Pixel<Subpixel = u8> + PixelWithColorType,
{
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("an image in memory can be encoded");
    bytes.into_inner()
}
