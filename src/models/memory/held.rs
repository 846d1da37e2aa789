//! What a stage holds beside its model: encoded clips, and adapters.

use std::collections::BTreeMap;

use super::{
    super::{LoraTargets, VideoDiffusion, lora::num_factors},
    F32,
};

/// Every set of modules that an adapter can be trained on.
const TARGETS: [LoraTargets; 5] = [
    LoraTargets::Qk,
    LoraTargets::Vo,
    LoraTargets::Qkvo,
    LoraTargets::AllLinearBlocks,
    LoraTargets::AllLinear,
];

/// The size of an adapter, before it is known which model it is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdapterSize {
    /// Ranks on the modules that the model's family adapts by default, then on each of [`TARGETS`].
    ranks: [usize; 1 + TARGETS.len()],
    /// Bytes of factors that come from files.
    of_files: u64,
}

impl AdapterSize {
    /// One of this rank on these modules; by default those of the model's family.
    pub fn of_rank(targets: Option<LoraTargets>, rank: usize) -> Self {
        let place = |asked| 1 + TARGETS.iter().position(|known| *known == asked).unwrap_or(0);
        let mut size = Self::default();
        size.ranks[targets.map_or(0, place)] = rank;
        size
    }

    /// One that is read from files whose factors take so many bytes.
    pub fn of_files(bytes: u64) -> Self {
        Self { of_files: bytes, ..Self::default() }
    }

    /// Both side by side, as a merge puts them.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut ranks = self.ranks;
        for (rank, more) in ranks.iter_mut().zip(other.ranks) {
            *rank += more;
        }
        Self { ranks, of_files: self.of_files + other.of_files }
    }

    /// The same with each rank cut to this one.
    #[must_use]
    pub fn at_most(self, rank: usize) -> Self {
        Self { ranks: self.ranks.map(|own| own.min(rank)), ..self }
    }

    /// Its bytes on a model of this family whose tensors have these shapes: factors are kept in
    /// f32.
    pub(super) fn bytes(
        &self,
        family: &dyn VideoDiffusion,
        shapes: &BTreeMap<String, Vec<usize>>,
    ) -> u64 {
        let targets = [family.default_lora_targets()].into_iter().chain(TARGETS);
        let ranks = targets.zip(self.ranks).filter(|(_, rank)| *rank > 0);
        let factors = ranks
            .map(|(targets, rank)| num_factors(shapes, family.lora_targets(targets), rank) as u64);
        factors.sum::<u64>() * F32 + self.of_files
    }
}

/// Encoded clips that are held all at once, as a training holds those that it draws from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeldClips {
    /// The clips, on the device.
    pub clips: usize,
    /// The encodings of the conditioning image of each, on the host.
    pub images: usize,
}

/// What is on the ports of a stage, as far as it is known and decides the memory that it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Given {
    /// Tokens of the prompt, where they are not as many as the model was trained with.
    pub tokens: Option<usize>,
    /// Clips to train on.
    pub clips: HeldClips,
    /// Clips to look at on the way.
    pub held_out: HeldClips,
    /// The adapter.
    pub adapter: AdapterSize,
}

/// Values of latents, and of one frame of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct LatentValues {
    /// With the frames that the denoiser pads them by.
    pub clip: u64,
    /// Of one frame.
    pub frame: u64,
}

impl LatentValues {
    /// Bytes of the latents of clips, and of the encodings of their images.
    pub fn bytes(&self, held: &[HeldClips]) -> [u64; 2] {
        let of = |number: &dyn Fn(&HeldClips) -> usize, values: u64| {
            held.iter().map(|held| number(held) as u64).sum::<u64>() * values * F32
        };
        [of(&|held| held.clips, self.clip), of(&|held| held.clips * held.images, self.frame)]
    }
}
