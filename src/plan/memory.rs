//! The memory that stages' models take, told before anything is loaded.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::size::Sizes;
use crate::{
    config::Pipeline,
    models::{ClipSize, Memory},
};

/// What decides an estimate: the work, by its place in memory, which its cells share, and clips.
type Case = (usize, Option<[usize; 3]>);

/// Estimates the memory of a pipeline's instances; those of one stage and equal parameters are estimated
/// once.
pub struct MemoryPlan<'a> {
    pipeline: &'a Pipeline,
    /// Whether the device is the CPU.
    on_host: bool,
    sizes: Sizes,
    known: RefCell<HashMap<Case, Option<Memory>>>,
}

impl<'a> MemoryPlan<'a> {
    /// Estimates for a run on the CPU, or on a GPU.
    pub fn new(pipeline: &'a Pipeline, on_host: bool) -> Self {
        let sizes = Sizes::new(pipeline, |index| Some(&*pipeline.instances[index].params));
        Self { pipeline, on_host, sizes, known: RefCell::default() }
    }

    /// The memory of an instance; none if it runs no model, or if its model or the size of its clips
    /// is not known here.
    pub fn of(&self, index: usize) -> Option<Memory> {
        let instance = &self.pipeline.instances[index];
        if instance.inputs.contains_key("model") && instance.work.weights().is_some() {
            // Its sizes are those of a model that may not exist yet.
            return None;
        }
        let clip = self.clip(index);
        let size = clip.map(|clip| [clip.frames, clip.height, clip.width]);
        let work = Arc::as_ptr(&instance.work).cast::<()>().addr();
        let mut known = self.known.borrow_mut();
        *known.entry((work, size)).or_insert_with(|| {
            // What is wrong with a model is told by the stage that loads it.
            instance.work.memory(clip, self.on_host).ok().flatten()
        })
    }

    /// What would make an instance need less memory.
    pub fn help(&self, index: usize) -> Vec<String> {
        self.pipeline.instances[index].work.memory_help(self.clip(index), self.on_host)
    }

    /// The size of the clips an instance works on.
    fn clip(&self, index: usize) -> Option<ClipSize> {
        let [height, width] = self.sizes.image(index)?;
        Some(ClipSize { frames: self.sizes.frames(index)?, height, width })
    }
}
