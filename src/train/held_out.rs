//! The loss on clips that are not trained on, at fixed timesteps.
//!
//! A training's own loss says little: each step draws other timesteps, and the loss depends on them
//! more than on what was learnt. Here timesteps are the same quantiles of the training's
//! distribution each time, and the noise of a clip at a quantile is the same, too: a function of
//! the seed, the clip's name and the quantile. So losses of one training, of trainings that differ
//! in a setting, and of the same clip in another set can be compared.

use burn::tensor::Device;
use serde::Serialize;

use super::{
    batch::{Diffusion, Example},
    gradient::Build,
    loss::denoiser_loss,
    order::{Stream, place, step_rng},
    steps::TrainError,
};
use crate::{
    models::{Params, schedulers::Quantile},
    store::Digest,
};

/// The quantiles of the distribution of timesteps.
pub const QUANTILES: [Quantile; 5] = [
    Quantile { share: 0.1, normal: -1.281_551_565_544_600_4 },
    Quantile { share: 0.3, normal: -0.524_400_512_708_040_7 },
    Quantile { share: 0.5, normal: 0.0 },
    Quantile { share: 0.7, normal: 0.524_400_512_708_040_7 },
    Quantile { share: 0.9, normal: 1.281_551_565_544_600_4 },
];

/// A clip that is not trained on.
#[derive(Clone, Debug)]
pub struct HeldOutClip {
    /// Its name.
    pub name: String,
    /// Its latents.
    pub example: Example,
}

/// The clips that are not trained on.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// Steps between two evaluations; the first is before the first step.
    pub every: usize,
    /// The clips, at least one.
    pub clips: Vec<HeldOutClip>,
}

/// The losses after a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Steps done.
    pub step: usize,
    /// The mean over the clips, by quantile.
    pub losses: Vec<f32>,
}

impl HeldOut {
    /// Whether the clips are looked at after so many steps.
    pub fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.every.max(1))
    }

    /// The mean losses of the clips by quantile, one forward pass for each. The image is always
    /// given.
    pub fn losses(
        &self,
        build: &Build<'_>,
        params: &Params,
        diffusion: &Diffusion<'_>,
        seed: u64,
    ) -> Result<Vec<f32>, TrainError> {
        let denoiser = build(params)?;
        let mut sums = [0.0_f64; QUANTILES.len()];
        for HeldOutClip { name, example } in &self.clips {
            for (index, quantile) in QUANTILES.into_iter().enumerate() {
                let key = draw_key(name, index);
                let device: Device = example.latents.device();
                let mut rng = step_rng(seed, Stream::HeldOut, key);
                let noise = rng.normal_tensor(example.latents.dims(), &device);
                let batch = diffusion.at_quantile(example, quantile, noise);
                let loss = denoiser_loss(denoiser.forward(&batch.input), &batch);
                sums[index] += f64::from(loss.into_scalar::<f32>());
            }
        }
        Ok(sums.iter().map(|sum| (sum / self.clips.len() as f64) as f32).collect())
    }
}

/// A number for a clip and a quantile.
fn draw_key(name: &str, quantile: usize) -> usize {
    place(&Digest::of(name.as_bytes())) * QUANTILES.len() + quantile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_and_quantiles_have_noise_of_their_own() {
        let mut keys: Vec<_> =
            ["a", "b", "ab"].iter().flat_map(|name| [0, 1, 4].map(|q| draw_key(name, q))).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 9);
    }

    #[test]
    fn clips_are_looked_at_before_the_first_step_and_then_at_intervals() {
        let held_out = HeldOut { every: 10, clips: Vec::new() };
        let due: Vec<_> = (0..=25).filter(|step| held_out.is_due(*step)).collect();
        assert_eq!(due, [0, 10, 20]);
    }
}
