//! `pairs`: the pairs of a data set as they are.

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Request, Sample};

pub(super) struct Pairs;

impl Task for Pairs {
    fn name(&self) -> &'static str {
        "pairs"
    }

    fn doc(&self) -> &'static str {
        "The pairs of a folder or table as they are."
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Answer
    }

    fn draw(&self, sample: Sample, _: &Request) -> Result<Pair, DataError> {
        let answer = sample.answer.ok_or_else(|| super::lacks("answer"))?;
        Ok(super::pair(sample.image, answer))
    }
}
