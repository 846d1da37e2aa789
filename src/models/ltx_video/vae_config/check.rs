//! What `vae/config.json` must say: that for which there is code, and lists that belong together.

use serde_json::Value;

use super::{
    DOWN_BLOCK, DOWN_BLOCK_095, DecoderLevel, Downsampling, EncoderLevel, VAE_CLASS, VaeConfig,
};
use crate::models::{
    LoadError,
    config::{Check, MAX_PATCH, parse},
};

const VAE: &str = "vae/config.json";

impl VaeConfig {
    /// Reads and checks `vae/config.json`.
    pub fn parse(config: &Value) -> Result<Self, LoadError> {
        Self::checked(config).map_err(|error| error.with_found(config))
    }

    fn checked(config: &Value) -> Result<Self, LoadError> {
        let check = Check(VAE);
        check.class(config, "_class_name", &[VAE_CLASS])?;
        let parsed: Self = parse(VAE, config)?;
        check.unknown(&parsed.unknown)?;
        check.colors(parsed.in_channels, parsed.out_channels)?;
        check.sizes(&[
            ("patch_size", parsed.patch_size),
            ("latent_channels", parsed.latent_channels),
        ])?;
        check.only("patch_size_t", parsed.patch_size_t == 1, "1")?;
        // The published pipelines take it into account when they decode, and not when they encode
        // the image.
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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
