//! Adapter files of diffusers, peft and ComfyUI.
//!
//! The scale is that of the header or of `adapter_config.json`, where one of them states it, else that
//! of the tensors `<module>.alpha`, else 1. Adapters of peft whose scale is by the root of the rank
//! (`use_rslora`) get the alpha that says the same here.

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType};
use safetensors::SafeTensors;
use serde_json::{Map, Value};

use super::{
    super::params::{LoadError, Params},
    Adapter, error, f32s,
    names::{DIFFUSERS, METADATA, from_any},
};

impl Adapter {
    /// Reads an adapter file, onto the CPU; see the head of this module for the forms.
    pub fn from_diffusers(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::read(Settings::of_header(bytes)?, bytes)
    }

    /// Reads the two files of peft: `adapter_config.json` and `adapter_model.safetensors`.
    pub fn from_peft(config: &[u8], weights: &[u8]) -> Result<Self, LoadError> {
        let config: Map<String, Value> = serde_json::from_slice(config)
            .map_err(|e| error(format!("`adapter_config.json` is not a JSON object: {e}")))?;
        Self::read(Settings::read(&config, "`adapter_config.json`")?, weights)
    }

    fn read(settings: Settings, bytes: &[u8]) -> Result<Self, LoadError> {
        let mut tensors = Params::default();
        tensors.read_safetensors(bytes, DIFFUSERS, &Device::flex(), FloatDType::F32)?;

        let mut factors = Params::default();
        let mut alphas = BTreeMap::new();
        for (name, param) in tensors.0 {
            let name = from_any(&name);
            if let Some(module) = name.strip_suffix(".alpha") {
                let [value] = f32s(&param)[..] else {
                    return Err(error(format!("`{name}` must be one number")));
                };
                alphas.insert(module.to_owned(), f64::from(value));
                continue;
            }
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
        if let Some(stated) = settings.rank
            && stated != rank
        {
            return Err(error(format!(
                "the settings state rank {stated}, but the tensors have {rank}"
            )));
        }
        let mut adapter = Self { rank, alpha: settings.alpha.unwrap_or(rank as f64), factors };
        if settings.alpha.is_none() && !alphas.is_empty() {
            adapter.take_alphas(&alphas)?;
        }
        Ok(adapter)
    }

    /// Takes the alpha of each module: as the adapter's where they are one, else into the factors.
    fn take_alphas(&mut self, alphas: &BTreeMap<String, f64>) -> Result<(), LoadError> {
        let modules: Vec<String> = self.modules().into_iter().map(str::to_owned).collect();
        let mut found = Vec::new();
        for module in &modules {
            let alpha = alphas
                .get(module)
                .ok_or_else(|| error(format!("`{module}` has no alpha, but others have")))?;
            if !alpha.is_finite() {
                return Err(error(format!("the alpha of `{module}` must be a finite number")));
            }
            found.push(*alpha);
        }
        if found.iter().all(|alpha| alpha.to_bits() == found[0].to_bits()) {
            self.alpha = found[0];
            return Ok(());
        }
        for (module, alpha) in modules.iter().zip(found) {
            let b = self.factors.0.get_mut(&format!("{module}.lora_B.weight")).expect("has both");
            b.flat = b.flat.clone() * (alpha / self.rank as f64);
        }
        self.alpha = self.rank as f64;
        Ok(())
    }
}

/// What stands beside the tensors of the scale.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    rank: Option<usize>,
    alpha: Option<f64>,
}

impl Settings {
    /// Of diffusers' header, where there is one.
    fn of_header(bytes: &[u8]) -> Result<Self, LoadError> {
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|source| LoadError::Format { file: DIFFUSERS.to_owned(), source })?;
        let Some(text) = header.metadata().as_ref().and_then(|map| map.get(METADATA)) else {
            return Ok(Self::default());
        };
        let settings: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| error(format!("the header's `{METADATA}` is not a JSON object: {e}")))?;
        Self::read(&settings, &format!("the header's `{METADATA}`"))
    }

    fn read(settings: &Map<String, Value>, place: &str) -> Result<Self, LoadError> {
        let get =
            |key: &str| settings.get(&format!("transformer.{key}")).or_else(|| settings.get(key));
        for key in ["rank_pattern", "alpha_pattern"] {
            if get(key).and_then(Value::as_object).is_some_and(|pattern| !pattern.is_empty()) {
                return Err(error(format!(
                    "`{key}` is not supported: all branches must share rank and alpha"
                )));
            }
        }
        let is_set = |key: &str| get(key).and_then(Value::as_bool) == Some(true);
        if is_set("use_dora") {
            return Err(error("`use_dora` is not supported: only plain low-rank adapters are"));
        }
        let alpha = get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
        let rank = get("r").and_then(Value::as_u64).map(|rank| rank as usize);
        let (Some(alpha), Some(rank)) = (alpha, rank) else {
            return Err(error(format!("{place} must state `r` and `lora_alpha`")));
        };
        // There the scale is alpha by the root of the rank, here by the rank.
        let alpha = if is_set("use_rslora") { alpha * (rank as f64).sqrt() } else { alpha };
        Ok(Self { rank: Some(rank), alpha: Some(alpha) })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::lora::tests::{trained, values};

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

        let kohya = [
            ("transformer.b.to_q.lora_down.weight", &[2, 4][..]),
            ("transformer.b.to_q.lora_up.weight", &[6, 2]),
            ("transformer.b.to_q.alpha", &[1]),
        ];
        let read = Adapter::from_diffusers(&file(&kohya, None)).unwrap();
        assert_eq!(read.modules().into_iter().collect::<Vec<_>>(), ["b.to_q"]);
        let flat = [("lora_unet_b_to_q.lora_down.weight", &[2, 4][..])];
        assert!(message(&file(&flat, None)).contains("has no `lora_unet_b_to_q.lora_B.weight`"));
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
        assert!(message(&file(&[a, b], Some(rank))).contains("state rank 4"));
        assert!(message(&file(&[a, b], Some("{}"))).contains("must state `r`"));
        let dora =
            r#"{"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.use_dora": true}"#;
        assert!(message(&file(&[a, b], Some(dora))).contains("use_dora"));
        for key in ["rank_pattern", "alpha_pattern"] {
            let pattern = format!(
                r#"{{"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.{key}": {{"q": 4}}}}"#
            );
            assert!(message(&file(&[a, b], Some(&pattern))).contains("must share rank and alpha"));
        }
        assert!(message(&file(&[], None)).contains("no low-rank factors"));
        let empty = [("q.lora_A.weight", &[0, 4][..]), ("q.lora_B.weight", &[6, 0][..])];
        assert!(message(&file(&empty, None)).contains("one rank"));
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
}
