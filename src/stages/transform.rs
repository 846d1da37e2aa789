//! `transform`: pairs to pairs, such as a geometric task made from plain images.

use image::{RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Cause, IdleParam, Inputs, Misfit, Output, ParamError, Port, Ports, Stage, StageContext,
    StageError, StageKind, Surroundings, idle, interpolate::item_seed,
};
use crate::{
    artifact::{
        ArtifactKind,
        pairs::{Pair, PairMeta},
    },
    data::transforms,
};

/// Makes each pair anew from its input image; the old target is dropped.
///
/// The answer of most operations is made from the input. Where the operation takes something away
/// (`colorization`, `inpainting`, `jigsaw`), the input is changed and the answer is the original.
/// `apply` turns that round.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// What relates input and answer.
    pub operation: Operation,
    /// Which image of the new pair is the changed one; `target` for most operations, `input` for
    /// `colorization`, `inpainting` and `jigsaw`.
    #[serde(default)]
    pub apply: Option<Side>,
    /// For `zoom`: the share of each side that stays, 0.5 by default. For `inpainting`: the share
    /// of the shorter side that is hidden, 0.25 by default.
    #[serde(default)]
    pub share: Option<f64>,
    /// For `jigsaw`: pieces per side.
    #[serde(default = "three")]
    pub grid: usize,
    /// For `edges`: the two thresholds of Canny's hysteresis.
    #[serde(default = "thresholds")]
    pub thresholds: [f32; 2],
    /// Seed of what is random per image (`inpainting`, `jigsaw`); the pipeline's by default.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn three() -> usize {
    3
}

fn thresholds() -> [f32; 2] {
    [50.0, 100.0]
}

/// What relates input and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Mirrored left to right.
    Hflip,
    /// Mirrored top to bottom.
    Vflip,
    /// Turned a quarter clockwise; the images must be square.
    Rotate90,
    /// Turned by half.
    Rotate180,
    /// The middle, enlarged.
    Zoom,
    /// Canny edges, white on black.
    Edges,
    /// Grey to colours.
    Colorization,
    /// A black square to what it hides.
    Inpainting,
    /// Shuffled pieces to the picture.
    Jigsaw,
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

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Hflip => "hflip",
            Self::Vflip => "vflip",
            Self::Rotate90 => "rotate90",
            Self::Rotate180 => "rotate180",
            Self::Zoom => "zoom",
            Self::Edges => "edges",
            Self::Colorization => "colorization",
            Self::Inpainting => "inpainting",
            Self::Jigsaw => "jigsaw",
        }
    }

    const fn side(self) -> Side {
        match self {
            Self::Colorization | Self::Inpainting | Self::Jigsaw => Side::Input,
            _ => Side::Target,
        }
    }
}

impl StageKind for Transform {
    const KIND: &'static str = "transform";
    const VERSION: u32 = 1; // 1: first
    const PORTS: Ports = Ports {
        inputs: &[Port { name: "pairs", kinds: &[ArtifactKind::Pairs], required: true }],
        output: ArtifactKind::Pairs,
    };
}

impl Stage for Transform {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        if let Some(share) = self.share
            && !(share > 0.0 && share <= 1.0)
        {
            errors.push(ParamError::new(
                "share",
                format!("must be above 0 and at most 1, but is {share}"),
            ));
        }
        if !(2..=16).contains(&self.grid) {
            errors.push(ParamError::new("grid", format!("must be 2 to 16, but is {}", self.grid)));
        }
        let [low, high] = self.thresholds;
        if !(0.0 <= low && low <= high) {
            errors.push(
                ParamError::new("thresholds", format!("must rise from 0, but are {low}, {high}"))
                    .help("give [low, high], such as [50.0, 100.0]"),
            );
        }
        errors
    }

    fn idle_params(&self) -> Vec<IdleParam> {
        idle::transform(self)
    }

    fn misfits(&self, around: &Surroundings<'_>) -> Vec<Misfit> {
        match around.size.image {
            Some([height, width]) if self.operation == Operation::Rotate90 && height != width => {
                vec![not_square(height, width)]
            }
            _ => Vec::new(),
        }
    }

    fn mapped_port(&self) -> Option<&'static str> {
        Some("pairs")
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        cx.for_each(inputs.items("pairs"), "images", |item| {
            let pair = Pair::read(inputs, item)?;
            if self.operation == Operation::Rotate90 && pair.input.width() != pair.input.height() {
                let [height, width] = [pair.input.height(), pair.input.width()];
                return Err(not_square(height as usize, width as usize).into());
            }
            let (input, target) = self.apply(pair.input, item_seed(self.seed, item));
            let meta = PairMeta {
                source_id: pair.meta.source_id,
                task: self.operation.name().to_owned(),
                ..PairMeta::default()
            };
            Pair { input, target, mask: None, meta }.write(out, &item.name)
        })
    }
}

fn not_square(height: usize, width: usize) -> Misfit {
    Misfit::new(
        Cause::Image,
        format!(
            "a quarter turn needs square images, but these have height {height} and width {width}"
        ),
        "set the data set's `size` to two equal sides, or use `rotate180`",
    )
}

impl Transform {
    /// The new pair of an image.
    fn apply(&self, image: RgbImage, seed: u64) -> (RgbImage, RgbImage) {
        let changed = match self.operation {
            Operation::Hflip => imageops::flip_horizontal(&image),
            Operation::Vflip => imageops::flip_vertical(&image),
            Operation::Rotate90 => imageops::rotate90(&image),
            Operation::Rotate180 => imageops::rotate180(&image),
            Operation::Zoom => transforms::zoom(&image, self.share.unwrap_or(0.5)),
            Operation::Edges => transforms::canny(&image, self.thresholds),
            Operation::Colorization => transforms::grey(&image),
            Operation::Inpainting => {
                transforms::hide_square(&image, self.share.unwrap_or(0.25), seed)
            }
            Operation::Jigsaw => transforms::jigsaw(&image, self.grid, seed),
        };
        match self.apply.unwrap_or(self.operation.side()) {
            Side::Input => (changed, image),
            Side::Target => (image, changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    const ALL: [Operation; 9] = [
        Operation::Hflip,
        Operation::Vflip,
        Operation::Rotate90,
        Operation::Rotate180,
        Operation::Zoom,
        Operation::Edges,
        Operation::Colorization,
        Operation::Inpainting,
        Operation::Jigsaw,
    ];

    fn transform(operation: Operation) -> Transform {
        serde_json::from_value(serde_json::json!({ "operation": operation })).unwrap()
    }

    fn image() -> RgbImage {
        RgbImage::from_fn(32, 32, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, 7]))
    }

    #[test]
    fn flipping_twice_gives_the_image() {
        for operation in [Operation::Hflip, Operation::Vflip, Operation::Rotate180] {
            let (input, target) = transform(operation).apply(image(), 0);
            assert_eq!(input, image());
            assert_ne!(target, image());
            assert_eq!(transform(operation).apply(target, 0).1, image());
        }
    }

    #[test]
    fn one_side_is_the_image_and_the_other_is_changed() {
        for operation in ALL {
            assert_eq!(serde_json::to_value(operation).unwrap(), operation.name());
            let (input, target) = transform(operation).apply(image(), 1);
            let (same, changed) = match operation.side() {
                Side::Target => (input, target),
                Side::Input => (target, input),
            };
            assert_eq!(same, image(), "{operation:?}");
            assert_ne!(changed, image(), "{operation:?}");
            assert_eq!(changed.dimensions(), image().dimensions(), "{operation:?}");
            let mut turned = transform(operation);
            turned.apply =
                Some(if operation.side() == Side::Input { Side::Target } else { Side::Input });
            let (input, target) = turned.apply(image(), 1);
            assert!(input == changed || target == changed, "{operation:?}");
            assert!(turned.validate().is_empty());
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let mut wrong = transform(Operation::Zoom);
        (wrong.share, wrong.grid, wrong.thresholds) = (Some(0.0), 1, [9.0, 1.0]);
        let fields: Vec<_> = wrong.validate().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["share", "grid", "thresholds"]);
    }
}
