use std::path::Path;

use burn::tensor::{Tensor, TensorData};

use super::*;
use crate::train::{
    gradient,
    order::{Stream, step_rng},
};

fn settings(steps: usize) -> Steps {
    Steps {
        steps,
        learning_rate: 0.05,
        schedule: LrSchedule::Constant,
        warmup_steps: 0,
        optimizer: AdamW::default(),
        max_grad_norm: 1.0,
        ema: Some(0.9),
        save_every: 3,
    }
}

/// Fits `p` to noisy targets around 2; stops after `stop` steps of this call.
fn fit(steps: usize, folder: Option<&Path>, stop: usize) -> Result<Trained, TrainError> {
    let mut trained = fit_to(&[steps], folder, stop)?;
    assert_eq!(trained.len(), 1);
    Ok(trained.remove(0))
}

/// The same, with what was trained at each of `stops`.
fn fit_to(stops: &[usize], folder: Option<&Path>, stop: usize) -> Result<Vec<Trained>, TrainError> {
    let device = Device::flex();
    let init = || {
        let flat = Tensor::zeros([64], &device);
        Params([("p".to_owned(), Param { flat, shape: vec![8, 8] })].into())
    };
    let mut gradients = |step: usize, params: &Params| {
        let noise = step_rng(7, Stream::Batch, step).normal(64);
        let target = Tensor::<1>::from_data(TensorData::new(noise, [64]), &device) + 2.0;
        gradient::of_loss(params, |leaves| {
            let difference = leaves.0["p"].flat.clone() - target;
            Ok((difference.clone() * difference).mean())
        })
    };
    let mut left = stop;
    let mut observe = |_: StepReport| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let checkpoints = folder.map(Checkpoints::alone);
    let settings = settings(stops[stops.len() - 1]);
    run(&settings, stops, checkpoints, &device, init, &mut gradients, &mut observe)
}

fn bits(trained: &Trained) -> (Vec<u32>, Vec<u32>) {
    let values = trained.params.0["p"].flat.to_data().try_to_vec::<f32>().unwrap();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
    (bits(&values), bits(&trained.losses))
}

#[test]
fn training_reduces_the_loss() {
    let losses = fit(200, None, usize::MAX).unwrap().losses;
    assert!(losses[0] > 4.0 && losses[199] < 1.5, "{} {}", losses[0], losses[199]);
}

#[test]
fn a_last_state_that_cannot_be_kept_costs_the_training_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let checkpoints = Checkpoints::alone(folder.path());
    let init = || {
        let flat = Tensor::ones([4], &device);
        Params([("p".to_owned(), Param { flat, shape: vec![2, 2] })].into())
    };
    let mut gradients = |step: usize, params: &Params| {
        if step == 1 {
            std::fs::remove_dir(folder.path()).unwrap();
        }
        gradient::of_loss(params, |leaves| Ok(leaves.0["p"].flat.clone().mean()))
    };
    let mut observe = |_: StepReport| ControlFlow::Continue(());
    let trained =
        run(&settings(2), &[2], Some(checkpoints), &device, init, &mut gradients, &mut observe);
    assert_eq!(trained.unwrap()[0].losses.len(), 2);
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let whole = bits(&fit(20, None, usize::MAX).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for stop in [1, 4, 7] {
        let stopped = fit(20, Some(folder.path()), stop);
        assert!(matches!(stopped, Err(TrainError::Stopped)));
    }
    assert_eq!(bits(&fit(20, Some(folder.path()), usize::MAX).unwrap()), whole);
}

#[test]
fn a_longer_run_goes_on_from_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let short = fit(12, Some(folder.path()), usize::MAX).unwrap();
    assert_eq!(bits(&short), bits(&fit(12, None, usize::MAX).unwrap()));
    // Eight more steps are enough, so stopping at the ninth never happens.
    let long = fit(20, Some(folder.path()), 9).unwrap();
    assert_eq!(bits(&long), bits(&fit(20, None, usize::MAX).unwrap()));
    // What a finished run left is its result: no step is done again.
    assert_eq!(bits(&fit(12, Some(folder.path()), 1).unwrap()), bits(&short));
}

#[test]
fn what_is_saved_on_the_way_equals_shorter_runs_bit_for_bit() {
    let alone: Vec<_> =
        [4, 9, 15].iter().map(|n| bits(&fit(*n, None, usize::MAX).unwrap())).collect();
    let check = |trained: &[Trained]| {
        assert_eq!(trained.iter().map(bits).collect::<Vec<_>>(), alone);
    };
    check(&fit_to(&[4, 9, 15], None, usize::MAX).unwrap());
    // Interrupted anywhere, and with checkpoints of other runs beyond some of the stops.
    let folder = tempfile::tempdir().unwrap();
    assert!(fit_to(&[4, 9, 15], Some(folder.path()), 6).is_err());
    fit(12, Some(folder.path()), usize::MAX).unwrap();
    check(&fit_to(&[4, 9, 15], Some(folder.path()), usize::MAX).unwrap());
    // All stops are there now: no step is made again.
    check(&fit_to(&[4, 9, 15], Some(folder.path()), 1).unwrap());
}

/// Trains one parameter whose gradient is `factor` of the step, with the checkpoints in a folder;
/// gives why it ended.
fn diverge(settings: &Steps, folder: Option<&Path>, factor: impl Fn(usize) -> f32) -> Diverged {
    let device = Device::flex();
    let init = || {
        let flat = Tensor::zeros([1], &device);
        Params([("p".to_owned(), Param { flat, shape: vec![1] })].into())
    };
    let mut gradients = |step: usize, params: &Params| {
        let factor = factor(step);
        gradient::of_loss(params, |leaves| Ok((leaves.0["p"].flat.clone() * factor).sum()))
    };
    let go = &mut |_: StepReport| ControlFlow::Continue(());
    let checkpoints = folder.map(Checkpoints::alone);
    let stops = [settings.steps];
    match run(settings, &stops, checkpoints, &device, init, &mut gradients, go) {
        Err(TrainError::NotFinite(diverged)) => diverged,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_loss_that_is_no_number_names_the_step_and_the_last_that_was_one() {
    let no_number = |step| if step == 2 { f32::NAN } else { 1.0 };
    let diverged = diverge(&settings(5), None, no_number);
    insta::assert_snapshot!(diverged, @"the loss is not a finite number at step 3 (learning rate 5e-2); the last loss that was is -0.0500");
    let at_once = diverge(&settings(5), None, |_| f32::INFINITY);
    insta::assert_snapshot!(at_once, @"the loss is not a finite number at step 1 (learning rate 5e-2)");
}

#[test]
fn a_state_that_is_no_numbers_takes_the_place_of_none_that_was() {
    // Finite losses and gradients, and a step out of all numbers.
    let steps = Steps { learning_rate: f64::MAX, ..settings(1) };
    let diverged = diverge(&steps, None, |_| 1.0);
    insta::assert_snapshot!(diverged, @"a value of `p` is not a finite number at step 1 (learning rate 1.7976931348623157e308); the last loss that was is 0.0000");

    let folder = tempfile::tempdir().unwrap();
    let late = |step| if step == 4 { f32::NAN } else { 1.0 };
    let diverged = diverge(&settings(9), Some(folder.path()), late);
    assert_eq!((diverged.step, diverged.kept), (5, Some(3)));
    let mut checkpoints = Checkpoints::alone(folder.path());
    let state = checkpoints.latest(9, &Device::flex()).unwrap().unwrap();
    assert_eq!((state.step, state.params.not_finite()), (3, None));
    // Where the rate depends on the length, a shorter training is another one.
    let cosine = Steps { schedule: LrSchedule::Cosine, ..settings(9) };
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(diverge(&cosine, Some(folder.path()), late).kept, None);
}
