//! What adapter files state beside their tensors: ranks and alphas, for all branches and for some.

use regex::Regex;
use safetensors::SafeTensors;
use serde_json::{Map, Value};

use super::{
    super::params::{Entries, LoadError},
    error, error_with,
    names::{DIFFUSERS, METADATA, TRANSFORMER},
};

/// Settings of peft 0.21 that do not change what an adapter does, or that are heeded here.
const KNOWN: [&str; 20] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
];

/// Starts of a training that leave the model's weights as they are. The others take something away
/// from them, and the adapter means the weights without it.
const STARTS: [&str; 3] = ["eva", "gaussian", "orthogonal"];

/// What can be done with an adapter that is not plain.
pub(super) const MERGE: &str =
    "merge it into its model (peft's `merge_and_unload`), and name that model";
const CONVERT: &str = "save it as a plain one (peft's `path_initial_model_for_weight_conversion`), or merge it \
     into its model (`merge_and_unload`), and name that model";

/// Where rank and alpha are stated, they are stated for every branch.
#[derive(Debug, Default)]
pub(super) struct Settings(Option<Stated>);

#[derive(Debug)]
struct Stated {
    rank: usize,
    alpha: f64,
    ranks: Vec<Pattern<usize>>,
    alphas: Vec<Pattern<f64>>,
    /// Whether branches are scaled by alpha over the root of the rank (`use_rslora`).
    by_root: bool,
    /// The model that it was trained on (`base_model_name_or_path`).
    base: Option<String>,
}

/// A value for the modules of some name.
#[derive(Debug)]
struct Pattern<T> {
    text: String,
    names: Regex,
    value: T,
}

/// What is stated of one branch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Branch {
    pub rank: usize,
    /// As if the scale were alpha by the rank.
    pub alpha: f64,
}

impl Settings {
    /// Of diffusers' header, where there is one.
    pub fn of_header(bytes: &[u8]) -> Result<Self, LoadError> {
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|source| LoadError::Format { file: DIFFUSERS.to_owned(), source })?;
        Self::of_entries(header.metadata().as_ref())
    }

    /// Of what stands in a header beside the tensors.
    pub fn of_entries(entries: Option<&Entries>) -> Result<Self, LoadError> {
        let Some(text) = entries.and_then(|entries| entries.get(METADATA)) else {
            return Ok(Self::default());
        };
        let settings: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| error(format!("the header's `{METADATA}` is not a JSON object: {e}")))?;
        Self::read(&settings, &format!("the header's `{METADATA}`"))
    }

    /// Of peft's `adapter_config.json`.
    pub fn of_peft(config: &[u8]) -> Result<Self, LoadError> {
        let config: Map<String, Value> = serde_json::from_slice(config)
            .map_err(|e| error(format!("`adapter_config.json` is not a JSON object: {e}")))?;
        Self::read(&config, "`adapter_config.json`")
    }

    fn read(settings: &Map<String, Value>, place: &str) -> Result<Self, LoadError> {
        let get =
            |key: &str| settings.get(&format!("transformer.{key}")).or_else(|| settings.get(key));
        check_plain(settings)?;
        let (Some(alpha), Some(rank)) =
            (get("lora_alpha").and_then(as_alpha), get("r").and_then(as_rank))
        else {
            return Err(error(format!("{place} must state `r` and `lora_alpha`")));
        };
        Ok(Self(Some(Stated {
            rank,
            alpha,
            ranks: patterns("rank_pattern", get("rank_pattern"), as_rank)?,
            alphas: patterns("alpha_pattern", get("alpha_pattern"), as_alpha)?,
            by_root: get("use_rslora").and_then(Value::as_bool) == Some(true),
            base: get("base_model_name_or_path").and_then(as_name),
        })))
    }

    /// Whether anything is stated.
    pub const fn is_stated(&self) -> bool {
        self.0.is_some()
    }

    /// The model that the adapter was trained on, where that is stated.
    pub fn base(&self) -> Option<&str> {
        self.0.as_ref()?.base.as_deref()
    }

    /// What is stated of a module's branch.
    pub fn branch(&self, module: &str) -> Result<Option<Branch>, LoadError> {
        let Some(stated) = &self.0 else { return Ok(None) };
        let rank = the_one(&stated.ranks, module)?.unwrap_or(stated.rank);
        let alpha = the_one(&stated.alphas, module)?.unwrap_or(stated.alpha);
        let alpha = if stated.by_root { alpha * (rank as f64).sqrt() } else { alpha };
        Ok(Some(Branch { rank, alpha }))
    }
}

/// Refuses what makes an adapter another thing than a sum of low-rank products.
fn check_plain(settings: &Map<String, Value>) -> Result<(), LoadError> {
    for (key, value) in settings {
        let key = key.strip_prefix(TRANSFORMER).unwrap_or(key);
        let is_plain = match (key, value) {
            ("peft_type", Value::String(kind)) => kind == "LORA",
            ("init_lora_weights", Value::String(start)) => STARTS.contains(&&**start),
            ("use_rslora", Value::Bool(_)) | (_, Value::Null | Value::Bool(false)) => true,
            ("bias", Value::String(bias)) => bias == "none",
            (_, Value::Object(map)) if map.is_empty() => true,
            (_, Value::Array(list)) if list.is_empty() => true,
            _ => KNOWN.contains(&key),
        };
        if !is_plain {
            // What a start from the model's own weights made can be written as a plain adapter,
            // DoRA cannot.
            let help = if key == "init_lora_weights" { CONVERT } else { MERGE };
            let message =
                format!("`{key}` is {value}, but only plain low-rank adapters are supported");
            return Err(error_with(message, help));
        }
    }
    Ok(())
}

/// A name that can be shown.
fn as_name(value: &Value) -> Option<String> {
    const LONGEST: usize = 200;
    let name = value.as_str()?;
    let fits = !name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control);
    fits.then(|| name.to_owned())
}

fn as_alpha(value: &Value) -> Option<f64> {
    value.as_f64().filter(|alpha| alpha.is_finite())
}

fn as_rank(value: &Value) -> Option<usize> {
    value.as_u64().map(|rank| rank as usize)
}

/// Reads peft's map from names, or ends of names from a dot on, to values; a key may be a regular
/// expression (`peft.utils.other.get_pattern_key`).
fn patterns<T>(
    key: &str,
    map: Option<&Value>,
    read: fn(&Value) -> Option<T>,
) -> Result<Vec<Pattern<T>>, LoadError> {
    let map = match map {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(error(format!("`{key}` must be a JSON object"))),
    };
    let pattern = |(text, value): (&String, &Value)| {
        let value = read(value)
            .ok_or_else(|| error(format!("`{key}` has the value {value} for `{text}`")))?;
        let names = Regex::new(&format!(r"^(?:.*\.)?(?:{text})$")).map_err(|e| {
            error(format!("`{text}` in `{key}` is no regular expression that can be read: {e}"))
        })?;
        Ok(Pattern { text: text.clone(), names, value })
    };
    map.iter().map(pattern).collect()
}

/// The value for a module. peft takes that of the first pattern that fits, but the order of a JSON
/// object is not to be relied on: two values are an error.
fn the_one<T: Copy + PartialEq>(
    patterns: &[Pattern<T>],
    module: &str,
) -> Result<Option<T>, LoadError> {
    let mut fitting = patterns.iter().filter(|pattern| pattern.names.is_match(module));
    let Some(first) = fitting.next() else { return Ok(None) };
    match fitting.find(|pattern| pattern.value != first.value) {
        None => Ok(Some(first.value)),
        Some(other) => Err(error(format!(
            "`{}` and `{}` both name `{module}`, with other values",
            first.text, other.text
        ))),
    }
}
