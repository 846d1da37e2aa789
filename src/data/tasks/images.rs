//! `images`: the image itself, for a `transform` stage.

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Request, Sample};

pub(super) struct Images;

impl Task for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn doc(&self) -> &'static str {
        "The image itself: plain images for a `transform` stage."
    }

    fn has_target(&self) -> bool {
        false
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Image
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        Ok(super::pair(sample.image.clone(), sample.image))
    }
}
