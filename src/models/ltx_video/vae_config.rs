//! `vae/config.json` of LTX-Video 0.9.0 to 0.9.5, and the levels it describes.
//!
//! The reference reads the decoder's lists from the end; [`VaeConfig::decoder_levels`] alone knows
//! that.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::models::{
    LoadError,
    config::{Check, MAX_PATCH, parse},
};

const VAE: &str = "vae/config.json";
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
    /// Reads and checks `vae/config.json`.
    pub fn parse(config: &Value) -> Result<Self, LoadError> {
        Self::checked(config).map_err(|error| error.with_found(config))
    }

    fn checked(config: &Value) -> Result<Self, LoadError> {
        let check = Check(VAE);
        check.class(config, "_class_name", &["AutoencoderKLLTXVideo"])?;
        let parsed: Self = parse(VAE, config)?;
        check.unknown(&parsed.unknown)?;
        check.colors(parsed.in_channels, parsed.out_channels)?;
        check.sizes(&[
            ("patch_size", parsed.patch_size),
            ("latent_channels", parsed.latent_channels),
        ])?;
        check.only("patch_size_t", parsed.patch_size_t == 1, "1")?;
        // The published pipelines take it into account when they decode, and not when they encode the image.
        let is_one = parsed.scaling_factor.to_bits() == 1.0_f32.to_bits();
        check.only("scaling_factor", is_one, "1, as in all that are published")?;
        check.epsilon("resnet_norm_eps", parsed.resnet_norm_eps)?;
        check.at_most("patch_size", parsed.patch_size, MAX_PATCH)?;
        check.layers("layers_per_block", &parsed.layers_per_block)?;
        check.layers("decoder_layers_per_block", &parsed.decoder_layers_per_block)?;
        for (key, channels) in [
            ("block_out_channels", &parsed.block_out_channels),
            ("decoder_block_out_channels", &parsed.decoder_block_out_channels),
        ] {
            check.levels(key, channels.len())?;
            check.sizes(&[(key, channels.iter().copied().max().unwrap_or(1).max(1))])?;
        }
        parsed.check_encoder(check)?;
        parsed.check_decoder(check)?;
        let [time, space] = parsed.compression();
        for (key, stated, found) in [
            ("spatial_compression_ratio", parsed.spatial_compression_ratio, space),
            ("temporal_compression_ratio", parsed.temporal_compression_ratio, time),
        ] {
            let holds = stated.is_none_or(|stated| stated == found);
            check.only(key, holds, &format!("{found}, as the levels of the encoder give"))?;
        }
        Ok(parsed)
    }

    fn check_encoder(&self, check: Check) -> Result<(), LoadError> {
        let known = |name: &String| name == DOWN_BLOCK || name == DOWN_BLOCK_095;
        let types = &self.down_block_types;
        let alike = types.windows(2).all(|pair| pair[0] == pair[1]);
        let wanted = format!("a list of `{DOWN_BLOCK}` or of `{DOWN_BLOCK_095}`");
        check.only("down_block_types", alike && types.first().is_some_and(known), &wanted)?;
        let least = 1 + usize::from(self.is_095());
        let channels = &self.block_out_channels;
        let sizes = channels.len() >= least && channels.iter().all(|c| *c > 0);
        check.only("block_out_channels", sizes, &format!("{least} or more sizes"))?;
        let count = channels.len() - usize::from(self.is_095());
        for (key, len, exact) in [
            ("down_block_types", types.len(), count),
            ("spatio_temporal_scaling", self.spatio_temporal_scaling.len(), count),
            ("downsample_type", self.downsample_type.len(), count),
            ("layers_per_block", self.layers_per_block.len(), count + 1),
        ] {
            // Of the reference's lists only the layers are read from the end as well.
            let holds = if key == "layers_per_block" { len == exact } else { len >= exact };
            check.only(key, holds, &format!("a list of {exact}"))?;
        }
        for level in self.encoder_levels() {
            let EncoderLevel { input, output, downsampling, folds, .. } = level;
            let volume = downsampling.map_or(1, |how| how.stride().iter().product());
            let fits = match downsampling.and_then(Downsampling::fold_stride) {
                Some(_) => folds && output % volume == 0 && (input * volume) % output == 0,
                None => !folds || input == output,
            };
            check.only("downsample_type", fits, "one that gives the level's block_out_channels")?;
        }
        Ok(())
    }

    fn check_decoder(&self, check: Check) -> Result<(), LoadError> {
        let channels = &self.decoder_block_out_channels;
        let count = channels.len();
        check.only("decoder_block_out_channels", count > 0, "a list of at least one size")?;
        for (key, len, exact) in [
            ("decoder_spatio_temporal_scaling", self.decoder_spatio_temporal_scaling.len(), count),
            ("upsample_residual", self.upsample_residual.len(), count),
            ("upsample_factor", self.upsample_factor.len(), count),
            ("decoder_layers_per_block", self.decoder_layers_per_block.len(), count + 1),
            ("decoder_inject_noise", self.decoder_inject_noise.len(), count + 1),
        ] {
            check.only(key, len == exact, &format!("a list of {exact}"))?;
        }
        let factors = self.upsample_factor.iter().all(|factor| [1, 2, 4, 8].contains(factor));
        check.only("upsample_factor", factors, "a list of 1, 2, 4 or 8")?;
        let sizes = channels.iter().all(|c| *c > 0);
        check.only("decoder_block_out_channels", sizes, "a list of positive sizes")?;
        let levels = self.decoder_levels();
        levels.windows(2).zip(self.upsample_factor.iter().rev()).try_for_each(|(pair, factor)| {
            self.check_decoder_level(check, pair[0].output, &pair[1], *factor)
        })
    }

    /// Checks a level that gets `channels`.
    fn check_decoder_level(
        &self,
        check: Check,
        channels: usize,
        level: &DecoderLevel,
        factor: usize,
    ) -> Result<(), LoadError> {
        let plain = level.input == level.output;
        // Where a factor divides the channels, only the upsampler may change their number.
        let divides = factor == 1
            || (plain && level.upsampling.is_some() && level.output * factor == channels);
        // What it unfolds are the channels after those that a residual block may change.
        let unfolds = level
            .upsampling
            .is_none_or(|how| !how.residual || (level.output * factor).is_multiple_of(8));
        let fits = level.output > 0 && divides && unfolds;
        check.only("upsample_factor", fits, "one that divides decoder_block_out_channels")?;
        let rule = "false where a level of the decoder changes the number of channels";
        check.only("timestep_conditioning", plain || !self.timestep_conditioning, rule)?;
        check.only("decoder_inject_noise", plain || !level.noise, rule)
    }

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

    #[test]
    fn settings_without_code_are_errors() {
        for (config, named) in [
            (json!({ "patch_size_t": 2 }), "patch_size_t"),
            (json!({ "down_block_types": ["DownBlock3D"] }), "down_block_types"),
            (json!({ "layers_per_block": [1, 1] }), "layers_per_block"),
            (json!({ "upsample_factor": [2, 1, 1, 1] }), "upsample_factor"),
            (json!({ "upsample_factor": [0, 1, 1, 1] }), "upsample_factor"),
            (json!({ "decoder_inject_noise": [true, true, true, true, true] }), "inject_noise"),
            (json!({ "timestep_conditioning": true }), "timestep_conditioning"),
            (json!({ "spatial_compression_ratio": 16 }), "spatial_compression_ratio"),
            (json!({ "block_out_channels": [] }), "block_out_channels"),
            (json!({ "decoder_block_out_channels": [] }), "decoder_block_out_channels"),
            (json!({ "window": 3 }), "window"),
            (json!({ "patch_size": 0 }), "`patch_size` must be at least 1"),
            (json!({ "latent_channels": 0 }), "latent_channels"),
            (
                json!({ "scaling_factor": 0.5 }),
                "`scaling_factor` must be 1, as in all that are published, but is 0.5",
            ),
            (
                json!({ "dropout": 0.1 }),
                "`dropout` must be 0: no layer drops values in training here, but is 0.1",
            ),
            (json!({ "in_channels": 4 }), "`in_channels` must be 3, but is 4"),
            (json!({ "out_channels": 4 }), "`out_channels` must be 3"),
            (json!({ "resnet_norm_eps": -1 }), "`resnet_norm_eps` must be a number, not negative"),
            // The level's residual block makes 12 channels, which give no places.
            (
                json!({
                    "decoder_block_out_channels": [12, 16], "decoder_layers_per_block": [1, 1, 1],
                    "decoder_spatio_temporal_scaling": [true, false],
                    "upsample_residual": [true, false], "upsample_factor": [1, 1],
                    "decoder_inject_noise": [false, false, false],
                }),
                "upsample_factor",
            ),
            (json!({ "layers_per_block": [1_u64 << 40] }), "`layers_per_block` must be at most"),
            (
                json!({ "block_out_channels": vec![8; 99] }),
                "`block_out_channels` must be a list of at most 16",
            ),
            (
                json!({ "decoder_block_out_channels": [1_u64 << 40] }),
                "out_channels` must be at most",
            ),
            (json!({ "patch_size": 1_u64 << 40 }), "`patch_size` must be at most"),
            (json!({ "block_out_channels": [0, 0, 0, 0] }), "block_out_channels"),
        ] {
            let message = VaeConfig::parse(&config).unwrap_err().to_string();
            assert!(message.contains(named), "{config}: {message}");
        }
    }
}
