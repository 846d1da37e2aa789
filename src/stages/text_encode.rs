//! `text_encode`: a prompt to the embedding the denoiser reads.

use burn::tensor::{Bool, Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bulk, CheckError, CheckWarning, EncodedText, Inputs, Lineage, Output, ParamError, Port, Ports,
    Stage, StageContext, StageError, StageKind, Surroundings, WeightsUsed, Workload,
    check::not_known,
    model::{StageModel, not_finite},
};
use crate::{
    artifact::{ArtifactKind, text::TextEmbedding},
    models::{
        LoadError, Memory, ModelRef, ModelSource, PartRead, PromptFormat, TextFormat, family,
        memory::Estimator,
        one_of, published_text_format,
        t5::{Cut, T5Config, T5Tokenizer, TokenizerFiles},
    },
};

/// The token that fills a prompt up, in all tokenizers of T5.
const PADDING: i64 = 0;

/// Characters that are told of a text that is left out.
const MOST_TOLD: usize = 400;

/// Encodes one prompt, padded to a fixed length. For families that mask padding in the denoiser
/// (LTX-Video), the encoded padding is left out.
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
    /// The published pipeline in whose way the prompt is encoded; by default that of the model's
    /// version, as its schedule tells it. Must agree with `sampler` and `causal_time` where it is
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
}

impl TextEncode {
    fn format(&self, source: &ModelSource) -> Result<(TextFormat, PromptFormat), StageError> {
        let family = family(source)?;
        let format = match self.format {
            None => published_text_format(source)?,
            asked => one_of("format", asked, family.text_formats())?,
        };
        let prompt = family.prompt_format(&source.config("transformer")?, format)?;
        Ok((format, PromptFormat { tokens: self.max_length.unwrap_or(prompt.tokens), ..prompt }))
    }
}

impl TextEncode {
    /// The end of a prompt that is left out, as the model's own pipeline does.
    fn cut(&self, around: &Surroundings<'_>) -> Option<CheckWarning> {
        let facts = around.model(&self.model)?;
        let format = self.format.unwrap_or_else(|| facts.published.text_format());
        let most = || Some(facts.prompt_format(format)?.tokens);
        let limit = self.max_length.or_else(most)?;
        if !Cut::is_possible(&self.prompt, limit) {
            return None;
        }
        let tokenizer = around.models.tokenizer(&self.model)?;
        let Cut { tokens, lost } = tokenizer.cut(&self.prompt, limit).ok()??;
        let stated = self.max_length.map_or("the model takes", |_| "`max_length` allows");
        let message = format!(
            "encodes a prompt of {tokens} tokens, of which {stated} {limit}; left out is \"{}\"",
            in_one_line(&lost)
        );
        Some(CheckWarning { param: Some("prompt"), message })
    }
}

/// A text without line breaks, and not all of one that is very long.
fn in_one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(MOST_TOLD) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

impl StageKind for TextEncode {
    const KIND: &'static str = "text_encode";
    // 1: first · 2: prompts for models of the condition pipeline are encoded as in it.
    const VERSION: u32 = 2;
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

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        // The transformer's configuration gives the default length, the scheduler's the default
        // format.
        let parts = &[
            PartRead::TextEncoder,
            PartRead::Tokenizer,
            PartRead::TransformerConfig,
            PartRead::Scheduler,
        ];
        Some(WeightsUsed { model: &self.model, parts })
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        let Some(facts) = around.model(&self.model) else { return Vec::new() };
        not_known("format", self.format, facts.family.text_formats()).into_iter().collect()
    }

    fn warnings(&self, around: &Surroundings<'_>) -> Vec<CheckWarning> {
        self.cut(around).into_iter().collect()
    }

    fn encoded_text(&self, around: &Surroundings<'_>) -> Option<EncodedText> {
        let facts = around.model(&self.model);
        let published = || Some(facts.as_ref()?.published.text_format());
        let format = self.format.or_else(published)?;
        let prompt = facts.as_ref().and_then(|facts| facts.prompt_format(format));
        let tokens = prompt
            .filter(|prompt| prompt.keeps_padding)
            .map(|prompt| self.max_length.unwrap_or(prompt.tokens));
        Some(EncodedText { format, tokens })
    }

    fn lineage(&self, around: &Surroundings<'_>) -> Option<Lineage> {
        Some(Lineage::of_text(around, &self.model))
    }

    fn bulk(&self, _given: &dyn Fn(&str) -> Bulk) -> Bulk {
        Bulk { tokens: self.max_length, ..Bulk::default() }
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let source = work.parts.source(&self.model)?;
        Estimator::new(&source, work.on_host)?.text(self.max_length, self.format).map(Some)
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let source = work.parts.source(&self.model)?;
        Estimator::new(&source, work.on_host)?.loading(&["text_encoder"]).map(Some)
    }

    fn uses_device(&self) -> bool {
        true
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let StageModel { source, device } = StageModel::open(&self.model, inputs, cx)?;
        let (format, PromptFormat { tokens: length, masks_padding, keeps_padding }) =
            self.format(&source)?;
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
        let prompt = unpadded(&ids);
        let kept = if keeps_padding { length } else { prompt };
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, length]), &device);
        let mask = masks_padding.then(|| {
            let mask: Vec<bool> = (0..length).map(|token| token < prompt).collect();
            Tensor::<2, Bool>::from_data(TensorData::new(mask, [1, length]), &device)
        });
        let embedding = encoder.encode(ids, mask).squeeze_dim::<2>(0).narrow(0, 0, kept);
        if !embedding.clone().is_finite().all().into_scalar::<bool>() {
            return Err(not_finite("the values of the prompt's embedding"));
        }
        TextEmbedding { prompt: self.prompt.clone(), format, embedding }.write(out)?;
        // It is large, and nothing else needs it.
        drop(encoder);
        device.memory_cleanup();
        Ok(())
    }
}

/// The number of tokens up to the last that is no padding.
fn unpadded(ids: &[i64]) -> usize {
    ids.iter().rposition(|id| *id != PADDING).map_or(ids.len(), |last| last + 1)
}
