//! Video to the moments of its latents.

use burn::tensor::{FloatDType, Tensor};

use super::blocks::{CausalConv, ConvCache, Norm, NormKind, Resnet, halve_frames, resnets};
use crate::models::{ParamReader, cogvideox::config::VaeConfig, nn::Conv3d};

const NORM_OUT_EPS: f64 = 1e-6;

/// Convolutions that halve the picture at each level but the last, and the frames at the first
/// ones.
#[derive(Clone, Debug)]
pub struct Encoder {
    conv_in: CausalConv,
    down_blocks: Vec<DownBlock>,
    mid_block: Vec<Resnet>,
    norm_out: Norm,
    conv_out: CausalConv,
}

#[derive(Clone, Debug)]
struct DownBlock {
    resnets: Vec<Resnet>,
    downsampler: Option<Conv3d>,
    halves_frames: bool,
}

impl Encoder {
    /// The type of the weights.
    pub fn dtype(&self) -> FloatDType {
        self.conv_in.dtype()
    }

    /// Reads the encoder.
    pub fn new(config: &VaeConfig, params: &ParamReader<'_>) -> Self {
        let channels = &config.block_out_channels;
        let (groups, kind) = (config.norm_num_groups, NormKind::Group(config.norm_eps));
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let down_blocks = (0..channels.len())
            .map(|i| {
                let scope = params.scope(format_args!("down_blocks.{i}"));
                let (input, output) = (channels[i.saturating_sub(1)], channels[i]);
                let is_last = i + 1 == channels.len();
                DownBlock {
                    resnets: resnets(
                        &scope,
                        [input, output],
                        config.layers_per_block,
                        groups,
                        kind,
                    ),
                    downsampler: (!is_last)
                        .then(|| scope.conv2d("downsamplers.0.conv", [output; 2], [3; 2])),
                    halves_frames: i < config.num_temporal_levels(),
                }
            })
            .collect();
        Self {
            conv_in: CausalConv::new(params, "conv_in", [config.in_channels, first]),
            down_blocks,
            mid_block: resnets(&params.scope("mid_block"), [last; 2], 2, groups, kind),
            norm_out: Norm::group(params, "norm_out", last, groups, NORM_OUT_EPS),
            conv_out: CausalConv::moments(params, "conv_out", last, config.latent_channels),
        }
    }

    /// One chunk `[B, 3, T, H, W]` to `[B, 2 C, t, h, w]`: means, then logarithms of variances.
    pub fn forward(&self, video: Tensor<5>, cache: &mut ConvCache) -> Tensor<5> {
        let mut x = self.conv_in.forward(video, cache);
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, None, cache);
            }
            if let Some(downsampler) = &block.downsampler {
                x = downsampler.downsample(if block.halves_frames { halve_frames(x) } else { x });
            }
        }
        for resnet in &self.mid_block {
            x = resnet.forward(x, None, cache);
        }
        self.conv_out.forward(self.norm_out.forward(x, None), cache)
    }
}
