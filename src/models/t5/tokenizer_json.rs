//! Reads a `tokenizer.json`, as far as a tokenizer of T5 needs it, without trust.
//!
//! The `tokenizers` crate reads any such file, and panics on some: on a map of characters whose
//! offsets lead out of it, and on added tokens that overlap. So only what T5 is made of is taken,
//! each part is checked as those of a `spiece.model` are, and the rest of the file is not read.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, Tokenizer, models::unigram::Unigram,
};

use super::charsmap;

/// The expression that transformers' conversion of a SentencePiece model puts into `Replace`; no
/// other is searched for, since the search for a foreign one can take long and is given up without
/// a word.
const SPACES: &str = " {2,}";

/// The parts of the file that are read. What is appended, cut and padded is the caller's choice.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    r#type: String,
    vocab: Vec<(String, f64)>,
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
}

/// The tokenizer of a file, or what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Tokenizer, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(file.model.build()?);
    if !file.normalizer.is_null() {
        check_normalizer(&file.normalizer)?;
        let normalizer: NormalizerWrapper = part("normalizer", file.normalizer)?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
    }
    if !file.pre_tokenizer.is_null() {
        check_pre_tokenizer(&file.pre_tokenizer)?;
        let pre_tokenizer: PreTokenizerWrapper = part("pre_tokenizer", file.pre_tokenizer)?;
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    }
    for AddedToken { content, .. } in &file.added_tokens {
        // Spaces that a neighbour strips must be no part of it.
        if content.is_empty() || content.trim() != content {
            return Err(format!(
                "an added token must not be empty or have spaces around it, but one is `{content}`"
            ));
        }
    }
    tokenizer.add_tokens(file.added_tokens).map_err(|e| e.to_string())?;
    Ok(tokenizer)
}

impl Model {
    fn build(self) -> Result<Unigram, String> {
        known("model", &self.r#type, &["Unigram"])?;
        if self.byte_fallback {
            return Err("`model.byte_fallback` must be false".to_owned());
        }
        let unknown = self.unk_id.ok_or("`model.unk_id` must be the number of a piece")?;
        if let Some(index) = self.vocab.iter().position(|(piece, _)| piece.is_empty()) {
            return Err(format!("piece {index} of `model.vocab` must not be empty"));
        }
        Unigram::from(self.vocab, Some(unknown), false).map_err(|e| e.to_string())
    }
}

fn part<T: for<'de> Deserialize<'de>>(name: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| format!("`{name}` cannot be read: {e}"))
}

fn known<'a>(part: &str, kind: &'a str, known: &[&str]) -> Result<&'a str, String> {
    if known.contains(&kind) {
        return Ok(kind);
    }
    let known = known.join("` or `");
    Err(format!("`{part}` must be of the type `{known}`, as in a tokenizer of T5, but is `{kind}`"))
}

/// The type of a part that is an object.
fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The members of a part of the type `Sequence`.
fn members<'a>(part: &str, value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    let members = value.get(key).and_then(Value::as_array).map(Vec::as_slice);
    members.ok_or_else(|| format!("`{part}.{key}` must be a list"))
}

fn check_normalizer(value: &Value) -> Result<(), String> {
    const PART: &str = "normalizer";
    match known(PART, kind(value), &["Precompiled", "Sequence", "Strip", "Replace"])? {
        "Sequence" => members(PART, value, "normalizers")?.iter().try_for_each(check_normalizer),
        "Precompiled" => check_map(value),
        "Replace" => check_pattern(value),
        _ => Ok(()),
    }
}

fn check_map(normalizer: &Value) -> Result<(), String> {
    let text = normalizer.get("precompiled_charsmap").and_then(Value::as_str);
    let map = text.and_then(|text| BASE64_STANDARD.decode(text).ok());
    let is_sound = map.is_some_and(|map| charsmap::is_sound(&map));
    is_sound.then_some(()).ok_or_else(|| "the map of characters is damaged".to_owned())
}

fn check_pattern(normalizer: &Value) -> Result<(), String> {
    let pattern = normalizer.get("pattern").and_then(Value::as_object);
    let is_known = pattern.is_some_and(|pattern| {
        let text = |key: &str| pattern.get(key).and_then(Value::as_str);
        pattern.len() == 1
            && (text("Regex") == Some(SPACES)
                || text("String").is_some_and(|text| !text.is_empty()))
    });
    is_known.then_some(()).ok_or_else(|| {
        format!("the pattern of a `Replace` must be a text or the expression `{SPACES}`")
    })
}

fn check_pre_tokenizer(value: &Value) -> Result<(), String> {
    const PART: &str = "pre_tokenizer";
    match known(PART, kind(value), &["Metaspace", "WhitespaceSplit", "Sequence"])? {
        "Sequence" => {
            members(PART, value, "pretokenizers")?.iter().try_for_each(check_pre_tokenizer)
        }
        _ => Ok(()),
    }
}
