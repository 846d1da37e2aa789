//! Adapters as the files that other programs load.
//!
//! Diffusers' `pytorch_lora_weights.safetensors` holds `transformer.<module>.lora_A.weight`
//! `[rank, in]` and `.lora_B.weight` `[out, rank]`. The scale stands in the header, as JSON under
//! `lora_adapter_metadata`; a file without it is taken at scale 1, so it is always written.

use serde_json::{Map, Value, json};

use super::{
    Adapter, LoraFamily, f32s,
    names::{METADATA, ORIGINAL, PEFT, TRANSFORMER, to_original},
};

impl Adapter {
    /// The file diffusers loads, with the scale in its header. Equal adapters give equal bytes.
    pub fn to_diffusers(&self) -> Vec<u8> {
        let settings = json!({
            "transformer.lora_alpha": self.stated_alpha(),
            "transformer.r": self.rank,
            "transformer.target_modules": self.modules(),
        });
        self.to_safetensors(TRANSFORMER, &[("format", "pt"), (METADATA, &settings.to_string())])
    }

    /// The file ComfyUI loads at strength 1, with the scale in `B`.
    ///
    /// LTX-Video has a loader of ComfyUI's own, which wants the original names; diffusers reads
    /// such a file too, but passes over the modules that have another name there (`all_linear`).
    /// CogVideoX has that of its wrapper, which reads diffusers' file and takes any at scale 1.
    pub fn to_comfyui(&self, family: LoraFamily) -> Vec<u8> {
        let mut baked = self.bake_alpha();
        if family != LoraFamily::LtxVideo {
            return baked.to_diffusers();
        }
        let factors = std::mem::take(&mut baked.factors.0);
        baked.factors.0 =
            factors.into_iter().map(|(name, param)| (to_original(&name), param)).collect();
        baked.to_safetensors(ORIGINAL, &[("format", "pt")])
    }

    /// The files `adapter_config.json` and `adapter_model.safetensors` that peft loads.
    pub fn to_peft(&self) -> (Vec<u8>, Vec<u8>) {
        let config = json!({
            "peft_type": "LORA",
            "base_model_name_or_path": null,
            "r": self.rank,
            "lora_alpha": self.stated_alpha(),
            "target_modules": self.modules(),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        });
        let config = serde_json::to_vec_pretty(&config).expect("a JSON value is valid JSON");
        (config, self.to_safetensors(PEFT, &[("format", "pt")]))
    }

    /// Alpha, as a whole number where it is one.
    fn stated_alpha(&self) -> Value {
        if self.alpha.fract() == 0.0 { json!(self.alpha as i64) } else { json!(self.alpha) }
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
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use safetensors::SafeTensors;

    use super::*;
    use crate::models::lora::{
        param,
        tests::{base, trained, values},
    };

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
        let read = Adapter::from_diffusers(&adapter.to_comfyui(LoraFamily::CogVideoX)).unwrap();
        assert!((read.scale() - 1.0).abs() < f64::EPSILON);
        let b = "blocks.0.attn1.to_q.lora_B.weight";
        let halved: Vec<f32> = values(&adapter, b).iter().map(|v| v * 0.5).collect();
        assert_eq!(values(&read, b), halved);
    }

    #[test]
    fn comfyui_sees_the_original_names() {
        let mut base = base();
        for name in ["proj_in.weight", "time_embed.linear.weight", "blocks.0.attn2.to_q.weight"] {
            base.0.insert(name.to_owned(), param(vec![0.0; 24], [6, 4], &Device::flex()));
        }
        let targets = ["to_q", "proj_in", r"time_embed\.linear"];
        let adapter = Adapter::new_fresh(&base, &targets, 3, 3.0, 7, &Device::flex()).unwrap();
        assert_eq!(adapter.family().unwrap(), Some(LoraFamily::LtxVideo));
        let bytes = adapter.to_comfyui(LoraFamily::LtxVideo);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for module in
            ["patchify_proj", "adaln_single.linear", "blocks.0.attn1.to_q", "blocks.0.attn2.to_q"]
        {
            let name = format!("diffusion_model.{module}.lora_A.weight");
            assert!(file.tensor(&name).is_ok(), "{name}");
        }
        assert_eq!(Adapter::from_diffusers(&bytes).unwrap().modules(), adapter.modules());
    }

    #[test]
    fn cogvideox_in_comfyui_takes_the_file_of_diffusers_at_scale_one() {
        let bytes = trained().to_comfyui(LoraFamily::CogVideoX);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert!(header.tensors().contains_key("transformer.blocks.0.attn1.to_q.lora_A.weight"));
        let settings = &header.metadata().as_ref().unwrap()[METADATA];
        let settings: Value = serde_json::from_str(settings).unwrap();
        assert_eq!(settings["transformer.lora_alpha"], settings["transformer.r"]);
    }

    #[test]
    fn files_for_peft_are_read_back() {
        let adapter = trained();
        let (config, weights) = adapter.to_peft();
        let read = Adapter::from_peft(&config, &weights).unwrap();
        assert_eq!((read.rank, read.alpha), (3, 1.5));
        for name in adapter.factors.0.keys() {
            assert_eq!(values(&read, name), values(&adapter, name), "{name}");
        }
    }
}
