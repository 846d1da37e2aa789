//! Low-rank adapters: `y = W x + b + (alpha / rank) B (A x)`.
//!
//! `write` and `read` know the files of diffusers, peft and ComfyUI; `merge` makes several adapters
//! one, `into_model` makes one part of the model.

mod branches;
mod family;
mod header;
mod into_model;
mod merge;
mod names;
mod read;
mod settings;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::params::{LoadError, Param, Params};
use crate::{device::lasting, rng::TorchRng};

pub use family::LoraFamily;
pub use header::{
    PEFT_CONFIG, PEFT_WEIGHTS, Statement, check_head, check_outline, refused_name, size_of_factors,
};
pub use merge::{Combination, Combined};

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
    /// `A` is uniform in ±1/sqrt(in) (peft's Kaiming start with `a = sqrt(5)`) and `B` is zero,
    /// both f32. One generator of `seed` draws the `A` of every module, in the byte order of the
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
        self.check_shapes(base.0.iter().map(|(name, param)| (name.as_str(), &param.shape[..])))
    }

    /// The same of a base whose tensors have these names and shapes.
    pub fn check_shapes<'a>(
        &self,
        base: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<(), LoadError> {
        let linears = base.into_iter().filter_map(|(name, shape)| {
            let module = name.strip_suffix(".weight")?;
            (shape.len() == 2).then_some((module, shape))
        });
        let linears: BTreeMap<_, _> = linears.collect();
        let wrong: Vec<String> = self
            .modules()
            .into_iter()
            .filter_map(|module| {
                let (a, b) = self.factors(module)?;
                let Some(wanted) = linears.get(module) else {
                    let what = if module.starts_with(names::TEXT_ENCODER) {
                        "is of a text encoder, which keeps its weights here"
                    } else {
                        "is not a linear layer of the model"
                    };
                    return Some(format!("`{module}` {what}"));
                };
                let found = [b.shape[0], a.shape[1]];
                (*wanted != found).then(|| {
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
        Self { factors: self.factors.to_device(device), ..self.clone() }
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
    let flat = lasting(device, || Tensor::from_data(TensorData::new(values, [len]), device));
    Param { flat, shape: shape.to_vec() }
}

fn f32s(param: &Param) -> Vec<f32> {
    let data = param.flat.clone().cast(FloatDType::F32).into_data();
    data.try_to_vec::<f32>().expect("cast to f32 above")
}

/// What can be done about most of what is wrong with an adapter.
const ANOTHER: &str = "name the file of an adapter that was trained for this model";

fn error(message: impl Into<String>) -> LoadError {
    error_with(message, ANOTHER)
}

/// A tensor that is no part of an adapter, by its name.
fn no_part(name: &str) -> LoadError {
    if names::is_magnitude(name) {
        let message =
            format!("`{name}` is of DoRA, but only plain low-rank adapters are supported");
        return error_with(message, settings::MERGE);
    }
    error(format!("`{name}` is not part of a low-rank adapter"))
}

fn error_with(message: impl Into<String>, help: &'static str) -> LoadError {
    LoadError::Adapter { file: names::DIFFUSERS.to_owned(), message: message.into(), help }
}

/// Values of an adapter of this rank on the matrices among these shapes that the patterns name.
pub(super) fn num_factors(
    shapes: &BTreeMap<String, Vec<usize>>,
    patterns: &[&str],
    rank: usize,
) -> usize {
    let patterns = regex::RegexSet::new(patterns).expect("families name valid patterns");
    let modules =
        shapes.iter().filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?, shape)));
    modules
        .filter(|(module, shape)| shape.len() == 2 && patterns.is_match(module))
        .map(|(_, shape)| rank * (shape[0] + shape[1]))
        .sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn base() -> Params {
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

    pub fn trained() -> Adapter {
        let mut adapter = fresh(&["to_q", "to_k"]).unwrap();
        for (i, param) in adapter.factors.0.values_mut().enumerate() {
            param.flat = param.flat.clone() + i as f32 * 0.25;
        }
        adapter
    }

    pub fn values(adapter: &Adapter, name: &str) -> Vec<f32> {
        f32s(&adapter.factors.0[name])
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
