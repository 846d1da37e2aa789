//! `text_encode`: a prompt to the embedding the denoiser reads.

use burn::tensor::{Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Inputs, Output, ParamError, Port, Ports, Stage, StageContext, StageError, StageKind, Workload,
    model::StageModel,
};
use crate::{
    artifact::{ArtifactKind, text::TextEmbedding},
    models::{
        LoadError, Memory, ModelRef, ModelSource, PromptFormat, family,
        memory::Estimator,
        t5::{T5Config, T5Tokenizer, TokenizerFiles},
    },
};

/// The token that fills a prompt up, in all tokenizers of T5.
const PADDING: i64 = 0;

/// Encodes one prompt, padded to a fixed length, without an attention mask. For families that mask
/// padding in the denoiser (LTX-Video), the encoded padding is left out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextEncode {
    /// The model whose text encoder and tokenizer are used.
    pub model: ModelRef,
    /// The prompt.
    #[serde(default)]
    pub prompt: String,
    /// Tokens to cut or pad the prompt to; by default what the model was trained with.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4096))]
    pub max_length: Option<usize>,
}

impl TextEncode {
    fn format(&self, source: &ModelSource) -> Result<PromptFormat, StageError> {
        let format = family(source)?.prompt_format(&source.config("transformer")?)?;
        Ok(PromptFormat { tokens: self.max_length.unwrap_or(format.tokens), ..format })
    }
}

impl StageKind for TextEncode {
    const KIND: &'static str = "text_encode";
    const VERSION: u32 = 1;
    const PORTS: Ports = Ports {
        inputs: &[Port { name: "model", kinds: &[ArtifactKind::Model], required: false }],
        output: ArtifactKind::TextEmbeddings,
    };
}

impl Stage for TextEncode {
    fn validate(&self) -> Vec<ParamError> {
        match self.max_length {
            Some(length) if !(1..=4096).contains(&length) => {
                let message = format!("must be from 1 to 4096, but is {length}");
                vec![ParamError::new("max_length", message)]
            }
            _ => Vec::new(),
        }
    }

    fn weights(&self) -> Option<(&ModelRef, &'static [&'static str])> {
        // The transformer's configuration gives the default length.
        Some((&self.model, &["text_encoder", "tokenizer", "transformer/config.json"]))
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let source = work.parts.source(&self.model)?;
        Estimator::new(&source, work.on_host)?.text(self.max_length).map(Some)
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let StageModel { source, device } = StageModel::open(&self.model, inputs, cx)?;
        let PromptFormat { tokens: length, keeps_padding } = self.format(&source)?;
        let file = source.tokenizer_file()?;
        let bytes = source.read(file)?;
        let tokenizer = T5Tokenizer::new(TokenizerFiles::by_name(file, &bytes))?;
        let ids: Vec<i64> =
            tokenizer.encode(&self.prompt, length)?.into_iter().map(i64::from).collect();
        cx.tick(0, 1, "load the text encoder")?;
        let encoder = cx.models.text_encoder(&source, &device)?;
        let vocabulary = T5Config::read(&source.config("text_encoder")?)?.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id >= vocabulary as i64) {
            return Err(StageError::failed(format!(
                "the tokenizer gives the token {id}, but the text encoder has {vocabulary} tokens"
            ))
            .with_help("take tokenizer and text encoder from the same model"));
        }
        cx.tick(0, 1, "encode the prompt")?;
        let kept = if keeps_padding { length } else { unpadded(&ids) };
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, length]), &device);
        let embedding = encoder.encode(ids).squeeze_dim::<2>(0).narrow(0, 0, kept);
        TextEmbedding { prompt: self.prompt.clone(), embedding }.write(out)
    }
}

/// The number of tokens up to the last that is no padding.
fn unpadded(ids: &[i64]) -> usize {
    ids.iter().rposition(|id| *id != PADDING).map_or(ids.len(), |last| last + 1)
}
