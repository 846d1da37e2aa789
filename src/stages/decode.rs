//! `decode`: generated latents to frames.

use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Cause, CheckError, Inputs, Lighter, Lineage, Mismatch, Output, ParamError, Port, Ports, Stage,
    StageContext, StageError, StageKind, Surroundings, WeightsUsed, Workload,
    check::Facts,
    model::{StageModel, TILING_HELP, not_finite, open_vae},
};
use crate::{
    artifact::{ArtifactKind, frames, samples, tensors::TensorFileError, videos::Clip},
    models::{
        DecodeNoise, LoadError, Memory, ModelRef, PartRead,
        memory::Estimator,
        pixels,
        sampling::{Condition, rng_after_sampling},
    },
};

/// Decodes each sample to a clip; its last frame is the prediction.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// The model whose VAE is used. One on the input `model` takes its place; then this may be left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// How a decoder that takes a timestep (LTX-Video 0.9.1 and later) ends the denoising.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// Seed of the noise; that of `sample`, as the pipeline's is for both, gives the noise of the
    /// published pipeline.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Work on overlapping tiles of half the height and width that the model was trained with,
    /// where clips are larger: less memory, and slightly other pixels (CogVideoX).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tiling: bool,
    /// Decode the last frame alone, which is the prediction (LTX-Video). The clip then has one
    /// frame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last_frame: bool,
}

/// The last step of denoising, which the decoder makes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Noise {
    /// The decoder's timestep, from 0 to 1.
    pub timestep: f64,
    /// The share of noise mixed into the latents.
    pub scale: f64,
    /// The steps of `sample` with the sampler `flow_condition`, whose draws come before; 0 where
    /// its `noise_scale` is 0, which draws none. By default what the samples state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub condition_steps: Option<usize>,
}

impl Default for Noise {
    fn default() -> Self {
        Self { timestep: DecodeNoise::TIMESTEP, scale: DecodeNoise::SCALE, condition_steps: None }
    }
}

fn needs_all_frames() -> CheckError {
    CheckError::new(
        Cause::Param("last_frame"),
        "`last_frame` must be false: the norms of this family's decoder see all frames of a chunk",
        "leave it out; the prediction is the last frame of the clip all the same",
    )
}

impl StageKind for Decode {
    const KIND: &'static str = "decode";
    // 1: first · 2: on the CPU, convolutions and norms add up in another order · 3: tiles step in
    // whole latents, and the seed of noise is the pipeline's.
    const VERSION: u32 = 3;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "samples", kinds: &[ArtifactKind::Samples], required: true },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::Frames,
    };
}

impl Stage for Decode {
    fn validate(&self) -> Vec<ParamError> {
        let Noise { timestep, scale, .. } = self.noise.unwrap_or_default();
        [("noise.timestep", timestep), ("noise.scale", scale)]
            .into_iter()
            .filter(|(_, value)| !(0.0..=1.0).contains(value))
            .map(|(field, value)| {
                ParamError::new(field, format!("must lie between 0 and 1, but is {value}"))
            })
            .collect()
    }

    fn check(&self, around: &Surroundings<'_>) -> Vec<CheckError> {
        if self.model.is_none()
            && let Some(error) = Facts::without_model(around)
        {
            return vec![error];
        }
        let Some(facts) = around.model(self.model.as_ref()) else { return Vec::new() };
        let whole = (self.last_frame && !facts.vae_family.decodes_last()).then(needs_all_frames);
        let noise = facts.decoder_noise(self.noise.is_some());
        let own = facts.vae_on_port(around).into_iter().chain(facts.tiling(self.tiling));
        own.chain(noise).chain(whole).collect()
    }

    fn mismatches(&self, around: &Surroundings<'_>) -> Vec<Mismatch> {
        Lineage::decoding(around, self.model.as_ref())
    }

    fn mapped_port(&self) -> Option<&'static str> {
        Some("samples")
    }

    fn weights(&self) -> Option<WeightsUsed<'_>> {
        let model = self.model.as_ref()?;
        Some(WeightsUsed { model, parts: &[PartRead::Vae] })
    }

    fn memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let Some(clip) = work.clip else { return Ok(None) };
        let source = work.parts.source(self.model.as_ref())?;
        Estimator::new(&source, work.on_host)?.decoding(clip, self.tiling).map(Some)
    }

    fn host_memory(&self, work: &Workload<'_>) -> Result<Option<Memory>, LoadError> {
        let source = work.parts.source(self.model.as_ref())?;
        Estimator::new(&source, work.on_host)?.loading(&["vae"]).map(Some)
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
        cx.for_each(inputs.items("samples"), "decode samples", |item| {
            let wrong = |e: TensorFileError| StageError::failed(e.to_string());
            let bytes = inputs.read(item, samples::FILE)?;
            let latents = samples::from_bytes(&bytes).map_err(wrong)?;
            let drawn = samples::condition_steps(&bytes).map_err(wrong)?;
            let [channels, f, h, w] = latents.shape;
            if channels != vae.latent_channels() {
                return Err(StageError::failed(format!(
                    "the VAE decodes latents of {} channels, but these have {channels}",
                    vae.latent_channels()
                ))
                .with_help("sample and decode with the same model"));
            }
            let data = TensorData::new(latents.values, [1, channels, f, h, w]);
            let latents =
                vae.restore(Tensor::from_data(data, &model.device) / vae.scaling_factor());
            let Noise { timestep, scale, condition_steps } = self.noise.unwrap_or_default();
            let seed = self.seed.unwrap_or_default();
            let condition_steps = condition_steps.or(drawn);
            let condition = condition_steps.map(|steps| (Condition::default(), steps));
            let mut rng = rng_after_sampling(seed, [channels, f, h, w], condition);
            let noise = DecodeNoise { timestep, scale, rng: &mut rng };
            let video = if self.last_frame {
                vae.decode_last(latents, noise).ok_or_else(needs_all_frames)?
            } else {
                vae.decode_sampled(latents, noise)
            };
            let [_, _, frames, height, width] = video.dims();
            let rgb = pixels::to_rgb(video).ok_or_else(|| not_finite("the decoded pixels"))?;
            let clip = Clip { size: [frames, height, width], rgb };
            let prediction = frames::to_png(&frames::prediction(&clip));
            let files: [(&str, &[u8]); 2] =
                [(frames::FILE, &clip.to_bytes()), (frames::PREDICTION, &prediction)];
            out.item(&item.name, &files)
        })
    }
}
