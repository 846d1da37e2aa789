//! Adapter files of diffusers, peft and ComfyUI.
//!
//! The scale of a branch is that of the header or of `adapter_config.json` (`settings`), where one
//! of them states it, else that of the tensor `<module>.alpha`, else 1. An [`Adapter`] has one rank
//! and one alpha: branches of a lower rank are filled up with zeros, and scales that differ go into
//! the factors, neither of which changes what the adapter does.

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType, Tensor};

use super::{
    super::params::{LoadError, Param, Params},
    Adapter,
    branches::branches,
    error, error_with, f32s,
    names::{DIFFUSERS, KOHYA, PEFT, from_any},
    no_part,
    settings::Settings,
};

/// What can be done about names without dots.
const UNDERSCORES: &str = "save it by the names of diffusers, such as \
     `transformer.transformer_blocks.0.attn1.to_q.lora_A.weight`";

/// What can be done about branches of convolutions.
const CONVOLUTION: &str = "merge it into the model with the program that trained it, and name the merged folder as \
     `model`; or train without `proj` among the target modules";

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
}

/// What an adapter is for, by the names and shapes of its tensors alone: its factors without their
/// values, which must go together as those of an adapter that is read.
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
pub(super) fn check_finite(tensors: &Params) -> Result<(), LoadError> {
    match tensors.not_finite() {
        None => Ok(()),
        Some(name) => Err(LoadError::NotFinite {
            message: format!("`{name}` holds values that are not finite numbers"),
            help: "the training that made it has diverged: take a file that it saved earlier",
        }),
    }
}

/// The factors by their names here, and the alphas of modules; `alpha` is the value of a tensor of
/// one number.
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
        if param.shape.len() > 2 {
            let message = format!(
                "`{name}` is of a convolution, {:?}: adapters of linear layers alone are supported",
                param.shape
            );
            return Err(error_with(message, CONVOLUTION));
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::models::lora::{names::METADATA, tests::trained};

    /// A safetensors file of f32 tensors.
    pub fn file(tensors: &[(&str, &[usize])], metadata: Option<&str>) -> Vec<u8> {
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

    pub fn message(bytes: &[u8]) -> String {
        Adapter::from_diffusers(bytes).unwrap_err().to_string()
    }

    #[test]
    fn branches_of_convolutions_are_refused() {
        let tensors = [
            ("patch_embed.proj.lora_A.weight", &[4, 16, 2, 2][..]),
            ("patch_embed.proj.lora_B.weight", &[8, 4, 1, 1]),
        ];
        let error = Adapter::from_diffusers(&file(&tensors, None)).unwrap_err();
        insta::assert_snapshot!(error, @"`pytorch_lora_weights.safetensors`: `patch_embed.proj.lora_A.weight` is of a convolution, [4, 16, 2, 2]: adapters of linear layers alone are supported");
        assert_eq!(error.help(), Some(CONVOLUTION));
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
}
