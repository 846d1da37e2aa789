//! Tokenizers, schedulers, noise and adapters against a folder of reference values
//! made elsewhere.
//!
//! `PIPE_GOLDEN_DIR=... cargo test --test it external_golden_text -- --ignored`

use std::path::Path;

use burn::tensor::{FloatDType, Tensor};
use pipe::{
    models::{
        Adapter, LoraTargets, ModelCache, ModelRef, ModelSource, NoiseScheduler, Params, Sampler,
        family,
        t5::{T5Tokenizer, TokenizerFiles},
    },
    rng::TorchRng,
};
use safetensors::SafeTensors;

use crate::golden::{Golden, device, relative_error, tolerance};

const MODELS: [&str; 4] = ["cogvideox15", "cogvideox10", "ltx09", "ltx091"];

/// The files of tensors that are read here, beside those of the parts.
pub const FILES: [&str; 5] = [
    "torch_noise.safetensors",
    "cogvideox15/scheduler/ddim.safetensors",
    "cogvideox15/scheduler/dpm.safetensors",
    "cogvideox10/scheduler/ddim.safetensors",
    "cogvideox10/scheduler/dpm.safetensors",
];

fn max_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

/// Compares everything of one folder.
pub fn check(root: &Path) {
    check_noise(root);
    for model in MODELS {
        check_tokenizer(&root.join(model));
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

/// Errors of the text encoder of a model folder, without and with a mask; see `external_golden`.
pub fn text_encoder(model: &Path) -> Vec<(&'static str, f32)> {
    let source = ModelRef(model.display().to_string()).resolve().unwrap();
    let golden = Golden::read(model.join("text_encoder/expect.safetensors"));
    let encoder = ModelCache::default().text_encoder(&source, &device()).unwrap();
    let (ids, mask) = (golden.ints("ids"), golden.ints("mask").equal_elem(1));
    let hidden = encoder.encode(ids.clone(), None);
    let masked = encoder.encode(ids, Some(mask));
    let errors = vec![
        ("hidden", relative_error(hidden, &golden.tensor("hidden"))),
        ("masked", relative_error(masked, &golden.tensor("hidden_masked"))),
    ];
    golden.finish(&[]);
    errors
}

fn check_tokenizer(model: &Path) {
    let source = ModelSource::Folder(model.to_owned());
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
        let golden = Golden::read(model.join(format!("scheduler/{name}.safetensors")));
        let at = format!("{} {name}", model.display());
        let scheduler = pipe::models::schedulers::cogvideox(&config, sampler).unwrap();
        assert_eq!(scheduler.timesteps(5, 1), golden.values("timesteps").0, "{at}");
        check_signals(&*scheduler, &golden.tensor("alphas_cumprod"), &at);
        let latents = |name: &str| golden.tensor::<5>(name).permute([0, 2, 1, 3, 4]);
        let (mut run, mut rng) = (scheduler.start(5, 1), TorchRng::new(3));
        let mut x = latents("x0");
        for index in 0..5 {
            x = run.step(index, (x.clone() * 0.7 + 0.1).tanh(), x, &mut rng);
            let difference = max_difference(x.clone(), latents(&format!("x{}", index + 1)));
            assert!(difference < tolerance(1e-5), "{at} {index}: {difference}");
        }
        golden.finish(&[]);
    }
    assert_eq!(family(&source).unwrap().class_name(), "CogVideoXTransformer3DModel");
}

/// The squared share of the clean latents at every timestep.
fn check_signals(scheduler: &dyn NoiseScheduler, wanted: &Tensor<1>, at: &str) {
    let steps = wanted.dims()[0];
    assert_eq!(steps, scheduler.num_train_timesteps(), "{at}");
    let timesteps: Vec<f32> = (0..steps).map(|step| step as f32).collect();
    let clean = Tensor::<5>::ones([steps, 1, 1, 1, 1], &device());
    let signals = scheduler.add_noise(clean.clone(), clean.zeros_like(), &timesteps);
    let signals = signals.reshape([steps]);
    let difference = max_difference(signals.clone() * signals, wanted.clone());
    assert!(difference < 1e-5, "{at}: {difference}");
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
