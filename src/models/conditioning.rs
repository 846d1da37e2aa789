//! How the conditioning image enters a denoiser.

use burn::tensor::Tensor;

/// How the conditioning image enters a denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageConditioning {
    /// Beside the noisy latents, as further channels; every latent frame is denoised (CogVideoX).
    Channels,
    /// In place of the first latent frame, at timestep 0; the other frames are denoised
    /// (LTX-Video).
    FirstFrame,
}

impl ImageConditioning {
    /// Noise `[B, C, f, h, w]` with the image's latent `[B, C, 1, h, w]` where it belongs.
    pub fn place(self, noise: Tensor<5>, image: &Tensor<5>) -> Tensor<5> {
        match self {
            Self::Channels => noise,
            Self::FirstFrame => {
                let frames = noise.dims()[2];
                Tensor::cat(vec![image.clone(), noise.narrow(2, 1, frames - 1)], 2)
            }
        }
    }

    /// The timesteps of one sample of `frames` latent frames, whose image is `given` or not; see
    /// [`DenoiserInput`](super::DenoiserInput).
    pub fn timesteps(self, timestep: f32, frames: usize, given: bool) -> Vec<f32> {
        match self {
            Self::Channels => vec![timestep],
            Self::FirstFrame => {
                let mut timesteps = vec![timestep; frames];
                if given {
                    timesteps[0] = 0.0;
                }
                timesteps
            }
        }
    }

    /// Applies `step` to the frames that are denoised, of `prediction` and `latents`.
    pub fn step(
        self,
        prediction: Tensor<5>,
        latents: Tensor<5>,
        step: impl FnOnce(Tensor<5>, Tensor<5>) -> Tensor<5>,
    ) -> Tensor<5> {
        match self {
            Self::Channels => step(prediction, latents),
            Self::FirstFrame => {
                let frames = latents.dims()[2];
                let image = latents.clone().narrow(2, 0, 1);
                let [prediction, latents] =
                    [prediction, latents].map(|x| x.narrow(2, 1, frames - 1));
                Tensor::cat(vec![image, step(prediction, latents)], 2)
            }
        }
    }
}
