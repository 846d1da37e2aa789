//! Training of a denoiser: all of its parameters, or those of an adapter on a frozen one.

use std::{
    ops::ControlFlow,
    panic::resume_unwind,
    thread::{Builder, Scope, ScopedJoinHandle, scope},
};

use burn::tensor::Device;

use super::{
    batch::{Diffusion, Draws, Example},
    checkpoint::Checkpoints,
    gradient::{Build, Gradients, Recompute},
    held_out::{Evaluation, HeldOut},
    order::{Order, Stream, step_rng},
    shards::sharded_gradients,
    steps::{self, StepReport, Steps, TrainError, Trained},
};
use crate::models::Params;

/// Training of a denoiser's parameters, all of them or an adapter's: what differs is `build`.
pub struct DenoiserTraining<'a> {
    /// The loop.
    pub steps: Steps,
    /// Makes the denoiser from the trained parameters.
    pub build: &'a Build<'a>,
    /// The clips, at least one.
    pub examples: &'a [Example],
    /// How they are noised.
    pub diffusion: Diffusion<'a>,
    /// Which clips a step sees.
    pub order: Order,
    /// Batches whose gradients are averaged in one step, at least 1.
    pub accumulation: usize,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// Clips that are not trained on, to look at on the way.
    pub held_out: Option<HeldOut>,
}

impl DenoiserTraining<'_> {
    /// Trains from `init`, or from the nearest checkpoint, and gives what was trained at each of
    /// `stops`.
    pub fn run(
        &self,
        stops: &[usize],
        checkpoints: Option<Checkpoints>,
        device: &Device,
        init: impl FnOnce() -> Params,
        observe: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
    ) -> Result<Vec<Trained>, TrainError> {
        scope(|scope| {
            let mut task = DrawingAhead { training: self, scope, next: None };
            steps::run(&self.steps, stops, checkpoints, device, init, &mut task, observe)
        })
    }

    /// The gradients of one step, from 0.
    pub fn gradients(&self, step: usize, params: &Params) -> Result<Gradients, TrainError> {
        self.gradients_of(step, params, |index| self.draw(index))
    }

    /// The same, with what `drawn` gives for a batch of the training.
    fn gradients_of(
        &self,
        step: usize,
        params: &Params,
        mut drawn: impl FnMut(usize) -> Drawn,
    ) -> Result<Gradients, TrainError> {
        let mut sum = Gradients::default();
        let share = 1.0 / self.accumulation as f32;
        for part in 0..self.accumulation {
            let index = step * self.accumulation + part;
            let Drawn { chosen, draws } = drawn(index);
            let examples: Vec<&Example> = chosen.into_iter().map(|i| &self.examples[i]).collect();
            let batch = self.diffusion.drawn(&examples, draws);
            let found = sharded_gradients(self.build, params, &batch, self.recompute)?;
            if self.accumulation == 1 {
                return Ok(found);
            }
            sum.add(found, share);
        }
        Ok(sum)
    }

    /// What is drawn for a batch, counted over the whole training.
    fn draw(&self, index: usize) -> Drawn {
        let chosen = self.order.batch(index);
        let mut rng = step_rng(self.order.seed, Stream::Batch, index);
        let dims = self.examples[chosen[0]].latents.dims();
        let draws = self.diffusion.draw(chosen.len(), dims, &mut rng);
        Drawn { chosen, draws }
    }
}

/// A batch before its tensors are made.
struct Drawn {
    /// Its clips, by their places.
    chosen: Vec<usize>,
    draws: Draws,
}

/// A training that draws for the next batch while a device computes this one: a million normal
/// values take the host 10 to 20 ms.
struct DrawingAhead<'scope, 'env> {
    training: &'env DenoiserTraining<'env>,
    scope: &'scope Scope<'scope, 'env>,
    /// The next batch, and who draws for it.
    next: Option<(usize, ScopedJoinHandle<'scope, Drawn>)>,
}

impl DrawingAhead<'_, '_> {
    fn drawn(&mut self, index: usize) -> Drawn {
        let training = self.training;
        let drawn = match self.next.take() {
            Some((of, thread)) if of == index => {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic))
            }
            _ => training.draw(index),
        };
        let next = index + 1;
        if next < training.steps.steps * training.accumulation {
            // Where no thread can be had, it is drawn when it is needed.
            let thread = Builder::new().spawn_scoped(self.scope, move || training.draw(next));
            self.next = thread.ok().map(|thread| (next, thread));
        }
        drawn
    }
}

impl steps::Task for DrawingAhead<'_, '_> {
    fn gradients(&mut self, step: usize, params: &Params) -> Result<Gradients, TrainError> {
        self.training.gradients_of(step, params, |index| self.drawn(index))
    }

    fn held_out(&mut self, step: usize, params: &Params) -> Result<Option<Evaluation>, TrainError> {
        let DenoiserTraining { build, diffusion, order, held_out, .. } = self.training;
        let Some(held_out) = held_out.as_ref().filter(|held_out| held_out.is_due(step)) else {
            return Ok(None);
        };
        let losses = held_out.losses(*build, params, diffusion, order.seed)?;
        Ok(Some(Evaluation { step, losses }))
    }
}
