//! `boundaries`: lines that people drew, white on black.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Task};
use crate::data::{
    DataError, Pair, ParamError, Request, Sample,
    resize::{cover_scale, resize_nearest},
};

/// Which lines count where several people drew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoundaryRule {
    /// A pixel is a boundary if at least so many annotators drew it.
    #[schemars(range(min = 1))]
    pub min_annotators: usize,
}

impl Default for BoundaryRule {
    fn default() -> Self {
        Self { min_annotators: 1 }
    }
}

pub(super) struct Boundaries;

impl Task for Boundaries {
    fn name(&self) -> &'static str {
        "boundaries"
    }

    fn doc(&self) -> &'static str {
        "Lines that people drew, white on black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["boundaries"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Boundaries
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        let message = "must be at least 1, but is 0";
        let problem =
            ParamError::new("boundaries.min_annotators", message).help("1 takes every line");
        if request.boundaries.min_annotators == 0 { vec![problem] } else { Vec::new() }
    }

    fn revision(&self) -> u32 {
        // 1: lines that are enlarged grow no more than their picture.
        1
    }

    fn prepare(&self, sample: Sample, request: &Request) -> Sample {
        // Blended with what is beside it, a line that is enlarged would be one of any share, and so
        // too wide.
        let source = [sample.image.height(), sample.image.width()];
        let grows = cover_scale(source, request.size) > 1.0;
        let enlarged = |lines| if grows { resize_nearest(&lines, request.size) } else { lines };
        Sample { answer: sample.answer.map(enlarged), ..sample }
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        let mut lines = sample.answer.ok_or_else(|| super::lacks("boundaries"))?;
        // Shrinking averages thin lines with what is beside them; an eighth of a line is a line, so
        // that none is broken.
        for pixel in lines.pixels_mut() {
            pixel.0 = if pixel.0[0] >= 32 { [255; 3] } else { [0; 3] };
        }
        Ok(super::pair(sample.image, lines))
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use serde_json::json;

    use super::*;
    use crate::data::resize::resize_sample;

    /// How many pixels of a row are line, of a picture with one pixel of it in each row.
    fn width_at(scale: f64) -> f64 {
        let side = (48.0 * scale).round() as usize;
        let request: Request = serde_json::from_value(json!({
            "source": "builtin:figures", "task": "boundaries", "count": 1, "size": [side, side],
        }))
        .unwrap();
        let lines =
            RgbImage::from_fn(48, 48, |x, y| Rgb([if (x + y) % 16 == 5 { 255 } else { 0 }; 3]));
        let sample =
            Sample { image: RgbImage::new(48, 48), answer: Some(lines), ..Sample::default() };
        let sample = resize_sample(Boundaries.prepare(sample, &request), request.size);
        let target = Boundaries.draw(sample, &request).unwrap().target;
        assert_eq!(target.dimensions(), (side as u32, side as u32));
        let white = target.pixels().filter(|pixel| pixel.0 == [255; 3]).count();
        white as f64 / (3 * side) as f64
    }

    #[test]
    fn lines_grow_no_more_than_their_picture() {
        assert!((width_at(1.0) - 1.0).abs() < 1e-9);
        assert!((width_at(2.0) - 2.0).abs() < 1e-9);
        let odd = width_at(4.0 / 3.0);
        assert!((1.2..1.5).contains(&odd), "{odd}");
        assert!(width_at(0.5) >= 1.0, "where they shrink, none is broken");
    }
}
