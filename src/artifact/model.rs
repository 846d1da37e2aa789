//! `model`: parts of a model in diffusers' layout, made by `pretrain`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    models::{ModelRef, ModelSource, Params},
    stages::{Inputs, Output, StageError},
};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// Settings and losses of the training.
pub const LOG: &str = "log.json";

/// One part of a model: `vae` or `transformer`.
#[derive(Clone, Debug)]
pub struct ModelPart {
    /// The folder's name in diffusers' layout, also the item's name.
    pub name: String,
    /// `config.json`.
    pub config: Value,
    /// The weights.
    pub params: Params,
    /// Whether weights are written as bf16.
    pub bf16: bool,
    /// Settings and losses of the training.
    pub log: Value,
}

impl ModelPart {
    /// Writes the part as one item.
    pub fn write(&self, out: &mut Output<'_>) -> Result<(), StageError> {
        let json = |value| serde_json::to_vec_pretty(value).expect("a JSON value is valid JSON");
        let format = [("format".to_owned(), "pt".to_owned())].into();
        let weights = self.params.to_safetensors(self.bf16, Some(format));
        let (config, log) = (json(&self.config), json(&self.log));
        out.item(&self.name, &[(CONFIG, &config), (WEIGHTS, &weights), (LOG, &log)])
    }
}

/// The files of a stage's model: those of its parameter `model`, where parts on the optional port
/// `port` take the place of its own.
pub fn resolve_model(
    model: &ModelRef,
    inputs: &Inputs<'_>,
    port: &str,
) -> Result<ModelSource, StageError> {
    let base = model.resolve()?;
    let mut files = BTreeMap::new();
    for item in inputs.items(port) {
        for file in [CONFIG, WEIGHTS] {
            files.insert(format!("{}/{file}", item.name), inputs.read(item, file)?);
        }
    }
    Ok(if files.is_empty() { base } else { ModelSource::with_artifact(base, files) })
}
