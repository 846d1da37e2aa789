//! `pose`: a drawing of the pose of all persons.

use super::{Knowledge, Task};
use crate::data::{DataError, Pair, Request, Sample, pose};

pub(super) struct Pose;

impl Task for Pose {
    fn name(&self) -> &'static str {
        "pose"
    }

    fn doc(&self) -> &'static str {
        "A drawing of the pose of all persons."
    }

    fn params(&self) -> &'static [&'static str] {
        &["pose"]
    }

    fn needs(&self) -> Knowledge {
        Knowledge::Persons
    }

    fn draw(&self, sample: Sample, request: &Request) -> Result<Pair, DataError> {
        let target = pose::draw(&sample.persons, request.size, request.pose);
        let mut pair = super::pair(sample.image, target);
        pair.meta.persons = sample.persons;
        Ok(pair)
    }
}
