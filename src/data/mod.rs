//! Pixels: reading, making and transforming images and clips. No model tensors here.
//!
//! A data set ([`sets`]) gives samples: images with what is known of them. A task ([`tasks`]) makes
//! pairs of them. A [`Request`] names both and says which images.

pub mod arc;
pub mod choice;
mod class_names;
mod classes;
pub mod coco;
pub mod color_map;
mod error;
pub mod figures;
pub mod files;
pub mod folder;
pub mod guard;
pub mod interpolation;
mod pair;
pub mod pose;
mod request;
pub mod resize;
pub mod rle;
mod select;
pub mod sets;
pub mod source;
pub mod tasks;
pub mod transforms;

pub use classes::Classes;
pub use error::{DataError, ParamError};
pub use files::{ImageFileError, decode_image, read_image};
pub use pair::{Pair, PairMeta, SceneColor, SymbolGrid};
pub use request::{HoldoutBy, Request, Split, WithoutDepth, fifth, held_out};
pub use select::{SelectError, select};

use image::{GrayImage, ImageBuffer, Luma, RgbImage};
use serde::{Deserialize, Serialize};

use self::arc::ArcGrids;

/// Distances in metres; 0 where none is known.
pub type Depth = ImageBuffer<Luma<f32>, Vec<f32>>;

/// The number of a class at each pixel; 0 is none.
pub type Labels = ImageBuffer<Luma<u16>, Vec<u16>>;

/// One image of a data set with what was asked for, before any task is applied.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The image's name in its data set.
    pub id: String,
    /// RGB.
    pub image: RgbImage,
    /// The people in it.
    pub persons: Vec<Person>,
    /// 255 where the class of interest is.
    pub mask: Option<GrayImage>,
    /// The class of each pixel.
    pub scene: Option<SceneLabels>,
    /// The distance of each pixel.
    pub depth: Option<Depth>,
    /// The answer that belongs to it, for pairs.
    pub answer: Option<RgbImage>,
    /// What the whole image shows, as a place in the list of classes.
    pub class: Option<usize>,
    /// The grids that image and answer are drawings of.
    pub arc: Option<ArcGrids>,
}

/// The class of each pixel.
#[derive(Clone, Debug)]
pub struct SceneLabels {
    /// Places in `names`, from 1; 0 is none of them.
    pub labels: Labels,
    /// All classes that the data set may show.
    pub names: std::sync::Arc<[String]>,
}

/// A person in COCO's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// COCO's 17 keypoints: x and y in pixels, visibility 0 (not labelled), 1 (hidden), 2
    /// (visible).
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
