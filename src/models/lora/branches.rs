//! The branches of an adapter file, of ranks and scales that may differ, and how they become one
//! [`Adapter`].

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::{
    super::params::{LoadError, Param, Params},
    Adapter, error,
    names::DIFFUSERS,
    read::check_finite,
    settings::{Branch, Settings},
};

/// How many times the values of a file the factors may be once all are filled up to the highest
/// rank.
const MOST_FILLED_UP: u128 = 64;

impl Adapter {
    /// One adapter of branches whose ranks and alphas may differ.
    pub(super) fn of_branches(
        factors: Params,
        branches: &BTreeMap<String, Branch>,
    ) -> Result<Self, LoadError> {
        let all = || branches.values();
        let rank = all().map(|branch| branch.rank).max();
        let rank = rank.ok_or_else(|| error("the file holds no low-rank factors"))?;
        let mut adapter = Self { rank, alpha: rank as f64, factors };
        let scale = |branch: &Branch| branch.alpha / branch.rank as f64;
        let first = *all().next().expect("there is a rank");
        if all().all(|branch| *branch == first) {
            adapter.alpha = first.alpha;
        } else if all().all(|branch| scale(branch).to_bits() == scale(&first).to_bits()) {
            adapter.alpha = scale(&first) * rank as f64;
            if !adapter.alpha.is_finite() {
                return Err(error("the alphas are too large for the ranks of their branches"));
            }
        } else {
            for (module, branch) in branches {
                let b = adapter.factor(module, 'B');
                b.flat = b.flat.clone() * scale(branch);
            }
            check_finite(&adapter.factors)?;
        }
        for (module, _) in branches.iter().filter(|(_, branch)| branch.rank < rank) {
            for (letter, axis) in [('A', 0), ('B', 1)] {
                let factor = adapter.factor(module, letter);
                *factor = fill_up(factor, axis, rank);
            }
        }
        Ok(adapter)
    }

    pub(super) fn factor(&mut self, module: &str, letter: char) -> &mut Param {
        let name = format!("{module}.lora_{letter}.weight");
        self.factors.0.get_mut(&name).expect("a branch has both factors")
    }
}

/// The rank and alpha of each module's branch.
pub(super) fn branches(
    factors: &Params,
    settings: &Settings,
    alphas: &BTreeMap<String, f64>,
) -> Result<BTreeMap<String, Branch>, LoadError> {
    let mut branches = BTreeMap::new();
    for (module, rank) in ranks(factors)? {
        let stated = settings.branch(module)?;
        let alpha = match (stated, alphas.get(module)) {
            (Some(stated), _) if stated.rank != rank => {
                return Err(error(format!(
                    "the settings state rank {} for `{module}`, but its tensors have {rank}",
                    stated.rank
                )));
            }
            (Some(stated), _) => stated.alpha,
            (None, Some(alpha)) if !alpha.is_finite() => {
                return Err(error(format!("the alpha of `{module}` must be a finite number")));
            }
            (None, Some(alpha)) => *alpha,
            (None, None) if alphas.is_empty() => rank as f64,
            (None, None) => {
                return Err(error(format!("`{module}` has no alpha, but others have")));
            }
        };
        branches.insert(module.to_owned(), Branch { rank, alpha });
    }
    check_filled_up(factors, &branches)?;
    Ok(branches)
}

/// Refuses branches of ranks so far apart that they could not be filled up to one in memory. What a
/// file may hold of a rank is not bounded: peft trains ranks above the sizes of a layer, and merges
/// add ranks up.
fn check_filled_up(factors: &Params, branches: &BTreeMap<String, Branch>) -> Result<(), LoadError> {
    let Some((module, highest)) = branches.iter().max_by_key(|(_, branch)| branch.rank) else {
        return Ok(());
    };
    let wide = |size: usize| size as u128;
    let held: u128 =
        factors.0.values().map(|param| wide(param.shape[0]) * wide(param.shape[1])).sum();
    let layer = |(name, param): (&String, &Param)| {
        wide(if name.ends_with(".lora_A.weight") { param.shape[1] } else { param.shape[0] })
    };
    let layers: u128 = factors.0.iter().map(layer).sum();
    if layers * highest.rank as u128 <= held * MOST_FILLED_UP {
        return Ok(());
    }
    Err(LoadError::Ranks {
        file: DIFFUSERS.to_owned(),
        message: format!(
            "`{module}` has rank {}: with all branches filled up to it, the adapter would be {} times as \
             large as the file, but may be {MOST_FILLED_UP} times as large",
            highest.rank,
            layers * highest.rank as u128 / held
        ),
    })
}

/// The rank of each module's factors, each of which must have its partner.
fn ranks(factors: &Params) -> Result<BTreeMap<&str, usize>, LoadError> {
    let mut ranks = BTreeMap::new();
    for (name, param) in &factors.0 {
        let module = &name[..name.len() - ".lora_A.weight".len()];
        let (partner, found) = if name.ends_with(".lora_A.weight") {
            (format!("{module}.lora_B.weight"), param.shape[0])
        } else {
            (format!("{module}.lora_A.weight"), param.shape[1])
        };
        if !factors.0.contains_key(&partner) {
            return Err(error(format!("`{name}` has no `{partner}`")));
        }
        let rank = *ranks.entry(module).or_insert(found);
        if rank != found || found == 0 {
            return Err(error(format!(
                "the factors of `{module}` must share a rank of at least 1, but have {rank} and {found}"
            )));
        }
    }
    Ok(ranks)
}

/// A factor with zeros behind its values along the axis of its rank.
fn fill_up(factor: &Param, axis: usize, rank: usize) -> Param {
    let mut shape = [factor.shape[0], factor.shape[1]];
    let values = factor.flat.clone().reshape(shape);
    let mut zeros = shape;
    zeros[axis] = rank - shape[axis];
    let zeros = Tensor::zeros(zeros, &values.device());
    shape[axis] = rank;
    let flat = Tensor::cat(vec![values, zeros], axis).reshape([shape[0] * shape[1]]);
    Param { flat, shape: shape.to_vec() }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::models::{
        lora::{
            f32s,
            names::METADATA,
            read::{
                outline,
                tests::{file, message},
            },
            tests::values,
        },
        params::Dtype,
    };

    /// The header alone would otherwise decide how much is allocated.
    #[test]
    fn branches_that_would_fill_the_memory_are_refused() {
        let vast = 1_000_000_000_000;
        let hollow = [
            ("transformer.q.lora_A.weight", &[vast, 0][..]),
            ("transformer.q.lora_B.weight", &[0, vast]),
        ];
        insta::assert_snapshot!(message(&file(&hollow, None)), @"`pytorch_lora_weights.safetensors`: `q.lora_A.weight` must have dimensions of at least 1, but is [1000000000000, 0]");
        let lean = [
            ("transformer.k.lora_A.weight", &[1000, 1][..]),
            ("transformer.k.lora_B.weight", &[1, 1000]),
            ("transformer.q.lora_A.weight", &[1, 500]),
            ("transformer.q.lora_B.weight", &[500, 1]),
        ];
        let error = Adapter::from_diffusers(&file(&lean, None)).unwrap_err();
        insta::assert_snapshot!(error, @"`pytorch_lora_weights.safetensors`: `k` has rank 1000: with all branches filled up to it, the adapter would be 334 times as large as the file, but may be 64 times as large");
        insta::assert_snapshot!(error.help().unwrap(), @"resize the branches to ranks that are nearer to each other, with the program that made the file");
        for adapter in [&hollow[..], &lean] {
            let shapes = adapter.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec()));
            assert!(outline(shapes, &Settings::default()).is_err(), "{adapter:?}");
        }
        let alone = &lean[..2];
        assert_eq!(
            Adapter::from_diffusers(&file(alone, None)).unwrap().rank,
            1000,
            "peft trains it"
        );
    }

    #[test]
    fn a_rank_stabilised_scale_is_by_the_root_of_the_rank() {
        let tensors = [
            ("transformer.q.lora_A.weight", &[4, 3][..]),
            ("transformer.q.lora_B.weight", &[6, 4]),
        ];
        for (stabilised, scale) in [(false, 1.5), (true, 3.0)] {
            let settings = format!(
                r#"{{"transformer.r": 4, "transformer.lora_alpha": 6, "transformer.use_rslora": {stabilised}}}"#
            );
            let read = Adapter::from_diffusers(&file(&tensors, Some(&settings))).unwrap();
            assert!((read.scale() - scale).abs() < 1e-12, "{}", read.scale());
            let config = format!(r#"{{"r": 4, "lora_alpha": 6, "use_rslora": {stabilised}}}"#);
            let read = Adapter::from_peft(config.as_bytes(), &file(&tensors, None)).unwrap();
            assert!((read.scale() - scale).abs() < 1e-12, "{}", read.scale());
            // And what is written states it as a plain scale.
            let again = Adapter::from_diffusers(&read.to_diffusers()).unwrap();
            assert!((again.scale() - scale).abs() < 1e-12, "{}", again.scale());
        }
    }

    #[test]
    fn alphas_that_differ_go_into_the_factors() {
        let mut tensors = Params::default();
        for (name, value) in [("a", 1.0_f32), ("b", 2.0)] {
            let all = [
                (format!("diffusion_model.{name}.lora_A.weight"), vec![2, 1]),
                (format!("diffusion_model.{name}.lora_B.weight"), vec![1, 2]),
                (format!("diffusion_model.{name}.alpha"), vec![]),
            ];
            for (name, shape) in all {
                let len = shape.iter().product();
                let data = burn::tensor::TensorData::new(vec![value; len], [len]);
                let flat = burn::tensor::Tensor::from_data(data, &Device::flex());
                tensors.0.insert(name, crate::models::params::Param { flat, shape });
            }
        }
        let read = Adapter::from_diffusers(&tensors.to_safetensors(Dtype::F32, None)).unwrap();
        assert!((read.scale() - 1.0).abs() < 1e-9);
        assert_eq!(values(&read, "a.lora_B.weight"), [0.5, 0.5], "1 of rank 2");
        assert_eq!(values(&read, "b.lora_B.weight"), [2.0, 2.0], "2 of rank 2");
    }

    /// The tensors of modules named by letters, each of a rank and with one value in both factors.
    fn of_ranks(modules: &[(&str, usize, f32)]) -> Vec<(String, Param)> {
        let factor = |name: String, shape: [usize; 2], value: f32| {
            let values = vec![value; shape[0] * shape[1]];
            (name, crate::models::lora::param(values, shape, &Device::flex()))
        };
        let both = |(name, rank, value): &(&str, usize, f32)| {
            [
                factor(format!("transformer.{name}.lora_A.weight"), [*rank, 3], *value),
                factor(format!("transformer.{name}.lora_B.weight"), [2, *rank], *value),
            ]
        };
        modules.iter().flat_map(both).collect()
    }

    /// `scale * B A` of a module at every element, which all are equal here.
    fn change(adapter: &Adapter, module: &str) -> f64 {
        let (a, b) = adapter.factors(module).unwrap();
        let [rank, input] = a.shape[..] else { panic!("{:?}", a.shape) };
        assert_eq!(b.shape, [2, rank]);
        let (a, b) = (f32s(a), f32s(b));
        let sum: f32 = (0..rank).map(|k| b[k] * a[k * input]).sum();
        f64::from(sum) * adapter.scale()
    }

    fn is_near(found: [f64; 3], wanted: [f64; 3]) -> bool {
        found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-6)
    }

    #[test]
    fn ranks_and_alphas_may_differ_between_branches() {
        let modules = [("blocks.0.q", 2, 1.0), ("blocks.0.k", 4, 1.0), ("blocks.1.q", 1, 3.0)];
        let tensors = Params(of_ranks(&modules).into_iter().collect());
        let read = |settings: Option<&str>| {
            let metadata = settings.map(|text| [(METADATA.to_owned(), text.to_owned())].into());
            let bytes = tensors.to_safetensors(Dtype::F32, metadata);
            let read = Adapter::from_diffusers(&bytes).unwrap();
            assert_eq!(read.rank, 4);
            // What is written does the same.
            let again = Adapter::from_diffusers(&read.to_diffusers()).unwrap();
            let of = |adapter: &Adapter| {
                ["blocks.0.q", "blocks.0.k", "blocks.1.q"].map(|module| change(adapter, module))
            };
            assert!(is_near(of(&again), of(&read)));
            of(&again)
        };
        assert!(is_near(read(None), [2.0, 4.0, 9.0]), "scale 1, whatever the rank");
        let ranks = r#""transformer.r": 2, "transformer.lora_alpha": 1,
            "transformer.rank_pattern": {"k": 4, "blocks\\.1\\.q": 1}"#;
        assert!(
            is_near(read(Some(&format!("{{{ranks}}}"))), [1.0, 1.0, 9.0]),
            "alpha 1 of each rank"
        );
        let alphas = r#""transformer.alpha_pattern": {"k": 2, "blocks.1.q": 0.5}"#;
        assert!(is_near(read(Some(&format!("{{{ranks}, {alphas}}}"))), [1.0, 2.0, 4.5]));
        let root = r#""transformer.use_rslora": true"#;
        let by_root = read(Some(&format!("{{{ranks}, {root}}}")));
        assert!(is_near(by_root, [2.0 / 2.0_f64.sqrt(), 4.0 / 2.0, 9.0]), "{by_root:?}");
    }
}
