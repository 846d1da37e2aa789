//! One example of a task: an input image, its answer, and what a metric must know of them.

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::{
    Depth, Person,
    arc::ArcGrids,
    tasks::depth::{DepthCode, is_known},
};

/// One example of a task.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// What the model sees.
    pub input: RgbImage,
    /// What it is to answer.
    pub target: RgbImage,
    /// 255 where the class of interest is, for masks.
    pub mask: Option<GrayImage>,
    /// Metres, for `task = "depth"`.
    pub depth: Option<Depth>,
    /// What metrics need besides the images.
    pub meta: PairMeta,
}

impl Pair {
    /// Whether each pixel of the target, row by row, says something: where no distance is known,
    /// its black is no answer.
    pub fn known(&self) -> Vec<bool> {
        match &self.depth {
            Some(depth) if depth.dimensions() == self.target.dimensions() => {
                depth.iter().map(|metres| is_known(*metres)).collect()
            }
            _ => vec![true; self.target.pixels().len()],
        }
    }
}

impl PairMeta {
    /// The images of the data set that the pair is made of: one, or those of a grid's cells.
    pub fn image_ids(&self) -> &[String] {
        match &self.symbols {
            Some(grid) if !grid.ids.is_empty() => &grid.ids,
            _ => std::slice::from_ref(&self.source_id),
        }
    }
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
    /// How the depth is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<DepthCode>,
    /// The classes of a scene and their colours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scene: Vec<SceneColor>,
    /// The classes of a grid of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<SymbolGrid>,
}

/// A class of a scene and the colour it is painted in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SceneColor {
    /// The class.
    pub name: String,
    /// Its colour.
    pub color: [u8; 3],
}

/// What the images of a grid show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolGrid {
    /// The names of the classes; the place of a name is its symbol.
    pub classes: Vec<String>,
    /// The class of each cell, row by row.
    pub cells: Vec<usize>,
    /// The image of each cell, by its name in the data set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Cells per side.
    pub side: usize,
}
