//! How much is on the ports of a stage, told before it is made, as far as it decides the memory that the stage takes.

use super::Stage;
use crate::models::memory::{AdapterSize, Given, HeldClips};

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
