//! What a stage reads of a model.

/// A part of a model, or its configuration alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartRead {
    /// The autoencoder.
    Vae,
    /// Its configuration.
    VaeConfig,
    /// The denoiser.
    Transformer,
    /// Its configuration.
    TransformerConfig,
    /// The text encoder.
    TextEncoder,
    /// The text encoder's tokenizer.
    Tokenizer,
    /// The noise schedule, which is a configuration.
    Scheduler,
}

impl PartRead {
    /// As [`ModelSource`](super::ModelSource) names it: the part's folder, or the one file that is
    /// read of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VaeConfig => "vae/config.json",
            Self::TransformerConfig => "transformer/config.json",
            part => part.folder(),
        }
    }

    /// The folder of the part.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Vae | Self::VaeConfig => "vae",
            Self::Transformer | Self::TransformerConfig => "transformer",
            Self::TextEncoder => "text_encoder",
            Self::Tokenizer => "tokenizer",
            Self::Scheduler => "scheduler",
        }
    }

    /// These, by their names.
    pub fn names(parts: &[Self]) -> Vec<&'static str> {
        parts.iter().map(|part| part.name()).collect()
    }
}
