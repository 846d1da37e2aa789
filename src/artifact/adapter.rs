//! `lora_adapter`: a trained adapter in diffusers' form, or several along one training.

use serde_json::Value;

use crate::{
    models::Adapter,
    stages::{Inputs, Output, StageError},
};

const ITEM: &str = "adapter";
/// The weights, in diffusers' form.
pub const WEIGHTS: &str = "pytorch_lora_weights.safetensors";
/// Settings and loss log.
pub const TRAIN: &str = "train.json";

/// An adapter and how it was trained.
#[derive(Clone, Debug)]
pub struct AdapterArtifact {
    /// The factors.
    pub adapter: Adapter,
    /// Settings and loss log.
    pub train: Value,
}

impl AdapterArtifact {
    /// Writes the artifact's only item or, of several, that of a step.
    pub fn write(&self, out: &mut Output<'_>, step: Option<usize>) -> Result<(), StageError> {
        let train = serde_json::to_vec_pretty(&self.train).expect("a JSON value is valid JSON");
        let name = step.map_or(ITEM.to_owned(), |step| format!("step_{step}"));
        out.item(&name, &[(WEIGHTS, &self.adapter.to_diffusers()), (TRAIN, &train)])
    }

    /// Reads the artifact on `port`; none when an optional port is not connected. The factors are
    /// on the CPU.
    pub fn read(inputs: &Inputs<'_>, port: &str) -> Result<Option<Self>, StageError> {
        if inputs.get(port).is_none() {
            return Ok(None);
        }
        let item = inputs.only(port)?;
        let adapter = Adapter::from_diffusers(&inputs.read(item, WEIGHTS)?)?;
        let train = serde_json::from_slice(&inputs.read(item, TRAIN)?).map_err(|e| {
            StageError::failed(format!("`{TRAIN}` must be JSON: {e}")).on_item(&item.name)
        })?;
        Ok(Some(Self { adapter, train }))
    }
}
