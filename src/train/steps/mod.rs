//! The loop every training shares: gradients, clipping, `AdamW`, average, checkpoints.

mod error;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use burn::tensor::Device;

use super::{
    checkpoint::{Checkpoints, State},
    gradient::Gradients,
    held_out::Evaluation,
    optimizer::{AdamW, clip_factor, global_norm},
    schedule::LrSchedule,
};
use crate::{
    models::{Params, params::Param},
    store::Keep,
};

pub use error::{Diverged, TrainError};

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

    /// That something is not finite at a step, from 1; `kept` is the step of the last state that
    /// is.
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
