//! The video autoencoders of LTX-Video 0.9.0, 0.9.1 and 0.9.5.
//!
//! Legend: B batch, C channels, T/H/W frames/rows/columns.
//!
//! Follows `AutoencoderKLLTXVideo`, `src/diffusers/models/autoencoders/autoencoder_kl_ltx.py` at
//! v0.42.1.
//!
//! Left out: tiles and chunks of frames, which the reference does not use unless asked to.

mod blocks;
mod decoder;
mod encoder;

use burn::tensor::{FloatDType, Tensor};

use self::{
    decoder::{Decoder, Wanted},
    encoder::Encoder,
};
use super::vae_config::VaeConfig;
use crate::models::{
    Compression, DecodeNoise, LoadError, ParamReader, Posterior, VideoVae, params::Init,
};

/// The autoencoder with its weights.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Encoder,
    decoder: Decoder,
    latents_mean: Tensor<1>, // [C]
    latents_std: Tensor<1>,  // [C]
}

impl Vae {
    /// Takes the parameters by their published names, every one of them.
    pub fn new(config: VaeConfig, params: &ParamReader<'_>) -> Result<Self, LoadError> {
        let channels = config.latent_channels;
        let encoder = Encoder::new(&config, &params.scope("encoder"));
        let decoder = Decoder::new(&config, &params.scope("decoder"));
        let latents_mean = params.tensor("latents_mean", [channels], Init::Zeros);
        let latents_std = params.tensor("latents_std", [channels], Init::Ones);
        params.finish()?;
        if params.is_loaded() {
            check_statistics(&latents_mean, &latents_std)?;
        }
        Ok(Self { config, encoder, decoder, latents_mean, latents_std })
    }

    fn dtype(&self) -> FloatDType {
        self.latents_mean.dtype().into()
    }

    /// Ends the denoising of latents.
    fn end(&self, mut latents: Tensor<5>, noise: DecodeNoise<'_>, wanted: Wanted) -> Tensor<5> {
        let DecodeNoise { timestep, scale, rng } = noise;
        if self.config.timestep_conditioning {
            let noise = rng.normal_tensor(latents.dims(), &latents.device());
            let noise = noise.cast(FloatDType::from(latents.dtype()));
            latents = latents * (1.0 - scale) + noise * scale;
        }
        self.decoder.forward(latents.cast(self.dtype()), timestep as f32, Some(rng), wanted)
    }

    /// A statistic of each channel, for latents of a type.
    fn per_channel(statistic: &Tensor<1>, latents: &Tensor<5>) -> Tensor<5> {
        statistic.clone().cast(FloatDType::from(latents.dtype())).reshape([1, -1, 1, 1, 1])
    }
}

/// Refuses statistics that would make latents that are no numbers.
fn check_statistics(mean: &Tensor<1>, std: &Tensor<1>) -> Result<(), LoadError> {
    let is_finite = |values: &Tensor<1>| values.clone().is_finite().all().into_scalar::<bool>();
    let has_zero = std.clone().equal_elem(0.0).any().into_scalar::<bool>();
    let message = if !is_finite(mean) {
        "`latents_mean` must be finite numbers"
    } else if !is_finite(std) || has_zero {
        "`latents_std` must be finite numbers other than 0: latents are divided by them"
    } else {
        return Ok(());
    };
    Err(LoadError::NotFinite {
        message: format!("the weights of `vae`: {message}"),
        help: "they may be damaged: copy or download them again",
    })
}

impl VideoVae for Vae {
    fn encode(&self, video: Tensor<5>) -> Posterior {
        let dtype = FloatDType::from(video.dtype());
        let moments = self.encoder.forward(video.cast(self.dtype())).cast(dtype);
        let [b, c, f, h, w] = moments.dims();
        let channels = c - 1;
        let logvar = moments.clone().narrow(1, channels, 1).clamp(-30.0, 20.0);
        Posterior {
            mean: moments.narrow(1, 0, channels),
            logvar: logvar.expand([b, channels, f, h, w]),
        }
    }

    fn decode(&self, latents: Tensor<5>) -> Tensor<5> {
        let timestep = DecodeNoise::TIMESTEP as f32;
        self.decoder.forward(latents.cast(self.dtype()), timestep, None, Wanted::All)
    }

    fn decode_sampled(&self, latents: Tensor<5>, noise: DecodeNoise<'_>) -> Tensor<5> {
        self.end(latents, noise, Wanted::All)
    }

    fn takes_noise(&self) -> bool {
        self.config.timestep_conditioning || self.config.decoder_inject_noise.contains(&true)
    }

    fn decode_last(&self, latents: Tensor<5>, noise: DecodeNoise<'_>) -> Option<Tensor<5>> {
        Some(self.end(latents, noise, Wanted::Last))
    }

    fn standardize(&self, latents: Tensor<5>) -> Tensor<5> {
        let mean = Self::per_channel(&self.latents_mean, &latents);
        let std = Self::per_channel(&self.latents_std, &latents);
        (latents - mean) / std
    }

    fn restore(&self, latents: Tensor<5>) -> Tensor<5> {
        let mean = Self::per_channel(&self.latents_mean, &latents);
        let std = Self::per_channel(&self.latents_std, &latents);
        latents * std + mean
    }

    fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    fn compression(&self) -> Compression {
        let [time, space] = self.config.compression();
        Compression { time, space }
    }

    fn expansion(&self) -> Compression {
        let [time, space] = self.config.expansion();
        Compression { time, space }
    }

    fn scaling_factor(&self) -> f32 {
        self.config.scaling_factor
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn statistics_that_make_no_numbers_are_refused() {
        let check = |mean: f32, std: f32| {
            let [mean, std] =
                [mean, std].map(|value| Tensor::<1>::from_floats([1.0, value], &Device::flex()));
            check_statistics(&mean, &std).map_err(|error| error.to_string())
        };
        assert_eq!(check(-3.0, -0.5), Ok(()));
        assert!(check(f32::NAN, 1.0).unwrap_err().contains("`latents_mean`"));
        for std in [0.0, f32::NAN, f32::INFINITY] {
            assert!(check(0.0, std).unwrap_err().contains("`latents_std` must be finite"));
        }
    }
}
