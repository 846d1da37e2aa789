//! Adapters combined and merged against peft, and predictions with adapters of peft; see
//! `tests/golden/lora_merge` and `tests/golden/lora`.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, FloatDType, Tensor};
use pipe::models::{
    Adapter, DenoiserInput, ParamReader, Params, TimeAxis, VideoDiffusion, cogvideox::CogVideoX,
    lora::Combination, ltx_video::LtxVideo, params::Dtype,
};
use safetensors::SafeTensors;

use crate::golden::{Golden as Fixture, assert_below, assert_close, device, relative_error};

struct Golden {
    tensors: Params,
    alphas: BTreeMap<String, f64>,
}

impl Golden {
    fn read() -> Self {
        let path = "tests/golden/lora_merge/expected.safetensors";
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let stated = header.metadata().clone().unwrap();
        let mut tensors = Params::default();
        tensors.read_safetensors(&bytes, path, &Device::flex(), FloatDType::F32).unwrap();
        Self {
            tensors,
            alphas: stated.into_iter().map(|(name, text)| (name, text.parse().unwrap())).collect(),
        }
    }

    /// The tensors below a name, without it.
    fn below(&self, group: &str) -> Params {
        let prefix = format!("{group}.");
        let tensors = self.tensors.0.iter();
        Params(
            tensors
                .filter_map(|(name, param)| {
                    Some((name.strip_prefix(&prefix)?.to_owned(), param.clone()))
                })
                .collect(),
        )
    }

    /// An adapter as peft's two files give it.
    fn adapter(&self, name: &str, rank: usize) -> Adapter {
        let config = format!(r#"{{"r": {rank}, "lora_alpha": {}}}"#, self.alphas[name]);
        let weights = self.below(name).to_safetensors(Dtype::F32, None);
        Adapter::from_peft(config.as_bytes(), &weights).unwrap()
    }

    fn three(&self) -> [(Adapter, f64); 3] {
        [("one", 3, 0.75), ("two", 3, -0.5), ("three", 2, 1.25)]
            .map(|(name, rank, weight)| (self.adapter(name, rank), weight))
    }
}

/// The largest difference, in parts of the largest value.
fn error(found: &Tensor<1>, wanted: &Tensor<1>) -> f32 {
    let scale: f32 = wanted.clone().abs().max().into_scalar();
    let difference: f32 = (found.clone() - wanted.clone()).abs().max().into_scalar();
    difference / scale
}

#[test]
fn combined_factors_are_those_of_peft() {
    let golden = Golden::read();
    let three = golden.three();
    for (how, parts) in [(Combination::Cat, &three[..]), (Combination::Linear, &three[..2])] {
        let name = if how == Combination::Cat { "cat" } else { "linear" };
        let made = Adapter::combine(parts, how, None).unwrap().adapter;
        let wanted = golden.below(name);
        let rank = wanted.0.values().next().unwrap().shape[0];
        assert_eq!((made.rank, made.alpha), (rank, rank as f64), "{name}");
        for (key, param) in &wanted.0 {
            let key = key.strip_prefix("base_model.model.").unwrap();
            let error = error(&made.factors.0[key].flat, &param.flat);
            assert_below(&format!("{name} {key}"), error, 1e-6);
        }
    }
}

#[test]
fn a_decomposition_adds_what_that_of_peft_adds() {
    let golden = Golden::read();
    let made = Adapter::combine(&golden.three(), Combination::Svd, Some(4)).unwrap();
    assert!((0.5..1.0).contains(&made.kept), "{}", made.kept);
    for (module, param) in golden.below("svd").0 {
        let (a, b) = made.adapter.factors(&module).unwrap();
        let change = b.tensor::<2>().matmul(a.tensor::<2>()).reshape([-1]);
        let error = error(&change, &param.flat);
        assert_below(&format!("svd {module}"), error, 1e-5);
    }
}

#[test]
fn a_merged_model_has_the_weights_of_peft() {
    let golden = Golden::read();
    let mut base = golden.below("base");
    golden.adapter("one", 3).merge_into(&mut base).unwrap();
    for (name, param) in golden.below("merged").0 {
        let error = error(&base.0[&name].flat, &param.flat);
        assert_below(&format!("merged {name}"), error, 1e-6);
    }
}

/// Adapters of peft with what it states beside their tensors: scales by the root of the rank, and
/// ranks and alphas of some modules. Our prediction with them is peft's, in the branches and
/// merged.
fn predicts_as_peft(family: &dyn VideoDiffusion, name: &str, base: &str) {
    let (base, peft) = (Fixture::fixture(base), Fixture::fixture(&format!("lora/{name}")));
    let latents = base.tensor("latents");
    let image = if base.has("image") {
        base.tensor("image")
    } else {
        Tensor::clone(&latents).narrow(2, 0, 1)
    };
    let (text, timesteps) = (base.tensor("text"), base.values("timesteps").0);
    let input = DenoiserInput { latents, image, text, timesteps, time: TimeAxis::default() };
    let predict = |weights: &Params, adapter: Option<&Adapter>| {
        let reader = ParamReader::loaded(weights, adapter);
        family.denoiser(&base.config(), &reader).unwrap().forward(&input)
    };
    let cases = peft.config();
    assert_eq!(cases.as_object().unwrap().len(), 4);
    for (case, config) in cases.as_object().unwrap() {
        let factors = peft.params(&format!("{case}.factors.")).to_safetensors(Dtype::F32, None);
        let adapter = Adapter::from_peft(config.to_string().as_bytes(), &factors).unwrap();
        let wanted = peft.tensor(&format!("{case}.out"));
        let moved = relative_error(base.tensor("out"), &wanted);
        assert!(moved > 0.1, "{name} {case}: the adapter moves the prediction by {moved}");
        let mut weights = base.weights();
        let found = predict(&weights, Some(&adapter.to_device(&device())));
        assert_close(&format!("{name} {case}"), found, &wanted, 2e-5);
        adapter.merge_into(&mut weights).unwrap();
        assert_close(&format!("{name} {case}, merged"), predict(&weights, None), &wanted, 2e-5);
    }
}

#[test]
fn cogvideox_predicts_with_adapters_of_peft_as_peft() {
    predicts_as_peft(&CogVideoX, "cogvideox", "transformer/15");
}

#[test]
fn ltx_video_predicts_with_adapters_of_peft_as_peft() {
    predicts_as_peft(&LtxVideo, "ltx_video", "ltx_video/transformer");
}
