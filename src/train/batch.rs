//! Training examples of the denoiser, and how a batch of them is noised.

use burn::tensor::{Device, Tensor, TensorData};

use crate::models::{DenoiserInput, NoiseScheduler};
use crate::rng::TorchRng;

/// One encoded clip, on the device.
#[derive(Clone, Debug)]
pub struct Example {
    /// Clean latents `[1, C, f, h, w]`, scaled and padded to the frames the denoiser takes.
    pub latents: Tensor<5>,
    /// Encodings of the conditioning image `[K, C, 1, h, w]`, not scaled.
    pub images: Tensor<5>,
}

/// How examples become input and target.
pub struct Diffusion<'a> {
    /// The noise schedule.
    pub scheduler: &'a dyn NoiseScheduler,
    /// Multiplies the conditioning image's latent.
    pub image_scale: f64,
    /// The share of samples whose conditioning image is blanked.
    pub image_dropout: f64,
    /// The encoded prompt `[1, L, D]`.
    pub text: Tensor<3>,
}

impl Diffusion<'_> {
    /// Draws, per sample and in this order: timesteps, encodings of the image, dropouts, noise.
    pub fn batch(&self, examples: &[&Example], rng: &mut TorchRng) -> (DenoiserInput, Tensor<5>) {
        let len = examples.len();
        let timesteps: Vec<f32> = rng
            .randint(self.scheduler.num_train_timesteps() as u64, len)
            .iter()
            .map(|t| *t as f32)
            .collect();
        let choices = rng.uniform(len);
        let dropouts = rng.uniform(len);
        let images = examples.iter().zip(choices.iter().zip(dropouts)).map(|(example, draws)| {
            let (choice, dropout) = draws;
            let pool = example.images.dims()[0];
            let index = ((choice * pool as f32) as usize).min(pool - 1);
            let keep = f64::from(u8::from(f64::from(dropout) >= self.image_dropout));
            example.images.clone().narrow(0, index, 1) * (self.image_scale * keep)
        });
        let image = Tensor::cat(images.collect(), 0);
        let clean = Tensor::cat(examples.iter().map(|e| e.latents.clone()).collect(), 0);
        let noise = normal(clean.dims(), rng, &clean.device());
        let target = self.scheduler.target(clean.clone(), noise.clone(), &timesteps);
        let latents = self.scheduler.add_noise(clean, noise, &timesteps);
        let [_, tokens, dim] = self.text.dims();
        let text = self.text.clone().expand([len, tokens, dim]);
        (DenoiserInput { latents, image, text, timesteps }, target)
    }
}

/// Normal noise of a shape, in row-major order.
pub fn normal<const D: usize>(shape: [usize; D], rng: &mut TorchRng, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(rng.normal(shape.iter().product()), shape), device)
}
