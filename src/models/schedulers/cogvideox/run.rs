//! The steps of the two samplers.

use std::sync::Arc;

use burn::tensor::{FloatDType, Tensor};

use super::{super::SamplingRun, Schedule};
use crate::{models::Sampler, rng::TorchRng};

/// One sampling run.
pub(super) struct Run {
    pub(super) schedule: Arc<Schedule>,
    pub(super) sampler: Sampler,
    pub(super) timesteps: Vec<usize>,
    /// The clean latents found in the step before; DPM only.
    pub(super) clean_before: Option<Tensor<5>>,
}

/// What one step multiplies with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coefficients {
    /// Of the latents.
    pub(super) latents: f64,
    /// Of the clean latents found in this step.
    pub(super) clean: f64,
    /// Of the clean latents found in the step before.
    pub(super) clean_before: f64,
    /// Of the noise.
    pub(super) noise: f64,
}

impl Run {
    /// `a` at the start of step `index`.
    fn alpha(&self, index: usize) -> f64 {
        self.schedule.alphas[self.timesteps[index]]
    }

    /// `a'` at the end of step `index`, and whether that is the end of the schedule. The reference
    /// goes down by the whole part of `T / N`, which need not be the next timestep of the run.
    fn alpha_after(&self, index: usize) -> (f64, bool) {
        let stride = self.schedule.alphas.len() / self.timesteps.len();
        match self.timesteps[index].checked_sub(stride) {
            Some(timestep) => (self.schedule.alphas[timestep], false),
            None => (self.schedule.final_alpha, true),
        }
    }

    pub(super) fn ddim(&self, index: usize) -> Coefficients {
        let (a, (after, _)) = (self.alpha(index), self.alpha_after(index));
        let latents = ((1.0 - after) / (1.0 - a)).sqrt();
        let clean = after.sqrt() - a.sqrt() * latents;
        Coefficients { latents, clean, clean_before: 0.0, noise: 0.0 }
    }

    pub(super) fn dpm(&self, index: usize) -> Coefficients {
        let (a, (after, last)) = (self.alpha(index), self.alpha_after(index));
        if after >= 1.0 {
            return Coefficients { latents: 0.0, clean: 1.0, clean_before: 0.0, noise: 0.0 };
        }
        let lambda = |a: f64| (a / (1.0 - a)).sqrt().ln();
        let h = lambda(after) - lambda(a);
        let (latents, clean, noise) = if a <= 0.0 {
            (0.0, after.sqrt(), (1.0 - after).sqrt())
        } else {
            (
                ((1.0 - after) / (1.0 - a)).sqrt() * (-h).exp(),
                -(-2.0 * h).exp_m1() * after.sqrt(),
                (1.0 - after).sqrt() * (-(-2.0 * h).exp_m1()).sqrt(),
            )
        };
        let extrapolation = match index.checked_sub(1).map(|before| self.alpha(before)) {
            Some(before) if before > 0.0 && !last => h / (2.0 * (lambda(a) - lambda(before))),
            _ => 0.0,
        };
        Coefficients {
            latents,
            clean: clean * (1.0 + extrapolation),
            clean_before: -clean * extrapolation,
            noise,
        }
    }
}

impl SamplingRun for Run {
    fn step(
        &mut self,
        index: usize,
        prediction: Tensor<5>,
        latents: Tensor<5>,
        rng: &mut TorchRng,
    ) -> Tensor<5> {
        let a = self.alpha(index);
        let latents = latents.cast(FloatDType::F32);
        let prediction = prediction.cast(FloatDType::F32);
        let clean = latents.clone() * a.sqrt() - prediction * (1.0 - a).sqrt();
        if self.sampler == Sampler::Ddim {
            let by = self.ddim(index);
            return latents * by.latents + clean * by.clean;
        }
        let by = self.dpm(index);
        let (dims, device) = (latents.dims(), latents.device());
        let mut noise = rng.normal_latents(dims, &device);
        let before = self.clean_before.replace(clean.clone());
        let second_order = index > 0 && !self.alpha_after(index).1;
        if second_order {
            // The reference draws anew for its second-order result and drops the first draw.
            noise = rng.normal_latents(dims, &device);
        }
        let mut next = latents * by.latents + clean * by.clean + noise * by.noise;
        if let Some(before) = before
            && by.clean_before != 0.0
        {
            next = next + before * by.clean_before;
        }
        next
    }
}
