//! Text encoders, tokenizers, schedulers, noise and adapters against a folder of reference values
//! made elsewhere.
//!
//! `PIPE_GOLDEN_DIR=... cargo test --test it external_golden_text -- --ignored`

use std::path::Path;

use burn::tensor::{FloatDType, Int, Tensor, TensorData};
use pipe::{
    models::{
        Adapter, LoraTargets, ModelCache, ModelRef, ModelSource, Params, Sampler, family,
        t5::{T5Tokenizer, TokenizerFiles},
    },
    rng::TorchRng,
};
use safetensors::SafeTensors;

use crate::golden::{device, stage_tolerance, tolerance};

const MODELS: [&str; 4] = ["cogvideox15", "cogvideox10", "ltx09", "ltx091"];

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn tensor<const D: usize>(file: &SafeTensors<'_>, name: &str) -> Tensor<D> {
    let view = file.tensor(name).unwrap();
    let data = TensorData::new(f32s(view.data()), view.shape().to_vec());
    Tensor::from_data(data, &device())
}

fn max_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

/// Compares everything of one folder.
pub fn check(root: &Path) {
    check_noise(root);
    for model in MODELS {
        check_text_encoder(&root.join(model));
    }
    for model in &MODELS[..2] {
        check_schedulers(&root.join(model));
        check_adapter(&root.join(model));
    }
}

fn check_noise(root: &Path) {
    let bytes = std::fs::read(root.join("torch_noise.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, view) in file.iter() {
        let parts: Vec<_> = name.split('.').collect();
        let (mut rng, len) = (TorchRng::new(parts[1].parse().unwrap()), parts[2].parse().unwrap());
        let drawn: Vec<u8> = match parts[0] {
            "f32" => rng.normal(len).iter().flat_map(|v| v.to_le_bytes()).collect(),
            "bf16" => rng.normal_bf16(len).iter().flat_map(|v| v.to_le_bytes()).collect(),
            other => panic!("unknown noise `{other}`"),
        };
        assert_eq!(drawn, view.data(), "{name}");
    }
}

fn check_text_encoder(model: &Path) {
    let source = ModelRef(model.display().to_string()).resolve().unwrap();
    let bytes = std::fs::read(model.join("text_encoder/expect.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("ids").unwrap();
    let values: Vec<i64> =
        ids.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let ids = TensorData::new(values, ids.shape().to_vec());
    let device = device();
    let encoder = ModelCache::default().text_encoder(&source, &device).unwrap();
    let found = encoder.encode(Tensor::<2, Int>::from_data(ids, &device), None);
    let difference = max_difference(found, tensor(&file, "hidden"));
    assert!(difference < stage_tolerance(1e-4), "{}: {difference}", model.display());

    let name = source.tokenizer_file().unwrap();
    let bytes = source.read(name).unwrap();
    let tokenizer = T5Tokenizer::new(TokenizerFiles::by_name(name, &bytes)).unwrap();
    assert_eq!(tokenizer.encode("", 4).unwrap(), [1, 0, 0, 0]);
    let wide = tokenizer.encode("\u{fb01} \u{3000}\u{ff41}", 32).unwrap();
    assert_eq!(wide, tokenizer.encode("fi a", 32).unwrap(), "characters are normalised");
}

fn check_schedulers(model: &Path) {
    let source = ModelSource::Folder(model.to_owned());
    let config = source.config("scheduler").unwrap();
    for (name, sampler) in [("ddim", Sampler::Ddim), ("dpm", Sampler::Dpm)] {
        let bytes = std::fs::read(model.join(format!("scheduler/{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let latents = |name: &str| tensor::<5>(&file, name).permute([0, 2, 1, 3, 4]);
        let scheduler = pipe::models::schedulers::cogvideox(&config, sampler).unwrap();
        let (mut run, mut rng) = (scheduler.start(5, 1), TorchRng::new(3));
        let mut x = latents("x0");
        for index in 0..5 {
            x = run.step(index, (x.clone() * 0.7 + 0.1).tanh(), x, &mut rng);
            let difference = max_difference(x.clone(), latents(&format!("x{}", index + 1)));
            assert!(
                difference < tolerance(1e-5),
                "{} {name} {index}: {difference}",
                model.display()
            );
        }
    }
    assert_eq!(family(&source).unwrap().class_name(), "CogVideoXTransformer3DModel");
}

fn check_adapter(model: &Path) {
    let source = ModelSource::Folder(model.to_owned());
    let base: Params = source.params("transformer", &device()).unwrap();
    let bytes = std::fs::read(model.join("lora/final.safetensors")).unwrap();
    let adapter = Adapter::from_diffusers(&bytes).unwrap();
    adapter.check_against(&base).unwrap();
    assert_eq!(adapter.rank, 4);
    let (cache, device) = (ModelCache::default(), device());
    cache.denoiser(&source, Some(&adapter), &device).unwrap();
    cache.vae(&source, &device).unwrap();
    let blocks = cache.denoiser(&source, None, &device).unwrap().num_blocks();
    for (set, per_block) in
        [(LoraTargets::Qk, 2), (LoraTargets::Qkvo, 4), (LoraTargets::AllLinearBlocks, 6)]
    {
        let targets = family(&source).unwrap().lora_targets(set);
        let fresh = Adapter::new_fresh(&base, targets, 4, 2.0, 1, &device).unwrap();
        assert_eq!(fresh.modules().len(), blocks * per_block, "{set:?}");
        cache.denoiser(&source, Some(&fresh), &device).unwrap();
    }
    let targets = family(&source).unwrap().lora_targets(LoraTargets::AllLinear);
    let fresh = Adapter::new_fresh(&base, targets, 4, 2.0, 1, &device).unwrap();
    cache.denoiser(&source, Some(&fresh), &device).unwrap();
    let read = Adapter::from_diffusers(&adapter.to_diffusers()).unwrap();
    for (name, param) in &adapter.factors.0 {
        let values = |param: &pipe::models::params::Param| {
            let data = param.flat.clone().cast(FloatDType::F32).into_data();
            data.try_to_vec::<f32>().unwrap()
        };
        assert_eq!(values(param), values(&read.factors.0[name]), "{name}");
    }
}

#[test]
#[ignore = "needs PIPE_GOLDEN_DIR"]
fn external_golden_text() {
    let root = std::env::var("PIPE_GOLDEN_DIR").expect("PIPE_GOLDEN_DIR names a folder");
    check(Path::new(&root));
}
