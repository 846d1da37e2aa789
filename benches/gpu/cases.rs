//! The table of cases, which both sides read.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `cases.json`.
#[derive(Deserialize)]
pub struct Table {
    /// Models by name.
    pub models: BTreeMap<String, Model>,
    /// What is done with them.
    pub cases: Vec<Case>,
}

impl Table {
    /// The table in this folder.
    pub fn read() -> Self {
        serde_json::from_str(include_str!("cases.json")).expect("the table is well formed")
    }
}

/// A model in two sizes.
#[derive(Deserialize)]
pub struct Model {
    /// The class in diffusers or transformers.
    pub class: String,
    /// Frames per latent frame, pixels per latent row.
    pub compression: [usize; 2],
    /// `scheduler_config.json`.
    #[serde(default)]
    pub scheduler: Value,
    full: Parts,
    tiny: Parts,
}

/// A model of one size.
#[derive(Deserialize)]
pub struct Parts {
    /// `transformer/config.json`.
    #[serde(default)]
    pub transformer: Value,
    /// `vae/config.json`.
    #[serde(default)]
    pub vae: Value,
    /// `text_encoder/config.json`.
    #[serde(default)]
    pub text_encoder: Value,
    /// Tokens of a prompt and the size of each.
    pub text: [usize; 2],
    /// Channels of the latents.
    pub latent_channels: usize,
}

impl Model {
    /// The model of this size.
    pub fn of_size(&self, tiny: bool) -> &Parts {
        if tiny { &self.tiny } else { &self.full }
    }
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One pass of the transformer.
    Forward,
    /// A step of training an adapter.
    Train,
    /// Many such steps, for their memory.
    Soak,
    /// From noise to latents.
    Sample,
    /// Pixels to latents.
    Encode,
    /// Latents to pixels.
    Decode,
    /// A prompt.
    Text,
}

/// One case.
#[derive(Deserialize)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// What is done.
    pub kind: Kind,
    full: [usize; 3],
    tiny: [usize; 3],
    /// Clips at once.
    pub batch: usize,
    /// Rank of the adapter.
    #[serde(default)]
    pub rank: usize,
    /// Modules of the adapter.
    pub targets: Option<pipe::models::LoraTargets>,
    /// Steps of sampling or training.
    #[serde(default)]
    pub steps: usize,
    /// Whether many steps compute their blocks again.
    #[serde(default)]
    pub recompute: bool,
}

impl Case {
    /// Frames, rows and columns in pixels.
    pub fn clip(&self, tiny: bool) -> [usize; 3] {
        if tiny { self.tiny } else { self.full }
    }

    /// The name as a part of a file name.
    pub fn file(&self) -> String {
        self.name.replace(' ', "_")
    }
}
