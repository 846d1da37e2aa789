//! Image pairs: `input.png`, `target.png`, optional `mask.png`, `meta.json`.

use image::{GrayImage, ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use super::{Item, frames::to_png};
use crate::{
    data::{Person, arc::ArcGrids},
    stages::{Inputs, Output, StageError},
};

/// The input image.
pub const INPUT: &str = "input.png";
/// The image to be predicted.
pub const TARGET: &str = "target.png";
/// Where the class of interest is.
pub const MASK: &str = "mask.png";
/// [`PairMeta`].
pub const META: &str = "meta.json";

/// One example of a task.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What the model sees.
    pub input: RgbImage,
    /// What it is to answer.
    pub target: RgbImage,
    /// 255 where the class of interest is, for masks.
    pub mask: Option<GrayImage>,
    /// What metrics need besides the images.
    pub meta: PairMeta,
}

/// The annotations of a pair, in pixels of its images.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PairMeta {
    /// The image's name in its data set.
    pub source_id: String,
    /// The task.
    pub task: String,
    /// The people in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persons: Vec<Person>,
    /// The grids of an ARC pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arc: Option<ArcGrids>,
}

impl Pair {
    /// Reads an item of a `pairs` artifact.
    pub fn read(inputs: &Inputs<'_>, item: &Item) -> Result<Self, StageError> {
        let meta = serde_json::from_slice(&inputs.read(item, META)?)
            .map_err(|e| StageError::failed(format!("`{META}`: {e}")).on_item(&item.name))?;
        let mask = if item.files.contains_key(MASK) {
            Some(decode(&inputs.read(item, MASK)?, MASK, item)?.into_luma8())
        } else {
            None
        };
        Ok(Self {
            input: decode(&inputs.read(item, INPUT)?, INPUT, item)?.into_rgb8(),
            target: decode(&inputs.read(item, TARGET)?, TARGET, item)?.into_rgb8(),
            mask,
            meta,
        })
    }

    /// Writes the pair as the item `name`.
    pub fn write(&self, out: &mut Output<'_>, name: &str) -> Result<(), StageError> {
        let meta = serde_json::to_vec(&self.meta).expect("annotations are plain values");
        let (input, target) = (to_png(&self.input), to_png(&self.target));
        let mut files: Vec<(&str, &[u8])> = vec![(INPUT, &input), (TARGET, &target), (META, &meta)];
        let mask = self.mask.as_ref().map(to_png);
        if let Some(mask) = &mask {
            files.push((MASK, mask));
        }
        out.item(name, &files)
    }
}

/// Decodes an image file of an item.
pub fn decode(bytes: &[u8], file: &str, item: &Item) -> Result<image::DynamicImage, StageError> {
    image::load_from_memory_with_format(bytes, ImageFormat::Png)
        .map_err(|e| StageError::failed(format!("`{file}`: {e}")).on_item(&item.name))
}
