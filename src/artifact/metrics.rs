//! Scores: one item `summary` with `metrics.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Item;
use crate::stages::{Inputs, Output, StageError};

/// The item's name.
pub const ITEM: &str = "summary";
/// The item's file.
pub const FILE: &str = "metrics.json";

/// What a metric found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The scores by name, over all images.
    pub values: BTreeMap<String, f64>,
    /// The confidence interval of each score, by the bootstrap over images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// More than numbers by name, such as a confusion matrix.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
    /// The scores of each image.
    pub per_item: BTreeMap<String, BTreeMap<String, f64>>,
    /// Every choice of the metric itself that decides a score, and the images it is over. What made
    /// the predictions (model, adapter, sampler, prompt and the like) is told by `pipe export` and
    /// `pipe show`, from the records of the stages: equal predictions are one artifact however they
    /// were made.
    pub settings: Value,
    /// The scores of each checkpoint alone, where the predictions come from several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_checkpoint: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Metrics {
    /// Reads `metrics.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Reads the item of a `metrics` artifact.
    pub fn read(inputs: &Inputs<'_>, item: &Item) -> Result<Self, StageError> {
        Self::from_bytes(&inputs.read(item, FILE)?)
            .map_err(|e| StageError::failed(format!("`{FILE}`: {e}")).on_item(&item.name))
    }

    /// Writes the artifact.
    pub fn write(&self, out: &mut Output<'_>) -> Result<(), StageError> {
        let bytes = serde_json::to_vec_pretty(self).expect("scores are plain values");
        out.item(ITEM, &[(FILE, &bytes)])
    }
}
