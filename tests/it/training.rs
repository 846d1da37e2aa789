//! LoRA training and sampling against the reference implementation.

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor};
use pipe::{
    models::{
        Adapter, DecodeNoise, Denoiser, DenoiserInput, ImageConditioning, LoadError, ModelCache,
        ModelRef, ModelSource, NoiseScheduler, ParamReader, Params, Sampler, TimeAxis,
        VideoDiffusion,
        cogvideox::CogVideoX,
        family,
        params::{Dtype, Param},
        pixels,
        sampling::{ImageLatent, ImageLatentScale, Sample, Sampling, Side, rng_after_sampling},
    },
    rng::TorchRng,
    train::{
        batch::Batch,
        gradient::{Build, Gradients, Recompute, denoiser_gradients},
        optimizer::{AdamW, Moments, clip_factor, global_norm},
        shards::sharded_gradients,
    },
};
use serde_json::Value;

use crate::golden::{
    Golden, assert_below, assert_close, assert_trained, device, relative_error, tolerance,
    trained_tolerance,
};

pub const VERSIONS: [&str; 2] = ["15", "10"];

/// A fixture of `tests/golden/training`.
pub struct Fixture {
    pub golden: Golden,
    pub config: Value,
    transformer: Params,
    vae: Params,
}

impl Fixture {
    pub fn read(version: &str) -> Self {
        let golden = Golden::fixture(&format!("training/{version}"));
        Self {
            config: golden.config(),
            transformer: golden.params("weights.transformer."),
            vae: golden.params("weights.vae."),
            golden,
        }
    }

    pub fn factors(&self, which: &str) -> Params {
        self.golden.params(&format!("lora.{which}."))
    }

    pub fn denoiser(&self, adapter: Option<&Adapter>) -> Result<Box<dyn Denoiser>, LoadError> {
        let reader = ParamReader::loaded(&self.transformer, adapter);
        CogVideoX.denoiser(&self.config["transformer"], &reader)
    }

    pub fn scheduler(&self, sampler: Sampler) -> Box<dyn NoiseScheduler> {
        CogVideoX.scheduler(&self.config["scheduler"], sampler).unwrap()
    }

    /// One step of the trace, from clean latents and noise.
    fn step(&self, step: usize) -> Batch {
        let tensor = |name: &str| self.golden.tensor::<5>(&format!("lora.{name}.{step}"));
        let timesteps = self.golden.values(&format!("lora.t.{step}")).0;
        let scheduler = self.scheduler(Sampler::Ddim);
        let target = scheduler.target(tensor("x0"), tensor("noise"), &timesteps);
        let latents = scheduler.add_noise(tensor("x0"), tensor("noise"), &timesteps);
        let text = self.golden.tensor::<3>("text");
        let [_, tokens, dim] = text.dims();
        let text = text.expand([2, tokens, dim]);
        let input = DenoiserInput {
            latents,
            image: tensor("image"),
            text,
            timesteps,
            time: TimeAxis::default(),
        };
        Batch { input, target, weights: None }
    }

    pub fn write_model(&self, folder: &Path) -> ModelRef {
        write_model(folder, &self.config, &self.transformer, &self.vae)
    }
}

/// A folder in diffusers' layout.
pub fn write_model(folder: &Path, config: &Value, transformer: &Params, vae: &Params) -> ModelRef {
    for (name, params) in [("transformer", transformer), ("vae", vae)] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), config[name].to_string()).unwrap();
        let weights = params.to_safetensors(Dtype::F32, None);
        fs::write(folder.join("diffusion_pytorch_model.safetensors"), weights).unwrap();
    }
    fs::create_dir_all(folder.join("scheduler")).unwrap();
    let config = config["scheduler"].to_string();
    fs::write(folder.join("scheduler/scheduler_config.json"), config).unwrap();
    fs::write(folder.join("model_index.json"), "{}").unwrap();
    ModelRef(folder.to_string_lossy().into_owned())
}

#[test]
fn a_lora_training_trace_agrees() {
    for version in VERSIONS {
        let fixture = Fixture::read(version);
        let mut factors = fixture.factors("init");
        let build = |factors: &Params| {
            fixture.denoiser(Some(&Adapter { rank: 3, alpha: 2.0, factors: factors.clone() }))
        };
        let adam = AdamW { betas: [0.9, 0.95], weight_decay: 1e-2, eps: 1e-8 };
        let mut moments = Moments::default();
        for step in 0..4 {
            let batch = fixture.step(step);
            let found = sharded_gradients(&build, &factors, &batch, Recompute::NONE).unwrap();
            let norm = global_norm(&found.by_name);
            for (what, found) in [("loss", found.loss), ("norm", norm)] {
                let wanted = fixture.golden.values(&format!("lora.{what}.{step}")).0[0];
                let error = (found - wanted).abs() / wanted;
                assert_below(&format!("{version} {what} {step}"), error, trained_tolerance(1e-4));
            }
            let factor = clip_factor(norm, 0.05);
            adam.step((step + 1, 1e-2), &mut factors, found.by_name, factor, &mut moments);
        }
        let wanted = fixture.factors("final");
        assert_eq!(factors.0.len(), wanted.0.len());
        for (name, wanted) in &wanted.0 {
            assert_trained(name, factors.0[name].flat.clone(), &wanted.flat, 1e-3);
        }
    }
}

/// Gradients of one step, for all linear layers where `all`, else for an attention's four.
fn gradients(fixture: &Fixture, all: bool, recompute: Recompute) -> Gradients {
    let device = device();
    let targets =
        if all { pipe::models::LoraTargets::AllLinear } else { pipe::models::LoraTargets::Qkvo };
    let targets = CogVideoX.lora_targets(targets);
    let fresh = Adapter::new_fresh(&fixture.transformer, targets, 3, 2.0, 1, &device).unwrap();
    // With B at zero no gradient would reach A.
    let moved = |param: &Param| {
        let noise = TorchRng::new(param.shape[0] as u64).normal(param.shape.iter().product());
        let noise = Tensor::<1>::from_data(noise.as_slice(), &device) * 0.05;
        Param { flat: param.flat.clone() + noise, shape: param.shape.clone() }
    };
    let factors =
        Params(fresh.factors.0.iter().map(|(name, param)| (name.clone(), moved(param))).collect());
    let build = |factors: &Params| {
        fixture.denoiser(Some(&Adapter { rank: 3, alpha: 2.0, factors: factors.clone() }))
    };
    let found = denoiser_gradients(&build, &factors, &fixture.step(0), recompute).unwrap();
    assert_eq!(found.by_name.len(), factors.0.len(), "every factor must have a gradient");
    found
}

#[test]
fn recomputation_gives_the_same_gradients() {
    for version in VERSIONS {
        let fixture = Fixture::read(version);
        for all in [false, true] {
            let whole = gradients(&fixture, all, Recompute::NONE);
            for recompute in [Recompute::BLOCK, Recompute::Blocks(1), Recompute::Blocks(100)] {
                let again = gradients(&fixture, all, recompute);
                assert!((whole.loss - again.loss).abs() < tolerance(1e-6));
                for (name, wanted) in &whole.by_name {
                    let error = relative_error(again.by_name[name].clone(), wanted);
                    assert!(error < tolerance(1e-4), "{version} {recompute} {name}: {error:e}");
                }
            }
        }
    }
}

pub fn assert_equal_gradients(found: &Gradients, wanted: &Gradients) {
    for (name, wanted) in &wanted.by_name {
        let scale = wanted.clone().abs().max().into_scalar::<f32>();
        let error = (found.by_name[name].clone() - wanted.clone()).abs().max();
        assert!(error.into_scalar::<f32>() <= tolerance(1e-4) * scale + 1e-8, "{name}");
    }
}

#[test]
fn parts_of_a_batch_add_up_to_the_whole() {
    let fixture = Fixture::read("15");
    let batch = fixture.step(0);
    let build = |params: &Params| {
        CogVideoX.denoiser(&fixture.config["transformer"], &ParamReader::loaded(params, None))
    };
    let build: &Build<'_> = &build;
    let whole = denoiser_gradients(build, &fixture.transformer, &batch, Recompute::NONE).unwrap();
    let parts = sharded_gradients(build, &fixture.transformer, &batch, Recompute::NONE).unwrap();
    assert!((whole.loss - parts.loss).abs() < tolerance(1e-6));
    assert_equal_gradients(&parts, &whole);
}

#[test]
fn recomputation_serves_full_training_too() {
    let fixture = Fixture::read("15");
    let batch = fixture.step(0);
    let build = |params: &Params| {
        CogVideoX.denoiser(&fixture.config["transformer"], &ParamReader::loaded(params, None))
    };
    let of =
        |recompute| denoiser_gradients(&build, &fixture.transformer, &batch, recompute).unwrap();
    let whole = of(Recompute::NONE);
    assert_eq!(whole.by_name.len(), fixture.transformer.0.len());
    for recompute in [Recompute::BLOCK, Recompute::Blocks(1)] {
        assert_equal_gradients(&of(recompute), &whole);
    }
}

/// The start of a sample from the fixture's image, as diffusers makes it.
fn start(fixture: &Fixture, seed: u64) -> Sample {
    let (rgb, shape) = fixture.golden.values("sample.image");
    let rgb: Vec<u8> = rgb.iter().map(|v| *v as u8).collect();
    let pixels = pixels::from_rgb(&rgb, [1, shape[0], shape[1]], &device());
    let reader = ParamReader::loaded(&fixture.vae, None);
    let vae = CogVideoX.vae(&fixture.config["vae"], &reader).unwrap();
    let scale = ImageLatentScale::resolve(None, &fixture.config["vae"], Side::Sampling).unwrap();
    Sample::encode(&*vae, pixels, ImageLatent::drawn(scale), TorchRng::new(seed))
}

fn sample(fixture: &Fixture, sampler: Sampler, guidance: f64, seeds: &[u64]) -> Vec<Tensor<5>> {
    let denoiser = fixture.denoiser(None).unwrap();
    let scheduler = fixture.scheduler(sampler);
    let sampling = Sampling {
        denoiser: &*denoiser,
        scheduler: &*scheduler,
        num_steps: 4,
        text: fixture.golden.tensor("text"),
        guidance: (guidance > 1.0).then(|| (guidance, fixture.golden.tensor("negative"))),
        condition: None,
        frame_rate: None,
    };
    let starts = seeds.iter().map(|seed| start(fixture, *seed)).collect();
    sampling.run::<()>(starts, 3, |_| Ok(())).unwrap()
}

#[test]
fn whole_sampling_runs_agree() {
    for version in VERSIONS {
        let fixture = Fixture::read(version);
        for (name, sampler, guidance) in [
            ("ddim", Sampler::Ddim, 1.0),
            ("dpm", Sampler::Dpm, 1.0),
            ("guided", Sampler::Ddim, 3.0),
        ] {
            let [latents] = sample(&fixture, sampler, guidance, &[42]).try_into().unwrap();
            let wanted = fixture.golden.tensor(&format!("sample.{name}"));
            assert_close(&format!("{version} {name}"), latents.clone(), &wanted, 1e-4);
            if name == "ddim" {
                let reader = ParamReader::loaded(&fixture.vae, None);
                let vae = CogVideoX.vae(&fixture.config["vae"], &reader).unwrap();
                let video =
                    (vae.decode(latents / vae.scaling_factor()) / 2.0 + 0.5).clamp(0.0, 1.0);
                assert_close("frames", video, &fixture.golden.tensor("sample.frames"), 1e-3);
            }
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let fixture = Fixture::read("15");
    let alone = sample(&fixture, Sampler::Dpm, 1.0, &[42]);
    let batch = sample(&fixture, Sampler::Dpm, 1.0, &[7, 42, 1]);
    let bits = |x: &Tensor<5>| -> Vec<u32> {
        x.to_data().try_to_vec::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
    };
    // A GPU's products choose another order of sums for another number of rows.
    if device() == Device::flex() {
        assert_eq!(bits(&alone[0]), bits(&batch[1]));
    }
    assert!(relative_error(alone[0].clone(), &batch[1]) <= tolerance(0.0));
    assert!(relative_error(alone[0].clone(), &batch[0]) > 0.1);
}

/// Losses, gradient norms and noisy latents of [`external_trace`].
pub fn external_lora(model: &Path) -> Vec<(&'static str, f32)> {
    external_trace(model)[..3].to_vec()
}

/// The factors after [`external_trace`]. `AdamW` divides a gradient by its own size, so rounding of
/// a gradient near zero moves a factor by a good part of a step: a looser tolerance than the loss.
pub fn external_factors(model: &Path) -> Vec<(&'static str, f32)> {
    external_trace(model)[3..].to_vec()
}

/// The four-step training trace of a folder made elsewhere; see `external_golden`.
fn external_trace(model: &Path) -> Vec<(&'static str, f32)> {
    let (config, base) = crate::external_golden::load(&model.join("transformer"));
    let settings: Value =
        serde_json::from_slice(&fs::read(model.join("lora/train.json")).unwrap()).unwrap();
    let number = |key: &str| settings[key].as_f64().unwrap();
    let read = |name: &str| {
        Adapter::from_diffusers(&fs::read(model.join("lora").join(name)).unwrap()).unwrap()
    };
    let init = read("init.safetensors");
    let (rank, alpha) = (init.rank, number("lora_alpha"));
    let mut factors = init.to_device(&device()).factors;
    let golden = Golden::read(model.join("lora/trace.safetensors"));
    let config_of = fs::read(model.join("scheduler/scheduler_config.json")).unwrap();
    let scheduler =
        CogVideoX.scheduler(&serde_json::from_slice(&config_of).unwrap(), Sampler::Ddim).unwrap();
    let build = |factors: &Params| {
        let adapter = Adapter { rank, alpha, factors: factors.clone() };
        CogVideoX.denoiser(&config, &ParamReader::loaded(&base, Some(&adapter)))
    };
    let betas = [0, 1].map(|i| settings["betas"][i].as_f64().unwrap());
    let adam = AdamW { betas, weight_decay: number("weight_decay"), eps: number("eps") };
    let mut moments = Moments::default();
    let (mut loss_error, mut norm_error, mut noisy_error) = (0.0_f32, 0.0_f32, 0.0_f32);
    for step in 0..number("steps") as usize {
        let tensor = |name: &str| golden.tensor::<5>(&format!("{name}.{step}")).swap_dims(1, 2);
        let timesteps = golden.values(&format!("t.{step}")).0;
        let target = scheduler.target(tensor("x0"), tensor("noise"), &timesteps);
        let latents = scheduler.add_noise(tensor("x0"), tensor("noise"), &timesteps);
        noisy_error = noisy_error.max(relative_error(latents.clone(), &tensor("noisy")));
        let (image, text) = (tensor("image"), golden.tensor("text"));
        let input = DenoiserInput { latents, image, text, timesteps, time: TimeAxis::default() };
        let batch = Batch { input, target, weights: None };
        let found = denoiser_gradients(&build, &factors, &batch, Recompute::BLOCK).unwrap();
        let norm = global_norm(&found.by_name);
        let error = |name: &str, found: f32| {
            let wanted = golden.values(&format!("{name}.{step}")).0[0];
            (found - wanted).abs() / wanted
        };
        loss_error = loss_error.max(error("loss", found.loss));
        norm_error = norm_error.max(error("gnorm", norm));
        let factor = clip_factor(norm, number("max_grad_norm") as f32);
        adam.step((step + 1, number("lr")), &mut factors, found.by_name, factor, &mut moments);
    }
    golden.finish(&["cos", "sin"]);
    let wanted = read("final.safetensors").factors;
    let factor_error = wanted
        .0
        .iter()
        .map(|(name, wanted)| relative_error(factors.0[name].flat.clone(), &wanted.flat))
        .fold(0.0, f32::max);
    vec![
        ("loss", loss_error),
        ("norm", norm_error),
        ("noisy", noisy_error),
        ("factors", factor_error),
    ]
}

/// The whole sampling run of a folder made elsewhere; see `external_golden`.
pub fn external_sample(model: &Path) -> Vec<(&'static str, f32)> {
    const SEED: u64 = 42;
    let source = ModelSource::Folder(model.to_owned());
    let (models, device) = (ModelCache::default(), device());
    let family = family(&source).unwrap();
    let sampler = family.samplers().iter().find(|sampler| **sampler != Sampler::Dpm);
    let denoiser = models.denoiser(&source, None, &device).unwrap();
    let vae = models.vae(&source, &device).unwrap();
    let scheduler = models.scheduler(&source, sampler.copied()).unwrap();
    let golden = Golden::read(model.join("sample.safetensors"));
    let image = image::open(model.join("cond.png")).unwrap().to_rgb8();
    let size = [1, image.height() as usize, image.width() as usize];
    let pixels = pixels::from_rgb(image.as_raw(), size, &device);
    let config = source.config("vae").unwrap();
    let scale = ImageLatentScale::resolve(None, &config, Side::Sampling).unwrap();
    let start = Sample::encode(&*vae, pixels, ImageLatent::drawn(scale), TorchRng::new(SEED));
    let sampling = Sampling {
        denoiser: &*denoiser,
        scheduler: &*scheduler,
        num_steps: 5,
        text: golden.tensor("prompt_embeds"),
        guidance: None,
        condition: None,
        frame_rate: None,
    };
    let wanted_frames: Tensor<5> = golden.tensor::<5>("frames").swap_dims(1, 2);
    let frames = (wanted_frames.dims()[2] - 1) / vae.compression().time + 1;
    let [latents] =
        sampling.run::<()>(vec![start], frames, |_| Ok(())).unwrap().try_into().unwrap();
    let [_, c, f, h, w] = latents.dims();
    let wanted: Tensor<5> = match denoiser.image_conditioning() {
        // The reference gives its latents with the padding frames.
        ImageConditioning::Channels => {
            let wanted = golden.tensor::<5>("latents").swap_dims(1, 2);
            let padding = wanted.dims()[2] - frames;
            wanted.narrow(2, padding, frames)
        }
        ImageConditioning::FirstFrame => {
            golden.tensor::<3>("latents").reshape([1, f, h, w, c]).permute([0, 4, 1, 2, 3])
        }
    };
    let error = relative_error(latents.clone(), &wanted);
    let mut rng = rng_after_sampling(SEED, [c, f, h, w], None);
    let (timestep, scale) = (DecodeNoise::TIMESTEP, DecodeNoise::SCALE);
    let noise = DecodeNoise { timestep, scale, rng: &mut rng };
    let latents = vae.restore(latents / vae.scaling_factor());
    let video = (vae.decode_sampled(latents, noise) / 2.0 + 0.5).clamp(0.0, 1.0);
    golden.finish(&[]);
    vec![("latents", error), ("frames", relative_error(video, &wanted_frames))]
}
