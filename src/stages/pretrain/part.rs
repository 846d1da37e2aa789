//! What is trained, and how it is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::{PartRead, params::Dtype};

/// A part of a model that can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The autoencoder, on `videos`.
    Vae,
    /// The denoiser, on `latents` and `text`.
    Transformer,
}

impl Part {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vae => "vae",
            Self::Transformer => "transformer",
        }
    }

    /// What is read of the model it is to be like.
    pub(super) const fn config(self) -> &'static [PartRead] {
        match self {
            Self::Vae => &[PartRead::VaeConfig],
            Self::Transformer => &[PartRead::TransformerConfig],
        }
    }
}

/// The type weights are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightType {
    /// 4 bytes, exact.
    #[default]
    F32,
    /// 2 bytes, rounded.
    Bf16,
}

impl WeightType {
    /// The same as files name it.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
        }
    }
}
