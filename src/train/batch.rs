//! Training examples of the denoiser, and how a batch of them is noised.

use burn::tensor::{Device, Tensor, TensorData};

use crate::models::{
    DenoiserInput, ImageConditioning, NoiseScheduler, TimeAxis, TimestepDistribution,
    schedulers::Quantile,
};
use crate::rng::TorchRng;

/// One encoded clip.
#[derive(Clone, Debug)]
pub struct Example {
    /// Clean latents `[1, C, f, h, w]`, scaled and padded to the frames the denoiser takes; on the
    /// device.
    pub latents: Tensor<5>,
    /// Encodings of the conditioning image `[K, C, 1, h, w]`, not scaled; where it is the first
    /// frame of the clip, that frame. Thousands may be more than a GPU has memory for, so they stay
    /// on the host, and the one that is drawn is moved.
    pub images: Tensor<5>,
}

impl Example {
    /// One encoding of the image on the device, times `scale`.
    fn image(&self, index: usize, scale: f64) -> Tensor<5> {
        self.images.clone().narrow(0, index, 1).to_device(&self.latents.device()) * scale
    }
}

/// Input and target of a denoiser.
#[derive(Clone)]
pub struct Batch {
    /// What the denoiser gets.
    pub input: DenoiserInput,
    /// What it shall predict, `[B, C, f, h, w]`.
    pub target: Tensor<5>,
    /// How much each place counts, `[B, 1, f, 1, 1]` with mean 1; all the same if there is none.
    pub weights: Option<Tensor<5>>,
}

/// What is drawn for a batch. It depends on the generator and on sizes alone, neither on the clips
/// nor on what is trained, so it can be drawn before the batch is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    /// A timestep of each sample.
    timesteps: Vec<f32>,
    /// Which encoding of its image each sample gets, in `[0, 1)`.
    choices: Vec<f32>,
    /// Whether each sample keeps its image.
    kept: Vec<bool>,
    /// Noise `[B, C, f, h, w]`, in row-major order.
    noise: Vec<f32>,
}

/// How examples become input and target.
pub struct Diffusion<'a> {
    /// The noise schedule.
    pub scheduler: &'a dyn NoiseScheduler,
    /// How the conditioning image enters the denoiser.
    pub conditioning: ImageConditioning,
    /// How timesteps are drawn.
    pub distribution: TimestepDistribution,
    /// Multiplies the conditioning image's latent.
    pub image_scale: f64,
    /// The share of samples whose conditioning image is blanked; where the image is the first
    /// frame, that frame is then noised and scored as the others are.
    pub image_dropout: f64,
    /// The encoded prompt `[1, L, D]`.
    pub text: Tensor<3>,
    /// How positions count time and space; see [`DenoiserInput`].
    pub time: TimeAxis,
}

impl Diffusion<'_> {
    /// Draws for so many samples of latents `[1, C, f, h, w]`, in this order: timesteps, encodings
    /// of the image, dropouts, noise.
    pub fn draw(&self, samples: usize, [_, c, f, h, w]: [usize; 5], rng: &mut TorchRng) -> Draws {
        let timesteps = self.scheduler.draw_timesteps(self.distribution, f * h * w, samples, rng);
        let choices = rng.uniform(samples);
        let kept = rng.uniform(samples).into_iter().map(|u| f64::from(u) >= self.image_dropout);
        let kept = kept.collect();
        Draws { timesteps, choices, kept, noise: rng.normal(samples * c * f * h * w) }
    }

    /// A batch of examples as [`Self::draw`] has drawn for it.
    pub fn drawn(&self, examples: &[&Example], draws: Draws) -> Batch {
        let Draws { timesteps, choices, kept, noise } = draws;
        let images = examples.iter().zip(choices.iter().zip(&kept)).map(|(example, draws)| {
            let (choice, kept) = draws;
            let pool = example.images.dims()[0];
            let index = ((choice * pool as f32) as usize).min(pool - 1);
            let keep = f64::from(u8::from(*kept));
            example.image(index, self.image_scale * keep)
        });
        let image = Tensor::cat(images.collect(), 0);
        let clean = Tensor::cat(examples.iter().map(|e| e.latents.clone()).collect(), 0);
        let noise = Tensor::from_data(TensorData::new(noise, clean.dims()), &clean.device());
        self.noised(&clean, image, noise, &timesteps, &kept)
    }

    /// Draws for a batch of examples, and makes it.
    pub fn batch(&self, examples: &[&Example], rng: &mut TorchRng) -> Batch {
        let draws = self.draw(examples.len(), examples[0].latents.dims(), rng);
        self.drawn(examples, draws)
    }

    /// One example at a quantile of the timesteps, with its first image and this noise.
    pub fn at_quantile(&self, example: &Example, quantile: Quantile, noise: Tensor<5>) -> Batch {
        let [_, _, f, h, w] = example.latents.dims();
        let timestep = self.scheduler.timestep_at(self.distribution, f * h * w, quantile);
        let image = example.image(0, self.image_scale);
        self.noised(&example.latents, image, noise, &[timestep], &[true])
    }

    fn noised(
        &self,
        clean: &Tensor<5>,
        image: Tensor<5>,
        noise: Tensor<5>,
        timesteps: &[f32],
        kept: &[bool],
    ) -> Batch {
        let [len, _, f, _, _] = clean.dims();
        let target = self.scheduler.target(clean.clone(), noise.clone(), timesteps);
        let noisy = self.scheduler.add_noise(clean.clone(), noise, timesteps);
        let latents = match self.conditioning {
            ImageConditioning::Channels => noisy,
            ImageConditioning::FirstFrame => give_first_frames(noisy, clean, kept),
        };
        let [_, tokens, dim] = self.text.dims();
        let text = self.text.clone().expand([len, tokens, dim]);
        let told = self.scheduler.told(timesteps).into_iter().zip(kept);
        let timesteps = told.flat_map(|(t, kept)| self.conditioning.timesteps(t, f, *kept));
        let input =
            DenoiserInput { latents, image, text, timesteps: timesteps.collect(), time: self.time };
        let weights = (self.conditioning == ImageConditioning::FirstFrame)
            .then(|| without_first_frames(kept, f, &input.latents.device()));
        Batch { input, target, weights }
    }
}

/// `noisy` with the first latent frame of `clean` in the samples that keep theirs.
fn give_first_frames(noisy: Tensor<5>, clean: &Tensor<5>, kept: &[bool]) -> Tensor<5> {
    let frames = noisy.dims()[2];
    let firsts = kept.iter().enumerate().map(|(index, kept)| {
        let from = if *kept { clean } else { &noisy };
        from.clone().narrow(0, index, 1).narrow(2, 0, 1)
    });
    let firsts = Tensor::cat(firsts.collect(), 0);
    Tensor::cat(vec![firsts, noisy.narrow(2, 1, frames - 1)], 2)
}

/// Weights that leave out the first frames that are given, `[B, 1, f, 1, 1]`.
fn without_first_frames(kept: &[bool], frames: usize, device: &Device) -> Tensor<5> {
    let places = kept.len() * frames;
    let given = kept.iter().filter(|kept| **kept).count();
    let weight = places as f32 / (places - given) as f32;
    let of = |kept: &bool| {
        let mut weights = vec![weight; frames];
        if *kept {
            weights[0] = 0.0;
        }
        weights
    };
    let values: Vec<f32> = kept.iter().flat_map(of).collect();
    Tensor::from_data(TensorData::new(values, [kept.len(), 1, frames, 1, 1]), device)
}
