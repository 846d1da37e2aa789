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
    /// where the decoder adds some. Of the frames, those that `wanted` says.
    pub fn forward(
        &self,
        latents: Tensor<5>,
        timestep: f32,
        mut rng: Option<&mut TorchRng>,
        wanted: Wanted,
    ) -> Tensor<5> {
        let timestep = self.time.as_ref().map(|time| timestep * time.multiplier);
        let mut window = match wanted {
            Wanted::All => Window::default(),
            Wanted::Last => self.window(),
        };
        let latents = window.cut(latents);
        let mut x = window.cut(self.conv_in.forward(latents));
        for level in std::iter::once(&self.mid_block).chain(&self.up_blocks) {
            x = level.forward(x, timestep, rng.as_deref_mut(), &mut window);
        }
        let mut x = pixel_norm(x);
        if let (Some(time), Some(timestep)) = (&self.time, timestep) {
            let embedded = embed(&time.embedder, timestep, &x);
            x = Modulation::new(&time.scale_shift_table, embedded).apply(x, 0);
        }
        let video = unpatchify(window.cut(self.conv_out.forward(silu(x))), self.patch);
        match wanted {
            Wanted::All => video,
            Wanted::Last => last(video, 1),
        }
    }

    /// What each layer must give for the last frame.
    fn window(&self) -> Window {
        let mut window = Window::default();
        let mut frames = 1;
        window.layer(&mut frames, self.conv_out.reach());
        for level in self.up_blocks.iter().rev().chain([&self.mid_block]) {
            level.open(&mut window, &mut frames);
        }
        window.layer(&mut frames, self.conv_in.reach());
        window.0.push(frames);
        window
    }
}

/// The frames that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    All,
    /// The last one. No norm sees several frames, so it depends on as many as the convolutions
    /// reach.
    Last,
}

/// The numbers of last frames that are right and needed after each layer, the first layer's at the
/// end; all frames if there are none.
#[derive(Debug, Default)]
struct Window(Vec<usize>);

impl Window {
    /// Puts a layer before those that are known: it gives `frames`, and needs `reach` more of them.
    fn layer(&mut self, frames: &mut usize, reach: usize) {
        self.0.push(*frames);
        *frames += reach;
    }

    /// The frames that the next layer must give; frames before them were made with others missing.
    fn cut(&mut self, x: Tensor<5>) -> Tensor<5> {
        match self.0.pop() {
            Some(frames) => last(x, frames),
            None => x,
        }
    }
}

/// The last so many frames, or all if there are fewer.
fn last(x: Tensor<5>, frames: usize) -> Tensor<5> {
    let all = x.dims()[2];
    if frames >= all { x } else { x.narrow(2, all - frames, frames) }
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
        window: &mut Window,
    ) -> Tensor<5> {
        let time = match (&self.time_embedder, timestep) {
            (Some(embedder), Some(timestep)) => Some(embed(embedder, timestep, &x)),
            _ => None,
        };
        let conditions = &mut Conditions { time, rng };
        if let Some(resnet) = &self.conv_in {
            x = window.cut(resnet.forward(x, conditions));
        }
        if let Some(upsampler) = &self.upsampler {
            x = upsampler.forward(x, window);
        }
        for resnet in &self.resnets {
            x = window.cut(resnet.forward(x, conditions));
        }
        x
    }

    /// Puts the level's layers before those of a window.
    fn open(&self, window: &mut Window, frames: &mut usize) {
        for resnet in self.resnets.iter().rev() {
            window.layer(frames, resnet.reach());
        }
        if let Some(upsampler) = &self.upsampler {
            window.0.push(*frames);
            // The first of the frames that it doubles goes.
            *frames = *frames / STRIDE[0] + 1;
            window.layer(frames, upsampler.conv.reach());
        }
        if let Some(resnet) = &self.conv_in {
            window.layer(frames, resnet.reach());
        }
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

    fn forward(&self, x: Tensor<5>, window: &mut Window) -> Tensor<5> {
        let cut = |x: Tensor<5>| {
            let frames = x.dims()[2];
            x.narrow(2, STRIDE[0] - 1, frames - (STRIDE[0] - 1))
        };
        let folded = window.cut(self.conv.forward(x.clone()));
        let x = last(x, folded.dims()[2]);
        let mut grown = cut(unfold(folded, STRIDE));
        if self.residual {
            let repeats = STRIDE.iter().product::<usize>() / self.factor;
            let unfolded = cut(unfold(x, STRIDE));
            grown = grown + Tensor::cat(vec![unfolded; repeats], 1);
        }
        window.cut(grown)
    }
}
