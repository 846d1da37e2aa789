//! Tasks: one file each, and one line in [`TASKS`].

mod arc;
pub mod boundaries;
pub mod depth;
mod images;
mod pairs;
mod pose;
pub mod scene;
mod segmentation;
pub mod symbols;
mod world;

use super::{
    DataError, Pair, PairMeta, ParamError, Request, Sample,
    choice::listed,
    sets::{Images, Knowledge},
};

/// Every task that a pipeline file can name.
pub static TASKS: &[&dyn Task] = &[
    &pose::Pose,
    &segmentation::Segmentation,
    &scene::Scene,
    &depth::DepthTask,
    &boundaries::Boundaries,
    &symbols::SymbolsTask,
    &arc::Arc,
    &pairs::Pairs,
    &images::Images,
    &world::World,
];

/// What is to be predicted from an image.
pub trait Task: Sync {
    /// What it is called in a pipeline file.
    fn name(&self) -> &'static str;

    /// One sentence for editors.
    fn doc(&self) -> &'static str;

    /// The parameters of [`Request`] that it reads and others do not.
    fn params(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether its pairs have an answer of their own; else input and target are one picture.
    fn has_target(&self) -> bool {
        true
    }

    /// What it must know of an image.
    fn needs(&self) -> Knowledge;

    /// Rules for its own parameters.
    fn check(&self, _: &Request) -> Vec<ParamError> {
        Vec::new()
    }

    /// The size at which images are read.
    fn image_size(&self, request: &Request) -> [usize; 2] {
        request.size
    }

    /// How many pairs the images give; `None` if they have no end.
    fn count(&self, images: &dyn Images) -> Option<usize> {
        images.count()
    }

    /// How often its pairs changed for equal requests, while those of other tasks stayed.
    fn revision(&self) -> u32 {
        0
    }

    /// The pair at a place, with its name.
    fn pair(
        &self,
        images: &dyn Images,
        place: usize,
        request: &Request,
    ) -> Result<(String, Pair), DataError> {
        let sample = resized(images, place, request)?;
        let name = sample.id.clone();
        let mut pair = self.draw(sample, request).map_err(|e| e.on_item(&name))?;
        self.name().clone_into(&mut pair.meta.task);
        pair.meta.source_id.clone_from(&name);
        Ok((name, pair))
    }

    /// What it does to an image before it is brought to size.
    fn prepare(&self, sample: Sample, _: &Request) -> Sample {
        sample
    }

    /// The pair of one image that has the right size.
    fn draw(&self, sample: Sample, request: &Request) -> Result<Pair, DataError>;
}

/// The image at a place, at the size the task reads it.
fn resized(images: &dyn Images, place: usize, request: &Request) -> Result<Sample, DataError> {
    let sample = request.task.prepare(images.sample(place)?, request);
    Ok(super::resize::resize_sample(sample, request.task.image_size(request)))
}

/// The pair of an image and its answer, with what else is known.
fn pair(input: image::RgbImage, target: image::RgbImage) -> Pair {
    Pair { input, target, mask: None, depth: None, meta: PairMeta::default() }
}

/// The data set did not give what it said it would.
fn lacks(what: &str) -> DataError {
    DataError::failed(format!("the image has no {what}"))
}

/// The tasks that can be done with this knowledge.
pub fn names_for(offers: &[Knowledge]) -> Vec<&'static str> {
    TASKS.iter().filter(|task| offers.contains(&task.needs())).map(|task| task.name()).collect()
}

/// Whether pairs of this task, or of the operation of this name, have an answer of their own.
pub fn has_target(name: &str) -> bool {
    TASKS.iter().find(|task| task.name() == name).is_none_or(|task| task.has_target())
}

listed!(Task, "Task", TASKS);
