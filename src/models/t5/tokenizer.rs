//! Text to the token ids of T5.

use std::path::Path;

use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, Tokenizer,
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence,
        whitespace::WhitespaceSplit,
    },
};

use super::{charsmap, sentencepiece::SentencePieceModel};
use crate::models::LoadError;

const JSON: &str = "tokenizer/tokenizer.json";
const SPIECE: &str = "tokenizer/spiece.model";

/// The pieces every T5 vocabulary begins with.
const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// Sentinel tokens that T5 adds behind the pieces of `spiece.model`, last number first.
const EXTRA_IDS: usize = 100;

/// The files a tokenizer can be made from.
#[derive(Clone, Copy, Debug)]
pub enum TokenizerFiles<'a> {
    /// `tokenizer.json`.
    Json(&'a [u8]),
    /// `spiece.model`.
    SentencePiece(&'a [u8]),
}

impl<'a> TokenizerFiles<'a> {
    /// The content of `file`, which is `tokenizer.json` if its name ends so.
    pub fn by_name(file: &str, bytes: &'a [u8]) -> Self {
        if Path::new(file).extension().is_some_and(|ending| ending == "json") {
            Self::Json(bytes)
        } else {
            Self::SentencePiece(bytes)
        }
    }
}

/// Encodes prompts as transformers' `T5Tokenizer` does.
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    pad: u32,
    eos: u32,
}

impl T5Tokenizer {
    /// Reads a tokenizer.
    pub fn new(files: TokenizerFiles<'_>) -> Result<Self, LoadError> {
        let (file, tokenizer) = match files {
            TokenizerFiles::Json(bytes) => {
                let read = Tokenizer::from_bytes(bytes).map_err(|e| error(JSON, e.to_string()));
                let mut tokenizer = read?;
                // What the file was last used with; length is the caller's choice.
                tokenizer.with_padding(None);
                tokenizer.with_truncation(None).map_err(|e| error(JSON, e.to_string()))?;
                (JSON, tokenizer)
            }
            TokenizerFiles::SentencePiece(bytes) => (SPIECE, from_sentencepiece(bytes)?),
        };
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| error(file, format!("must have a token `{token}`, but has none")))
        };
        let (pad, eos) = (id(SPECIAL[0])?, id(SPECIAL[1])?);
        Ok(Self { tokenizer, pad, eos })
    }

    /// The ids of `text` and the end token, cut or padded on the right to exactly `max_length`.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, LoadError> {
        let encoding = self.tokenizer.encode(text, false);
        let encoding = encoding.map_err(|e| error("tokenizer", e.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        ids.truncate(max_length.saturating_sub(1));
        ids.push(self.eos);
        ids.resize(max_length, self.pad);
        Ok(ids)
    }
}

fn error(file: &str, message: impl Into<String>) -> LoadError {
    LoadError::Config { file: file.to_owned(), message: message.into() }
}

/// The tokenizer that transformers makes of a `spiece.model`.
fn from_sentencepiece(bytes: &[u8]) -> Result<Tokenizer, LoadError> {
    let model = SentencePieceModel::parse(bytes).map_err(|e| error(SPIECE, e.to_string()))?;
    for (index, wanted) in SPECIAL.into_iter().enumerate() {
        let found = model.pieces.get(index).map_or("absent", |(piece, _)| piece);
        if found != wanted {
            return Err(error(
                SPIECE,
                format!("piece {index} must be `{wanted}`, but is `{found}`"),
            ));
        }
    }
    let extra: Vec<String> = (0..EXTRA_IDS).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let mut vocabulary = model.pieces;
    vocabulary.extend(extra.iter().map(|token| (token.clone(), 0.0)));
    let unigram = Unigram::from(vocabulary, Some(2), false);
    let mut tokenizer = Tokenizer::new(unigram.map_err(|e| error(SPIECE, e.to_string()))?);
    if !model.charsmap.is_empty() {
        let map = Precompiled::from(&model.charsmap).ok();
        let map = map.filter(|_| charsmap::is_sound(&model.charsmap));
        let map = map.ok_or_else(|| error(SPIECE, "the map of characters is damaged"))?;
        let normalizer = NormalizerWrapper::Precompiled(map);
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| error(SPIECE, e.to_string()))?;
    }
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::WhitespaceSplit(WhitespaceSplit),
        PreTokenizerWrapper::Metaspace(Metaspace::new('\u{2581}', PrependScheme::Always, true)),
    ])));
    let special = SPECIAL.into_iter().map(str::to_owned).chain(extra);
    tokenizer
        .add_special_tokens(special.map(|token| AddedToken::from(token, true)))
        .map_err(|e| error(SPIECE, e.to_string()))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const SPIECE_MODEL: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5/spiece.model"));
    const TOKENIZER_JSON: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5/tokenizer.json"));
    const IDS: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/t5/ids.json"));

    #[derive(Deserialize)]
    struct Case {
        prompt: String,
        max_length: usize,
        ids: Vec<u32>,
    }

    #[test]
    fn ids_equal_the_reference_from_either_file() {
        let cases: Vec<Case> = serde_json::from_str(IDS).unwrap();
        assert!(cases.len() > 30);
        for files in
            [TokenizerFiles::SentencePiece(SPIECE_MODEL), TokenizerFiles::Json(TOKENIZER_JSON)]
        {
            let tokenizer = T5Tokenizer::new(files).unwrap();
            for case in &cases {
                let ids = tokenizer.encode(&case.prompt, case.max_length).unwrap();
                assert_eq!(ids, case.ids, "{:?} to {}", case.prompt, case.max_length);
            }
        }
    }

    #[test]
    fn the_empty_prompt_is_the_end_token_and_padding() {
        let tokenizer = T5Tokenizer::new(TokenizerFiles::SentencePiece(SPIECE_MODEL)).unwrap();
        assert_eq!(tokenizer.encode("", 5).unwrap(), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn cut_files_are_errors_or_tokenizers_and_never_panic() {
        let mut errors = 0;
        for len in 0..SPIECE_MODEL.len() {
            match T5Tokenizer::new(TokenizerFiles::SentencePiece(&SPIECE_MODEL[..len])) {
                Ok(tokenizer) => assert_eq!(tokenizer.encode("a \u{fb01}", 9).unwrap().len(), 9),
                Err(_) => errors += 1,
            }
        }
        // Between two fields a file can be cut without a trace.
        assert!(errors > SPIECE_MODEL.len() * 8 / 10, "{errors} of {}", SPIECE_MODEL.len());
    }

    #[test]
    fn damaged_files_never_panic() {
        for position in 0..SPIECE_MODEL.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = SPIECE_MODEL.to_vec();
                bytes[position] = value;
                if let Ok(tokenizer) = T5Tokenizer::new(TokenizerFiles::SentencePiece(&bytes)) {
                    let _ = tokenizer.encode("the fox \u{fb01}\u{3000}\u{ff21} A\u{30a}", 12);
                }
            }
        }
    }

    #[test]
    fn a_json_without_the_special_tokens_is_an_error() {
        let error = T5Tokenizer::new(TokenizerFiles::Json(b"{}")).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}
