//! Where a model's files come from, and the models a run keeps loaded.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, sync::Arc};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Adapter, Denoiser, LoadError, NoiseScheduler, Params, Sampler, TextEncoder, VideoVae};
use crate::store::Digest;

/// The value of `model` in a pipeline file: `builtin:tiny`, a folder in diffusers' layout, or
/// `hf:org/repo@revision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct ModelRef(pub String);

impl ModelRef {
    /// Finds the model's files; an unknown name or a folder that is not there is an error.
    pub fn resolve(&self) -> Result<ModelSource, LoadError> {
        todo!()
    }
}

/// The files of a model in diffusers' layout (`vae/config.json`, ...), wherever they are.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// Embedded in the binary.
    Builtin(&'static [(&'static str, &'static [u8])]),
    /// A folder.
    Folder(PathBuf),
    /// In memory, such as a `Model` artifact made by `pretrain`; its parts take precedence over
    /// those of the base, so that a new VAE can go with an old tokenizer.
    Memory { files: Arc<BTreeMap<String, Vec<u8>>>, base: Option<Box<ModelSource>> },
}

impl ModelSource {
    /// The bytes of a file such as `vae/config.json`.
    pub fn read(&self, path: &str) -> Result<Cow<'_, [u8]>, LoadError> {
        todo!("{path}")
    }

    /// The parsed `<part>/config.json` (`scheduler/scheduler_config.json` for the scheduler).
    pub fn config(&self, part: &str) -> Result<Value, LoadError> {
        todo!("{part}")
    }

    /// The parameters of a part: its single file, or all shards of its index.
    pub fn params(&self, part: &str, device: &Device) -> Result<Params, LoadError> {
        todo!("{part} {device:?}")
    }

    /// The content of a part's files, as one hash that goes into keys.
    pub fn digest(&self, parts: &[&str]) -> Result<Digest, LoadError> {
        todo!("{parts:?}")
    }
}

/// The models a run keeps loaded, by the digest of their part; shared by all stages.
#[derive(Default)]
pub struct ModelCache {}

impl ModelCache {
    /// The VAE of a model.
    pub fn vae(
        &self,
        source: &ModelSource,
        device: &Device,
    ) -> Result<Arc<dyn VideoVae>, LoadError> {
        todo!("{source:?} {device:?}")
    }

    /// The transformer of a model with an adapter; the base's tensors are shared.
    pub fn denoiser(
        &self,
        source: &ModelSource,
        adapter: Option<&Adapter>,
        device: &Device,
    ) -> Result<Arc<dyn Denoiser>, LoadError> {
        todo!("{source:?} {adapter:?} {device:?}")
    }

    /// The transformer's parameters, for training, which builds the model anew at each step.
    pub fn denoiser_params(
        &self,
        source: &ModelSource,
        device: &Device,
    ) -> Result<Arc<Params>, LoadError> {
        todo!("{source:?} {device:?}")
    }

    /// The scheduler of a model.
    pub fn scheduler(
        &self,
        source: &ModelSource,
        sampler: Sampler,
    ) -> Result<Box<dyn NoiseScheduler>, LoadError> {
        todo!("{source:?} {sampler:?}")
    }

    /// The text encoder of a model; not kept, since one prompt is encoded once.
    pub fn text_encoder(
        &self,
        source: &ModelSource,
        device: &Device,
    ) -> Result<Arc<dyn TextEncoder>, LoadError> {
        todo!("{source:?} {device:?}")
    }
}
