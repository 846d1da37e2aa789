//! Image to video: the loop from noise to latents.
//!
//! One generator per sample, drawn from in the order of diffusers' pipeline: the posterior noise of
//! the image, the initial latents, then the noise of each step. A seed therefore means the same
//! there and here, and a sample does not depend on what shares its batch.

use burn::tensor::{FloatDType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Denoiser, DenoiserInput, LoadError, NoiseScheduler, VideoVae};
use crate::train::rng::TorchRng;

/// A multiple that the conditioning image's latent gets before it meets the denoiser.
///
/// Public code disagrees on it for CogVideoX 1.5; training and sampling must agree with each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ImageLatentScale {
    /// The multiple itself.
    Factor(f64),
    /// A rule by the VAE's scaling factor.
    Rule(ScaleRule),
}

/// How the VAE's scaling factor gives the multiple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRule {
    /// One divided by it: what diffusers samples CogVideoX 1.5 with.
    Inverse,
    /// The factor, as for the video: CogVideoX 1.0, and public trainers of 1.5.
    Direct,
    /// `direct` in training and `inverse` in sampling: the mismatch that arises from using a public
    /// trainer and then diffusers on CogVideoX 1.5.
    PaperMismatch,
}

/// Which side of the experiment asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Training.
    Training,
    /// Sampling.
    Sampling,
}

impl ImageLatentScale {
    /// The multiple for a VAE with this `config.json`; without a choice, what diffusers samples
    /// with.
    pub fn resolve(choice: Option<Self>, vae: &Value, side: Side) -> Result<f64, LoadError> {
        if let Some(Self::Factor(factor)) = choice {
            return Ok(factor);
        }
        let error = |message: &str| LoadError::Config {
            file: "vae/config.json".to_owned(),
            message: message.to_owned(),
        };
        let factor = vae
            .get("scaling_factor")
            .and_then(Value::as_f64)
            .filter(|factor| *factor > 0.0)
            .ok_or_else(|| error("`scaling_factor` must be a positive number"))?;
        let published = match vae.get("invert_scale_latents").and_then(Value::as_bool) {
            Some(true) => ScaleRule::Inverse,
            _ => ScaleRule::Direct,
        };
        let rule = match choice {
            Some(Self::Rule(rule)) => rule,
            _ => published,
        };
        Ok(match (rule, side) {
            (ScaleRule::Inverse, _) | (ScaleRule::PaperMismatch, Side::Sampling) => 1.0 / factor,
            (ScaleRule::Direct, _) | (ScaleRule::PaperMismatch, Side::Training) => factor,
        })
    }
}

/// One clip to make.
pub struct Sample {
    /// The conditioning image's latent `[1, C, 1, h, w]`, scaled.
    pub image: Tensor<5>,
    /// The sample's generator, after the draws for the image.
    pub rng: TorchRng,
}

impl Sample {
    /// Encodes an image `[1, 3, 1, H, W]` in [-1, 1], drawing its posterior noise first.
    pub fn encode(vae: &dyn VideoVae, pixels: Tensor<5>, scale: f64, mut rng: TorchRng) -> Self {
        let device = pixels.device();
        let posterior = vae.encode(pixels);
        let noise = rng.normal_tensor(posterior.mean.dims(), &device);
        Self { image: posterior.sample(noise) * scale, rng }
    }
}

/// How clips are made.
pub struct Sampling<'a> {
    /// The denoiser.
    pub denoiser: &'a dyn Denoiser,
    /// Its schedule and sampler.
    pub scheduler: &'a dyn NoiseScheduler,
    /// Number of steps.
    pub num_steps: usize,
    /// The encoded prompt `[1, L, D]`.
    pub text: Tensor<3>,
    /// Classifier-free guidance: scale and the encoded negative prompt.
    pub guidance: Option<(f64, Tensor<3>)>,
}

impl Sampling<'_> {
    /// Makes clips of `frames` latent frames in one batch; all images must be of one size.
    /// `observe` is told of each finished step and may end the loop with an error.
    pub fn run<E>(
        &self,
        samples: Vec<Sample>,
        frames: usize,
        mut observe: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<Tensor<5>>, E> {
        let padding = self.denoiser.num_padding_frames(frames);
        let (images, mut rngs): (Vec<_>, Vec<_>) =
            samples.into_iter().map(|sample| (sample.image, sample.rng)).unzip();
        let mut latents: Vec<Tensor<5>> = images
            .iter()
            .zip(&mut rngs)
            .map(|(image, rng)| {
                let [_, c, _, h, w] = image.dims();
                rng.normal_latents([1, c, frames + padding, h, w], &image.device())
            })
            .collect();
        let images = Tensor::cat(images, 0);
        let mut runs: Vec<_> =
            latents.iter().map(|_| self.scheduler.start(self.num_steps)).collect();
        for (index, timestep) in self.scheduler.timesteps(self.num_steps).into_iter().enumerate() {
            let predictions = self.predict(Tensor::cat(latents.clone(), 0), &images, timestep);
            latents = latents
                .into_iter()
                .zip(&mut runs)
                .zip(&mut rngs)
                .enumerate()
                .map(|(i, ((latents, run), rng))| {
                    let prediction = predictions.clone().narrow(0, i, 1);
                    run.step(index, prediction, latents, rng)
                })
                .collect();
            observe(index + 1)?;
        }
        Ok(latents.into_iter().map(|latents| latents.narrow(2, padding, frames)).collect())
    }

    fn predict(&self, latents: Tensor<5>, images: &Tensor<5>, timestep: f32) -> Tensor<5> {
        let size = latents.dims()[0];
        let [_, tokens, dim] = self.text.dims();
        let forward = |text: &Tensor<3>| {
            let input = DenoiserInput {
                latents: latents.clone(),
                image: images.clone(),
                text: text.clone().expand([size, tokens, dim]),
                timesteps: vec![timestep; size],
            };
            self.denoiser.forward(&input).cast(FloatDType::F32)
        };
        let conditional = forward(&self.text);
        match &self.guidance {
            None => conditional,
            Some((scale, negative)) => {
                let unconditional = forward(negative);
                unconditional.clone() + (conditional - unconditional) * *scale
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_image_scale_follows_the_vae_unless_it_is_stated() {
        let inverted = json!({ "scaling_factor": 0.5, "invert_scale_latents": true });
        let plain = json!({ "scaling_factor": 0.5, "invert_scale_latents": false });
        let of = |choice, vae, side| ImageLatentScale::resolve(choice, vae, side).unwrap();
        for side in [Side::Training, Side::Sampling] {
            assert_eq!(of(None, &inverted, side), 2.0);
            assert_eq!(of(None, &plain, side), 0.5);
            assert_eq!(of(Some(ImageLatentScale::Factor(1.25)), &plain, side), 1.25);
        }
        let mismatch = Some(ImageLatentScale::Rule(ScaleRule::PaperMismatch));
        assert_eq!(of(mismatch, &inverted, Side::Training), 0.5);
        assert_eq!(of(mismatch, &inverted, Side::Sampling), 2.0);
        assert!(ImageLatentScale::resolve(None, &json!({}), Side::Sampling).is_err());
    }
}
