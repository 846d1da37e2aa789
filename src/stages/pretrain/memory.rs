//! The memory that a training takes, and what would take less.

use serde_json::Value;

use super::{
    super::{Lighter, Workload},
    Part, Pretrain,
};
use crate::models::{
    ClipSize, LoadError, Memory, ParamReader, VideoDiffusion, memory::Pretraining,
};

/// The side of the smallest piece that is advised to train an autoencoder on.
const SMALLEST_PIECE: usize = 32;

impl Pretrain {
    /// The memory that it takes of the device.
    pub(super) fn memory_of_training(
        &self,
        work: &Workload<'_>,
    ) -> Result<Option<Memory>, LoadError> {
        let (Some(clip), Some(family)) = (work.clip, self.family()) else { return Ok(None) };
        let config = self.config_beside(work.parts)?;
        let training = self.memory_of(family, &config, work);
        if self.part == Part::Vae {
            let [height, width] = self.crop.unwrap_or([clip.height, clip.width]);
            return training.vae(ClipSize { height, width, ..clip }).map(Some);
        }
        let Some(vae) = self.vae_beside(work)? else { return Ok(None) };
        let recomputed = self.recompute.blocks(usize::MAX);
        training.denoiser(clip, &vae, recomputed, &work.given).map(Some)
    }

    /// What it takes of the host beside a GPU.
    pub(super) fn memory_beside_training(
        &self,
        work: &Workload<'_>,
    ) -> Result<Option<Memory>, LoadError> {
        let (Some(clip), Some(family)) = (work.clip, self.family()) else { return Ok(None) };
        let config = self.config_beside(work.parts)?;
        let training = self.memory_of(family, &config, work);
        if self.part == Part::Vae {
            return training.beside_vae().map(Some);
        }
        let Some(vae) = self.vae_beside(work)? else { return Ok(None) };
        training.beside_denoiser(clip, &vae, &work.given).map(Some)
    }

    /// The same with less memory.
    pub(super) fn lighter_training(&self, work: &Workload<'_>) -> Vec<Lighter> {
        let mut lighter = Vec::new();
        let recompute = self.recompute.more(self.num_blocks(work).unwrap_or(0));
        if let (Part::Transformer, Some(recompute)) = (self.part, recompute) {
            let stage = Self { recompute, ..self.clone() };
            lighter.push(Lighter::new(
                "recompute",
                format!("set `recompute = {recompute}`"),
                stage,
            ));
        }
        if self.batch_size > 1 {
            let batch_size = self.batch_size / 2;
            let advice = format!("set `batch_size = {batch_size}`");
            let stage = Self { batch_size, ..self.clone() };
            lighter.push(Lighter::new("batch_size", advice, stage));
        }
        lighter.extend(self.smaller_piece(work));
        lighter
    }

    /// Blocks of the transformer, if its configuration is known.
    fn num_blocks(&self, work: &Workload<'_>) -> Option<usize> {
        let config = self.config_beside(work.parts).ok()?;
        let denoiser = self.family()?.denoiser(&config, &ParamReader::shapes()).ok()?;
        Some(denoiser.num_blocks())
    }

    /// Training of an autoencoder on pieces of half the height and width.
    fn smaller_piece(&self, work: &Workload<'_>) -> Option<Lighter> {
        let whole = work.clip.map(|clip| [clip.height, clip.width]);
        // A multiple of what all families shrink by.
        let half = self.crop.or(whole)?.map(|side| side / 2 / SMALLEST_PIECE * SMALLEST_PIECE);
        if self.part != Part::Vae || half.contains(&0) {
            return None;
        }
        let stage = Self { crop: Some(half), ..self.clone() };
        Some(Lighter::new("crop", format!("set `crop = {half:?}`"), stage))
    }

    /// What tells the memory of the training.
    fn memory_of<'a>(
        &self,
        family: &'static dyn VideoDiffusion,
        config: &'a Value,
        work: &Workload<'_>,
    ) -> Pretraining<'a> {
        Pretraining {
            family,
            config,
            batch: self.batch_size,
            averages: self.ema_decay.is_some(),
            on_host: work.on_host,
        }
    }

    /// The configuration of the autoencoder that made the latents, if it is known.
    fn vae_beside(&self, work: &Workload<'_>) -> Result<Option<Value>, LoadError> {
        let mut on_ports = [Some(work.parts), work.encoder].into_iter().flatten();
        let vae = on_ports.find_map(|parts| parts.get("vae"));
        match (vae, &self.like) {
            (Some(vae), _) => Ok(Some(vae.clone())),
            (None, Some(like)) => like.resolve()?.config("vae").map(Some),
            (None, None) => Ok(None),
        }
    }
}
