//! `world`: clips of the procedural world, for `pretrain`.

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, ParamError, Request, Sample};

pub(super) struct World;

impl Task for World {
    fn name(&self) -> &'static str {
        "world"
    }

    fn doc(&self) -> &'static str {
        "No task: clips of the procedural world, for `pretrain`."
    }

    fn params(&self) -> &'static [&'static str] {
        &["frames"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Clips
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        if request.frames % 4 == 1 {
            return Vec::new();
        }
        let message = format!("must be 4k + 1, but is {}", request.frames);
        vec![ParamError::new("frames", message).help("for example frames = 9")]
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        Ok(super::pair(sample.image.clone(), sample.image))
    }
}
