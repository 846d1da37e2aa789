//! `arc`: the answer of an ARC example.

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Request, Sample};

pub(super) struct Arc;

impl Task for Arc {
    fn name(&self) -> &'static str {
        "arc"
    }

    fn doc(&self) -> &'static str {
        "The answer of an ARC example."
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Grids
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        let answer = sample.answer.ok_or_else(|| super::lacks("answer"))?;
        let mut pair = super::pair(sample.image, answer);
        pair.meta.arc = sample.arc;
        Ok(pair)
    }
}
