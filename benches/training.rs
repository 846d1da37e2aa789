//! Seconds per training step of a small CogVideoX on the CPU: an adapter, and all parameters.
//!
//! `cargo bench --bench training`; the same steps in PyTorch: `python benches/training.py`.
#![expect(clippy::print_stdout, reason = "prints figures")]

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use pipe::{
    models::{
        Adapter, DenoiserInput, LoraTargets, ParamReader, Params, TimeAxis, VideoDiffusion,
        cogvideox::CogVideoX,
    },
    rng::TorchRng,
    train::{
        batch::Batch,
        gradient::{Build, Recompute},
        optimizer::{AdamW, Moments, clip_factor, global_norm},
        shards::sharded_gradients,
    },
};
use serde_json::{Value, json};

const BATCH: usize = 4;
const WARMUP: usize = 3;
const STEPS: usize = 15;

fn config() -> Value {
    json!({
        "num_attention_heads": 3, "attention_head_dim": 64, "in_channels": 16, "out_channels": 8,
        "num_layers": 6, "patch_size": 2, "patch_size_t": 2, "patch_bias": false,
        "time_embed_dim": 192, "ofs_embed_dim": 192, "text_embed_dim": 64,
        "max_text_seq_length": 8, "sample_frames": 9, "sample_height": 64, "sample_width": 96,
        "temporal_compression_ratio": 4, "attention_bias": true,
        "use_rotary_positional_embeddings": true,
    })
}

/// Median milliseconds of gradients and of the optimizer.
fn measure(build: &Build<'_>, mut params: Params, recompute: Recompute) -> (f64, f64) {
    let device = Device::flex();
    let mut rng = TorchRng::new(1);
    let input = DenoiserInput {
        latents: rng.normal_tensor([BATCH, 8, 4, 16, 16], &device),
        image: rng.normal_tensor([BATCH, 8, 1, 16, 16], &device),
        text: rng.normal_tensor([BATCH, 8, 64], &device),
        timesteps: vec![3.0, 420.0, 700.0, 999.0],
        time: TimeAxis::default(),
    };
    let target: Tensor<5> = rng.normal_tensor([BATCH, 8, 4, 16, 16], &device);
    let batch = Batch { input, target, weights: None };
    let (adam, mut moments) = (AdamW::default(), Moments::default());
    let mut times: [Vec<f64>; 2] = Default::default();
    for step in 1..=WARMUP + STEPS {
        let start = Instant::now();
        let found = sharded_gradients(build, &params, &batch, recompute)
            .expect("the model is built from its own parameters");
        let gradients = start.elapsed().as_secs_f64() * 1e3;
        let factor = clip_factor(global_norm(&found.by_name), 1.0);
        adam.step((step, 1e-4), &mut params, found.by_name, factor, &mut moments);
        let whole = start.elapsed().as_secs_f64() * 1e3;
        if step > WARMUP {
            times[0].push(gradients);
            times[1].push(whole - gradients);
        }
    }
    times
        .each_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .into()
}

fn main() {
    let device = Device::flex();
    let config = config();
    let reader = ParamReader::fresh(1, &device);
    CogVideoX.denoiser(&config, &reader).expect("the configuration is valid");
    let base = reader.into_made();
    println!("{} parameters, batch {BATCH}, 136 tokens", base.num_values());

    let full = |params: &Params| CogVideoX.denoiser(&config, &ParamReader::loaded(params, None));
    let adapted = |factors: &Params| {
        let adapter = Adapter { rank: 16, alpha: 8.0, factors: factors.clone() };
        CogVideoX.denoiser(&config, &ParamReader::loaded(&base, Some(&adapter)))
    };
    let targets = CogVideoX.lora_targets(LoraTargets::Qkvo);
    let fresh = Adapter::new_fresh(&base, targets, 16, 8.0, 1, &device).expect("targets match");
    let runs: [(&str, &Build<'_>, &Params, Recompute); 3] = [
        ("adapter", &adapted, &fresh.factors, Recompute::NONE),
        ("adapter, by block", &adapted, &fresh.factors, Recompute::BLOCK),
        ("all parameters", &full, &base, Recompute::NONE),
    ];
    for (name, build, params, recompute) in runs {
        let (gradients, optimizer) = measure(build, params.clone(), recompute);
        println!(
            "{name:18} {:6.1} ms/step: gradients {gradients:.1}, optimizer {optimizer:.1}",
            gradients + optimizer
        );
    }
}
