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

use super::{charsmap, sentencepiece::SentencePieceModel, tokenizer_json};
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

/// What is left out of a text that has more tokens than are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The tokens of the whole text and the end token.
    pub tokens: usize,
    /// The end of the text, from the first token on that is left out.
    pub lost: String,
}

impl Cut {
    /// Whether a text can have more tokens than this; a tokenizer is slow to read. A token stands
    /// for a character at least, or for the space before a word, beside the end token.
    pub fn is_possible(text: &str, max_length: usize) -> bool {
        !text.is_ascii() || text.len() + 2 > max_length
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
                (JSON, tokenizer_json::read(bytes).map_err(|message| error(JSON, message))?)
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

    /// What [`Self::encode`] leaves out of a text that is longer.
    pub fn cut(&self, text: &str, max_length: usize) -> Result<Option<Cut>, LoadError> {
        let encoding = self.tokenizer.encode(text, false);
        let encoding = encoding.map_err(|e| error("tokenizer", e.to_string()))?;
        let tokens = encoding.get_ids().len() + 1;
        if tokens <= max_length {
            return Ok(None);
        }
        let first = encoding.get_offsets().get(max_length.saturating_sub(1));
        let start = first.map_or(0, |(start, _)| text.floor_char_boundary(*start));
        Ok(Some(Cut { tokens, lost: text[start..].trim().to_owned() }))
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
        // Before it is parsed, which reserves as much memory as the map says it has.
        let map = charsmap::is_sound(&model.charsmap).then(|| Precompiled::from(&model.charsmap));
        let map = map.and_then(Result::ok);
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
    use base64::{Engine, prelude::BASE64_STANDARD};
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

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
        assert_eq!(cases.len(), 39);
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
    fn what_is_left_out_of_a_long_text_is_its_end() {
        for files in
            [TokenizerFiles::SentencePiece(SPIECE_MODEL), TokenizerFiles::Json(TOKENIZER_JSON)]
        {
            let tokenizer = T5Tokenizer::new(files).unwrap();
            let text = "the fox jumps over \u{e9}\u{fb01} the dog";
            let whole = tokenizer.encode(text, 60).unwrap();
            let tokens = whole.iter().position(|id| *id == 1).unwrap() + 1;
            assert_eq!(tokenizer.cut(text, tokens).unwrap(), None);
            for length in 1..tokens {
                let cut = tokenizer.cut(text, length).unwrap().unwrap();
                assert_eq!(cut.tokens, tokens);
                assert!(text.ends_with(&cut.lost) && !cut.lost.is_empty(), "{cut:?}");
                // What is kept is the beginning of the text.
                let kept = tokenizer.encode(text, length).unwrap();
                assert_eq!(kept[..length - 1], whole[..length - 1]);
            }
            assert_eq!(tokenizer.cut(text, 1).unwrap().unwrap().lost, text);
        }
    }

    #[test]
    fn a_text_has_no_more_tokens_than_is_thought_possible() {
        let tokenizer = T5Tokenizer::new(TokenizerFiles::SentencePiece(SPIECE_MODEL)).unwrap();
        let cases: Vec<Case> = serde_json::from_str(IDS).unwrap();
        let odd = ["", "a", "q q q q q", "  \t x", "</s> </s>", "zzzz<extra_id_3>"];
        for text in cases.iter().map(|case| case.prompt.as_str()).chain(odd) {
            for length in 1..40 {
                let cut = tokenizer.cut(text, length).unwrap();
                assert!(cut.is_none() || Cut::is_possible(text, length), "{text:?} {length}");
            }
        }
        assert!(!Cut::is_possible("a cat", 226));
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

    /// Every kind of text that a map of characters decides about.
    const TEXT: &str = "the fox \u{fb01}\u{3000}\u{ff21} A\u{30a}  </s> <extra_id_3>";

    /// Whether a tokenizer was made, which then must encode.
    fn encodes(files: TokenizerFiles<'_>) -> bool {
        T5Tokenizer::new(files).is_ok_and(|tokenizer| tokenizer.encode(TEXT, 12).is_ok())
    }

    fn json() -> Value {
        serde_json::from_slice(TOKENIZER_JSON).unwrap()
    }

    fn bytes_of(json: &Value) -> Vec<u8> {
        serde_json::to_vec(json).unwrap()
    }

    #[test]
    fn damaged_files_never_panic() {
        for position in 0..SPIECE_MODEL.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = SPIECE_MODEL.to_vec();
                bytes[position] = value;
                encodes(TokenizerFiles::SentencePiece(&bytes));
            }
        }
    }

    #[test]
    fn a_damaged_map_in_a_json_never_panics() {
        let map = json()["normalizer"]["precompiled_charsmap"].as_str().unwrap().to_owned();
        let map = BASE64_STANDARD.decode(map).unwrap();
        let normalizer = |map: &[u8]| json!({ "type": "Precompiled", "precompiled_charsmap": BASE64_STANDARD.encode(map) });
        let (mut sound, mut damaged) = (0, 0);
        for position in 0..map.len() {
            for value in [0, 0x7f, 0xff] {
                let mut map = map.clone();
                map[position] = value;
                let mut json = json();
                json["normalizer"] = normalizer(&map);
                if position % 2 == 1 {
                    let nested = json!({ "type": "Sequence", "normalizers": [json["normalizer"]] });
                    json["normalizer"] = json!({ "type": "Sequence", "normalizers": [{ "type": "Strip",
                            "strip_left": true, "strip_right": true }, nested] });
                }
                let encodes = encodes(TokenizerFiles::Json(&bytes_of(&json)));
                *(if encodes { &mut sound } else { &mut damaged }) += 1;
            }
        }
        assert!(sound > 100 && damaged > 100, "{sound} sound, {damaged} damaged");
    }

    proptest! {
        #[test]
        fn a_damaged_json_never_panics(
            damage in proptest::collection::vec((0..TOKENIZER_JSON.len(), any::<u8>()), 1..4),
            digit in 0..TOKENIZER_JSON.len(),
            by in b'0'..=b'9',
        ) {
            let mut bytes = TOKENIZER_JSON.to_vec();
            // Another digit leaves the file well-formed.
            if let Some(at) = bytes[digit..].iter().position(u8::is_ascii_digit) {
                bytes[digit + at] = by;
            }
            encodes(TokenizerFiles::Json(&bytes));
            for (position, value) in damage {
                bytes[position] = value;
            }
            encodes(TokenizerFiles::Json(&bytes));
        }
    }

    #[test]
    fn a_json_of_other_parts_is_an_error() {
        let strip = json!({ "type": "Strip", "strip_left": true, "strip_right": true });
        let replace = |pattern| json!({ "type": "Replace", "pattern": pattern, "content": " " });
        let split = json!({
            "type": "Split", "pattern": { "Regex": "(a+)+$" }, "behavior": "Isolated", "invert": false,
        });
        let cases = [
            ("/model/type", json!("BPE"), "`model` must be of the type `Unigram`"),
            ("/model/unk_id", json!(null), "`model.unk_id` must be"),
            ("/model/unk_id", json!(146), "unk_id"),
            ("/model/byte_fallback", json!(true), "`model.byte_fallback` must be false"),
            ("/model/vocab/9/0", json!(""), "piece 9 of `model.vocab` must not be empty"),
            // Behind one that strips spaces, it ends in a panic of the crate.
            ("/added_tokens/7/content", json!(" "), "but one is ` `"),
            ("/normalizer", json!({ "type": "Lowercase" }), "but is `Lowercase`"),
            (
                "/normalizer",
                json!({ "type": "Sequence", "normalizers": [strip, { "type": "NFC" }] }),
                "but is `NFC`",
            ),
            ("/normalizer", json!({ "type": "Precompiled" }), "the map of characters is damaged"),
            ("/normalizer", replace(json!({ "Regex": "(a+)+$" })), "the expression ` {2,}`"),
            ("/normalizer", replace(json!({ "String": "" })), "the pattern of a `Replace`"),
            ("/pre_tokenizer", split, "but is `Split`"),
        ];
        for (place, value, wanted) in cases {
            let mut json = json();
            *json.pointer_mut(place).unwrap() = value;
            let found = T5Tokenizer::new(TokenizerFiles::Json(&bytes_of(&json))).err().unwrap();
            assert!(found.to_string().contains(wanted), "{place}: {found}");
        }
    }

    /// The parts that transformers' conversions of `spiece.model` have had over the years.
    #[test]
    fn a_json_of_another_version_of_transformers_is_read() {
        let mut json = json();
        let map = json["normalizer"].take();
        let spaces = json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " });
        json["normalizer"] = json!({ "type": "Sequence", "normalizers": [map,
            { "type": "Strip", "strip_left": false, "strip_right": true }, spaces] });
        json["pre_tokenizer"] = json!({ "type": "Metaspace", "replacement": "\u{2581}",
            "add_prefix_space": true });
        let file = bytes_of(&json);
        let old = T5Tokenizer::new(TokenizerFiles::Json(&file)).unwrap();
        let new = T5Tokenizer::new(TokenizerFiles::Json(TOKENIZER_JSON)).unwrap();
        let encode =
            |tokenizer: &T5Tokenizer| tokenizer.encode("a video  of \u{fb01}", 20).unwrap();
        assert_eq!(encode(&old), encode(&new));
    }

    #[test]
    fn a_json_without_the_special_tokens_is_an_error() {
        let error = T5Tokenizer::new(TokenizerFiles::Json(b"{}")).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}
