//! `builtin:figures`: the procedural world as a data set without end.

use super::{DataSet, Images, Knowledge};
use crate::{
    data::{DataError, ParamError, Request, Sample, SceneLabels, figures},
    store::SourceReader,
};

pub(super) struct Figures;

impl DataSet for Figures {
    fn name(&self) -> &'static str {
        "builtin:figures"
    }

    fn doc(&self) -> &'static str {
        "A procedural world of articulated figures and simple shapes; always there."
    }

    fn offers(&self) -> &'static [Knowledge] {
        use Knowledge::{Class, Clips, Depth, Image, Mask, Persons, Scene};
        &[Image, Persons, Mask, Scene, Depth, Class, Clips]
    }

    fn is_on_disk(&self) -> bool {
        false
    }

    fn check(&self, request: &Request) -> Vec<ParamError> {
        let message = "the procedural world has no end, so `count` must be given";
        let problem = ParamError::new("count", message).help("for example count = 10");
        if request.count.is_none() { vec![problem] } else { Vec::new() }
    }

    fn open<'a>(
        &self,
        request: &'a Request,
        _: &'a SourceReader,
    ) -> Result<Box<dyn Images + 'a>, DataError> {
        let split = if request.is_train() { figures::Split::Train } else { figures::Split::Test };
        let parts = figures::PARTS.map(str::to_owned).into();
        let shapes = request.symbols.pick(&figures::SHAPES.map(str::to_owned))?;
        Ok(Box::new(World { request, seed: split.seed(request.seed()), parts, shapes }))
    }
}

struct World<'a> {
    request: &'a Request,
    seed: u64,
    parts: std::sync::Arc<[String]>,
    shapes: Vec<String>,
}

impl Images for World<'_> {
    fn count(&self) -> Option<usize> {
        None
    }

    fn sample(&self, place: usize) -> Result<Sample, DataError> {
        let size = self.request.task.image_size(self.request);
        let index = place as u64;
        let needs = self.request.task.needs();
        if needs == Knowledge::Class {
            let class = place % self.shapes.len();
            let image = figures::shape(self.seed, index, &self.shapes[class], size);
            let id = format!("{}-{index:06}", self.shapes[class]);
            return Ok(Sample { id, image, class: Some(class), ..Sample::default() });
        }
        if needs == Knowledge::Image {
            return Ok(figures::photograph(self.seed, index, size));
        }
        let mut sample = figures::figure(self.seed, index, size);
        if needs == Knowledge::Scene {
            let labels = figures::part_labels(self.seed, index, size);
            sample.scene = Some(SceneLabels { labels, names: self.parts.clone() });
        }
        if needs == Knowledge::Depth {
            sample.depth = Some(figures::depth(self.seed, index, size));
        }
        Ok(sample)
    }

    fn classes(&self) -> &[String] {
        &self.shapes
    }
}
