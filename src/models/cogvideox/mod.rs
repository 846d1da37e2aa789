//! CogVideoX 1.0 and 1.5, image to video.

use serde_json::Value;

use super::{
    Denoiser, LoadError, LoraTargets, NoiseScheduler, ParamReader, Sampler, VideoDiffusion,
    VideoVae,
};

/// The CogVideoX family.
pub struct CogVideoX;

impl VideoDiffusion for CogVideoX {
    fn class_name(&self) -> &'static str {
        "CogVideoXTransformer3DModel"
    }

    fn vae(&self, _: &Value, _: &ParamReader<'_>) -> Result<Box<dyn VideoVae>, LoadError> {
        todo!()
    }

    fn denoiser(&self, _: &Value, _: &ParamReader<'_>) -> Result<Box<dyn Denoiser>, LoadError> {
        todo!()
    }

    fn scheduler(&self, _: &Value, _: Sampler) -> Result<Box<dyn NoiseScheduler>, LoadError> {
        todo!()
    }

    fn lora_targets(&self, _: LoraTargets) -> &'static [&'static str] {
        todo!()
    }
}
