//! What a stage holds of the host's memory beside a GPU.

use super::{
    super::{LoadError, t5::T5Encoder},
    CHECKPOINT, ClipSize, Estimator, F32, Given, LoraTraining, Memory, ParamReader, Shapes,
    held::LatentValues,
    latent_values, latents,
};

impl Estimator<'_> {
    /// What training holds on the host beside a GPU: encodings of images, and a checkpoint while it
    /// is made, or the largest tensor of the weights, which are loaded before that, if it takes
    /// more.
    pub fn beside_training(
        &self,
        clip: ClipSize,
        training: &LoraTraining,
        given: &Given,
    ) -> Result<Memory, LoadError> {
        let (denoiser, shapes) = self.denoiser()?;
        let latents = latent_values(clip, &*self.vae()?.0, &*denoiser);
        let loading = Memory { weights: largest(&shapes), ..Memory::default() };
        let training = Memory {
            clips: held_on_host(&latents, given),
            trained: self.factors(training, &shapes) * CHECKPOINT,
            ..Memory::default()
        };
        Ok(training.or_larger(loading))
    }

    /// What the host holds of the weights of these parts while they are loaded onto a GPU: one
    /// tensor at a time, of f32 at most.
    pub fn loading(&self, parts: &[&str]) -> Result<Memory, LoadError> {
        let mut weights = 0;
        for part in parts {
            let shapes = match *part {
                "vae" => self.vae()?.1,
                "text_encoder" => {
                    let reader = ParamReader::shapes();
                    T5Encoder::new(&self.source.config(part)?, &reader)?;
                    reader.into_shapes()
                }
                _ => self.denoiser()?.1,
            };
            weights = weights.max(largest(&shapes));
        }
        Ok(Memory { weights, ..Memory::default() })
    }

    /// What encoding holds on the host: the latents of a clip and so many encodings of its image,
    /// as values and as the bytes of a file.
    pub fn encoded(&self, clip: ClipSize, images: usize) -> Result<u64, LoadError> {
        const COPIES: u64 = 2;
        let (vae, _) = self.vae()?;
        let [frames, height, width] = latents(clip, vae.compression());
        let frame = (vae.latent_channels() * height * width) as u64;
        Ok(COPIES * (frames + images) as u64 * frame * F32)
    }
}

/// Bytes of what it holds on the host beside another device.
pub(super) fn held_on_host(latents: &LatentValues, given: &Given) -> u64 {
    latents.bytes(&[given.clips, given.held_out])[1]
}

/// Bytes of the largest tensor, in f32.
pub(super) fn largest(shapes: &Shapes) -> u64 {
    let sizes = shapes.values().map(|shape| shape.iter().product::<usize>() as u64);
    sizes.max().unwrap_or(0) * F32
}
