//! `vae_encode`: clips to latents, with encodings of the conditioning image.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bulk, Cause, CheckError, Inputs, Lighter, Lineage, Output, ParamError, Port, Ports, Stage,
    StageContext, StageError, StageKind, Surroundings, Trainings, WeightsUsed, Workload,
    check::Facts,
    model::{StageModel, TILING_HELP, array, check_pixels, not_finite, open_vae, read_clip},
    rules,
};
use crate::{
    artifact::{
        ArtifactKind, Item,
        latents::{self, ClipLatents},
        tensors::Array,
        videos::Clip,
    },
    models::{
        ImageConditioning, LoadError, Memory, ModelRef, PartRead, VideoVae, family, family_of_vae,
        memory::Estimator, pixels,
    },
    rng::TorchRng,
    train::order::{Stream, place, step_rng},
};

/// Which latents an encoder's distribution gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PosteriorChoice {
    /// A draw from it, as the published trainers and pipelines do.
    #[default]
    Sample,
    /// Its mean.
    Mean,
}

impl PosteriorChoice {
    /// Whether it is the default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Noise on the pixels of the conditioning image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`image_noise` must be \"off\", or a table of `mean` and `std`")]
pub enum ImageNoise {
    /// `"off"`.
    Off(NoNoise),
    /// The level's logarithm is normal.
    On(NoiseLevel),
}

/// The word for no noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoNoise {
    /// The image as it is.
    Off,
}

/// The distribution of a noise level: `exp(mean + std * N(0, 1))`, on pixels in [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseLevel {
    /// Mean of the logarithm.
    pub mean: f64,
    /// Standard deviation of the logarithm.
    pub std: f64,
}

impl Default for ImageNoise {
    fn default() -> Self {
        Self::On(NoiseLevel { mean: -3.0, std: 0.5 })
    }
}

/// Encodes each clip and, for families that are given the image beside it (CogVideoX), its first
/// frame alone with noise on its pixels.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaeEncode {
    /// The model whose VAE is used. One on the input `model` takes its place, of whatever family it
    /// is; then this may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// Which latents the encoder's distribution gives.
    #[serde(default)]
    pub posterior: PosteriorChoice,
    /// Noise on the conditioning image's pixels: `"off"`, or mean and standard deviation of the
    /// logarithm of its level.
    #[serde(default)]
    pub image_noise: ImageNoise,
    /// Encodings of the conditioning image, each with its own noise; training takes one at each
    /// step. With 1, the default, the noise on a clip's image is the same at every step; published
    /// trainers draw it anew at each step, which takes a pool. Families whose image is the first
    /// frame (LTX-Video) take that of the clip instead.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65_536))]
    pub image_latent_pool: usize,
    /// Work on overlapping tiles of half the height and width that the model was trained with,
    /// where clips are larger: less memory, and slightly other latents (CogVideoX).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tiling: bool,
    /// Seed of all noise, which is a function of this and of the clip's content.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn one() -> usize {
    1
}

impl StageKind for VaeEncode {
    const KIND: &'static str = "vae_encode";
    // 1: first · 2: on the CPU, convolutions and norms add up in another order · 3: tiles step in
    // whole latents · 4: each clip has its own noise. Beside it, the revision of families whose
    // image is the first frame: 1: no encodings of it.
    const VERSION: u32 = 4;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "videos", kinds: &[ArtifactKind::Videos], required: true },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::Latents,
    };
}

impl Stage for VaeEncode {
    fn validate(&self) -> Vec<ParamError> {
        let mut errors = rules::at_least_one(&[("image_latent_pool", self.image_latent_pool)]);
        if let ImageNoise::On(NoiseLevel { mean, std }) = self.image_noise {
            errors.extend(rules::finite("image_noise.mean", mean));
            let message = format!("must be a finite number, not negative, but is {std}");
            let wrong = !(std >= 0.0 && std.is_finite());
            errors.extend(wrong.then(|| ParamError::new("image_noise.std", message)));
        }
        errors
    }

    fn revision(&self) -> u32 {
        // What is on the port is not known here; of it alone, nothing was made before there were
        // revisions.
        let Some(model) = &self.model else { return 1 };
        let conditioning = || Some(family(&model.resolve().ok()?).ok()?.image_conditioning());
        // Of a model that is not here there is no key.
        u32::from(conditioning() == Some(ImageConditioning::FirstFrame))
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        if self.model.is_none()
            && let Some(error) = Facts::without_model(around)
        {
            return vec![error];
        }
        let Some(facts) = around.model(self.model.as_ref()) else { return Vec::new() };
        let mut errors = facts.pixels(around.size);
        errors.extend(facts.tiling(self.tiling));
        errors.extend(facts.vae_on_port(around));
        errors.extend(self.unread(facts.vae_family.image_conditioning()));
        errors
    }

    fn trainings(&self, around: &Surroundings<'_>) -> Option<Trainings> {
        let posterior = Some((self.posterior, Arc::from(around.stage)));
        Some(Trainings { posterior, ..Trainings::default() })
    }

    fn lineage(&self, around: &Surroundings<'_>) -> Option<Lineage> {
        Some(Lineage::of_latents(around, self.model.as_ref()))
    }

    fn mapped_port(&self) -> Option<&'static str> {
        Some("videos")
    }

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        let model = self.model.as_ref()?;
        Some(WeightsUsed { model, parts: &[PartRead::Vae] })
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let Some(clip) = work.clip else { return Ok(None) };
        let source = work.parts.source(self.model.as_ref())?;
        let estimator = Estimator::new(&source, work.on_host)?;
        let memory = estimator.encoding(clip, self.tiling)?;
        let clips =
            if work.on_host { estimator.encoded(clip, self.image_latent_pool)? } else { 0 };
        Ok(Some(Memory { clips, ..memory }))
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let Some(clip) = work.clip else { return Ok(None) };
        let source = work.parts.source(self.model.as_ref())?;
        let estimator = Estimator::new(&source, work.on_host)?;
        let clips = estimator.encoded(clip, self.image_latent_pool)?;
        let encoding = Memory { clips, ..Memory::default() };
        Ok(Some(encoding.or_larger(estimator.loading(&["vae"])?)))
    }

    fn bulk(&self, given: &dyn Fn(&str) -> Bulk) -> Bulk {
        Bulk { images: self.image_latent_pool, ..Bulk::of_items(self, given) }
    }

    fn lighter(&self, _work: &Workload<'_>) -> Vec<Lighter> {
        let tiled = || Lighter::new("tiling", TILING_HELP, Self { tiling: true, ..self.clone() });
        (!self.tiling).then(tiled).into_iter().collect()
    }

    fn uses_device(&self) -> bool {
        true
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let model = StageModel::open(self.model.as_ref(), inputs, cx)?;
        let vae = open_vae(&model, self.tiling, cx)?;
        let pool = match family_of_vae(&model.source)?.image_conditioning() {
            ImageConditioning::Channels => self.image_latent_pool,
            ImageConditioning::FirstFrame => 0,
        };
        cx.for_each(inputs.items("videos"), "encode clips", |item| {
            let clip = read_clip(inputs, item)?;
            check_pixels(clip.size, vae.compression())?;
            let encoded = self.encode(&*vae, (&clip, item), pool, &model.device);
            if !(encoded.clip.is_finite() && encoded.images.is_finite()) {
                return Err(not_finite("the autoencoder's latents"));
            }
            out.item(&item.name, &[(latents::FILE, &encoded.to_bytes())])
        })
    }
}

impl VaeEncode {
    /// What is set for encodings of the image that no training will read.
    fn unread(&self, conditioning: ImageConditioning) -> Vec<CheckError> {
        if conditioning == ImageConditioning::Channels {
            return Vec::new();
        }
        let set = [
            ("image_latent_pool", self.image_latent_pool != one()),
            ("image_noise", self.image_noise != ImageNoise::default()),
        ];
        let set = set.into_iter().filter(|(_, set)| *set);
        set.map(|(param, _)| {
            let message = format!(
                "`{param}` is not for this family of models, whose image is the first frame of the clip"
            );
            CheckError::new(Cause::Param(param), message, "leave it out")
        })
        .collect()
    }

    /// Draws, in this order: the clip's posterior noise, then for each of `pool` encodings of the
    /// image the noise level, the pixels' noise and the posterior noise.
    fn encode(
        &self,
        vae: &dyn VideoVae,
        (clip, item): (&Clip, &Item),
        pool: usize,
        device: &Device,
    ) -> ClipLatents {
        let seed = self.seed.unwrap_or_default();
        let mut rng = step_rng(seed, Stream::Encode, place(&item.digest()));
        let video = pixels::from_rgb(&clip.rgb, clip.size, device);
        let image = video.clone().narrow(2, 0, 1);
        let latents = self.draw(vae, video, &mut rng) * vae.scaling_factor();
        let latents = array(latents.squeeze_dim::<4>(0));
        // Each goes to the host at once: thousands may be more than a GPU has memory for.
        let [c, _, h, w] = latents.shape;
        let mut images = Array { shape: [pool, c, 1, h, w], values: Vec::new() };
        for _ in 0..pool {
            let noisy = match self.image_noise {
                ImageNoise::Off(_) => image.clone(),
                ImageNoise::On(NoiseLevel { mean, std }) => {
                    let level = (mean + std * f64::from(rng.normal(1)[0])).exp();
                    image.clone() + rng.normal_tensor(image.dims(), device) * level
                }
            };
            images.values.extend(array(self.draw(vae, noisy, &mut rng)).values);
        }
        ClipLatents { clip: latents, images }
    }

    fn draw(&self, vae: &dyn VideoVae, video: Tensor<5>, rng: &mut TorchRng) -> Tensor<5> {
        let posterior = vae.encode(video);
        vae.standardize(match self.posterior {
            PosteriorChoice::Mean => posterior.mean,
            PosteriorChoice::Sample => {
                let noise = rng.normal_tensor(posterior.mean.dims(), &posterior.mean.device());
                posterior.sample(noise)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{artifact::videos, stages::support::Bench};

    /// Three clips of one colour: two are the same, the third differs by one level of one pixel.
    #[test]
    fn noise_is_of_the_clip_and_not_of_its_name() {
        let bench = Bench::new();
        let clip = |name: &str, last: u8| {
            let mut rgb = vec![100; 5 * 32 * 32 * 3];
            *rgb.last_mut().unwrap() = last;
            let clip = Clip { size: [5, 32, 32], rgb };
            bench.item(name, &[(videos::FILE, &clip.to_bytes())])
        };
        let clips = [clip("a", 100), clip("b", 100), clip("c", 101)];
        let inputs = bench.inputs(&[("videos", ArtifactKind::Videos, &clips)]);
        let stage: VaeEncode = serde_json::from_value(json!({ "model": "builtin:tiny" })).unwrap();
        let made = bench.run_with(&stage, &inputs, false).unwrap();
        let [a, b, c] = [0, 1, 2].map(|index: usize| {
            let bytes = inputs.read(&made[index], latents::FILE).unwrap();
            ClipLatents::from_bytes(&bytes).unwrap()
        });
        assert_eq!(a.images.values, b.images.values);
        let apart = a.images.values.iter().zip(&c.images.values).map(|(a, c)| (a - c).abs());
        let apart = apart.fold(0.0, f32::max);
        assert!(apart > 0.05, "{apart}");
    }
}
