//! Training of a denoiser: all of its parameters, or those of an adapter on a frozen one.

use std::ops::ControlFlow;

use burn::tensor::Device;

use super::{
    batch::{Diffusion, Example},
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
        let mut task = self;
        steps::run(&self.steps, stops, checkpoints, device, init, &mut task, observe)
    }

    /// The gradients of one step, from 0.
    pub fn gradients(&self, step: usize, params: &Params) -> Result<Gradients, TrainError> {
        let mut sum = Gradients::default();
        let share = 1.0 / self.accumulation as f32;
        for part in 0..self.accumulation {
            let index = step * self.accumulation + part;
            let examples: Vec<&Example> =
                self.order.batch(index).into_iter().map(|i| &self.examples[i]).collect();
            let mut rng = step_rng(self.order.seed, Stream::Batch, index);
            let batch = self.diffusion.batch(&examples, &mut rng);
            let found = sharded_gradients(self.build, params, &batch, self.recompute)?;
            if self.accumulation == 1 {
                return Ok(found);
            }
            sum.add(found, share);
        }
        Ok(sum)
    }
}

impl steps::Task for &DenoiserTraining<'_> {
    fn gradients(&mut self, step: usize, params: &Params) -> Result<Gradients, TrainError> {
        DenoiserTraining::gradients(self, step, params)
    }

    fn held_out(&mut self, step: usize, params: &Params) -> Result<Option<Evaluation>, TrainError> {
        let Some(held_out) = self.held_out.as_ref().filter(|held_out| held_out.is_due(step)) else {
            return Ok(None);
        };
        let losses = held_out.losses(self.build, params, &self.diffusion, self.order.seed)?;
        Ok(Some(Evaluation { step, losses }))
    }
}
