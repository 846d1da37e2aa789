//! The memory that training takes, and what makes it take less.

use super::{
    super::{Lighter, Workload},
    LoraTrain,
};
use crate::models::{
    LoadError, Memory,
    memory::{Estimator, LoraTraining},
};

/// The lowest rank that is advised: lower ones learn hardly anything.
const LEAST_RANK: usize = 4;

impl LoraTrain {
    /// What it takes of the device.
    pub(super) fn memory_of_training(
        &self,
        work: &Workload<'_>,
    ) -> Result<Option<Memory>, LoadError> {
        let Some(clip) = work.clip else { return Ok(None) };
        let source = work.parts.source(&self.model)?;
        let estimator = Estimator::new(&source, work.on_host)?;
        estimator.lora_training(clip, &self.training(), &work.given).map(Some)
    }

    /// What it takes of the host beside a GPU.
    pub(super) fn memory_beside_training(
        &self,
        work: &Workload<'_>,
    ) -> Result<Option<Memory>, LoadError> {
        let Some(clip) = work.clip else { return Ok(None) };
        let source = work.parts.source(&self.model)?;
        let estimator = Estimator::new(&source, work.on_host)?;
        estimator.beside_training(clip, &self.training(), &work.given).map(Some)
    }

    /// The same with less memory.
    pub(super) fn lighter_training(&self, work: &Workload<'_>) -> Vec<Lighter> {
        let mut lighter = Vec::new();
        let blocks =
            || Estimator::new(&work.parts.source(&self.model)?, work.on_host)?.num_blocks();
        if let Some(recompute) = self.recompute.more(blocks().unwrap_or(0)) {
            let stage = Self { recompute, ..self.clone() };
            lighter.push(Lighter::new(
                "recompute",
                format!("set `recompute = {recompute}`"),
                stage,
            ));
        }
        if self.batch_size > 1 {
            // A batch that has no half becomes one of single clips.
            let batch_size =
                if self.batch_size.is_multiple_of(2) { self.batch_size / 2 } else { 1 };
            let gradient_accumulation = self.gradient_accumulation * (self.batch_size / batch_size);
            let advice = format!(
                "set `batch_size = {batch_size}` and `gradient_accumulation = \
                 {gradient_accumulation}`, which makes steps of the same kind"
            );
            let stage = Self { batch_size, gradient_accumulation, ..self.clone() };
            lighter.push(Lighter::new("batch_size", advice, stage));
        }
        if self.rank / 2 >= LEAST_RANK {
            let rank = self.rank / 2;
            let stage = Self { rank, ..self.clone() };
            lighter.push(Lighter::new("rank", format!("set `rank = {rank}`"), stage));
        }
        lighter
    }

    /// What decides the memory that it takes.
    fn training(&self) -> LoraTraining {
        LoraTraining {
            targets: self.modules,
            rank: self.rank,
            batch: self.batch_size,
            recomputed: self.recompute.blocks(usize::MAX),
            accumulates: self.gradient_accumulation > 1,
        }
    }
}
