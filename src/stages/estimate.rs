//! What the memory of a stage is estimated by: its work, and how much is on its ports, told before
//! it is made.

use std::sync::Arc;

use super::{ModelParts, Stage};
use crate::models::{
    ClipSize,
    memory::{AdapterSize, Given, HeldClips},
};

/// What a stage is to do, as far as it decides the memory it takes.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// The size of its clips, if it is known.
    pub clip: Option<ClipSize>,
    /// Whether the device is the CPU.
    pub on_host: bool,
    /// What is on its port `model`.
    pub parts: &'a ModelParts,
    /// What was on that port of the stage that encoded its latents, if it takes some.
    pub encoder: Option<&'a ModelParts>,
    /// How much is on its other ports.
    pub given: Given,
}

/// A stage with one parameter that makes it need less memory.
pub struct Lighter {
    /// The parameter.
    pub param: &'static str,
    /// What to do to have it so.
    pub advice: String,
    /// The stage.
    pub stage: Arc<dyn Stage>,
}

impl Lighter {
    pub(super) fn new(
        param: &'static str,
        advice: impl Into<String>,
        stage: impl Stage + 'static,
    ) -> Self {
        Self { param, advice: advice.into(), stage: Arc::new(stage) }
    }
}

/// How much a stage gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Its items, if their number is known.
    pub items: Option<usize>,
    /// Tokens of a prompt, where they are not as many as the model takes.
    pub tokens: Option<usize>,
    /// Encodings of the image of each clip.
    pub images: usize,
    /// The size of an adapter.
    pub adapter: AdapterSize,
}

impl Bulk {
    /// What a stage gives of no special kind: as many items as it maps, or says.
    pub(super) fn of_items(stage: &(impl Stage + ?Sized), given: &dyn Fn(&str) -> Self) -> Self {
        let mapped = stage.mapped_port().map(|port| given(port).items);
        Self { items: mapped.unwrap_or_else(|| stage.num_items()), ..Self::default() }
    }

    fn held(self) -> HeldClips {
        HeldClips { clips: self.items.unwrap_or(0), images: self.images }
    }
}

/// What is on the ports of a stage, by what is on each.
pub fn given(on: &dyn Fn(&str) -> Bulk) -> Given {
    Given {
        tokens: on("text").tokens,
        clips: on("latents").held(),
        held_out: on("held_out").held(),
        adapter: on("lora").adapter,
    }
}
