//! Training of a video autoencoder.

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::Checkpoints,
    gradient::{self, Gradients},
    loss,
    order::{Order, Stream, step_rng},
    shards::in_parts,
    steps::{self, StepReport, Steps, TrainError, Trained},
};
use crate::{
    models::{Compression, LoadError, Params, VideoVae, nn::fused},
    rng::TorchRng,
};

/// The weights of the parts of the autoencoder's loss; a part of weight 0 is not computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VaeLoss {
    /// Of the mean absolute error of pixels.
    pub l1: f64,
    /// Of the mean squared error of pixels.
    pub l2: f64,
    /// Of the mean absolute error of differences between neighbouring pixels.
    pub edges: f64,
    /// Of the error of colours without light, absolute and squared.
    pub chroma: f64,
    /// Of the divergence of the latents from N(0, 1).
    pub kl: f64,
}

impl Default for VaeLoss {
    fn default() -> Self {
        Self { l1: 1.0, l2: 0.0, edges: 0.0, chroma: 0.0, kl: 1e-6 }
    }
}

impl VaeLoss {
    /// The loss of `video` in [-1, 1], with this posterior noise.
    fn of(&self, vae: &dyn VideoVae, video: Tensor<5>, noise: Tensor<5>) -> Tensor<1> {
        let posterior = vae.encode(video.clone());
        let decoded = vae.decode(posterior.sample(noise));
        let mut total = decoded.clone().slice([0..1, 0..1, 0..1, 0..1, 0..1]).mean() * 0.0;
        if self.l1 > 0.0 {
            total = total + loss::l1(decoded.clone(), video.clone()) * self.l1;
        }
        if self.l2 > 0.0 {
            total = total + loss::l2(decoded.clone(), video.clone()) * self.l2;
        }
        if self.edges > 0.0 {
            total = total + loss::edges(decoded.clone(), video.clone()) * self.edges;
        }
        if self.chroma > 0.0 {
            total = total + loss::chroma(decoded, video) * self.chroma;
        }
        if self.kl > 0.0 {
            total = total + loss::kl(posterior.mean, posterior.logvar) * self.kl;
        }
        total
    }
}

/// Makes an autoencoder from its parameters.
pub type BuildVae<'a> = dyn Fn(&Params) -> Result<Box<dyn VideoVae>, LoadError> + Sync + 'a;

/// Training of all parameters of an autoencoder.
pub struct VaeTraining<'a> {
    /// The loop.
    pub steps: Steps,
    /// Makes the autoencoder from its parameters.
    pub build: &'a BuildVae<'a>,
    /// Gives clip `i` as `[1, 3, F, H, W]` in [-1, 1]; all of one size.
    pub clip: &'a dyn Fn(usize) -> Result<Tensor<5>, TrainError>,
    /// Which clips a step sees.
    pub order: Order,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// What the latents are smaller by.
    pub compression: Compression,
    /// Height and width of the piece of a clip that a step sees, if not all of it.
    pub crop: Option<[usize; 2]>,
    /// What is minimised.
    pub loss: VaeLoss,
}

impl VaeTraining<'_> {
    /// Trains from `init`, or from the nearest checkpoint.
    pub fn run(
        &self,
        checkpoints: Option<Checkpoints>,
        device: &Device,
        init: impl FnOnce() -> Params,
        observe: &mut dyn FnMut(StepReport) -> ControlFlow<()>,
    ) -> Result<Trained, TrainError> {
        let mut gradients = |step: usize, params: &Params| self.gradients(step, params);
        let stops = [self.steps.steps];
        let trained =
            steps::run(&self.steps, &stops, checkpoints, device, init, &mut gradients, observe)?;
        Ok(trained.into_iter().next_back().expect("there is one stop"))
    }

    /// The gradients of one step, from 0. Draws, in this order: for each clip where its piece lies,
    /// then the posterior's noise.
    pub fn gradients(&self, step: usize, params: &Params) -> Result<Gradients, TrainError> {
        let mut rng = step_rng(self.order.seed, Stream::Batch, step);
        let clips = self.order.batch(step).into_iter().map(|index| {
            let clip = (self.clip)(index)?;
            Ok::<_, TrainError>(self.piece(clip, &mut rng))
        });
        let video = Tensor::cat(clips.collect::<Result<Vec<_>, _>>()?, 0);
        let noise = rng.normal_tensor(self.latents(video.dims()), &video.device());
        let (build, weights) = (self.build, self.loss);
        let gradients = |start: usize, len: usize| {
            let of_part = |x: &Tensor<5>| x.clone().narrow(0, start, len);
            gradient::of_loss(params, |leaves| {
                let vae = build(leaves)?;
                Ok::<_, LoadError>(weights.of(&*vae, of_part(&video), of_part(&noise)))
            })
        };
        Ok(in_parts(video.dims()[0], fused::applies(&video), gradients)?)
    }

    fn piece(&self, clip: Tensor<5>, rng: &mut TorchRng) -> Tensor<5> {
        let Some(crop) = self.crop else { return clip };
        let [_, _, _, height, width] = clip.dims();
        let [y, x] = [height - crop[0], width - crop[1]]
            .map(|room| rng.randint(room as u64 + 1, 1)[0] as usize);
        clip.narrow(3, y, crop[0]).narrow(4, x, crop[1])
    }

    /// The shape of the latents of a video of this shape.
    fn latents(&self, [b, _, f, h, w]: [usize; 5]) -> [usize; 5] {
        let Compression { time, space } = self.compression;
        [b, self.latent_channels, (f - 1) / time + 1, h / space, w / space]
    }
}
