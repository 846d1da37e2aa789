//! Tasks made from plain images: an operation changes one side of a pair.
//!
//! Operations stand in files by kind, and each has one line in [`OPERATIONS`]. Defaults are those
//! of docs/method.md, A.3: zoom keeps the middle half, inpainting hides one square with a quarter
//! of the shorter side, a jigsaw has 3x3 pieces and is never left in order.

pub mod edges;
pub mod geometry;
pub mod removal;
pub mod style;

use image::RgbImage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DataError, ParamError,
    choice::{Choice, listed},
};

/// Every operation that a pipeline file can name.
pub static OPERATIONS: &[&dyn Operation] = &[
    &geometry::Hflip,
    &geometry::Vflip,
    &geometry::Rotate90,
    &geometry::Rotate180,
    &geometry::Rotate,
    &geometry::Zoom,
    &geometry::Crop,
    &edges::Edges,
    &removal::Colorization,
    &removal::Inpainting,
    &removal::Jigsaw,
    &style::PixelArt,
    &geometry::Swap,
    &geometry::Keep,
];

/// Makes pairs anew from their input images.
///
/// The answer of most operations is made from the input. Where the operation takes something away
/// (`colorization`, `inpainting`, `jigsaw`), the input is changed and the answer is the original.
/// `apply` turns that round. Only `swap` and `keep` keep the old answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What relates input and answer.
    pub operation: Choice<dyn Operation>,
    /// Which image of the new pair is the changed one; `target` for most operations, `input` for
    /// `colorization`, `inpainting` and `jigsaw`.
    #[serde(default)]
    pub apply: Option<Side>,
    /// For `zoom` and `crop`: the share of each side that stays, 0.5 by default. For `inpainting`:
    /// the share of the shorter side that a square hides, 0.25 by default. For `pixel_art`: the
    /// share of the shorter side that a block takes, a sixteenth by default.
    #[serde(default)]
    pub share: Option<f64>,
    /// For `inpainting`: the number of squares.
    #[serde(default = "one")]
    pub squares: usize,
    /// For `jigsaw`: pieces per side.
    #[serde(default = "three")]
    pub grid: usize,
    /// For `rotate`: degrees clockwise.
    #[serde(default = "thirty")]
    pub angle: f64,
    /// For `edges`: the two thresholds of Canny's hysteresis.
    #[serde(default = "thresholds")]
    pub thresholds: [f32; 2],
    /// Seed of what is random per image (`inpainting`, `jigsaw`); 0 by default, whatever the
    /// pipeline's is.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

fn thirty() -> f64 {
    30.0
}

fn thresholds() -> [f32; 2] {
    [50.0, 100.0]
}

/// An image of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What the model sees.
    Input,
    /// What it is to answer.
    Target,
}

/// What relates input and answer.
pub trait Operation: Sync {
    /// What it is called in a pipeline file.
    fn name(&self) -> &'static str;

    /// One sentence for editors.
    fn doc(&self) -> &'static str;

    /// Which image it changes where the file does not say.
    fn side(&self) -> Side {
        Side::Target
    }

    /// Whether it takes square images only.
    fn needs_square(&self) -> bool {
        false
    }

    /// The least side of the images that it takes: of shorter ones, a jigsaw's pieces would have no
    /// pixels.
    fn needs_side(&self, _: &Change) -> usize {
        1
    }

    /// The parameters of [`Change`] that it reads and others do not.
    fn params(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the old answer takes the input's place.
    fn swaps(&self) -> bool {
        false
    }

    /// Whether the pair stays as it is.
    fn keeps(&self) -> bool {
        false
    }

    /// The changed image, of the same size.
    fn apply(&self, image: &RgbImage, change: &Change, seed: u64) -> Result<RgbImage, DataError>;
}

listed!(Operation, "Operation", OPERATIONS);

impl Change {
    /// The rules that the parameters break.
    pub fn validate(&self) -> Vec<ParamError> {
        let mut problems = Vec::new();
        let mut wrong = |field, message| problems.push(ParamError::new(field, message));
        if let Some(share) = self.share
            && !(share > 0.0 && share <= 1.0)
        {
            wrong("share", format!("must be above 0 and at most 1, but is {share}"));
        }
        if !(1..=64).contains(&self.squares) {
            wrong("squares", format!("must be 1 to 64, but is {}", self.squares));
        }
        if !(2..=16).contains(&self.grid) {
            wrong("grid", format!("must be 2 to 16, but is {}", self.grid));
        }
        if !self.angle.is_finite() {
            wrong("angle", format!("must be a number, but is {}", self.angle));
        }
        let [low, high] = self.thresholds;
        if !(0.0 <= low && low <= high) {
            let message = format!("must rise from 0, but are {low}, {high}");
            let help = "give [low, high], such as [50.0, 100.0]";
            problems.push(ParamError::new("thresholds", message).help(help));
        }
        problems
    }

    /// Whether the answer is made from the input, or the other way round.
    pub fn makes_an_image(&self) -> bool {
        !self.operation.swaps() && !self.operation.keeps()
    }

    /// Input and answer of the new pair.
    pub fn pair(
        &self,
        input: RgbImage,
        target: RgbImage,
        seed: u64,
    ) -> Result<[RgbImage; 2], DataError> {
        if self.operation.swaps() {
            return Ok([target, input]);
        }
        if self.operation.keeps() {
            return Ok([input, target]);
        }
        let changed = self.operation.apply(&input, self, seed)?;
        Ok(match self.apply.unwrap_or(self.operation.side()) {
            Side::Input => [changed, input],
            Side::Target => [input, changed],
        })
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn change(operation: &str) -> Change {
        serde_json::from_value(serde_json::json!({ "operation": operation })).unwrap()
    }

    fn image() -> RgbImage {
        RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, 7]))
    }

    fn pair(change: &Change, seed: u64) -> [RgbImage; 2] {
        change.pair(image(), RgbImage::new(32, 32), seed).unwrap()
    }

    #[test]
    fn flipping_twice_gives_the_image() {
        for operation in ["hflip", "vflip", "rotate180"] {
            let change = change(operation);
            let [input, target] = pair(&change, 0);
            assert_eq!(input, image());
            assert_ne!(target, image());
            assert_eq!(change.operation.apply(&target, &change, 0).unwrap(), image());
        }
    }

    #[test]
    fn one_side_is_the_image_and_the_other_is_changed() {
        for operation in OPERATIONS {
            let mut change = change(operation.name());
            if !change.makes_an_image() {
                continue;
            }
            let [input, target] = pair(&change, 1);
            let (same, changed) = match operation.side() {
                Side::Target => (input, target),
                Side::Input => (target, input),
            };
            assert_eq!(same, image(), "{}", operation.name());
            assert_ne!(changed, image(), "{}", operation.name());
            assert_eq!(changed.dimensions(), image().dimensions(), "{}", operation.name());
            let is_input = operation.side() == Side::Input;
            change.apply = Some(if is_input { Side::Target } else { Side::Input });
            assert!(pair(&change, 1).contains(&changed), "{}", operation.name());
            assert!(change.validate().is_empty());
        }
    }

    #[test]
    fn swapping_makes_the_answer_the_question() {
        assert_eq!(pair(&change("swap"), 0), [RgbImage::new(32, 32), image()]);
        assert_eq!(pair(&change("keep"), 0), [image(), RgbImage::new(32, 32)]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let mut wrong = change("zoom");
        (wrong.share, wrong.grid, wrong.thresholds) = (Some(0.0), 1, [9.0, 1.0]);
        (wrong.squares, wrong.angle) = (0, f64::NAN);
        let fields: Vec<_> = wrong.validate().into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["share", "squares", "grid", "angle", "thresholds"]);
    }
}
