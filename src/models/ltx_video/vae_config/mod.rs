//! `vae/config.json` of LTX-Video 0.9.0 to 0.9.5, and the levels it describes.
//!
//! The reference reads the decoder's lists from the end; [`VaeConfig::decoder_levels`] alone knows
//! that.

mod check;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The class of the VAE.
pub const VAE_CLASS: &str = "AutoencoderKLLTXVideo";
const DOWN_BLOCK: &str = "LTXVideoDownBlock3D";
/// The block of 0.9.5, whose downsampler changes the number of channels.
const DOWN_BLOCK_095: &str = "LTXVideo095DownBlock3D";

/// The shape of a VAE.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of the video.
    pub in_channels: usize,
    /// Channels of the decoded video.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of the encoder's levels, outermost first.
    pub block_out_channels: Vec<usize>,
    /// Channels of the decoder's levels, outermost first.
    pub decoder_block_out_channels: Vec<usize>,
    /// Residual blocks of the encoder's levels and of its middle.
    pub layers_per_block: Vec<usize>,
    /// Residual blocks of the decoder's levels and of its middle.
    pub decoder_layers_per_block: Vec<usize>,
    /// Which of the encoder's levels shrink the picture.
    pub spatio_temporal_scaling: Vec<bool>,
    /// Which of the decoder's levels grow the picture.
    pub decoder_spatio_temporal_scaling: Vec<bool>,
    /// Which of the decoder's levels, and whether its middle, add noise.
    pub decoder_inject_noise: Vec<bool>,
    /// How the encoder's levels shrink the picture (0.9.5).
    pub downsample_type: Vec<Downsampling>,
    /// Whether the decoder's levels add the unfolded picture when they grow it.
    pub upsample_residual: Vec<bool>,
    /// What the decoder's levels divide their channels by when they grow the picture.
    pub upsample_factor: Vec<usize>,
    /// Whether the decoder takes a timestep.
    pub timestep_conditioning: bool,
    /// Rows and columns of a patch.
    pub patch_size: usize,
    /// Frames of a patch.
    pub patch_size_t: usize,
    /// Epsilon of the shortcuts' norms.
    pub resnet_norm_eps: f64,
    /// Standardised latents are multiplied by this before diffusion; always 1.
    pub scaling_factor: f32,
    /// Whether the encoder sees no later frames.
    pub encoder_causal: bool,
    /// Whether the decoder sees no later frames.
    pub decoder_causal: bool,
    spatial_compression_ratio: Option<usize>,
    temporal_compression_ratio: Option<usize>,
    down_block_types: Vec<String>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 128,
            block_out_channels: vec![128, 256, 512, 512],
            decoder_block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: vec![4, 3, 3, 3, 4],
            decoder_layers_per_block: vec![4, 3, 3, 3, 4],
            spatio_temporal_scaling: vec![true, true, true, false],
            decoder_spatio_temporal_scaling: vec![true, true, true, false],
            decoder_inject_noise: vec![false; 5],
            downsample_type: vec![Downsampling::Conv; 4],
            upsample_residual: vec![false; 4],
            upsample_factor: vec![1; 4],
            timestep_conditioning: false,
            patch_size: 4,
            patch_size_t: 1,
            resnet_norm_eps: 1e-6,
            scaling_factor: 1.0,
            encoder_causal: true,
            decoder_causal: false,
            spatial_compression_ratio: None,
            temporal_compression_ratio: None,
            down_block_types: vec![DOWN_BLOCK.into(); 4],
            unknown: BTreeMap::new(),
        }
    }
}

/// How a level of the encoder shrinks the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Downsampling {
    /// A strided convolution, on all axes.
    Conv,
    /// Rows and columns become channels.
    Spatial,
    /// Frames become channels.
    Temporal,
    /// All become channels.
    Spatiotemporal,
}

impl Downsampling {
    /// Frames, rows and columns that become one.
    pub fn stride(self) -> [usize; 3] {
        match self {
            Self::Conv | Self::Spatiotemporal => [2, 2, 2],
            Self::Spatial => [1, 2, 2],
            Self::Temporal => [2, 1, 1],
        }
    }

    /// The stride of a level that folds places into channels.
    pub fn fold_stride(self) -> Option<[usize; 3]> {
        (self != Self::Conv).then_some(self.stride())
    }
}

/// A level of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderLevel {
    /// Channels of its residual blocks.
    pub input: usize,
    /// Channels it gives.
    pub output: usize,
    /// Residual blocks.
    pub layers: usize,
    /// How it shrinks the picture, if it does.
    pub downsampling: Option<Downsampling>,
    /// Whether shrinking changes the number of channels (0.9.5), not a residual block after it.
    pub folds: bool,
}

/// A level of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLevel {
    /// Channels it gets, those that growing divides by apart.
    pub input: usize,
    /// Channels of its residual blocks.
    pub output: usize,
    /// Residual blocks.
    pub layers: usize,
    /// How it grows the picture, if it does.
    pub upsampling: Option<Upsampling>,
    /// Whether its residual blocks add noise.
    pub noise: bool,
}

/// How the picture grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upsampling {
    /// Divides the number of channels.
    pub factor: usize,
    /// Whether the unfolded picture is added.
    pub residual: bool,
}

impl VaeConfig {
    fn is_095(&self) -> bool {
        self.down_block_types.last().is_some_and(|name| name == DOWN_BLOCK_095)
    }

    /// The encoder's levels, outermost first.
    pub fn encoder_levels(&self) -> Vec<EncoderLevel> {
        let channels = &self.block_out_channels;
        let folds = self.is_095();
        let count = channels.len() - usize::from(folds);
        (0..count)
            .map(|i| EncoderLevel {
                input: channels[i],
                output: channels[(i + 1).min(channels.len() - 1)],
                layers: self.layers_per_block[i],
                downsampling: self.spatio_temporal_scaling[i]
                    .then(|| if folds { self.downsample_type[i] } else { Downsampling::Conv }),
                folds,
            })
            .collect()
    }

    /// Residual blocks in the encoder's middle.
    pub fn mid_layers(&self) -> usize {
        self.layers_per_block[self.layers_per_block.len() - 1]
    }

    /// The decoder's middle, then its levels, innermost first.
    pub fn decoder_levels(&self) -> Vec<DecoderLevel> {
        let count = self.decoder_block_out_channels.len();
        let mut channels = self.decoder_block_out_channels[count - 1];
        let mut levels = vec![DecoderLevel {
            input: channels,
            output: channels,
            layers: self.decoder_layers_per_block[count],
            upsampling: None,
            noise: self.decoder_inject_noise[count],
        }];
        for i in (0..count).rev() {
            let factor = self.upsample_factor[i];
            let input = channels / factor;
            channels = self.decoder_block_out_channels[i] / factor;
            let residual = self.upsample_residual[i];
            levels.push(DecoderLevel {
                input,
                output: channels,
                layers: self.decoder_layers_per_block[i],
                upsampling: self.decoder_spatio_temporal_scaling[i]
                    .then_some(Upsampling { factor, residual }),
                noise: self.decoder_inject_noise[i],
            });
        }
        levels
    }

    /// Video frames per latent frame, and pixels per latent row or column.
    pub fn compression(&self) -> [usize; 2] {
        let levels = self.encoder_levels();
        let strides = levels.iter().filter_map(|level| Some(level.downsampling?.stride()));
        strides.fold([self.patch_size_t, self.patch_size], |[time, space], [t, h, _]| {
            [time * t, space * h]
        })
    }

    /// Video frames, and pixels, that the decoder makes of one latent.
    pub fn expansion(&self) -> [usize; 2] {
        let levels = self.decoder_levels();
        let grown = 1 << levels.iter().filter(|level| level.upsampling.is_some()).count();
        [self.patch_size_t * grown, self.patch_size * grown]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_follow_the_lists() {
        let config = VaeConfig::parse(&json!({})).unwrap();
        let encoder: Vec<_> =
            config.encoder_levels().iter().map(|l| (l.input, l.output, l.layers)).collect();
        assert_eq!(encoder, [(128, 256, 4), (256, 512, 3), (512, 512, 3), (512, 512, 3)]);
        let decoder: Vec<_> = config
            .decoder_levels()
            .iter()
            .map(|l| (l.input, l.output, l.layers, l.upsampling.is_some()))
            .collect();
        let wanted = [
            (512, 512, 4, false),
            (512, 512, 3, false),
            (512, 512, 3, true),
            (512, 256, 3, true),
            (256, 128, 4, true),
        ];
        assert_eq!(decoder, wanted);
        assert_eq!(config.compression(), [8, 32]);
    }
}
