//! Low-rank adapters: `y = W x + b + (alpha / rank) B (A x)`.
//!
//! Files are diffusers' `pytorch_lora_weights.safetensors`: tensors
//! `transformer.<module>.lora_A.weight` `[rank, in]` and `.lora_B.weight` `[out, rank]`. The scale
//! stands in the header, as JSON under `lora_adapter_metadata`; a file without it is taken at scale
//! 1 by diffusers, so it is always written. On reading, the names of peft (`base_model.model.`) and
//! of the original checkpoints as ComfyUI uses them (`diffusion_model.`) are understood too, and
//! tensors `<module>.alpha` where the header does not state alpha.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use regex::Regex;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::params::{LoadError, Param, Params};
use crate::rng::TorchRng;

const FILE: &str = "pytorch_lora_weights.safetensors";
const METADATA: &str = "lora_adapter_metadata";
const ORIGINAL: &str = "diffusion_model.";

/// Modules whose names in diffusers differ from those in the original checkpoints (LTX-Video), by
/// the start of the name.
const RENAMED: &[(&str, &str)] =
    &[("proj_in.", "patchify_proj."), ("time_embed.", "adaln_single.")];

/// Which modules get a low-rank branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraTargets {
    /// Query and key projections.
    Qk,
    /// Value and output projections.
    Vo,
    /// All four attention projections.
    Qkvo,
    /// The attention projections and the feed-forward layers of every block.
    AllLinearBlocks,
    /// Every linear layer, also modulation, embeddings and output.
    AllLinear,
}

/// The trained factors of one adapter.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Rank of every branch.
    pub rank: usize,
    /// The branch is scaled by `alpha / rank`.
    pub alpha: f64,
    /// `<module path>.lora_A.weight` `[rank, in]` and `<module path>.lora_B.weight` `[out, rank]`.
    pub factors: Params,
}

impl Adapter {
    /// A new adapter for the linear layers of `base` whose names match one of `targets`.
    ///
    /// A target is a regular expression for a whole module name, or for the end of one from a dot
    /// on, as in peft: `to_q` and `attn1\.to_q` both match `transformer_blocks.0.attn1.to_q`.
    ///
    /// `A` is uniform in ±1/sqrt(in) (peft's Kaiming start with `a = sqrt(5)`) and `B` is zero, both
    /// f32. One generator of `seed` draws the `A` of every module, in the byte order of the
    /// modules' names, each row by row.
    pub fn new_fresh(
        base: &Params,
        targets: &[&str],
        rank: usize,
        alpha: f64,
        seed: u64,
        device: &Device,
    ) -> Result<Self, LoadError> {
        if rank == 0 || !alpha.is_finite() {
            return Err(error(format!(
                "rank must be at least 1 and alpha finite, but they are {rank} and {alpha}"
            )));
        }
        let patterns = targets
            .iter()
            .map(|target| {
                Regex::new(&format!(r"^(?:.*\.)?(?:{target})$")).map_err(|e| {
                    error(format!("the target `{target}` is no regular expression: {e}"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut rng = TorchRng::new(seed);
        let mut factors = Params::default();
        let mut hits = vec![false; patterns.len()];
        for (module, weight) in linears(base) {
            let [output, input] = weight.shape[..] else { continue };
            let mut hit = false;
            for (pattern, seen) in patterns.iter().zip(&mut hits) {
                let matches = pattern.is_match(module);
                *seen |= matches;
                hit |= matches;
            }
            if !hit {
                continue;
            }
            let bound = (1.0 / (input as f64).sqrt()) as f32;
            let a = rng.uniform(rank * input).iter().map(|u| u * (2.0 * bound) - bound).collect();
            let b = vec![0.0; output * rank];
            factors.0.insert(format!("{module}.lora_A.weight"), param(a, [rank, input], device));
            factors.0.insert(format!("{module}.lora_B.weight"), param(b, [output, rank], device));
        }
        if let Some((target, _)) = targets.iter().zip(hits).find(|(_, hit)| !hit) {
            return Err(error(format!(
                "no linear layer of the model matches the target `{target}`"
            )));
        }
        if factors.0.is_empty() {
            return Err(error("no target is named, so there is nothing to train"));
        }
        Ok(Self { rank, alpha, factors })
    }

    /// The scale of the branch.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// The factors `(A, B)` of a module.
    pub fn factors(&self, module: &str) -> Option<(&Param, &Param)> {
        let a = self.factors.0.get(&format!("{module}.lora_A.weight"))?;
        let b = self.factors.0.get(&format!("{module}.lora_B.weight"))?;
        Some((a, b))
    }

    /// The names of the adapted modules, sorted.
    pub fn modules(&self) -> BTreeSet<&str> {
        self.factors.0.keys().filter_map(|name| name.strip_suffix(".lora_A.weight")).collect()
    }

    /// Checks that every adapted module is a linear layer of `base` with fitting sizes.
    pub fn check_against(&self, base: &Params) -> Result<(), LoadError> {
        let linears: BTreeMap<_, _> = linears(base).collect();
        let wrong: Vec<String> = self
            .modules()
            .into_iter()
            .filter_map(|module| {
                let (a, b) = self.factors(module)?;
                let Some(weight) = linears.get(module) else {
                    return Some(format!("`{module}` is not a linear layer of the model"));
                };
                let found = [b.shape[0], a.shape[1]];
                let wanted = &weight.shape;
                (wanted != &found).then(|| {
                    format!("`{module}` is for a layer of {found:?}, but the model's is {wanted:?}")
                })
            })
            .collect();
        match wrong.len() {
            0 => Ok(()),
            n => {
                let shown = wrong[..n.min(8)].join("; ");
                let more = if n > 8 { format!("; and {} more", n - 8) } else { String::new() };
                Err(error(format!("the adapter does not fit the model: {shown}{more}")))
            }
        }
    }

    /// The same adapter with its factors on `device`.
    #[must_use]
    pub fn to_device(&self, device: &Device) -> Self {
        let mut moved = self.clone();
        for param in moved.factors.0.values_mut() {
            param.flat = param.flat.clone().to_device(device);
        }
        moved
    }

    /// The same adapter with its scale in `B`, for tools that take every adapter at scale 1.
    #[must_use]
    pub fn bake_alpha(&self) -> Self {
        let scale = self.scale();
        let mut baked = Self { alpha: self.rank as f64, ..self.clone() };
        for (name, param) in &mut baked.factors.0 {
            if name.ends_with(".lora_B.weight") {
                param.flat = param.flat.clone() * scale;
            }
        }
        baked
    }

    /// The file diffusers loads, with the scale in its header. Equal adapters give equal bytes.
    pub fn to_diffusers(&self) -> Vec<u8> {
        let alpha =
            if self.alpha.fract() == 0.0 { json!(self.alpha as i64) } else { json!(self.alpha) };
        let settings = json!({
            "transformer.lora_alpha": alpha,
            "transformer.r": self.rank,
            "transformer.target_modules": self.modules(),
        });
        self.to_safetensors("transformer.", &[("format", "pt"), (METADATA, &settings.to_string())])
    }

    /// The file ComfyUI loads: original names, and the scale in `B`.
    pub fn to_comfyui(&self) -> Vec<u8> {
        let mut baked = self.bake_alpha();
        let factors = std::mem::take(&mut baked.factors.0);
        baked.factors.0 =
            factors.into_iter().map(|(name, param)| (to_original(&name), param)).collect();
        baked.to_safetensors(ORIGINAL, &[("format", "pt")])
    }

    /// A safetensors file. It is put together here because the `safetensors` crate writes the
    /// header's metadata in random order.
    fn to_safetensors(&self, prefix: &str, metadata: &[(&str, &str)]) -> Vec<u8> {
        let mut header = Map::new();
        let metadata: Map<_, _> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        header.insert("__metadata__".to_owned(), Value::Object(metadata));
        let mut data = Vec::new();
        for (name, param) in &self.factors.0 {
            let start = data.len();
            for value in f32s(param) {
                data.extend(value.to_le_bytes());
            }
            header.insert(
                format!("{prefix}{name}"),
                json!({ "dtype": "F32", "shape": param.shape, "data_offsets": [start, data.len()] }),
            );
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
    }

    /// Reads an adapter file, onto the CPU; see the head of this module for the forms.
    pub fn from_diffusers(bytes: &[u8]) -> Result<Self, LoadError> {
        let metadata = Metadata::read(bytes)?;
        let mut tensors = Params::default();
        tensors.read_safetensors(bytes, FILE, &Device::flex(), FloatDType::F32)?;

        let mut factors = Params::default();
        let mut alphas = BTreeMap::new();
        for (name, param) in tensors.0 {
            let name = match name.strip_prefix(ORIGINAL) {
                Some(original) => from_original(original),
                None => ["transformer.", "base_model.model."]
                    .iter()
                    .find_map(|prefix| name.strip_prefix(prefix))
                    .unwrap_or(&name)
                    .to_owned(),
            };
            if let Some(module) = name.strip_suffix(".alpha") {
                let [value] = f32s(&param)[..] else {
                    return Err(error(format!("`{name}` must be one number")));
                };
                alphas.insert(module.to_owned(), f64::from(value));
                continue;
            }
            let name = name.replace(".default.weight", ".weight");
            if !name.ends_with(".lora_A.weight") && !name.ends_with(".lora_B.weight") {
                return Err(error(format!("`{name}` is not part of a low-rank adapter")));
            }
            if param.shape.len() != 2 {
                return Err(error(format!(
                    "`{name}` must have 2 dimensions, but is {:?}",
                    param.shape
                )));
            }
            factors.0.insert(name, param);
        }
        let rank = common_rank(&factors)?;
        if let Some(stated) = metadata.rank
            && stated != rank
        {
            return Err(error(format!(
                "the header states rank {stated}, but the tensors have {rank}"
            )));
        }
        let alpha = match metadata.alpha {
            Some(alpha) => alpha,
            None => common_alpha(&alphas, &factors)?.unwrap_or(rank as f64),
        };
        Ok(Self { rank, alpha, factors })
    }
}

/// A module's name in diffusers as the one in the original checkpoint.
fn to_original(name: &str) -> String {
    let renamed = RENAMED
        .iter()
        .find_map(|(ours, original)| Some(format!("{original}{}", name.strip_prefix(ours)?)));
    renamed.unwrap_or_else(|| name.to_owned())
}

/// The inverse of [`to_original`].
fn from_original(name: &str) -> String {
    let renamed = RENAMED
        .iter()
        .find_map(|(ours, original)| Some(format!("{ours}{}", name.strip_prefix(original)?)));
    renamed.unwrap_or_else(|| name.to_owned())
}

/// What the header says of the scale.
#[derive(Debug, Default)]
struct Metadata {
    rank: Option<usize>,
    alpha: Option<f64>,
}

impl Metadata {
    fn read(bytes: &[u8]) -> Result<Self, LoadError> {
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|source| LoadError::Format { file: FILE.to_owned(), source })?;
        let Some(text) = header.metadata().as_ref().and_then(|map| map.get(METADATA)) else {
            return Ok(Self::default());
        };
        let settings: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| error(format!("the header's `{METADATA}` is not a JSON object: {e}")))?;
        let get =
            |key: &str| settings.get(&format!("transformer.{key}")).or_else(|| settings.get(key));
        for key in ["rank_pattern", "alpha_pattern"] {
            if get(key).and_then(Value::as_object).is_some_and(|pattern| !pattern.is_empty()) {
                return Err(error(format!(
                    "`{key}` is not supported: all branches must share rank and alpha"
                )));
            }
        }
        for key in ["use_dora", "use_rslora"] {
            if get(key).and_then(Value::as_bool) == Some(true) {
                return Err(error(format!(
                    "`{key}` is not supported: only plain low-rank adapters are"
                )));
            }
        }
        let alpha = get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
        let rank = get("r").and_then(Value::as_u64).map(|rank| rank as usize);
        if alpha.is_none() || rank.is_none() {
            return Err(error(format!(
                "the header's `{METADATA}` must state `transformer.r` and `transformer.lora_alpha`"
            )));
        }
        Ok(Self { rank, alpha })
    }
}

/// The one rank of all factors, each of which must have its partner.
fn common_rank(factors: &Params) -> Result<usize, LoadError> {
    let mut rank = None;
    for (name, param) in &factors.0 {
        let (partner, found) = match name.strip_suffix(".lora_A.weight") {
            Some(module) => (format!("{module}.lora_B.weight"), param.shape[0]),
            None => (name.replace(".lora_B.weight", ".lora_A.weight"), param.shape[1]),
        };
        if !factors.0.contains_key(&partner) {
            return Err(error(format!("`{name}` has no `{partner}`")));
        }
        let rank = *rank.get_or_insert(found);
        if rank != found || found == 0 {
            return Err(error(format!(
                "all branches must have one rank, but `{name}` has {found} and others {rank}"
            )));
        }
    }
    rank.ok_or_else(|| error("the file holds no low-rank factors"))
}

/// The one alpha of the tensors `<module>.alpha`, if there are any.
fn common_alpha(
    alphas: &BTreeMap<String, f64>,
    factors: &Params,
) -> Result<Option<f64>, LoadError> {
    let Some(alpha) = alphas.values().next() else { return Ok(None) };
    let adapted = factors.0.keys().filter_map(|name| name.strip_suffix(".lora_A.weight"));
    for module in adapted {
        let found = alphas
            .get(module)
            .ok_or_else(|| error(format!("`{module}` has no alpha, but others have")))?;
        if found.to_bits() != alpha.to_bits() || !found.is_finite() {
            return Err(error(format!(
                "all branches must have one alpha, but there are {alpha} and {found}"
            )));
        }
    }
    Ok(Some(*alpha))
}

/// The modules of `base` that are linear layers: a weight of two dimensions.
fn linears(base: &Params) -> impl Iterator<Item = (&str, &Param)> {
    base.0.iter().filter_map(|(name, param)| {
        let module = name.strip_suffix(".weight")?;
        (param.shape.len() == 2).then_some((module, param))
    })
}

fn param(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Param {
    let len = values.len();
    let flat = Tensor::from_data(TensorData::new(values, [len]), device);
    Param { flat, shape: shape.to_vec() }
}

fn f32s(param: &Param) -> Vec<f32> {
    let data = param.flat.clone().cast(FloatDType::F32).into_data();
    data.try_to_vec::<f32>().expect("cast to f32 above")
}

fn error(message: impl Into<String>) -> LoadError {
    LoadError::Config { file: FILE.to_owned(), message: message.into() }
}

/// Values of an adapter of this rank on the matrices among these shapes that the patterns name.
#[cfg(test)]
pub(super) fn num_factors(
    shapes: &BTreeMap<String, Vec<usize>>,
    patterns: &[&str],
    rank: usize,
) -> usize {
    let patterns = regex::RegexSet::new(patterns).unwrap();
    let modules =
        shapes.iter().filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?, shape)));
    modules
        .filter(|(module, shape)| shape.len() == 2 && patterns.is_match(module))
        .map(|(_, shape)| rank * (shape[0] + shape[1]))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Params {
        let device = Device::flex();
        let mut base = Params::default();
        for (name, shape) in [
            ("blocks.0.attn1.to_k.weight", [6, 4]),
            ("blocks.0.attn1.to_q.weight", [6, 4]),
            ("blocks.0.ff.net.2.weight", [4, 8]),
            ("proj_out.weight", [2, 4]),
        ] {
            base.0.insert(name.to_owned(), param(vec![0.0; shape[0] * shape[1]], shape, &device));
        }
        let norm = Tensor::zeros([4], &device);
        base.0.insert("blocks.0.norm.weight".to_owned(), Param { flat: norm, shape: vec![4] });
        base
    }

    fn fresh(targets: &[&str]) -> Result<Adapter, LoadError> {
        Adapter::new_fresh(&base(), targets, 3, 1.5, 7, &Device::flex())
    }

    fn trained() -> Adapter {
        let mut adapter = fresh(&["to_q", "to_k"]).unwrap();
        for (i, param) in adapter.factors.0.values_mut().enumerate() {
            param.flat = param.flat.clone() + i as f32 * 0.25;
        }
        adapter
    }

    fn values(adapter: &Adapter, name: &str) -> Vec<f32> {
        f32s(&adapter.factors.0[name])
    }

    /// A safetensors file of f32 tensors.
    fn file(tensors: &[(&str, &[usize])], metadata: Option<&str>) -> Vec<u8> {
        let zeros = vec![0_u8; 4096];
        let views = tensors.iter().map(|(name, shape)| {
            let len = shape.iter().product::<usize>() * 4;
            let dtype = safetensors::Dtype::F32;
            let view = safetensors::tensor::TensorView::new(dtype, shape.to_vec(), &zeros[..len]);
            (*name, view.unwrap())
        });
        let metadata = metadata.map(|text| [(METADATA.to_owned(), text.to_owned())].into());
        safetensors::serialize(views, metadata).unwrap()
    }

    fn message(bytes: &[u8]) -> String {
        Adapter::from_diffusers(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_fresh_adapter_draws_a_in_the_order_of_names_and_leaves_b_zero() {
        let adapter = fresh(&[r"attn1\.to_q", r"blocks\.\d+\.attn1\.to_k"]).unwrap();
        let modules: Vec<_> = adapter.modules().into_iter().collect();
        assert_eq!(modules, ["blocks.0.attn1.to_k", "blocks.0.attn1.to_q"]);
        let drawn = TorchRng::new(7).uniform(24);
        let a: Vec<f32> = modules
            .iter()
            .flat_map(|module| values(&adapter, &format!("{module}.lora_A.weight")))
            .collect();
        let wanted: Vec<f32> = drawn.iter().map(|u| u - 0.5).collect();
        assert_eq!(a, wanted, "1/sqrt(4) is 0.5");
        assert!(values(&adapter, "blocks.0.attn1.to_q.lora_B.weight").iter().all(|v| *v == 0.0));
        assert!((adapter.scale() - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn a_target_that_matches_nothing_is_an_error() {
        assert!(fresh(&["to_q", "to_v"]).unwrap_err().to_string().contains("`to_v`"));
        assert!(
            fresh(&["norm"]).unwrap_err().to_string().contains("`norm`"),
            "a norm is no linear"
        );
        assert!(fresh(&["o_q"]).is_err(), "a part of a name does not match");
        assert!(fresh(&["("]).unwrap_err().to_string().contains("regular expression"));
        assert!(fresh(&[]).is_err());
    }

    #[test]
    fn what_is_written_is_read_back_and_equal_adapters_give_equal_bytes() {
        let adapter = trained();
        let bytes = adapter.to_diffusers();
        assert!((0..20).all(|_| trained().to_diffusers() == bytes));
        let read = Adapter::from_diffusers(&bytes).unwrap();
        assert_eq!((read.rank, read.alpha), (3, 1.5));
        assert_eq!(read.modules(), adapter.modules());
        for name in adapter.factors.0.keys() {
            assert_eq!(values(&read, name), values(&adapter, name), "{name}");
        }
        read.check_against(&base()).unwrap();
    }

    #[test]
    fn baking_moves_the_scale_into_b() {
        let adapter = trained();
        let read = Adapter::from_diffusers(&adapter.to_comfyui()).unwrap();
        assert!((read.scale() - 1.0).abs() < f64::EPSILON);
        let b = "blocks.0.attn1.to_q.lora_B.weight";
        let halved: Vec<f32> = values(&adapter, b).iter().map(|v| v * 0.5).collect();
        assert_eq!(values(&read, b), halved);
    }

    #[test]
    fn comfyui_sees_the_original_names() {
        let mut base = base();
        for name in ["proj_in.weight", "time_embed.linear.weight"] {
            base.0.insert(name.to_owned(), param(vec![0.0; 24], [6, 4], &Device::flex()));
        }
        let targets = ["to_q", "proj_in", r"time_embed\.linear"];
        let adapter = Adapter::new_fresh(&base, &targets, 3, 3.0, 7, &Device::flex()).unwrap();
        let bytes = adapter.to_comfyui();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for module in ["patchify_proj", "adaln_single.linear", "blocks.0.attn1.to_q"] {
            let name = format!("diffusion_model.{module}.lora_A.weight");
            assert!(file.tensor(&name).is_ok(), "{name}");
        }
        assert_eq!(Adapter::from_diffusers(&bytes).unwrap().modules(), adapter.modules());
    }

    #[test]
    fn names_and_alphas_of_other_tools_are_read() {
        let peft = [
            ("base_model.model.b.to_q.lora_A.default.weight", &[2, 4][..]),
            ("base_model.model.b.to_q.lora_B.default.weight", &[6, 2]),
        ];
        let read = Adapter::from_diffusers(&file(&peft, None)).unwrap();
        assert_eq!((read.rank, read.alpha), (2, 2.0), "no alpha means scale 1");
        assert!(read.modules().contains("b.to_q"));

        let comfy = [
            ("diffusion_model.b.to_q.lora_A.weight", &[2, 4][..]),
            ("diffusion_model.b.to_q.lora_B.weight", &[6, 2]),
            ("diffusion_model.b.to_q.alpha", &[]),
        ];
        assert!(Adapter::from_diffusers(&file(&comfy, None)).unwrap().alpha.abs() < f64::EPSILON);
    }

    #[test]
    fn files_that_disagree_with_themselves_are_errors() {
        let a = ("transformer.q.lora_A.weight", &[2, 4][..]);
        let b = ("transformer.q.lora_B.weight", &[6, 2][..]);
        assert!(message(&file(&[a], None)).contains("has no `q.lora_B.weight`"));
        let wide = ("transformer.q.lora_B.weight", &[6, 3][..]);
        assert!(message(&file(&[a, wide], None)).contains("one rank"));
        let flat = ("transformer.q.lora_B.weight", &[6][..]);
        assert!(message(&file(&[a, flat], None)).contains("2 dimensions"));
        assert!(
            message(&file(&[a, b, ("transformer.q.dora_scale", &[6])], None))
                .contains("dora_scale")
        );
        let rank = r#"{"transformer.r": 4, "transformer.lora_alpha": 4}"#;
        assert!(message(&file(&[a, b], Some(rank))).contains("states rank 4"));
        assert!(message(&file(&[a, b], Some("{}"))).contains("must state"));
        let dora =
            r#"{"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.use_dora": true}"#;
        assert!(message(&file(&[a, b], Some(dora))).contains("use_dora"));
        assert!(message(&file(&[], None)).contains("no low-rank factors"));
        let empty = [("q.lora_A.weight", &[0, 4][..]), ("q.lora_B.weight", &[6, 0][..])];
        assert!(message(&file(&empty, None)).contains("one rank"));
    }

    #[test]
    fn cut_files_are_errors() {
        let bytes = trained().to_diffusers();
        for len in (0..bytes.len()).step_by(7) {
            assert!(Adapter::from_diffusers(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn an_adapter_for_another_model_lists_what_does_not_fit() {
        let mut other = base();
        other.0.remove("blocks.0.attn1.to_k.weight");
        other.0.insert(
            "blocks.0.attn1.to_q.weight".to_owned(),
            param(vec![0.0; 30], [6, 5], &Device::flex()),
        );
        let message = trained().check_against(&other).unwrap_err().to_string();
        assert!(message.contains("`blocks.0.attn1.to_k` is not a linear layer"), "{message}");
        assert!(message.contains("[6, 4]") && message.contains("[6, 5]"), "{message}");
    }
}
