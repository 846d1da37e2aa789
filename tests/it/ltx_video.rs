//! LTX-Video against the reference implementation: models, training trace and sampling.

use std::path::Path;

use burn::tensor::Tensor;
use pipe::{
    models::{
        Adapter, DecodeNoise, Denoiser, DenoiserInput, ImageConditioning, LoadError, LoraTargets,
        NoiseScheduler, ParamReader, Params, Sampler, TimeAxis, TimestepDistribution,
        VideoDiffusion, VideoVae,
        ltx_video::LtxVideo,
        pixels,
        sampling::{Condition, ImageLatent, Sample, Sampling, rng_after_sampling},
    },
    rng::TorchRng,
    train::{
        batch::{Batch, Diffusion, Example},
        gradient::{Recompute, denoiser_gradients},
        optimizer::{AdamW, Moments, clip_factor, global_norm},
    },
};
use serde_json::Value;

use crate::{
    external_golden::{ltx_transformer, ltx_vae, transformer, vae as cogvideox_vae},
    external_golden_text::text_encoder,
    golden::{
        Golden, assert_below, assert_close, assert_trained, device, relative_error, tolerance,
        trained_tolerance,
    },
    training::assert_equal_gradients,
};

const TRANSFORMER: f32 = 2e-5;
const VAE: f32 = 5e-5;
/// The frame rate of what the fixtures call `slow`.
pub const SLOW: f64 = 12.0;

fn golden(name: &str) -> Golden {
    Golden::fixture(&format!("ltx_video/{name}"))
}

#[test]
fn transformer_agrees() {
    let golden = golden("transformer");
    let weights = golden.weights();
    let model = LtxVideo.denoiser(&golden.config(), &ParamReader::loaded(&weights, None)).unwrap();
    let latents: Tensor<5> = golden.tensor("latents");
    let mut input = DenoiserInput {
        image: latents.clone().narrow(2, 0, 1),
        latents,
        text: golden.tensor("text"),
        timesteps: golden.values("timesteps").0,
        time: TimeAxis::default(),
    };
    let hidden = model.begin(&input);
    assert_close("tokens", hidden[0].clone(), &golden.tensor("tokens"), TRANSFORMER);
    assert_close("time embedding", hidden[3].clone(), &golden.tensor("time"), TRANSFORMER);
    let hidden = model.block(0, hidden, &input);
    assert_close("block", hidden[0].clone(), &golden.tensor("block"), TRANSFORMER);
    assert_close("output", model.forward(&input), &golden.tensor("out"), TRANSFORMER);

    let short = DenoiserInput { text: input.text.clone().narrow(1, 0, 3), ..input.clone() };
    assert_close("masked text", model.forward(&short), &golden.tensor("masked"), TRANSFORMER);
    let slow = DenoiserInput { time: TimeAxis::new(false, Some(SLOW)), ..input.clone() };
    assert_close("slow", model.forward(&slow), &golden.tensor("slow"), TRANSFORMER);

    input.latents = input.latents.autodiff().require_grad();
    let loss = (model.forward(&input) * golden.tensor("grad_out")).sum();
    let grad = input.latents.grad(&loss.backward()).unwrap();
    assert_close("gradient", grad, &golden.tensor("grad_latents"), TRANSFORMER);
}

fn vae_agrees(fixture: &str) {
    let golden = golden(fixture);
    let weights = golden.weights();
    let vae = LtxVideo.vae(&golden.config(), &ParamReader::loaded(&weights, None)).unwrap();
    let video: Tensor<5> = golden.tensor("video");
    let posterior = vae.encode(video.clone());
    assert_close("mean", posterior.mean, &golden.tensor("mean"), VAE);
    assert_close("logvar", posterior.logvar, &golden.tensor("logvar"), VAE);
    let image = vae.encode(video.narrow(2, 0, 1)).mean;
    assert_close("image mean", image, &golden.tensor("image_mean"), VAE);

    let latents: Tensor<5> = golden.tensor("mean");
    let decoded = vae.decode(latents.clone());
    assert_close("decoded", decoded.clone(), &golden.tensor("decoded"), VAE);
    let mut rng = TorchRng::new(9);
    let (timestep, scale) = (DecodeNoise::TIMESTEP, DecodeNoise::SCALE);
    let noise = DecodeNoise { timestep, scale, rng: &mut rng };
    let sampled = vae.decode_sampled(latents.clone(), noise);
    if golden.config()["timestep_conditioning"] == true {
        assert_close("sampled", sampled, &golden.tensor("sampled"), VAE);
    } else {
        assert!(
            relative_error(sampled, &decoded) < tolerance(f32::EPSILON),
            "there is no noise to add"
        );
    }
    let round_trip = vae.restore(vae.standardize(latents.clone()));
    assert_close("standardised and back", round_trip, &latents, 1e-6);

    let leaf = latents.autodiff().require_grad();
    let loss = (vae.decode(leaf.clone()) * golden.tensor("decoded")).sum();
    let grad = leaf.grad(&loss.backward()).unwrap();
    assert_close("gradient", grad, &golden.tensor("grad_latents"), VAE);
}

#[test]
fn vae_of_0_9_0_agrees() {
    vae_agrees("vae_090");
}

#[test]
fn vae_of_0_9_1_agrees() {
    vae_agrees("vae_091");
}

#[test]
fn vae_of_0_9_5_agrees() {
    vae_agrees("vae_095");
}

/// The fixture of training and sampling.
pub struct Fixture {
    pub golden: Golden,
    pub config: Value,
    pub transformer: Params,
    pub vae: Params,
}

impl Fixture {
    pub fn read() -> Self {
        Self::of("training")
    }

    pub fn of(name: &str) -> Self {
        let golden = golden(name);
        Self {
            config: golden.config(),
            transformer: golden.params("weights.transformer."),
            vae: golden.params("weights.vae."),
            golden,
        }
    }

    pub fn denoiser(&self, adapter: Option<&Adapter>) -> Result<Box<dyn Denoiser>, LoadError> {
        let reader = ParamReader::loaded(&self.transformer, adapter);
        LtxVideo.denoiser(&self.config["transformer"], &reader)
    }

    fn vae(&self) -> Box<dyn VideoVae> {
        let reader = ParamReader::loaded(&self.vae, None);
        LtxVideo.vae(&self.config["vae"], &reader).unwrap()
    }

    fn scheduler(&self) -> Box<dyn NoiseScheduler> {
        LtxVideo.scheduler(&self.config["scheduler"], Sampler::FlowEuler).unwrap()
    }
}

#[test]
fn a_lora_training_trace_agrees() {
    let fixture = Fixture::read();
    let (golden, scheduler) = (&fixture.golden, fixture.scheduler());
    let clean: Tensor<5> = golden.tensor("lora.clean");
    let examples = [0, 1].map(|index| {
        let latents = clean.clone().narrow(0, index, 1);
        // The encodings of the image are not used: the clip has its own first frame.
        Example { images: latents.clone().narrow(2, 0, 1) * 100.0, latents }
    });
    let diffusion = Diffusion {
        scheduler: &*scheduler,
        conditioning: ImageConditioning::FirstFrame,
        distribution: TimestepDistribution::ShiftedLogitNormal,
        image_scale: 1.0,
        image_dropout: 0.4,
        text: golden.tensor("text"),
        time: TimeAxis::default(),
    };
    let build = |factors: &Params| {
        fixture.denoiser(Some(&Adapter { rank: 3, alpha: 2.0, factors: factors.clone() }))
    };
    let adam = AdamW { betas: [0.9, 0.99], weight_decay: 0.0, eps: 1e-8 };
    for recompute in [Recompute::NONE, Recompute::BLOCK] {
        let (mut factors, mut moments) = (golden.params("lora.init."), Moments::default());
        for step in 0..3 {
            let mut rng = TorchRng::new(10 + step as u64);
            let batch = diffusion.batch(&[&examples[0], &examples[1]], &mut rng);
            let timesteps = golden.values(&format!("lora.timesteps.{step}")).0;
            assert_eq!(batch.input.timesteps, timesteps, "step {step}");
            let noisy = golden.tensor(&format!("lora.noisy.{step}"));
            assert_close("noisy latents", batch.input.latents.clone(), &noisy, 1e-6);

            let found = denoiser_gradients(&build, &factors, &batch, recompute).unwrap();
            let norm = global_norm(&found.by_name);
            for (what, found) in [("loss", found.loss), ("norm", norm)] {
                let wanted = golden.values(&format!("lora.{what}.{step}")).0[0];
                let error = (found - wanted).abs() / wanted;
                assert_below(&format!("{what} {step}"), error, trained_tolerance(1e-4));
            }
            let factor = clip_factor(norm, 0.5);
            adam.step((step + 1, 1e-2), &mut factors, found.by_name, factor, &mut moments);
        }
        for (name, wanted) in &golden.params("lora.final.").0 {
            assert_trained(name, factors.0[name].flat.clone(), &wanted.flat, 1e-3);
        }
    }
}

/// Of all that is trained, also of what makes the embeddings that every block takes.
#[test]
fn recomputation_serves_full_training_too() {
    let fixture = Fixture::read();
    let latents: Tensor<5> = fixture.golden.tensor("lora.clean");
    let noise = TorchRng::new(4).normal_tensor(latents.dims(), &device());
    let batch = Batch {
        input: DenoiserInput {
            image: latents.clone().narrow(2, 0, 1),
            text: fixture.golden.tensor::<3>("text").repeat_dim(0, latents.dims()[0]),
            timesteps: vec![300.0; latents.dims()[0]],
            time: TimeAxis::default(),
            latents: noise,
        },
        target: latents,
        weights: None,
    };
    let build = |params: &Params| {
        let reader = ParamReader::loaded(params, None);
        LtxVideo.denoiser(&fixture.config["transformer"], &reader)
    };
    let of =
        |recompute| denoiser_gradients(&build, &fixture.transformer, &batch, recompute).unwrap();
    let whole = of(Recompute::NONE);
    assert_eq!(whole.by_name.len(), fixture.transformer.0.len());
    for recompute in [Recompute::BLOCK, Recompute::Blocks(1)] {
        assert_equal_gradients(&of(recompute), &whole);
    }
}

#[test]
fn whole_sampling_runs_agree() {
    let fixture = Fixture::read();
    let golden = &fixture.golden;
    let (denoiser, vae, scheduler) =
        (fixture.denoiser(None).unwrap(), fixture.vae(), fixture.scheduler());
    let (rgb, shape) = golden.values("sample.image");
    let rgb: Vec<u8> = rgb.iter().map(|v| *v as u8).collect();
    for (name, guidance) in [("plain", None), ("guided", Some(3.0)), ("slow", None)] {
        let pixels = pixels::from_rgb(&rgb, [1, shape[0], shape[1]], &device());
        let sampling = Sampling {
            denoiser: &*denoiser,
            scheduler: &*scheduler,
            num_steps: 4,
            text: golden.tensor("text"),
            guidance: guidance.map(|scale| (scale, golden.tensor("negative"))),
            condition: None,
            frame_rate: (name == "slow").then_some(SLOW),
        };
        let start = Sample::encode(&*vae, pixels, ImageLatent::drawn(1.0), TorchRng::new(42));
        let image = start.image.clone();
        let [latents] = sampling.run::<()>(vec![start], 2, |_| Ok(())).unwrap().try_into().unwrap();
        assert_close(name, latents.clone(), &golden.tensor(&format!("sample.{name}")), 2e-4);
        assert!(relative_error(latents.clone().narrow(2, 0, 1), &image) < f32::EPSILON);
        if name == "plain" {
            let [_, c, f, h, w] = latents.dims();
            let mut rng = rng_after_sampling(42, [c, f, h, w], None);
            let (timestep, scale) = (DecodeNoise::TIMESTEP, DecodeNoise::SCALE);
            let noise = DecodeNoise { timestep, scale, rng: &mut rng };
            let video = vae.decode_sampled(vae.restore(latents), noise);
            let last = (video.narrow(2, 8, 1) / 2.0 + 0.5).clamp(0.0, 1.0).narrow(4, 0, 32);
            assert_close("last frame", last, &golden.tensor("sample.last_frame"), 2e-4);
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_the_size_of_others() {
    let fixture = Fixture::read();
    let (denoiser, scheduler) = (fixture.denoiser(None).unwrap(), fixture.scheduler());
    let sampling = Sampling {
        denoiser: &*denoiser,
        scheduler: &*scheduler,
        num_steps: 3,
        text: fixture.golden.tensor("text"),
        guidance: None,
        condition: None,
        frame_rate: None,
    };
    let start = |width: usize| {
        let mut rng = TorchRng::new(6);
        let image = rng.normal_tensor([1, 4, 1, 2, width], &device());
        let compression = TimeAxis::default().compression;
        Sample { image, noise: None, rng, compression }
    };
    let run = |widths: &[usize]| {
        let starts = widths.iter().map(|width| start(*width)).collect();
        sampling.run::<()>(starts, 2, |_| Ok(())).unwrap()
    };
    let bits = |x: &Tensor<5>| x.to_data().try_to_vec::<f32>().unwrap();
    assert_eq!(bits(&run(&[3])[0]), bits(&run(&[3, 400])[0]), "schedules depend on sizes");
}

#[test]
fn target_sets_adapt_every_module_they_name() {
    let fixture = Fixture::read();
    for (set, modules) in [
        (LoraTargets::Qk, 8),
        (LoraTargets::Vo, 8),
        (LoraTargets::Qkvo, 16),
        (LoraTargets::AllLinearBlocks, 20),
        (LoraTargets::AllLinear, 27),
    ] {
        let targets = LtxVideo.lora_targets(set);
        let device = device();
        let fresh = Adapter::new_fresh(&fixture.transformer, targets, 2, 1.0, 1, &device).unwrap();
        assert_eq!(fresh.modules().len(), modules, "{set:?}");
        fixture.denoiser(Some(&fresh)).unwrap();
    }
}

/// Compares a part that `tests/golden/full_size/make.py` wrote.
fn full_size(part: &str, errors: fn(&Path) -> Vec<(&'static str, f32)>) {
    let folder = std::env::var("PIPE_FULL_SIZE_DIR").expect("PIPE_FULL_SIZE_DIR names a folder");
    let tolerance = tolerance(1e-4);
    for (what, error) in errors(&Path::new(&folder).join(part)) {
        println!("{what}: {error:.1e} of {tolerance:e}");
        assert!(error < tolerance, "{part}, {what}: {error:e}");
    }
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 12 GB of memory"]
fn the_full_size_transformer_agrees() {
    full_size("ltx_video", ltx_transformer);
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 4 GB of memory"]
fn the_full_size_block_of_cogvideox_agrees() {
    full_size("cogvideox_15", transformer);
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 4 GB of memory"]
fn the_full_size_layer_of_t5_agrees() {
    full_size("t5_xxl", text_encoder);
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 3 GB of memory"]
fn the_full_size_vae_of_cogvideox_agrees() {
    full_size("cogvideox_vae", cogvideox_vae);
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 5 GB of memory"]
fn the_full_size_vae_of_0_9_0_agrees() {
    full_size("ltx_video_vae_090", ltx_vae);
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 5 GB of memory"]
fn the_full_size_vae_of_0_9_1_agrees() {
    full_size("ltx_video_vae_091", ltx_vae);
}

#[test]
#[ignore = "needs PIPE_FULL_SIZE_DIR and 10 GB of memory"]
fn the_full_size_vae_of_0_9_5_agrees() {
    full_size("ltx_video_vae_095", ltx_vae);
}

/// The condition pipeline of 0.9.5: plain, guided, with an image of strength 0.6, and of one step.
#[test]
fn whole_runs_of_the_condition_pipeline_agree() {
    let fixture = Fixture::of("condition");
    let golden = &fixture.golden;
    let (denoiser, vae) = (fixture.denoiser(None).unwrap(), fixture.vae());
    let scheduler =
        LtxVideo.scheduler(&fixture.config["scheduler"], Sampler::FlowCondition).unwrap();
    for steps in [1, 2, 5, 50] {
        let wanted = golden.values(&format!("timesteps.{steps}")).0;
        for (found, wanted) in scheduler.timesteps(steps, 1).iter().zip(wanted) {
            assert!((found - wanted).abs() < 2e-4, "{found} is not {wanted}");
        }
    }
    let (rgb, shape) = golden.values("sample.image");
    let rgb: Vec<u8> = rgb.iter().map(|v| *v as u8).collect();
    let whole = Condition::default();
    let weak = Condition { strength: 0.6, ..whole };
    for (name, num_steps, scale, condition) in [
        ("plain", 4, None, whole),
        ("guided", 4, Some(3.0), whole),
        ("weak", 4, None, weak),
        ("one", 1, None, whole),
        ("slow", 4, None, whole),
    ] {
        let pixels = pixels::from_rgb(&rgb, [1, shape[0], shape[1]], &device());
        let sampling = Sampling {
            denoiser: &*denoiser,
            scheduler: &*scheduler,
            num_steps,
            text: golden.tensor("text"),
            guidance: scale.map(|scale| (scale, golden.tensor("negative"))),
            condition: Some(condition),
            frame_rate: (name == "slow").then_some(SLOW),
        };
        let start =
            Sample::encode_condition(&*vae, pixels, ImageLatent::drawn(1.0), 3, TorchRng::new(42));
        let [latents] = sampling.run::<()>(vec![start], 3, |_| Ok(())).unwrap().try_into().unwrap();
        assert_close(name, latents.clone(), &golden.tensor(&format!("sample.{name}")), 1e-4);
        if name == "plain" {
            let [_, c, f, h, w] = latents.dims();
            let mut rng = rng_after_sampling(42, [c, f, h, w], Some((condition, num_steps)));
            let (timestep, scale) = (DecodeNoise::TIMESTEP, DecodeNoise::SCALE);
            let noise = DecodeNoise { timestep, scale, rng: &mut rng };
            let video = vae.decode_sampled(vae.restore(latents), noise);
            let last = (video.narrow(2, 16, 1) / 2.0 + 0.5).clamp(0.0, 1.0).narrow(4, 0, 32);
            assert_close("last frame", last, &golden.tensor("sample.last_frame"), 4e-4);
        }
    }
}

/// Positions are counted in frames and pixels, so they follow the autoencoder, which need not be a
/// published one.
#[test]
fn whole_runs_with_an_autoencoder_of_less_compression_agree() {
    let fixture = Fixture::of("compression");
    let golden = &fixture.golden;
    let (denoiser, vae) = (fixture.denoiser(None).unwrap(), fixture.vae());
    let (rgb, shape) = golden.values("sample.image");
    let rgb: Vec<u8> = rgb.iter().map(|v| *v as u8).collect();
    let given = Some(Condition::default());
    for (name, sampler, condition) in
        [("plain", Sampler::FlowEuler, None), ("condition", Sampler::FlowCondition, given)]
    {
        let config = &fixture.config[format!("scheduler.{name}")];
        let pixels = pixels::from_rgb(&rgb, [1, shape[0], shape[1]], &device());
        let sampling = Sampling {
            denoiser: &*denoiser,
            scheduler: &*LtxVideo.scheduler(config, sampler).unwrap(),
            num_steps: 4,
            text: golden.tensor("text"),
            guidance: None,
            condition,
            frame_rate: None,
        };
        let rng = TorchRng::new(42);
        let start = match condition {
            None => Sample::encode(&*vae, pixels, ImageLatent::drawn(1.0), rng),
            Some(_) => Sample::encode_condition(&*vae, pixels, ImageLatent::drawn(1.0), 3, rng),
        };
        let [latents] = sampling.run::<()>(vec![start], 3, |_| Ok(())).unwrap().try_into().unwrap();
        assert_close(name, latents, &golden.tensor(&format!("sample.{name}")), 2e-4);
    }
}

/// The window of frames that the last one depends on, in the decoders of all versions.
#[test]
fn the_last_frame_alone_is_that_of_the_whole_clip() {
    for fixture in ["vae_090", "vae_091", "vae_095"] {
        let golden = golden(fixture);
        let weights = golden.weights();
        let vae = LtxVideo.vae(&golden.config(), &ParamReader::loaded(&weights, None)).unwrap();
        for latent_frames in [1, 2, 3, 5, 16] {
            let shape = [1, vae.latent_channels(), latent_frames, 3, 4];
            let latents: Tensor<5> = TorchRng::new(2).normal_tensor(shape, &device());
            let decode = |last: bool| {
                let (timestep, scale) = (DecodeNoise::TIMESTEP, DecodeNoise::SCALE);
                let noise = DecodeNoise { timestep, scale, rng: &mut TorchRng::new(9) };
                if last {
                    vae.decode_last(latents.clone(), noise).unwrap()
                } else {
                    vae.decode_sampled(latents.clone(), noise)
                }
            };
            let (whole, last) = (decode(false), decode(true));
            let frames = whole.dims()[2];
            // The decoder of this fixture has fewer levels than its encoder.
            if fixture != "vae_095" {
                assert_eq!(frames, vae.decoded_frames(latent_frames));
            }
            assert_eq!(last.dims()[2], 1);
            assert_close("last frame", last, &whole.narrow(2, frames - 1, 1), 1e-6);
        }
    }
}
