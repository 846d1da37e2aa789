//! `model`: parts of a model in diffusers' layout, made by `pretrain`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Item;
use crate::{
    models::{
        ModelRef, ModelSource, Params, PartFile,
        params::{Dtype, Entries},
    },
    stages::{Inputs, Output, StageError},
    store::NewObject,
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
    /// The type that weights are written as.
    pub dtype: Dtype,
    /// Settings and losses of the training.
    pub log: Value,
}

impl ModelPart {
    /// Writes the part as one item, its weights tensor by tensor.
    pub fn write(&self, out: &mut Output<'_>) -> Result<(), StageError> {
        let Self { name, config, params, dtype, log } = self;
        write_part(out, (name, config, log), |file| {
            params.write_safetensors(*dtype, Some(format()), |bytes| Ok(file.write(bytes)?))
        })
    }
}

/// The metadata that loaders of weights look for.
pub fn format() -> Entries {
    [("format".to_owned(), "pt".to_owned())].into()
}

/// Writes a part as one item, with its name, configuration and log.
pub fn write_part(
    out: &mut Output<'_>,
    (name, config, log): (&str, &Value, &Value),
    weights: impl FnOnce(&mut NewObject<'_>) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let json = |value| serde_json::to_vec_pretty(value).expect("a JSON value is valid JSON");
    let mut files = BTreeMap::from([(WEIGHTS.to_owned(), out.file(weights)?)]);
    for (file, value) in [(CONFIG, config), (LOG, log)] {
        files.insert(file.to_owned(), out.file(|object| Ok(object.write(&json(value))?))?);
    }
    out.complete(Item { name: name.to_owned(), files })
}

/// The files of a stage's model: those of its parameter `model`, where parts on the optional port
/// `port` take the place of its own, or those parts alone. Nothing is read yet.
pub fn resolve_model<'m>(
    model: impl Into<Option<&'m ModelRef>>,
    inputs: &Inputs<'_>,
    port: &str,
) -> Result<ModelSource, StageError> {
    let base = model.into().map(ModelRef::resolve).transpose()?;
    let mut files = BTreeMap::new();
    for item in inputs.items(port) {
        for file in [CONFIG, WEIGHTS] {
            let stored = PartFile::Stored(inputs.stored(item, file)?);
            files.insert(format!("{}/{file}", item.name), stored);
        }
    }
    Ok(ModelSource::of_parts(base, files)?)
}
