//! Video to the moments of its latents.

use burn::tensor::Tensor;

use super::blocks::{Conditions, Conv, Resnet, ResnetKind, fold, patchify, pixel_norm, resnets};
use crate::models::{
    ParamReader,
    ltx_video::vae_config::{Downsampling, EncoderLevel, VaeConfig},
    nn::silu,
};

/// Patches, then levels of residual blocks that each may shrink the picture at their end.
#[derive(Clone, Debug)]
pub struct Encoder {
    patch: [usize; 2],
    conv_in: Conv,
    down_blocks: Vec<DownBlock>,
    mid_block: Vec<Resnet>,
    conv_out: Conv,
}

#[derive(Clone, Debug)]
struct DownBlock {
    resnets: Vec<Resnet>,
    downsampler: Option<Downsampler>,
    /// Changes the number of channels (0.9.0 and 0.9.1).
    conv_out: Option<Resnet>,
}

impl Encoder {
    /// Reads the encoder.
    pub fn new(config: &VaeConfig, params: &ParamReader<'_>) -> Self {
        let causal = config.encoder_causal;
        let kind =
            ResnetKind { causal, timestep: false, noise: false, eps: config.resnet_norm_eps };
        let levels = config.encoder_levels();
        let (first, last) = (levels[0].input, levels[levels.len() - 1].output);
        let patch = [config.patch_size_t, config.patch_size];
        let pixels = config.in_channels * patch[0] * patch[1] * patch[1];
        let conv = |name: &str, channels| Conv::new(params, name, channels, 3, causal);
        let down_blocks = levels
            .iter()
            .enumerate()
            .map(|(i, level)| {
                DownBlock::new(&params.scope(format_args!("down_blocks.{i}")), level, kind)
            })
            .collect();
        let mid = params.scope("mid_block");
        Self {
            patch,
            conv_in: conv("conv_in", [pixels, first]),
            down_blocks,
            mid_block: resnets(&mid, last, config.mid_layers(), kind),
            conv_out: conv("conv_out", [last, config.latent_channels + 1]),
        }
    }

    /// `[B, 3, F, H, W]` to `[B, C + 1, f, h, w]`: means, then one logarithm of the variance for
    /// all channels.
    pub fn forward(&self, video: Tensor<5>) -> Tensor<5> {
        let none = &mut Conditions::none();
        let mut x = self.conv_in.forward(patchify(video, self.patch));
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, none);
            }
            if let Some(downsampler) = &block.downsampler {
                x = downsampler.forward(x);
            }
            if let Some(resnet) = &block.conv_out {
                x = resnet.forward(x, none);
            }
        }
        for resnet in &self.mid_block {
            x = resnet.forward(x, none);
        }
        self.conv_out.forward(silu(pixel_norm(x)))
    }
}

impl DownBlock {
    fn new(params: &ParamReader<'_>, level: &EncoderLevel, kind: ResnetKind) -> Self {
        let EncoderLevel { input, output, layers, downsampling, folds } = *level;
        let downsampler =
            downsampling.map(|how| Downsampler::new(params, [input, output], how, kind.causal));
        Self {
            resnets: resnets(params, input, layers, kind),
            downsampler,
            conv_out: (!folds && input != output)
                .then(|| Resnet::new(&params.scope("conv_out"), [input, output], kind)),
        }
    }
}

/// What shrinks the picture.
#[derive(Clone, Debug)]
enum Downsampler {
    /// A convolution that takes every second place.
    Strided(Conv),
    /// Places become channels: of a convolution, and of the picture itself, averaged in groups
    /// (0.9.5).
    Fold { conv: Conv, stride: [usize; 3], channels: usize },
}

impl Downsampler {
    fn new(
        params: &ParamReader<'_>,
        [input, output]: [usize; 2],
        how: Downsampling,
        causal: bool,
    ) -> Self {
        match how.fold_stride() {
            None => Self::Strided(Conv::bare(params, "downsamplers.0.conv", input, causal)),
            Some(stride) => {
                let kept = output / stride.iter().product::<usize>();
                let conv = Conv::new(params, "downsamplers.0.conv", [input, kept], 3, causal);
                Self::Fold { conv, stride, channels: output }
            }
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let (conv, stride, channels) = match self {
            Self::Strided(conv) => return conv.strided(x, [2; 2]),
            Self::Fold { conv, stride, channels } => (conv, *stride, *channels),
        };
        // In front of the first frame, so that the number of frames divides.
        let lead = stride[0] - 1;
        let x = match lead {
            0 => x,
            _ => Tensor::cat(vec![x.clone().narrow(2, 0, lead), x], 2),
        };
        let folded = fold(x.clone(), stride);
        let [b, c, t, h, w] = folded.dims();
        let residual = folded
            .reshape([b, channels, c / channels, t * h * w])
            .mean_dim(2)
            .reshape([b, channels, t, h, w]);
        fold(conv.forward(x), stride) + residual
    }
}
