//! Latents to video.

use burn::tensor::Tensor;

use super::blocks::{CausalConv, ConvCache, Norm, NormKind, Resnet, double, resnets};
use crate::models::{ParamReader, cogvideox::config::VaeConfig, nn::Conv3d};

/// The encoder's mirror image; every norm is conditioned on the latents.
#[derive(Clone, Debug)]
pub struct Decoder {
    conv_in: CausalConv,
    mid_block: Vec<Resnet>,
    up_blocks: Vec<UpBlock>,
    norm_out: Norm,
    conv_out: CausalConv,
}

#[derive(Clone, Debug)]
struct UpBlock {
    resnets: Vec<Resnet>,
    upsampler: Option<Conv3d>,
    doubles_frames: bool,
}

impl Decoder {
    /// Reads the decoder.
    pub fn new(config: &VaeConfig, params: &ParamReader<'_>) -> Self {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let latents = config.latent_channels;
        let (groups, kind) = (config.norm_num_groups, NormKind::Spatial(latents));
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let conv_in = CausalConv::new(params, "conv_in", [latents, first]);
        let mid_block = resnets(&params.scope("mid_block"), [first; 2], 2, groups, kind);
        let count = config.layers_per_block + 1;
        let up_blocks = (0..channels.len())
            .map(|i| {
                let scope = params.scope(format_args!("up_blocks.{i}"));
                let (input, output) = (channels[i.saturating_sub(1)], channels[i]);
                let is_last = i + 1 == channels.len();
                UpBlock {
                    resnets: resnets(&scope, [input, output], count, groups, kind),
                    upsampler: (!is_last)
                        .then(|| scope.conv2d("upsamplers.0.conv", [output; 2], [3; 2])),
                    doubles_frames: i < config.num_temporal_levels(),
                }
            })
            .collect();
        Self {
            conv_in,
            mid_block,
            up_blocks,
            norm_out: Norm::spatial(params, "norm_out", last, groups, latents),
            conv_out: CausalConv::new(params, "conv_out", [last, config.out_channels]),
        }
    }

    /// One chunk `[B, C, t, h, w]` to `[B, 3, T, H, W]`.
    pub fn forward(&self, latents: &Tensor<5>, cache: &mut ConvCache) -> Tensor<5> {
        let condition = Some(latents);
        let mut x = self.conv_in.forward(latents.clone(), cache);
        for resnet in &self.mid_block {
            x = resnet.forward(x, condition, cache);
        }
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, condition, cache);
            }
            if let Some(upsampler) = &block.upsampler {
                x = upsampler.forward(double(x, block.doubles_frames));
            }
        }
        self.conv_out.forward(self.norm_out.forward(x, condition), cache)
    }
}
