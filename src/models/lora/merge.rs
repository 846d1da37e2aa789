//! Several adapters as one.
//!
//! The sum of adapters is `Σ wᵢ·sᵢ·Bᵢ·Aᵢ` with their weights `w` and scales `s`. Laying the factors
//! side by side gives exactly it, at the sum of the ranks; its singular value decomposition gives
//! the nearest matrices of a chosen rank. Both are found from the factors, and no matrix of the
//! layer's size is made.

use std::collections::BTreeSet;

use burn::tensor::Device;
use nalgebra::DMatrix;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::params::{LoadError, Param, Params},
    Adapter, error, f32s, param,
};

/// How the factors of several adapters become those of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// Side by side: exactly the weighted sum, at the sum of the ranks.
    #[default]
    Cat,
    /// The matrices of a given rank that are nearest to the weighted sum.
    Svd,
    /// The factors themselves are added, as in peft's `linear`: ranks must be equal, and the result
    /// is not the sum of what the adapters do.
    Linear,
}

/// What came of a combination.
#[derive(Clone, Debug)]
pub struct Combined {
    /// The adapter, on the CPU.
    pub adapter: Adapter,
    /// The share of the sum that is left, by the squares of its singular values; 1 where it is
    /// exact.
    pub kept: f64,
}

type Matrix = DMatrix<f64>;

impl Adapter {
    /// One adapter of several, each with its weight; all factors must be on the CPU. `rank` is that
    /// of the result and must be given for [`Combination::Svd`] alone.
    pub fn combine(
        parts: &[(Self, f64)],
        how: Combination,
        rank: Option<usize>,
    ) -> Result<Combined, LoadError> {
        let Some((first, _)) = parts.first() else {
            return Err(error("there is no adapter to combine"));
        };
        check_sizes(parts)?;
        let sum: usize = parts.iter().map(|(part, _)| part.rank).sum();
        let rank = match how {
            Combination::Cat => sum,
            Combination::Svd => rank.unwrap_or(sum).min(sum),
            Combination::Linear => first.rank,
        };
        if how == Combination::Linear
            && let Some((other, _)) = parts.iter().find(|(part, _)| part.rank != first.rank)
        {
            return Err(error(format!(
                "`linear` needs adapters of one rank, but there are {} and {}",
                first.rank, other.rank
            )));
        }
        if let [(one, weight)] = parts
            && weight.to_bits() == 1.0_f64.to_bits()
            && rank == one.rank
        {
            return Ok(Combined { adapter: one.clone(), kept: 1.0 });
        }
        let modules: BTreeSet<&str> = parts.iter().flat_map(|(part, _)| part.modules()).collect();
        let mut factors = Params::default();
        let (mut kept, mut all) = (0.0, 0.0);
        for module in modules {
            let (a, b) = match how {
                Combination::Linear => add(parts, module, rank),
                Combination::Cat => side_by_side(parts, module),
                Combination::Svd => {
                    let (a, b) = side_by_side(parts, module);
                    let nearest = nearest(&a, &b, rank);
                    kept += nearest.kept;
                    all += nearest.all;
                    (nearest.a, nearest.b)
                }
            };
            factors.0.insert(format!("{module}.lora_A.weight"), to_param(&a));
            factors.0.insert(format!("{module}.lora_B.weight"), to_param(&b));
        }
        let kept = if all > 0.0 { kept / all } else { 1.0 };
        if let Some(name) = factors.not_finite() {
            return Err(LoadError::NotFinite {
                message: format!("`{name}` of the merged adapter would not be finite numbers"),
                help: "give smaller `weights`",
            });
        }
        Ok(Combined { adapter: Self { rank, alpha: rank as f64, factors }, kept })
    }
}

/// Checks that adapters of one module are for layers of one size.
fn check_sizes(parts: &[(Adapter, f64)]) -> Result<(), LoadError> {
    let mut known = std::collections::BTreeMap::new();
    for (part, _) in parts {
        for module in part.modules() {
            let (a, b) = part.factors(module).expect("modules have both factors");
            let size = [b.shape[0], a.shape[1]];
            let first = *known.entry(module).or_insert(size);
            if first != size {
                return Err(error(format!(
                    "the adapters are for different models: `{module}` is {first:?} in one and \
                     {size:?} in another"
                )));
            }
        }
    }
    Ok(())
}

/// `A` below each other, with weight and scale; `B` beside each other. Where an adapter leaves the
/// module alone, there are zeros: all modules have one rank.
fn side_by_side(parts: &[(Adapter, f64)], module: &str) -> (Matrix, Matrix) {
    let rank = parts.iter().map(|(part, _)| part.rank).sum();
    let (inputs, outputs) = size(parts, module);
    let (mut a, mut b) = (Matrix::zeros(rank, inputs), Matrix::zeros(outputs, rank));
    let mut at = 0;
    for (part, weight) in parts {
        if let Some((part_a, part_b)) = part.factors(module) {
            a.rows_mut(at, part.rank).copy_from(&(matrix(part_a) * (weight * part.scale())));
            b.columns_mut(at, part.rank).copy_from(&matrix(part_b));
        }
        at += part.rank;
    }
    (a, b)
}

/// The sums of the factors, each by the root of its weight and scale; a negative sign goes to `A`.
fn add(parts: &[(Adapter, f64)], module: &str, rank: usize) -> (Matrix, Matrix) {
    let (inputs, outputs) = size(parts, module);
    let (mut a, mut b) = (Matrix::zeros(rank, inputs), Matrix::zeros(outputs, rank));
    for (part, weight) in parts {
        if let Some((part_a, part_b)) = part.factors(module) {
            let weight = weight * part.scale();
            let root = weight.abs().sqrt();
            a += matrix(part_a) * root.copysign(weight);
            b += matrix(part_b) * root;
        }
    }
    (a, b)
}

/// The layer's inputs and outputs.
fn size(parts: &[(Adapter, f64)], module: &str) -> (usize, usize) {
    let (a, b) = parts.iter().find_map(|(part, _)| part.factors(module)).expect("one has it");
    (a.shape[1], b.shape[0])
}

struct Nearest {
    a: Matrix,
    b: Matrix,
    /// Sums of the squares of the singular values, those that are left and all.
    kept: f64,
    all: f64,
}

/// The factors of the matrix of `rank` that is nearest to `b a`: `b = Q R` and `aᵀ = P S` leave the
/// decomposition of the small `R Sᵀ`.
fn nearest(a: &Matrix, b: &Matrix, rank: usize) -> Nearest {
    let (left, right) = (b.clone().qr(), a.transpose().qr());
    let small = (left.r() * right.r().transpose()).svd(true, true);
    let (u, v) = (small.u.expect("asked for"), small.v_t.expect("asked for"));
    let values = small.singular_values;
    let len = rank.min(values.len());
    let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    let (mut new_a, mut new_b) = (Matrix::zeros(rank, a.ncols()), Matrix::zeros(b.nrows(), rank));
    let scaled = u.columns(0, len) * Matrix::from_diagonal(&values.rows(0, len).into_owned());
    new_b.columns_mut(0, len).copy_from(&(left.q() * scaled));
    new_a.rows_mut(0, len).copy_from(&(v.rows(0, len) * right.q().transpose()));
    let values = values.as_slice();
    Nearest { a: new_a, b: new_b, kept: square(&values[..len]), all: square(values) }
}

fn matrix(param: &Param) -> Matrix {
    let values: Vec<f64> = f32s(param).into_iter().map(f64::from).collect();
    Matrix::from_row_slice(param.shape[0], param.shape[1], &values)
}

fn to_param(matrix: &Matrix) -> Param {
    // Columns of the transpose are rows.
    let values = matrix.transpose().as_slice().iter().map(|value| *value as f32).collect();
    param(values, [matrix.nrows(), matrix.ncols()], &Device::flex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::lora::tests::{base, trained};

    /// What an adapter adds to a layer.
    fn change(adapter: &Adapter, module: &str) -> Option<Matrix> {
        let (a, b) = adapter.factors(module)?;
        Some(matrix(b) * matrix(a) * adapter.scale())
    }

    /// Two adapters of other ranks, scales and modules.
    fn two() -> [(Adapter, f64); 2] {
        let device = Device::flex();
        let mut other =
            Adapter::new_fresh(&base(), &["to_q", "proj_out"], 2, 3.0, 11, &device).unwrap();
        for param in other.factors.0.values_mut() {
            param.flat = param.flat.clone().sin() + 0.125;
        }
        [(trained(), 0.75), (other, -0.5)]
    }

    fn wanted(parts: &[(Adapter, f64)], module: &str) -> Matrix {
        let changes = parts.iter().filter_map(|(part, w)| Some(change(part, module)? * *w));
        changes.reduce(|sum, part| sum + part).unwrap()
    }

    #[test]
    fn a_sum_that_is_no_numbers_is_refused() {
        let parts = [(trained(), 1e300), (trained(), 1.0)];
        let refused = Adapter::combine(&parts, Combination::Cat, None).unwrap_err();
        insta::assert_snapshot!(refused, @"`blocks.0.attn1.to_k.lora_A.weight` of the merged adapter would not be finite numbers");
    }

    #[test]
    fn side_by_side_is_the_weighted_sum() {
        let parts = two();
        let made = Adapter::combine(&parts, Combination::Cat, None).unwrap();
        assert_eq!((made.adapter.rank, made.adapter.alpha), (5, 5.0));
        for module in ["blocks.0.attn1.to_k", "blocks.0.attn1.to_q", "proj_out"] {
            let found = change(&made.adapter, module).unwrap();
            let error = (found - wanted(&parts, module)).abs().max();
            assert!(error < 1e-6, "{module}: {error}");
        }
    }

    #[test]
    fn the_nearest_of_full_rank_is_the_sum_and_of_less_is_as_near_as_can_be() {
        let parts = two();
        let module = "blocks.0.attn1.to_q";
        let sum = wanted(&parts, module);
        let values = sum.clone().singular_values();
        for rank in [1, 2, 4, 5, 9] {
            let made = Adapter::combine(&parts, Combination::Svd, Some(rank)).unwrap();
            let found = change(&made.adapter, module).unwrap();
            let error = (found - &sum).norm();
            let least = values.iter().skip(rank).map(|value| value * value).sum::<f64>().sqrt();
            assert!((error - least).abs() < 1e-5, "rank {rank}: {error} for {least}");
            assert!(made.adapter.rank == rank.min(5) && made.kept <= 1.0 + 1e-12);
        }
        let exact = Adapter::combine(&parts, Combination::Svd, Some(5)).unwrap();
        assert!((exact.kept - 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_adapter_at_weight_one_stays_as_it_is() {
        let made = Adapter::combine(&[(trained(), 1.0)], Combination::Cat, None).unwrap();
        assert_eq!(made.adapter.to_diffusers(), trained().to_diffusers());
    }

    #[test]
    fn adapters_that_do_not_go_together_are_errors() {
        let message = |parts: &[(Adapter, f64)], how| {
            Adapter::combine(parts, how, None).unwrap_err().to_string()
        };
        assert!(message(&[], Combination::Cat).contains("no adapter"));
        assert!(message(&two(), Combination::Linear).contains("one rank, but there are 3 and 2"));
        let mut other = trained();
        let name = "blocks.0.attn1.to_q.lora_A.weight";
        other.factors.0.insert(name.to_owned(), param(vec![0.0; 21], [3, 7], &Device::flex()));
        let message = message(&[(trained(), 1.0), (other, 1.0)], Combination::Cat);
        assert!(message.contains("[6, 4] in one and [6, 7] in another"), "{message}");
    }

    #[test]
    fn a_merged_base_does_what_base_and_adapter_did() {
        let (mut merged, adapter) = (base(), trained());
        adapter.merge_into(&mut merged).unwrap();
        let module = "blocks.0.attn1.to_q";
        let found = matrix(&merged.0[&format!("{module}.weight")]);
        assert!((found - change(&adapter, module).unwrap()).abs().max() < 1e-6);
        let untouched = f32s(&merged.0["blocks.0.ff.net.2.weight"]);
        assert!(untouched.iter().all(|value| *value == 0.0));
        let mut other = Params::default();
        assert!(adapter.merge_into(&mut other).is_err());
    }
}
