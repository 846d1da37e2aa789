//! `pose`: a drawing of the pose of all persons.

use super::{Knowledge, Task};
use crate::data::{
    DataError, Pair, Request, Sample,
    pose::{self, Drawn},
    resize::resize_persons,
};

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

    fn prepare(&self, mut sample: Sample, request: &Request) -> Sample {
        sample.persons = request.pose.visibility.of(&sample.persons);
        if request.pose.drawn == Drawn::BeforeResize {
            let source = [sample.image.height(), sample.image.width()];
            // Keypoints outside the photograph are not drawn, nor are lines to them.
            let inside = source.map(|side| side as usize);
            let persons = resize_persons(&sample.persons, source, inside);
            let drawing = pose::draw_before_resize(&persons, source, request.size, request.pose);
            sample.answer = Some(drawing);
        }
        sample
    }

    fn draw(&self, mut sample: Sample, request: &Request) -> Result<Pair, DataError> {
        let drawn = sample.answer.take();
        let target =
            drawn.unwrap_or_else(|| pose::draw(&sample.persons, request.size, request.pose));
        let mut pair = super::pair(sample.image, target);
        pair.meta.persons = sample.persons;
        Ok(pair)
    }
}
