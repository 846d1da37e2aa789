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

/// Reads a file of a data set; `what` says what it is when it is missing.
pub fn read_source(sources: &SourceReader, path: &str, what: &str) -> Result<Vec<u8>, StageError> {
    sources.read(path).map_err(|error| {
        StageError::environment(format!("cannot read {what}: {error}"))
            .with_help("check the data set's `root`, and that the download is complete")
    })
}

/// Reads and decodes an image of a data set.
pub fn read_image(sources: &SourceReader, path: &str) -> Result<RgbImage, StageError> {
    let bytes = read_source(sources, path, "an image")?;
    let image = image::load_from_memory(&bytes).map_err(|error| {
        StageError::failed(format!("`{path}` is not a whole image: {error}"))
            .with_help("the file may be cut short; copy or download it again")
    })?;
    Ok(image.into_rgb8())
}
