//! What a step of training is made of, against the reference: which examples and encodings of the
//! image are drawn, how they are noised, and gradients averaged over batches.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use pipe::{
    models::{
        Adapter, ImageConditioning, Params, Sampler, TimeAxis, TimestepDistribution,
        VideoDiffusion, cogvideox::CogVideoX, ltx_video::LtxVideo,
    },
    rng::TorchRng,
    train::{
        batch::{Diffusion, Example},
        denoiser::DenoiserTraining,
        gradient::{Recompute, denoiser_gradients},
        optimizer::{AdamW, global_norm},
        order::{Order, SmallSet, Stream, step_rng},
        schedule::LrSchedule,
        steps::{StepReport, Steps},
    },
};

use crate::{
    golden::{Golden, assert_below, assert_close, device, tolerance},
    ltx_video,
    training::{Fixture, VERSIONS},
};

/// As in `tests/golden/training/make.py`.
const SEED: u64 = 42;
const SCALE: f64 = 0.7;
const DROPOUT: f64 = 0.4;

fn batches(version: &str) -> Golden {
    Golden::fixture(&format!("training/{version}_batches"))
}

/// The fixture's three examples, padded by the model.
fn examples(fixture: &Fixture, golden: &Golden) -> Vec<Example> {
    let denoiser = fixture.denoiser(None).unwrap();
    let example = |index: usize| Example {
        latents: denoiser.pad_frames(golden.tensor(&format!("clean.{index}"))),
        images: golden.tensor(&format!("pool.{index}")),
    };
    (0..3).map(example).collect()
}

/// Lends a [`Diffusion`] of the fixture's model.
fn with_diffusion<T>(fixture: &Fixture, run: impl FnOnce(Diffusion<'_>) -> T) -> T {
    let scheduler = fixture.scheduler(Sampler::Ddim);
    run(Diffusion {
        scheduler: &*scheduler,
        conditioning: CogVideoX.image_conditioning(),
        distribution: TimestepDistribution::Uniform,
        image_scale: SCALE,
        image_dropout: DROPOUT,
        text: fixture.golden.tensor("text"),
        time: TimeAxis::default(),
    })
}

fn order() -> Order {
    Order { len: 3, batch_size: 2, small_set: SmallSet::Repeat, seed: SEED }
}

/// The model with these factors; see the fixture of the training trace.
fn adapter(factors: &Params) -> Adapter {
    Adapter { rank: 3, alpha: 2.0, factors: factors.clone() }
}

#[test]
fn batches_are_drawn_and_noised_as_in_the_reference() {
    for version in VERSIONS {
        let (fixture, golden) = (Fixture::read(version), batches(version));
        let examples = examples(&fixture, &golden);
        with_diffusion(&fixture, |diffusion| {
            let mut blank = 0;
            for index in 0..4 {
                let chosen = order().batch(index).into_iter().map(|i| &examples[i]);
                let mut rng = step_rng(SEED, Stream::Batch, index);
                let batch = diffusion.batch(&chosen.collect::<Vec<_>>(), &mut rng);
                let wanted = golden.values(&format!("timesteps.{index}")).0;
                assert_eq!(batch.input.timesteps, wanted, "{version}, batch {index}");
                assert!(batch.weights.is_none(), "every frame counts");
                for (name, found) in [
                    ("noisy", batch.input.latents),
                    ("image", batch.input.image.clone()),
                    ("target", batch.target),
                ] {
                    let wanted = golden.tensor(&format!("{name}.{index}"));
                    // A batch of blank images has no scale to be relative to.
                    if wanted.clone().abs().max().into_scalar::<f32>() > 0.0 {
                        assert_close(&format!("{version} {name} {index}"), found, &wanted, 1e-6);
                    } else {
                        assert!(found.abs().max().into_scalar::<f32>() <= 0.0, "{name} {index}");
                    }
                }
                let images = batch.input.image.abs().max_dims(&[1, 2, 3, 4]).into_data();
                blank += images.try_to_vec::<f32>().unwrap().iter().filter(|v| **v <= 0.0).count();
            }
            assert_eq!(blank, 3, "some images are dropped, and some are not");
        });
    }
}

/// Which encoding of the image a sample gets is drawn for it: over many draws, each of the pool.
#[test]
fn every_encoding_of_the_pool_is_drawn_and_none_where_all_are_dropped() {
    let (fixture, golden) = (Fixture::read("15"), batches("15"));
    let example = &examples(&fixture, &golden)[1];
    let [len, c, f, h, w] = example.images.dims();
    assert_eq!(len, 4);
    with_diffusion(&fixture, |mut diffusion| {
        let mut rng = TorchRng::new(3);
        diffusion.image_dropout = 0.0;
        let images = diffusion.batch(&[example; 64], &mut rng).input.image;
        let mut seen = [0; 4];
        for row in 0..64 {
            let image = images.clone().narrow(0, row, 1);
            let is = |index: &usize| {
                let encoding = example.images.clone().narrow(0, *index, 1) * SCALE;
                (image.clone() - encoding).abs().max().into_scalar::<f32>() <= f32::EPSILON
            };
            let found: Vec<usize> = (0..len).filter(is).collect();
            assert_eq!(found.len(), 1, "row {row} is one of the pool: {found:?}");
            seen[found[0]] += 1;
        }
        // 16 each is expected, with a deviation of 3.5.
        assert!(seen.iter().all(|count| (4..=28).contains(count)), "{seen:?}");

        diffusion.image_dropout = 1.0;
        let image = diffusion.batch(&[example; 64], &mut rng).input.image;
        assert_eq!(image.dims(), [64, c, f, h, w]);
        assert!(image.abs().max().into_scalar::<f32>() <= 0.0, "no image at all");
    });
}

#[test]
fn a_step_over_two_batches_has_the_gradients_of_the_reference() {
    for version in VERSIONS {
        let (fixture, golden) = (Fixture::read(version), batches(version));
        let examples = examples(&fixture, &golden);
        let factors = fixture.factors("final");
        let build = |factors: &Params| fixture.denoiser(Some(&adapter(factors)));
        with_diffusion(&fixture, |diffusion| {
            let training = training(&build, &examples, diffusion, 2);
            for step in 0..2 {
                let found = training.gradients(step, &factors).unwrap();
                let norm = global_norm(&found.by_name);
                for (what, found) in [("loss", found.loss), ("norm", norm)] {
                    let wanted = golden.values(&format!("{what}.{step}")).0[0];
                    let error = (found - wanted).abs() / wanted;
                    assert_below(&format!("{version} {what} {step}"), error, tolerance(1e-4));
                }
                let wanted = golden.params(&format!("grad.{step}."));
                assert_eq!(found.by_name.len(), wanted.0.len());
                for (name, wanted) in &wanted.0 {
                    assert_close(name, found.by_name[name].clone(), &wanted.flat, 1e-4);
                }
            }
        });
    }
}

/// A training on clips, of which only the gradients of a step are asked for.
fn training<'a>(
    build: &'a pipe::train::gradient::Build<'a>,
    examples: &'a [Example],
    diffusion: Diffusion<'a>,
    accumulation: usize,
) -> DenoiserTraining<'a> {
    let steps = Steps {
        steps: 2,
        learning_rate: 1e-3,
        schedule: LrSchedule::Constant,
        warmup_steps: 0,
        optimizer: AdamW { betas: [0.9, 0.95], weight_decay: 0.0, eps: 1e-8 },
        max_grad_norm: 1.0,
        ema: None,
        save_every: 1,
    };
    DenoiserTraining {
        steps,
        build,
        examples,
        diffusion,
        order: order(),
        accumulation,
        recompute: Recompute::NONE,
        held_out: None,
    }
}

#[test]
fn a_step_over_batches_is_the_mean_of_steps_on_each() {
    let (fixture, golden) = (Fixture::read("10"), batches("10"));
    let examples = examples(&fixture, &golden);
    let factors = fixture.factors("final");
    let build = |factors: &Params| fixture.denoiser(Some(&adapter(factors)));
    with_diffusion(&fixture, |diffusion| {
        let mut parts = Vec::new();
        for index in 3..6 {
            let chosen: Vec<_> = order().batch(index).into_iter().map(|i| &examples[i]).collect();
            let batch = diffusion.batch(&chosen, &mut step_rng(SEED, Stream::Batch, index));
            parts.push(denoiser_gradients(&build, &factors, &batch, Recompute::NONE).unwrap());
        }
        // The second step of three batches.
        let found = training(&build, &examples, diffusion, 3).gradients(1, &factors).unwrap();
        let loss = parts.iter().map(|part| part.loss).sum::<f32>() / 3.0;
        assert!((found.loss - loss).abs() < tolerance(1e-6), "{} is not {loss}", found.loss);
        for (name, found) in found.by_name {
            let sum = parts.iter().map(|part| part.by_name[&name].clone()).reduce(|a, b| a + b);
            assert_close(&name, found, &(sum.unwrap() / 3.0), 1e-5);
        }
    });
}

/// A training draws for the next batch beside the one that it computes.
#[test]
fn a_training_that_draws_ahead_has_the_losses_of_its_steps() {
    let (fixture, golden) = (Fixture::read("15"), batches("15"));
    let examples = examples(&fixture, &golden);
    let factors = fixture.factors("final");
    let build = |factors: &Params| fixture.denoiser(Some(&adapter(factors)));
    with_diffusion(&fixture, |diffusion| {
        let training = training(&build, &examples, diffusion, 2);
        let mut observe = |_: StepReport| ControlFlow::Continue(());
        let trained =
            training.run(&[1, 2], None, &device(), || factors.clone(), &mut observe).unwrap();
        let [first, second] = <[_; 2]>::try_from(trained).unwrap();
        let loss = |step, params: &Params| training.gradients(step, params).unwrap().loss;
        let alone = [loss(0, &factors), loss(1, &first.params.to_device(&device()))];
        for (found, alone) in second.losses.iter().zip(alone) {
            assert!((found - alone).abs() <= tolerance(0.0), "{found} is not {alone}");
        }
    });
}

#[test]
fn the_first_frame_is_repeated_in_front_up_to_whole_tokens() {
    let clip = |frames: usize| -> Tensor<5> {
        TorchRng::new(1).normal_tensor([1, 4, frames, 4, 6], &device())
    };
    let same = |a: Tensor<5>, b: Tensor<5>| {
        assert_eq!(a.dims(), b.dims());
        assert!((a - b).abs().max().into_scalar::<f32>() <= 0.0);
    };
    // Two frames to a token.
    let newer = Fixture::read("15").denoiser(None).unwrap();
    for (frames, padding) in [(1, 1), (2, 0), (3, 1), (4, 0)] {
        let latents = clip(frames);
        assert_eq!(newer.num_padding_frames(frames), padding);
        let padded = newer.pad_frames(latents.clone());
        assert_eq!(padded.dims()[2], frames + padding);
        for index in 0..padding {
            same(padded.clone().narrow(2, index, 1), latents.clone().narrow(2, 0, 1));
        }
        same(padded.narrow(2, padding, frames), latents);
    }
    // One.
    let older = Fixture::read("10").denoiser(None).unwrap();
    same(older.pad_frames(clip(3)), clip(3));
    assert_eq!(LtxVideo.image_conditioning(), ImageConditioning::FirstFrame);
    same(ltx_video::Fixture::read().denoiser(None).unwrap().pad_frames(clip(3)), clip(3));
}
