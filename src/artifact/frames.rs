//! Decoded clips: `clip.safetensors` as in [`super::videos`], and `prediction.png`, the last frame,
//! which is the model's answer.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

use super::videos::Clip;
pub use super::videos::FILE;

/// The last frame as an image file.
pub const PREDICTION: &str = "prediction.png";

/// The last frame of a clip.
pub fn prediction(clip: &Clip) -> RgbImage {
    clip.frame(clip.size[0] - 1).expect("a clip has at least one frame")
}

/// An image as PNG.
pub fn to_png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("an RGB image in memory can be encoded");
    bytes.into_inner()
}
