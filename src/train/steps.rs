//! The loop every training shares: gradients, clipping, `AdamW`, average, checkpoints.

use std::{fmt, ops::ControlFlow};

use burn::tensor::Device;

use super::{
    checkpoint::{Checkpoints, State},
    gradient::Gradients,
    held_out::Evaluation,
    optimizer::{AdamW, clip_factor, global_norm},
    schedule::LrSchedule,
};
use crate::{
    models::{LoadError, Params, params::Param},
    store::Keep,
};

/// The settings of a run that do not depend on what is trained.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Number of steps in all.
    pub steps: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: LrSchedule,
    /// Steps over which it rises.
    pub warmup_steps: usize,
    /// The optimizer.
    pub optimizer: AdamW,
    /// Gradients of a larger norm are scaled down to it.
    pub max_grad_norm: f64,
    /// How slowly an average of the parameters follows them, if one is kept.
    pub ema: Option<f64>,
    /// Steps between checkpoints.
    pub save_every: usize,
}

/// A finished step.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// The step's loss.
    pub loss: f32,
}

/// What training gave.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The parameters: their average if one was kept.
    pub params: Params,
    /// The loss of each step.
    pub losses: Vec<f32>,
    /// The losses on what is not trained on, where they were asked for.
    pub held_out: Vec<Evaluation>,
}

/// Where the arithmetic of a training left the finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Diverged {
    /// `the loss`, `the gradient norm`, or a parameter.
    pub what: String,
    /// From 1.
    pub step: usize,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// The last loss that was a finite number.
    pub last_loss: Option<f32>,
    /// The step of the last state that is kept, if a shorter training goes on from there.
    pub kept: Option<usize>,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, step, learning_rate, last_loss, .. } = self;
        write!(
            f,
            "{what} is not a finite number at step {step} (learning rate {learning_rate:e})"
        )?;
        last_loss.map_or(Ok(()), |loss| write!(f, "; the last loss that was is {loss:.4}"))
    }
}

/// Why training did not finish.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Asked to stop; the state is saved.
    #[error("interrupted")]
    Stopped,
    /// The arithmetic left the finite numbers.
    #[error("{0}")]
    NotFinite(Diverged),
    /// A checkpoint could not be read or written.
    #[error("cannot access the checkpoints: {0}")]
    Checkpoint(#[from] std::io::Error),
    /// The model could not be built.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An example could not be read.
    #[error("{0}")]
    Example(Box<dyn std::error::Error + Send + Sync>),
}

/// What is trained. What it gives must depend on the step and the parameters alone.
pub trait Task {
    /// The gradients of a step, from 0.
    fn gradients(&mut self, step: usize, params: &Params) -> Result<Gradients, TrainError>;

    /// The losses on what is not trained on after so many steps, where they are asked for then.
    fn held_out(
        &mut self,
        _step: usize,
        _params: &Params,
    ) -> Result<Option<Evaluation>, TrainError> {
        Ok(None)
    }
}

impl<F: FnMut(usize, &Params) -> Result<Gradients, TrainError>> Task for F {
    fn gradients(&mut self, step: usize, params: &Params) -> Result<Gradients, TrainError> {
        self(step, params)
    }
}

/// Runs the loop from the nearest checkpoint, or from `init`, and gives what was trained at each of
/// `stops`, which ascend and end at the number of steps. `observe` is told of each step and may end
/// the run.
pub fn run(
    settings: &Steps,
    stops: &[usize],
    mut checkpoints: Option<Checkpoints>,
    device: &Device,
    init: impl FnOnce() -> Params,
    task: &mut dyn Task,
    observe: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
) -> Result<Vec<Trained>, TrainError> {
    let mut state: Option<State> = None;
    let mut init = Some(init);
    let mut trained = Vec::with_capacity(stops.len());
    for &stop in stops {
        if let Some(checkpoints) = &mut checkpoints {
            let beyond = state.as_ref().map_or(0, |state| state.step + 1);
            if beyond <= stop {
                state = checkpoints.latest_in(beyond..=stop, device)?.or(state);
            }
        }
        let mut at = state.take().unwrap_or_else(|| {
            let params = init.take().expect("a run begins once")();
            let ema = settings.ema.map(|_| params.clone());
            State { params, ema, ..State::default() }
        });
        settings.train_to(stop, &mut at, checkpoints.as_mut(), task, observe)?;
        // What was saved on the way takes no room beside the training.
        let params = at.result().clone();
        let is_last = Some(&stop) == stops.last();
        trained.push(Trained {
            params: if is_last { params } else { params.to_device(&Device::flex()) },
            losses: at.losses.clone(),
            held_out: at.held_out.clone(),
        });
        state = Some(at);
    }
    Ok(trained)
}

impl Steps {
    /// Makes the steps from `state` to `stop`, and leaves a checkpoint there.
    fn train_to(
        &self,
        stop: usize,
        state: &mut State,
        mut checkpoints: Option<&mut Checkpoints>,
        task: &mut dyn Task,
        observe: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        let first = state.step;
        if first == 0 {
            state.held_out = task.held_out(0, state.result())?.into_iter().collect();
        }
        let mut kept = (first > 0 && checkpoints.is_some()).then_some(first);
        while state.step < stop {
            let found = task.gradients(state.step, &state.params)?;
            let loss = found.loss;
            self.advance(state, found, kept)?;
            let evaluation = task.held_out(state.step, state.result())?;
            state.held_out.extend(evaluation);
            let is_due = (state.step - first).is_multiple_of(self.save_every.max(1));
            if state.step == stop || is_due {
                // A state that is no numbers any more must not take the place of the last that was.
                self.check(state, kept)?;
            }
            let report = StepReport { done: state.step, total: self.steps, loss };
            let ended = observe(report).is_break();
            if let Some(checkpoints) = &mut checkpoints {
                if state.step == stop {
                    // It serves longer trainings alone: this one is not lost for the want of it.
                    if let Err(error) = checkpoints.save(state, Keep::Final) {
                        tracing::warn!(
                            "the state at step {stop} is not kept, so a longer training begins before \
                             it: {error}"
                        );
                    }
                } else if is_due || ended && self.check(state, kept).is_ok() {
                    checkpoints.save(state, Keep::Rolling)?;
                    kept = Some(state.step);
                }
            }
            if ended {
                return Err(TrainError::Stopped);
            }
        }
        Ok(())
    }

    /// The learning rate of a step, from 0.
    fn rate(&self, step: usize) -> f64 {
        self.learning_rate * self.schedule.factor(step, self.warmup_steps, self.steps)
    }

    /// That something is not finite at a step, from 1; `kept` is the step of the last state that is.
    fn diverged(
        &self,
        what: impl Into<String>,
        step: usize,
        losses: &[f32],
        kept: Option<usize>,
    ) -> TrainError {
        TrainError::NotFinite(Diverged {
            what: what.into(),
            step,
            learning_rate: self.rate(step - 1),
            last_loss: losses.last().copied(),
            // Another length is another training where the rate depends on it.
            kept: kept.filter(|_| !self.schedule.depends_on_steps()),
        })
    }

    /// Checks that what is trained, and what was seen of it, are finite numbers.
    fn check(&self, state: &State, kept: Option<usize>) -> Result<(), TrainError> {
        let error = |what: String| Err(self.diverged(what, state.step, &state.losses, kept));
        let all = [Some(&state.params), state.ema.as_ref()];
        if let Some(name) = all.into_iter().flatten().find_map(Params::not_finite) {
            return error(format!("a value of `{name}`"));
        }
        let seen = state.held_out.iter().flat_map(|evaluation| &evaluation.losses);
        if seen.copied().all(f32::is_finite) {
            return Ok(());
        }
        error("a loss on clips held out".to_owned())
    }

    /// One step of the optimizer.
    fn advance(
        &self,
        state: &mut State,
        gradients: Gradients,
        kept: Option<usize>,
    ) -> Result<(), TrainError> {
        let learning_rate = self.rate(state.step);
        let norm = global_norm(&gradients.by_name);
        for (what, value) in [("the loss", gradients.loss), ("the gradient norm", norm)] {
            if !value.is_finite() {
                return Err(self.diverged(what, state.step + 1, &state.losses, kept));
            }
        }
        state.step += 1;
        state.losses.push(gradients.loss);
        let factor = clip_factor(norm, self.max_grad_norm as f32);
        self.optimizer.step(
            (state.step, learning_rate),
            &mut state.params,
            gradients.by_name,
            factor,
            &mut state.moments,
        );
        if let (Some(decay), Some(ema)) = (self.ema, state.ema.take()) {
            state.ema = Some(average(ema, &state.params, decay, state.step));
        }
        Ok(())
    }
}

/// `decay * ema + (1 - decay) * params`; early steps count more, so that the start is forgotten.
fn average(ema: Params, params: &Params, decay: f64, step: usize) -> Params {
    let decay = decay.min((1 + step) as f64 / (10 + step) as f64);
    let follow = |(name, old): (String, Param)| {
        let new = params.0[&name].flat.clone();
        let flat = old.flat * decay + new * (1.0 - decay);
        (name, Param { flat, shape: old.shape })
    };
    Params(ema.0.into_iter().map(follow).collect())
}

#[cfg(test)]
mod tests {
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
    fn fit_to(
        stops: &[usize],
        folder: Option<&Path>,
        stop: usize,
    ) -> Result<Vec<Trained>, TrainError> {
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

    /// Trains one parameter whose gradient is `factor` of the step, with the checkpoints in a folder; gives
    /// why it ended.
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
}
