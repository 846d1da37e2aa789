//! `segmentation`: a white mask on black.

use image::DynamicImage;

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Request, Sample};

pub(super) struct Segmentation;

impl Task for Segmentation {
    fn name(&self) -> &'static str {
        "segmentation"
    }

    fn doc(&self) -> &'static str {
        "A white mask on black."
    }

    fn params(&self) -> &'static [&'static str] {
        &["class"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Mask
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        let mask = sample.mask.ok_or_else(|| super::lacks("mask"))?;
        let white = DynamicImage::ImageLuma8(mask.clone()).into_rgb8();
        Ok(Pair { mask: Some(mask), ..super::pair(sample.image, white) })
    }
}
