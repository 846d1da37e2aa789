//! Image to video: the loop from noise to latents.
//!
//! Follows `CogVideoXImageToVideoPipeline`,
//! `src/diffusers/pipelines/cogvideo/pipeline_cogvideox_image2video.py`, and
//! `LTXImageToVideoPipeline`, `src/diffusers/pipelines/ltx/pipeline_ltx_image2video.py`, at
//! v0.42.1.
//!
//! One generator per sample, drawn from in the order of these pipelines: the posterior noise of
//! the image, the initial latents, then the noise of each step. A seed therefore means the same
//! there and here.
//!
//! Samples never share a batch: matrix products of other heights are rounded differently in the
//! last bit, and a sample must not depend on what else is made. On the CPU several are denoised at
//! the same time instead, which also uses its cores better than one large batch.

mod condition;

use burn::tensor::{Device, FloatDType, Tensor};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Compression, Denoiser, DenoiserInput, LoadError, NoiseScheduler, TimeAxis, VideoVae, cogvideox,
    ltx_video, schedulers::SamplingRun,
};
use crate::rng::TorchRng;

pub use condition::Condition;

/// A multiple that the conditioning image's latent gets before it meets the denoiser.
///
/// Public code disagrees on it for CogVideoX 1.5; training and sampling must agree with each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "`image_latent_scale` must be a number, `inverse`, `direct` or `paper_mismatch`"
)]
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
        let factor = scaling_factor(vae)?;
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

/// What the latents of a VAE with this `config.json` are multiplied by; diffusers writes it, and
/// fills it in where it is not written.
fn scaling_factor(vae: &Value) -> Result<f64, LoadError> {
    const KEY: &str = "scaling_factor";
    let Some(stated) = vae.get(KEY) else {
        let is_ltx = vae.get("_class_name").is_some_and(|class| class == ltx_video::VAE_CLASS);
        return Ok(if is_ltx { 1.0 } else { cogvideox::SCALING_FACTOR });
    };
    stated.as_f64().filter(|factor| *factor > 0.0 && factor.is_finite()).ok_or_else(|| {
        let (file, message) =
            ("vae/config.json".to_owned(), "must be a positive number".to_owned());
        LoadError::Setting { file, key: KEY.to_owned(), message }.with_found(vae)
    })
}

/// One clip to make.
pub struct Sample {
    /// The conditioning image's latent `[1, C, 1, h, w]`, scaled.
    pub image: Tensor<5>,
    /// The initial noise `[1, C, f, h, w]`, where it was drawn before the image was encoded.
    pub noise: Option<Tensor<5>>,
    /// The sample's generator, after these draws.
    pub rng: TorchRng,
    /// That of the autoencoder, by which positions are counted.
    pub compression: Compression,
}

/// How the latent of an image is made.
#[derive(Clone, Copy, Debug)]
pub struct ImageLatent {
    /// The multiple of it.
    pub scale: f64,
    /// Whether it is the posterior's mean, not a draw from it.
    pub mean: bool,
}

impl ImageLatent {
    /// A multiple of a draw from the posterior, as published pipelines make it.
    pub fn drawn(scale: f64) -> Self {
        Self { scale, mean: false }
    }
}

impl Sample {
    /// Encodes an image `[1, 3, 1, H, W]` in [-1, 1], drawing its posterior noise first, also where
    /// the mean is taken: what comes after is then the same.
    pub fn encode(
        vae: &dyn VideoVae,
        pixels: Tensor<5>,
        latent: ImageLatent,
        mut rng: TorchRng,
    ) -> Self {
        let device = pixels.device();
        let posterior = vae.encode(pixels);
        let noise = rng.normal_tensor(posterior.mean.dims(), &device);
        let image = if latent.mean { posterior.mean } else { posterior.sample(noise) };
        let image = vae.standardize(image) * latent.scale;
        Self { image, noise: None, rng, compression: vae.compression() }
    }

    /// The same for [`Sampling::condition`], where the noise of `frames` latent frames is drawn
    /// first.
    pub fn encode_condition(
        vae: &dyn VideoVae,
        pixels: Tensor<5>,
        latent: ImageLatent,
        frames: usize,
        mut rng: TorchRng,
    ) -> Self {
        let [b, _, _, height, width] = pixels.dims();
        let space = vae.compression().space;
        let shape = [b, vae.latent_channels(), frames, height / space, width / space];
        let noise = rng.normal_tensor(shape, &pixels.device());
        Self { noise: Some(noise), ..Self::encode(vae, pixels, latent, rng) }
    }
}

/// The generator of `seed` as sampling leaves it, for latents of this size: after the draws for the
/// image and for the initial latents, and those of the steps of a condition pipeline. Published
/// pipelines go on with it when they decode.
pub fn rng_after_sampling(
    seed: u64,
    size: [usize; 4],
    condition: Option<(Condition, usize)>,
) -> TorchRng {
    let [c, f, h, w] = size;
    let mut rng = TorchRng::new(seed);
    let mut draws = [c * h * w, c * f * h * w];
    if condition.is_some() {
        draws.reverse();
    }
    for draw in draws {
        rng.normal(draw);
    }
    if let Some((condition, steps)) = condition {
        condition.skip(size, steps, &mut rng);
    }
    rng
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
    /// The first frame as a condition pipeline gives it; for families whose image is that frame.
    pub condition: Option<Condition>,
    /// Video frames per second, for families that count time in seconds; by default that of the
    /// published pipeline.
    pub frame_rate: Option<f64>,
}

/// A clip in the making.
struct State {
    latents: Tensor<5>,
    image: Tensor<5>,
    /// The first latent frame at the start, under [`Sampling::condition`].
    first: Option<Tensor<5>>,
    rng: TorchRng,
    time: TimeAxis,
    timesteps: Vec<f32>,
    run: Box<dyn SamplingRun>,
}

impl Sampling<'_> {
    /// Makes clips of `frames` latent frames. `observe` is told of each finished step and may end
    /// the loop with an error.
    pub fn run<E>(
        &self,
        samples: Vec<Sample>,
        frames: usize,
        mut observe: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<Tensor<5>>, E> {
        let padding = self.denoiser.num_padding_frames(frames);
        let mut states: Vec<_> =
            samples.into_iter().map(|sample| self.start(sample, frames + padding)).collect();
        for index in 0..self.num_steps {
            let inputs = states.iter_mut().map(|state| self.input(state, index)).collect();
            for (state, prediction) in states.iter_mut().zip(self.predict(inputs)) {
                self.step(state, index, prediction);
            }
            observe(index + 1)?;
        }
        Ok(states.into_iter().map(|state| state.latents.narrow(2, padding, frames)).collect())
    }

    fn start(&self, sample: Sample, frames: usize) -> State {
        let Sample { image, noise, mut rng, compression } = sample;
        let [_, c, _, h, w] = image.dims();
        let shape = [1, c, frames, h, w];
        let draw = || self.scheduler.draw_noise(shape, &mut rng, &image.device());
        let noise = noise.unwrap_or_else(draw);
        let positions = frames * h * w;
        let latents = match self.condition {
            Some(condition) => condition.place(noise, &image),
            None => self.denoiser.image_conditioning().place(noise, &image),
        };
        State {
            first: self.condition.map(|_| latents.clone().narrow(2, 0, 1)),
            latents,
            timesteps: self.scheduler.timesteps(self.num_steps, positions),
            run: self.scheduler.start(self.num_steps, positions),
            image,
            rng,
            time: TimeAxis::new(self.condition.is_some(), self.frame_rate).compressed(compression),
        }
    }

    /// The share of noise at a timestep.
    fn sigma(&self, timestep: f32) -> f64 {
        f64::from(timestep) / self.scheduler.num_train_timesteps() as f64
    }

    /// What the denoiser gets at step `index`.
    fn input(&self, state: &mut State, index: usize) -> DenoiserInput {
        let (timestep, frames) = (state.timesteps[index], state.latents.dims()[2]);
        let timesteps = match (self.condition, &state.first) {
            (Some(condition), Some(first)) => {
                let (latents, sigma) = (state.latents.clone(), self.sigma(timestep));
                state.latents = condition.add_noise(latents, first, sigma, &mut state.rng);
                condition.timesteps(timestep, frames, self.scheduler.num_train_timesteps())
            }
            _ => self.denoiser.image_conditioning().timesteps(timestep, frames, true),
        };
        DenoiserInput {
            latents: state.latents.clone(),
            image: state.image.clone(),
            text: self.text.clone(),
            timesteps,
            time: state.time,
        }
    }

    fn step(&self, state: &mut State, index: usize, prediction: Tensor<5>) {
        let (run, rng, before) = (&mut state.run, &mut state.rng, state.latents.clone());
        let mut step = |prediction, latents| run.step(index, prediction, latents, rng);
        state.latents = match self.condition {
            Some(condition) => {
                let after = step(prediction, before.clone());
                condition.keep(before, after, self.sigma(state.timesteps[index]))
            }
            None => self.denoiser.image_conditioning().step(prediction, before, step),
        };
    }

    fn predict(&self, inputs: Vec<DenoiserInput>) -> Vec<Tensor<5>> {
        let on_cpu = self.text.device() == Device::flex();
        if on_cpu {
            inputs.into_par_iter().map(|input| self.predict_one(input)).collect()
        } else {
            inputs.into_iter().map(|input| self.predict_one(input)).collect()
        }
    }

    fn predict_one(&self, mut input: DenoiserInput) -> Tensor<5> {
        let conditional = self.denoiser.forward(&input).cast(FloatDType::F32);
        match &self.guidance {
            None => conditional,
            Some((scale, negative)) => {
                input.text = negative.clone();
                let unconditional = self.denoiser.forward(&input).cast(FloatDType::F32);
                unconditional.clone() + (conditional - unconditional) * *scale
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::models::{ParamReader, VideoDiffusion};

    #[test]
    fn the_image_scale_follows_the_vae_unless_it_is_stated() {
        let inverted = json!({ "scaling_factor": 0.5, "invert_scale_latents": true });
        let plain = json!({ "scaling_factor": 0.5, "invert_scale_latents": false });
        let of = |choice, vae: &Value, side| ImageLatentScale::resolve(choice, vae, side).unwrap();
        for side in [Side::Training, Side::Sampling] {
            assert_eq!(of(None, &inverted, side), 2.0);
            assert_eq!(of(None, &plain, side), 0.5);
            assert_eq!(of(Some(ImageLatentScale::Factor(1.25)), &plain, side), 1.25);
        }
        let mismatch = Some(ImageLatentScale::Rule(ScaleRule::PaperMismatch));
        assert_eq!(of(mismatch, &inverted, Side::Training), 0.5);
        assert_eq!(of(mismatch, &inverted, Side::Sampling), 2.0);
        // As in diffusers, and in what is read of the same file to encode.
        let silent = |class: &str| json!({ "_class_name": class, "latent_channels": 16 });
        let factor = of(None, &silent("AutoencoderKLCogVideoX"), Side::Training);
        let parsed = cogvideox::CogVideoX.vae(&json!({}), &ParamReader::shapes()).unwrap();
        assert_eq!((factor, factor as f32), (1.152_584_26, parsed.scaling_factor()));
        assert_eq!(of(None, &silent("AutoencoderKLLTXVideo"), Side::Sampling), 1.0);
        for wrong in [json!(0.0), json!("1"), json!(null), json!(-1.0)] {
            let vae = json!({ "scaling_factor": wrong });
            let error = ImageLatentScale::resolve(None, &vae, Side::Sampling).unwrap_err();
            let told = format!("`scaling_factor` must be a positive number, but is {wrong}");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }
}
