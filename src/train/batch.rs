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
    /// Clean latents `[1, C, f, h, w]`, scaled and padded to the frames the denoiser takes; on the device.
    pub latents: Tensor<5>,
    /// Encodings of the conditioning image `[K, C, 1, h, w]`, not scaled; where it is the first frame of the clip, that
    /// frame. Thousands may be more than a GPU
    /// has memory for, so they stay on the host, and the one that is drawn is moved.
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
    /// Draws, per sample and in this order: timesteps, encodings of the image, dropouts, noise.
    pub fn batch(&self, examples: &[&Example], rng: &mut TorchRng) -> Batch {
        let len = examples.len();
        let [_, _, f, h, w] = examples[0].latents.dims();
        let timesteps = self.scheduler.draw_timesteps(self.distribution, f * h * w, len, rng);
        let choices = rng.uniform(len);
        let kept: Vec<bool> =
            rng.uniform(len).iter().map(|u| f64::from(*u) >= self.image_dropout).collect();
        let images = examples.iter().zip(choices.iter().zip(&kept)).map(|(example, draws)| {
            let (choice, kept) = draws;
            let pool = example.images.dims()[0];
            let index = ((choice * pool as f32) as usize).min(pool - 1);
            let keep = f64::from(u8::from(*kept));
            example.image(index, self.image_scale * keep)
        });
        let image = Tensor::cat(images.collect(), 0);
        let clean = Tensor::cat(examples.iter().map(|e| e.latents.clone()).collect(), 0);
        let noise = rng.normal_tensor(clean.dims(), &clean.device());
        self.noised(&clean, image, noise, &timesteps, &kept)
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
