//! Latents to video.

use burn::tensor::{FloatDType, Tensor};

use super::blocks::{
    Conditions, Conv, Modulation, Resnet, ResnetKind, TimeEmbedder, pixel_norm, resnets, table,
    unfold, unpatchify,
};
use crate::{
    models::{
        ParamReader,
        ltx_video::vae_config::{DecoderLevel, Upsampling, VaeConfig},
        nn::silu,
    },
    rng::TorchRng,
};

/// Each step of the decoder doubles frames, rows and columns.
const STRIDE: [usize; 3] = [2; 3];

/// Levels of residual blocks that each may grow the picture at their start, then patches. Where it
/// takes a timestep, it ends the denoising that sampling began (0.9.1 and later).
#[derive(Clone, Debug)]
pub struct Decoder {
    patch: [usize; 2],
    conv_in: Conv,
    mid_block: Level,
    up_blocks: Vec<Level>,
    time: Option<OutTime>,
    conv_out: Conv,
}

/// Residual blocks, and what is before them.
#[derive(Clone, Debug)]
struct Level {
    conv_in: Option<Resnet>,
    time_embedder: Option<TimeEmbedder>,
    upsampler: Option<Upsampler>,
    resnets: Vec<Resnet>,
}

/// The timestep's part in the last norm.
#[derive(Clone, Debug)]
struct OutTime {
    /// Multiplies timesteps, which are from 0 to 1.
    multiplier: f32,
    embedder: TimeEmbedder,
    scale_shift_table: Tensor<2>, // [2, C]
}

impl Decoder {
    /// Reads the decoder.
    pub fn new(config: &VaeConfig, params: &ParamReader<'_>) -> Self {
        let levels = config.decoder_levels();
        let (mid, ups) = levels.split_first().expect("there is a middle level");
        let last = levels[levels.len() - 1].output;
        let patch = [config.patch_size_t, config.patch_size];
        let pixels = config.out_channels * patch[0] * patch[1] * patch[1];
        let causal = config.decoder_causal;
        let level = |name: String, level: &DecoderLevel| {
            let kind = ResnetKind {
                causal,
                timestep: config.timestep_conditioning,
                noise: level.noise,
                eps: config.resnet_norm_eps,
            };
            Level::new(&params.scope(name), level, kind)
        };
        let conv = |name: &str, channels| Conv::new(params, name, channels, 3, causal);
        Self {
            patch,
            conv_in: conv("conv_in", [config.latent_channels, mid.input]),
            mid_block: level("mid_block".to_owned(), mid),
            up_blocks: ups
                .iter()
                .enumerate()
                .map(|(i, up)| level(format!("up_blocks.{i}"), up))
                .collect(),
            time: config.timestep_conditioning.then(|| OutTime::new(params, last)),
            conv_out: conv("conv_out", [last, pixels]),
        }
    }

    /// `[B, C, f, h, w]` to `[B, 3, F, H, W]` at a timestep from 0 to 1, with noise from `rng`
    /// where the decoder adds some.
    pub fn forward(
        &self,
        latents: Tensor<5>,
        timestep: f32,
        mut rng: Option<&mut TorchRng>,
    ) -> Tensor<5> {
        let timestep = self.time.as_ref().map(|time| timestep * time.multiplier);
        let mut x = self.conv_in.forward(latents);
        for level in std::iter::once(&self.mid_block).chain(&self.up_blocks) {
            x = level.forward(x, timestep, rng.as_deref_mut());
        }
        let mut x = pixel_norm(x);
        if let (Some(time), Some(timestep)) = (&self.time, timestep) {
            let embedded = embed(&time.embedder, timestep, &x);
            x = Modulation::new(&time.scale_shift_table, embedded).apply(x, 0);
        }
        unpatchify(self.conv_out.forward(silu(x)), self.patch)
    }
}

impl OutTime {
    fn new(params: &ParamReader<'_>, channels: usize) -> Self {
        Self {
            multiplier: params.scalar("timestep_scale_multiplier", 1000.0),
            embedder: TimeEmbedder::new(params, 2 * channels),
            scale_shift_table: table(params, 2, channels),
        }
    }
}

impl Level {
    fn new(params: &ParamReader<'_>, level: &DecoderLevel, kind: ResnetKind) -> Self {
        let DecoderLevel { input, output, layers, upsampling, .. } = *level;
        Self {
            conv_in: (input != output)
                .then(|| Resnet::new(&params.scope("conv_in"), [input, output], kind)),
            time_embedder: kind.timestep.then(|| TimeEmbedder::new(params, 4 * input)),
            upsampler: upsampling.map(|up| Upsampler::new(params, output, up, kind.causal)),
            resnets: resnets(params, output, layers, kind),
        }
    }

    fn forward(
        &self,
        mut x: Tensor<5>,
        timestep: Option<f32>,
        rng: Option<&mut TorchRng>,
    ) -> Tensor<5> {
        let time = match (&self.time_embedder, timestep) {
            (Some(embedder), Some(timestep)) => Some(embed(embedder, timestep, &x)),
            _ => None,
        };
        let conditions = &mut Conditions { time, rng };
        if let Some(resnet) = &self.conv_in {
            x = resnet.forward(x, conditions);
        }
        if let Some(upsampler) = &self.upsampler {
            x = upsampler.forward(x);
        }
        for resnet in &self.resnets {
            x = resnet.forward(x, conditions);
        }
        x
    }
}

fn embed(embedder: &TimeEmbedder, timestep: f32, x: &Tensor<5>) -> Tensor<2> {
    let device = x.device().without_autodiff();
    embedder.forward(timestep, x.dims()[0], FloatDType::from(x.dtype()), &device)
}

/// Channels to places: of a convolution and, if it has a residual, of the picture itself. The
/// first frame that this makes has no counterpart in the video and goes.
#[derive(Clone, Debug)]
struct Upsampler {
    conv: Conv,
    factor: usize,
    residual: bool,
}

impl Upsampler {
    fn new(params: &ParamReader<'_>, output: usize, how: Upsampling, causal: bool) -> Self {
        let Upsampling { factor, residual } = how;
        let volume = STRIDE.iter().product::<usize>();
        let channels = [output * factor, output * volume];
        let conv = Conv::new(params, "upsamplers.0.conv", channels, 3, causal);
        Self { conv, factor, residual }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let cut = |x: Tensor<5>| {
            let frames = x.dims()[2];
            x.narrow(2, STRIDE[0] - 1, frames - (STRIDE[0] - 1))
        };
        let grown = cut(unfold(self.conv.forward(x.clone()), STRIDE));
        if !self.residual {
            return grown;
        }
        let repeats = STRIDE.iter().product::<usize>() / self.factor;
        let unfolded = cut(unfold(x, STRIDE));
        grown + Tensor::cat(vec![unfolded; repeats], 1)
    }
}
