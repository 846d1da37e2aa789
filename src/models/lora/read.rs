//! Adapter files of diffusers, peft and ComfyUI.
//!
//! The scale of a branch is that of the header or of `adapter_config.json` (`settings`), where one of them
//! states it, else that of the tensor `<module>.alpha`, else 1. An [`Adapter`] has one rank and one
//! alpha: branches of a lower rank are filled up with zeros, and scales that differ go into the factors,
//! neither of which changes what the adapter does.

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, Tensor};

use super::{
    super::params::{LoadError, Param, Params},
    Adapter, error, error_with, f32s,
    names::{DIFFUSERS, KOHYA, PEFT, from_any},
    no_part,
    settings::{Branch, Settings},
};

/// How many times the values of a file the factors may be once all are filled up to the highest rank.
const MOST_FILLED_UP: u128 = 64;

/// What can be done about names without dots.
const UNDERSCORES: &str = "save it by the names of diffusers, such as \
     `transformer.transformer_blocks.0.attn1.to_q.lora_A.weight`";

impl Adapter {
    /// Reads an adapter file, onto the CPU; see the head of this module for the forms.
    pub fn from_diffusers(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::read(&Settings::of_header(bytes)?, bytes)
    }

    /// Reads the two files of peft: `adapter_config.json` and `adapter_model.safetensors`.
    pub fn from_peft(config: &[u8], weights: &[u8]) -> Result<Self, LoadError> {
        Self::read(&Settings::of_peft(config)?, weights)
    }

    fn read(settings: &Settings, bytes: &[u8]) -> Result<Self, LoadError> {
        let mut tensors = Params::default();
        tensors.read_safetensors(bytes, DIFFUSERS, &Device::flex(), FloatDType::F32)?;
        check_finite(&tensors)?;
        let (factors, alphas) = sorted(tensors, settings, |param| match f32s(param)[..] {
            [value] => Some(f64::from(value)),
            _ => None,
        })?;
        let branches = branches(&factors, settings, &alphas)?;
        Self::of_branches(factors, &branches)
    }

    /// One adapter of branches whose ranks and alphas may differ.
    fn of_branches(
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

    fn factor(&mut self, module: &str, letter: char) -> &mut Param {
        let name = format!("{module}.lora_{letter}.weight");
        self.factors.0.get_mut(&name).expect("a branch has both factors")
    }
}

/// What an adapter is for, by the names and shapes of its tensors alone: its factors without their values,
/// which must go together as those of an adapter that is read.
pub(super) fn outline(
    shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
    settings: &Settings,
) -> Result<Adapter, LoadError> {
    let nothing = Tensor::zeros([1], &Device::flex());
    let tensors =
        shapes.into_iter().map(|(name, shape)| (name, Param { flat: nothing.clone(), shape }));
    let one = |param: &Param| (param.shape.iter().product::<usize>() == 1).then_some(1.0);
    let (factors, alphas) = sorted(Params(tensors.collect()), settings, one)?;
    let branches = branches(&factors, settings, &alphas)?;
    let rank = branches.values().map(|branch| branch.rank).max();
    let rank = rank.ok_or_else(|| error("the file holds no low-rank factors"))?;
    Ok(Adapter { rank, alpha: rank as f64, factors })
}

/// An adapter whose training diverged makes everything that no number any more.
fn check_finite(tensors: &Params) -> Result<(), LoadError> {
    match tensors.not_finite() {
        None => Ok(()),
        Some(name) => Err(LoadError::NotFinite {
            message: format!("`{name}` holds values that are not finite numbers"),
            help: "the training that made it has diverged: take a file that it saved earlier",
        }),
    }
}

/// The factors by their names here, and the alphas of modules; `alpha` is the value of a tensor of one number.
fn sorted(
    tensors: Params,
    settings: &Settings,
    alpha: impl Fn(&Param) -> Option<f64>,
) -> Result<(Params, BTreeMap<String, f64>), LoadError> {
    let is_peft = tensors.0.keys().any(|name| name.starts_with(PEFT));
    let mut factors = Params::default();
    let mut alphas = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (found, param) in tensors.0 {
        if KOHYA.iter().any(|start| found.starts_with(start)) {
            let message = format!(
                "`{found}` is named as kohya's programs name tensors, where underscores stand for dots: that \
                 is not supported"
            );
            return Err(error_with(message, UNDERSCORES));
        }
        let name = from_any(&found);
        if let Some(other) = seen.insert(name.clone(), found.clone()) {
            return Err(error(format!("`{other}` and `{found}` are both `{name}`")));
        }
        if let Some(module) = name.strip_suffix(".alpha") {
            let value = alpha(&param);
            let value = value.ok_or_else(|| error(format!("`{name}` must be one number")))?;
            alphas.insert(module.to_owned(), value);
            continue;
        }
        if !name.ends_with(".lora_A.weight") && !name.ends_with(".lora_B.weight") {
            return Err(no_part(&name));
        }
        if param.shape.len() != 2 {
            return Err(error(format!(
                "`{name}` must have 2 dimensions, but is {:?}",
                param.shape
            )));
        }
        if param.shape.contains(&0) {
            return Err(error(format!(
                "`{name}` must have dimensions of at least 1, but is {:?}",
                param.shape
            )));
        }
        factors.0.insert(name, param);
    }
    if is_peft && !settings.is_stated() && alphas.is_empty() {
        return Err(error(
            "the names are peft's, whose scale stands in `adapter_config.json`: name the file \
             `adapter_model.safetensors` and keep the other beside it",
        ));
    }
    Ok((factors, alphas))
}

/// The rank and alpha of each module's branch.
fn branches(
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

/// Refuses branches of ranks so far apart that they could not be filled up to one in memory. What a file may hold
/// of a rank is not bounded: peft trains ranks above the sizes of a layer, and merges add ranks up.
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
    use super::*;
    use crate::models::lora::{
        names::METADATA,
        tests::{trained, values},
    };

    /// A safetensors file of f32 tensors.
    fn file(tensors: &[(&str, &[usize])], metadata: Option<&str>) -> Vec<u8> {
        let zeros = vec![0_u8; 8192];
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
    fn names_and_alphas_of_other_tools_are_read() {
        let peft = [
            ("base_model.model.b.to_q.lora_A.default.weight", &[2, 4][..]),
            ("base_model.model.b.to_q.lora_B.default.weight", &[6, 2]),
        ];
        assert!(message(&file(&peft, None)).contains("`adapter_config.json`"));
        let config = br#"{"r": 2, "lora_alpha": 3}"#;
        let read = Adapter::from_peft(config, &file(&peft, None)).unwrap();
        assert_eq!((read.rank, read.alpha), (2, 3.0));
        assert!(read.modules().contains("b.to_q"));

        let plain = [("b.to_q.lora_A.weight", &[2, 4][..]), ("b.to_q.lora_B.weight", &[6, 2])];
        let read = Adapter::from_diffusers(&file(&plain, None)).unwrap();
        assert_eq!((read.rank, read.alpha), (2, 2.0), "no alpha means scale 1");

        let comfy = [
            ("diffusion_model.b.to_q.lora_A.weight", &[2, 4][..]),
            ("diffusion_model.b.to_q.lora_B.weight", &[6, 2]),
            ("diffusion_model.b.to_q.alpha", &[]),
        ];
        assert!(Adapter::from_diffusers(&file(&comfy, None)).unwrap().alpha.abs() < f64::EPSILON);

        let kohya = [
            ("transformer.b.to_q.lora_down.weight", &[2, 4][..]),
            ("transformer.b.to_q.lora_up.weight", &[6, 2]),
            ("transformer.b.to_q.alpha", &[1]),
        ];
        let read = Adapter::from_diffusers(&file(&kohya, None)).unwrap();
        assert_eq!(read.modules().into_iter().collect::<Vec<_>>(), ["b.to_q"]);
        let flat = [("lora_unet_b_to_q.lora_down.weight", &[2, 4][..])];
        insta::assert_snapshot!(message(&file(&flat, None)), @"`pytorch_lora_weights.safetensors`: `lora_unet_b_to_q.lora_down.weight` is named as kohya's programs name tensors, where underscores stand for dots: that is not supported");
    }

    #[test]
    fn dora_is_told_by_its_magnitudes_with_what_helps() {
        let (a, b) = (("q.lora_A.weight", &[2, 4][..]), ("q.lora_B.weight", &[6, 2][..]));
        for name in ["q.lora_magnitude_vector", "q.dora_scale"] {
            let error = Adapter::from_diffusers(&file(&[a, b, (name, &[6])], None)).unwrap_err();
            let told = "is of DoRA, but only plain low-rank adapters are supported";
            assert!(error.to_string().ends_with(&format!("`{name}` {told}")), "{error}");
            assert!(error.help().unwrap().starts_with("merge it into its model"));
        }
        let settings =
            r#"{"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.use_dora": true}"#;
        let error = Adapter::from_diffusers(&file(&[a, b], Some(settings))).unwrap_err();
        let help = error.help().unwrap();
        assert!(help.starts_with("merge it") && !help.contains("conversion"), "{help}");
    }

    #[test]
    fn files_that_disagree_with_themselves_are_errors() {
        let a = ("transformer.q.lora_A.weight", &[2, 4][..]);
        let b = ("transformer.q.lora_B.weight", &[6, 2][..]);
        assert!(message(&file(&[a], None)).contains("has no `q.lora_B.weight`"));
        let wide = ("transformer.q.lora_B.weight", &[6, 3][..]);
        assert!(message(&file(&[a, wide], None)).contains("share a rank"));
        let flat = ("transformer.q.lora_B.weight", &[6][..]);
        assert!(message(&file(&[a, flat], None)).contains("2 dimensions"));
        assert!(
            message(&file(&[a, b, ("transformer.q.dora_scale", &[6])], None))
                .contains("dora_scale")
        );
        let rank = r#"{"transformer.r": 4, "transformer.lora_alpha": 4}"#;
        assert!(message(&file(&[a, b], Some(rank))).contains("state rank 4 for `q`"));
        assert!(message(&file(&[a, b], Some("{}"))).contains("must state `r`"));
        let again = ("q.lora_A.weight", &[2, 4][..]);
        assert!(message(&file(&[a, b, again], None)).contains("are both `q.lora_A.weight`"));
        for odd in [
            r#""use_dora": true"#,
            r#""init_lora_weights": "pissa_niter_4""#,
            r#""init_lora_weights": "olora""#,
            r#""layer_replication": [[0, 2]]"#,
            r#""use_qalora": true"#,
            r#""bias": "all""#,
            r#""fan_in_fan_out": true"#,
            r#""peft_type": "LOHA""#,
            r#""something_new": 1"#,
        ] {
            let settings = format!(
                r#"{{"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.{}}}"#,
                &odd[1..]
            );
            let told = message(&file(&[a, b], Some(&settings)));
            assert!(told.contains("only plain low-rank adapters"), "{odd}: {told}");
        }
        for (pattern, wanted) in [
            (r#""rank_pattern": {"q": 4}"#, "state rank 4 for `q`"),
            (r#""rank_pattern": {"q": 2.5}"#, "`rank_pattern` has the value 2.5 for `q`"),
            (r#""rank_pattern": {"(": 2}"#, "`(` in `rank_pattern` is no regular expression"),
            (r#""alpha_pattern": [1]"#, "`alpha_pattern` must be a JSON object"),
            (r#""alpha_pattern": {"q": 1, ".": 2}"#, "`.` and `q` both name `q`"),
        ] {
            let text = format!(
                r#"{{"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.{}}}"#,
                &pattern[1..]
            );
            let told = message(&file(&[a, b], Some(&text)));
            assert!(told.contains(wanted), "{told}");
        }
        assert!(message(&file(&[], None)).contains("no low-rank factors"));
        let empty = [("q.lora_A.weight", &[0, 4][..]), ("q.lora_B.weight", &[6, 0][..])];
        assert!(message(&file(&empty, None)).contains("at least 1"));
    }

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
    fn the_settings_that_peft_writes_are_read() {
        let tensors = [
            ("base_model.model.q.lora_A.weight", &[3, 4][..]),
            ("base_model.model.q.lora_B.weight", &[6, 3]),
        ];
        // As `LoraConfig(r=3, target_modules=["q"]).save_pretrained` of peft 0.21.2 writes them.
        let config = br#"{"task_type": null, "peft_type": "LORA", "auto_mapping": null, "peft_version": "0.21.2",
            "base_model_name_or_path": null, "revision": null, "inference_mode": true, "r": 3,
            "target_modules": ["q"], "exclude_modules": null, "lora_alpha": 8, "lora_dropout": 0.0,
            "fan_in_fan_out": false, "bias": "none", "use_rslora": false, "modules_to_save": null,
            "init_lora_weights": true, "layers_to_transform": null, "layers_pattern": null, "rank_pattern": {},
            "alpha_pattern": {}, "megatron_config": null, "megatron_core": "megatron.core",
            "trainable_token_indices": null, "loftq_config": {}, "eva_config": null, "corda_config": null,
            "lora_ga_config": null, "use_dora": false, "velora_config": null, "alora_invocation_tokens": null,
            "use_qalora": false, "qalora_group_size": 16, "monteclora_config": null, "layer_replication": null,
            "lora_bias": false, "target_parameters": null, "use_bdlora": null, "arrow_config": null,
            "kasa_config": null, "ensure_weight_tying": false}"#;
        let read = Adapter::from_peft(config, &file(&tensors, None)).unwrap();
        assert_eq!((read.rank, read.alpha), (3, 8.0));
    }

    #[test]
    fn values_that_are_no_numbers_are_errors_that_name_their_tensor() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut adapter = trained();
            let b = adapter.factor("blocks.0.attn1.to_q", 'B');
            b.flat = b.flat.clone() + value;
            insta::allow_duplicates! {
                insta::assert_snapshot!(message(&adapter.to_diffusers()), @"`transformer.blocks.0.attn1.to_q.lora_B.weight` holds values that are not finite numbers");
            }
        }
    }

    #[test]
    fn cut_files_are_errors() {
        let bytes = trained().to_diffusers();
        for len in (0..bytes.len()).step_by(7) {
            assert!(Adapter::from_diffusers(&bytes[..len]).is_err(), "{len} bytes");
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
        let read = Adapter::from_diffusers(&tensors.to_safetensors(false, None)).unwrap();
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
            let bytes = tensors.to_safetensors(false, metadata);
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
