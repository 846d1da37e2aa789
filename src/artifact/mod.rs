//! What flows on the edges of a pipeline.
//!
//! An artifact is a [`Manifest`]: a list of named [`Item`]s, each a few named files in the store.
//! One file of this folder per kind gives the typed view: how an item is written and read.

pub mod adapter;
pub mod compare;
mod file_names;
pub mod frames;
pub mod latents;
pub mod metrics;
pub mod model;
pub mod pairs;
pub mod samples;
pub mod tensors;
pub mod text;
pub mod videos;

pub use file_names::{FileNames, file_name};

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::store::Digest;

/// What a manifest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// Image pairs: `input.png`, `target.png`, `meta.json`, and `mask.png` where there is a mask.
    Pairs,
    /// Clips: `clip.safetensors`.
    Videos,
    /// Encoded prompts.
    TextEmbeddings,
    /// Encoded clips with their conditioning image.
    Latents,
    /// A LoRA adapter in diffusers' form, or the adapters along one training.
    LoraAdapter,
    /// Generated latents.
    Samples,
    /// Decoded clips and their last frame.
    Frames,
    /// Scores: a summary and a value per image.
    Metrics,
    /// Parts of a model (`vae`, `transformer`) in diffusers' layout, an item each.
    Model,
    /// Files made by a shell command.
    Files,
}

impl ArtifactKind {
    /// The version of the files inside; bump it when their form changes.
    pub const fn format_version(self) -> u32 {
        1
    }

    /// The name used in messages and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Videos => "videos",
            Self::TextEmbeddings => "text_embeddings",
            Self::Latents => "latents",
            Self::LoraAdapter => "lora_adapter",
            Self::Samples => "samples",
            Self::Frames => "frames",
            Self::Metrics => "metrics",
            Self::Model => "model",
            Self::Files => "files",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file in the store, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Hash of the content.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// One named element of an artifact, such as one image pair or one clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Unique within the artifact; equal names link a prediction to its pair.
    pub name: String,
    /// The item's files by name.
    pub files: BTreeMap<String, FileRef>,
}

impl Item {
    /// Hashes the files; the item's name is not content.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(&self.files).expect("a map of strings is valid JSON"))
    }
}

/// The content of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the items hold.
    pub kind: ArtifactKind,
    /// [`ArtifactKind::format_version`] of the writer.
    pub format_version: u32,
    /// The items, in the order of the stage that made them.
    pub items: Vec<Item>,
}

/// The name of what was made of an item of one port and an item of another, such as of the pair
/// `0007` with the adapter `step_300`: `step_300/0007`. With one item on the other port, the name
/// is the plain one.
pub fn crossed_name(other: Option<&str>, name: &str) -> String {
    other.map_or(name.to_owned(), |other| format!("{other}/{name}"))
}

/// Finds the items that others were made from, by name.
pub struct Origins<'a>(HashMap<&'a str, &'a Item>);

impl<'a> Origins<'a> {
    /// Takes the items apart by their names.
    pub fn new(items: &'a [Item]) -> Self {
        Self(items.iter().map(|item| (item.name.as_str(), item)).collect())
    }

    /// The item that the item called `name` was made from, and with what of another port: the
    /// opposite of [`crossed_name`].
    pub fn of<'n>(&self, name: &'n str) -> Option<(Option<&'n str>, &'a Item)> {
        if let Some(item) = self.0.get(name) {
            return Some((None, item));
        }
        name.match_indices('/')
            .find_map(|(at, _)| Some((Some(&name[..at]), *self.0.get(&name[at + 1..])?)))
    }
}

impl Manifest {
    /// The items of a port that is crossed, each with what stands before the names of what is made
    /// with it: nothing, where there is only one. See [`crossed_name`].
    pub fn crossed(&self) -> impl Iterator<Item = (&Item, Option<&str>)> {
        let several = self.items.len() > 1;
        self.items.iter().map(move |item| (item, several.then_some(item.name.as_str())))
    }

    /// The files of all items.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.items.iter().flat_map(|item| item.files.values())
    }

    /// Finds an item by name.
    pub fn item(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name == name)
    }
}
