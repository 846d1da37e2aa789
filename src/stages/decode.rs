//! `decode`: generated latents to frames.

use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Inputs, Output, Port, Ports, Stage, StageContext, StageError, StageKind, model::StageModel,
};
use crate::{
    artifact::{ArtifactKind, frames, samples, videos::Clip},
    models::{ModelRef, pixels},
};

/// Decodes each sample to a clip; its last frame is the prediction.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// The model whose VAE is used.
    pub model: ModelRef,
}

impl StageKind for Decode {
    const KIND: &'static str = "decode";
    const VERSION: u32 = 1;
    const PORTS: Ports = Ports {
        inputs: &[
            Port { name: "samples", kinds: &[ArtifactKind::Samples], required: true },
            Port { name: "model", kinds: &[ArtifactKind::Model], required: false },
        ],
        output: ArtifactKind::Frames,
    };
}

impl Stage for Decode {
    fn mapped_port(&self) -> Option<&'static str> {
        Some("samples")
    }

    fn weights(&self) -> Option<(&ModelRef, &'static [&'static str])> {
        Some((&self.model, &["vae"]))
    }

    fn run(
        &self,
        inputs: &Inputs<'_>,
        out: &mut Output<'_>,
        cx: &StageContext<'_>,
    ) -> Result<(), StageError> {
        let StageModel { source, device } = StageModel::open(&self.model, inputs, cx)?;
        let vae = cx.models.vae(&source, &device)?;
        cx.for_each(inputs.items("samples"), "decode samples", |item| {
            let latents = samples::from_bytes(&inputs.read(item, samples::FILE)?)
                .map_err(|e| StageError::failed(e.to_string()))?;
            let [channels, f, h, w] = latents.shape;
            if channels != vae.latent_channels() {
                return Err(StageError::failed(format!(
                    "the VAE decodes latents of {} channels, but these have {channels}",
                    vae.latent_channels()
                ))
                .with_help("sample and decode with the same model"));
            }
            let data = TensorData::new(latents.values, [1, channels, f, h, w]);
            let video = vae.decode(Tensor::from_data(data, &device) / vae.scaling_factor());
            let [_, _, frames, height, width] = video.dims();
            let clip = Clip { size: [frames, height, width], rgb: pixels::to_rgb(video) };
            let prediction = frames::to_png(&frames::prediction(&clip));
            let files: [(&str, &[u8]); 2] =
                [(frames::FILE, &clip.to_bytes()), (frames::PREDICTION, &prediction)];
            out.item(&item.name, &files)
        })
    }
}
