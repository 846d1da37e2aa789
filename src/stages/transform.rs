//! `transform`: pairs to pairs, such as a geometric task made from plain images.

use image::{Rgb, RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Inputs, Output, Port, Ports, Stage, StageContext, StageError, StageKind};
use crate::{
    artifact::{
        ArtifactKind,
        pairs::{Pair, PairMeta},
    },
    data::resize,
};

/// Makes each pair anew from its input image.
///
/// The answer of most operations is made from the input; where the operation takes something away
/// (`colorization`), the input is changed and the answer is the original.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// What relates input and answer.
    pub operation: Operation,
    /// For `zoom`: the share of each side that stays.
    #[serde(default = "half")]
    pub share: f64,
}

fn half() -> f64 {
    0.5
}

/// What relates input and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Mirrored left to right.
    Hflip,
    /// Mirrored top to bottom.
    Vflip,
    /// Turned by 180 degrees.
    Rotate180,
    /// The middle, enlarged.
    Zoom,
    /// The input is grey, the answer has its colours.
    Colorization,
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
    fn validate(&self) -> Vec<super::ParamError> {
        if self.share > 0.0 && self.share <= 1.0 {
            return Vec::new();
        }
        vec![super::ParamError::new(
            "share",
            format!("must be above 0 and at most 1, but is {}", self.share),
        )]
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
        let items = inputs.items("pairs");
        for (done, item) in items.iter().enumerate() {
            cx.tick(done as u64, items.len() as u64, "images")?;
            let pair = Pair::read(inputs, item)?;
            let (input, target) = self.apply(pair.input);
            let meta = PairMeta {
                source_id: pair.meta.source_id,
                task: serde_json::to_value(self.operation)
                    .ok()
                    .and_then(|v| v.as_str().map(ToOwned::to_owned))
                    .unwrap_or_default(),
                ..PairMeta::default()
            };
            Pair { input, target, mask: None, meta }.write(out, &item.name)?;
        }
        Ok(())
    }
}

impl Transform {
    fn apply(&self, image: RgbImage) -> (RgbImage, RgbImage) {
        match self.operation {
            Operation::Hflip => (image.clone(), imageops::flip_horizontal(&image)),
            Operation::Vflip => (image.clone(), imageops::flip_vertical(&image)),
            Operation::Rotate180 => (image.clone(), imageops::rotate180(&image)),
            Operation::Zoom => {
                let zoomed = zoom(&image, self.share);
                (image, zoomed)
            }
            Operation::Colorization => (grey(&image), image),
        }
    }
}

fn zoom(image: &RgbImage, share: f64) -> RgbImage {
    let side = |length: u32| ((f64::from(length) * share).round() as u32).clamp(1, length);
    let (width, height) = (side(image.width()), side(image.height()));
    let (left, top) = ((image.width() - width) / 2, (image.height() - height) / 2);
    let middle = imageops::crop_imm(image, left, top, width, height).to_image();
    resize::resize_image(&middle, [image.height() as usize, image.width() as usize])
}

/// Rec. 601 luma in all three channels.
fn grey(image: &RgbImage) -> RgbImage {
    let mut grey = image.clone();
    for Rgb([r, g, b]) in grey.pixels_mut() {
        let luma = 0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b);
        (*r, *g, *b) = (luma.round() as u8, luma.round() as u8, luma.round() as u8);
    }
    grey
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> RgbImage {
        RgbImage::from_fn(8, 6, |x, y| Rgb([(x * 30) as u8, (y * 40) as u8, 7]))
    }

    #[test]
    fn flipping_twice_gives_the_image() {
        for operation in [Operation::Hflip, Operation::Vflip, Operation::Rotate180] {
            let transform = Transform { operation, share: 0.5 };
            let (input, target) = transform.apply(image());
            assert_eq!(input, image());
            assert_ne!(target, image());
            assert_eq!(transform.apply(target).1, image());
        }
    }

    #[test]
    fn zoom_keeps_the_size_and_the_middle() {
        let mut picture = RgbImage::new(8, 8);
        for (x, y) in [(3, 3), (3, 4), (4, 3), (4, 4)] {
            picture.put_pixel(x, y, Rgb([255; 3]));
        }
        let zoomed = zoom(&picture, 0.25);
        assert_eq!(zoomed, RgbImage::from_pixel(8, 8, Rgb([255; 3])));
    }

    #[test]
    fn colorization_hides_the_colours_of_the_input_only() {
        let (input, target) =
            Transform { operation: Operation::Colorization, share: 0.5 }.apply(image());
        assert!(input.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]));
        assert_eq!(target, image());
    }
}
