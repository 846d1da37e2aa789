//! Image pairs: `input.png`, `target.png`, optional `mask.png` and `depth.png`, `meta.json`.

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, codecs::png::PngEncoder};

use super::{Item, frames::to_png};
pub use crate::data::{Pair, PairMeta, tasks::depth::Reach};
use crate::{
    data::{Depth, tasks::depth::DepthCode},
    stages::{Inputs, Output, StageError},
};

/// The input image.
pub const INPUT: &str = "input.png";
/// The image to be predicted.
pub const TARGET: &str = "target.png";
/// Where the class of interest is.
pub const MASK: &str = "mask.png";
/// Distances in 16 bits: millimetres, 0 where none is known.
pub const DEPTH: &str = "depth.png";
/// [`PairMeta`].
pub const META: &str = "meta.json";

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
        let depth = if item.files.contains_key(DEPTH) {
            in_metres(&decode(&inputs.read(item, DEPTH)?, DEPTH, item)?)
        } else {
            None
        };
        Ok(Self {
            input: decode(&inputs.read(item, INPUT)?, INPUT, item)?.into_rgb8(),
            target: decode(&inputs.read(item, TARGET)?, TARGET, item)?.into_rgb8(),
            mask,
            depth,
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
        let depth = self.depth.as_ref().map(depth_png);
        if let Some(depth) = &depth {
            files.push((DEPTH, depth));
        }
        out.item(name, &files)
    }
}

/// The distances of a [`DEPTH`].
fn in_metres(stored: &DynamicImage) -> Option<Depth> {
    let stored = stored.to_luma16();
    let metres = stored.iter().map(|millimetres| f32::from(*millimetres) / 1000.0);
    Depth::from_raw(stored.width(), stored.height(), metres.collect())
}

/// How far the distances of a pair reach, beside those before, and the range of its colours;
/// nothing new where they cannot be read.
pub fn reach(
    depth: &[u8],
    meta: &[u8],
    before: Option<(Reach, [f32; 2])>,
) -> Option<(Reach, [f32; 2])> {
    let own = || {
        let PairMeta { depth: code, .. } = serde_json::from_slice(meta).ok()?;
        let DepthCode { range, .. } = code?;
        let stored = image::load_from_memory_with_format(depth, ImageFormat::Png).ok()?;
        Some((Reach::of(&in_metres(&stored)?, range), range))
    };
    match (before, own()) {
        (Some((reach, range)), Some((own, _))) => Some((reach.and(own), range)),
        (before, own) => own.or(before),
    }
}

/// Distances in millimetres; those beyond 65 m are not known to a picture of 16 bits.
fn depth_png(depth: &Depth) -> Vec<u8> {
    let millimetres = depth.iter().flat_map(|metres| {
        let value = (metres * 1000.0).round();
        let value = if (0.0..=65_535.0).contains(&value) { value as u16 } else { 0 };
        value.to_ne_bytes()
    });
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(
            &millimetres.collect::<Vec<_>>(),
            depth.width(),
            depth.height(),
            ExtendedColorType::L16,
        )
        .expect("writing to memory does not fail");
    bytes
}

/// Decodes an image file of an item.
pub fn decode(bytes: &[u8], file: &str, item: &Item) -> Result<image::DynamicImage, StageError> {
    image::load_from_memory_with_format(bytes, ImageFormat::Png)
        .map_err(|e| StageError::failed(format!("`{file}`: {e}")).on_item(&item.name))
}
