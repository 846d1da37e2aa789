//! Which examples a step sees, and the randomness of each step.
//!
//! Both are functions of seed and step alone: nothing to save, and a resumed run goes on as if it
//! had never stopped.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rng::TorchRng, store::Digest};

/// What happens when the examples do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SmallSet {
    /// The next epoch's order fills it: every batch is full, and one example fills a batch of two
    /// twice, each time with other noise and timestep.
    #[default]
    Repeat,
    /// The last batch of an epoch is short.
    Short,
}

/// The order of examples: shuffled anew each epoch.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Number of examples, at least 1.
    pub len: usize,
    /// Examples per batch, at least 1.
    pub batch_size: usize,
    /// What happens at the end of an epoch.
    pub small_set: SmallSet,
    /// The run's seed.
    pub seed: u64,
}

impl Order {
    /// The examples of batch `index`, counted over all epochs.
    pub fn batch(&self, index: usize) -> Vec<usize> {
        match self.small_set {
            SmallSet::Repeat => {
                let first = index * self.batch_size;
                let mut shuffled: Option<(usize, Vec<usize>)> = None;
                (first..first + self.batch_size)
                    .map(|position| {
                        let epoch = position / self.len;
                        if shuffled.as_ref().is_none_or(|(of, _)| *of != epoch) {
                            shuffled = Some((epoch, self.epoch(epoch)));
                        }
                        let (_, order) = shuffled.as_ref().expect("set above");
                        order[position % self.len]
                    })
                    .collect()
            }
            SmallSet::Short => {
                let batches = self.len.div_ceil(self.batch_size);
                let order = self.epoch(index / batches);
                let first = index % batches * self.batch_size;
                order[first..self.len.min(first + self.batch_size)].to_vec()
            }
        }
    }

    fn epoch(&self, epoch: usize) -> Vec<usize> {
        step_rng(self.seed, Stream::Order, epoch).randperm(self.len)
    }
}

/// What random numbers are for.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// The order of examples in an epoch.
    Order = 1,
    /// Noise, timesteps and choices of a batch.
    Batch = 2,
    /// New parameters.
    Init = 3,
    /// Noise on clips that are not trained on.
    HeldOut = 4,
    /// Noise in the encoding of a clip.
    Encode = 5,
}

/// The generator of one step of one stream.
pub fn step_rng(seed: u64, stream: Stream, index: usize) -> TorchRng {
    TorchRng::new(mix(mix(mix(seed) ^ stream as u64) ^ index as u64))
}

/// The place of something in a stream that is not counted, such as of a clip by its content.
pub fn place(digest: &Digest) -> usize {
    let hash = digest.to_string();
    usize::from_str_radix(&hash[..12], 16).expect("a digest is written in hex")
}

/// `SplitMix64`: a bijection that spreads neighbouring numbers over all bits.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(len: usize, small_set: SmallSet) -> Order {
        Order { len, batch_size: 2, small_set, seed: 42 }
    }

    #[test]
    fn one_example_fills_a_batch_by_repetition() {
        assert_eq!(order(1, SmallSet::Repeat).batch(7), [0, 0]);
        assert_eq!(order(1, SmallSet::Short).batch(7), [0]);
    }

    #[test]
    fn every_epoch_sees_every_example_once() {
        for small_set in [SmallSet::Repeat, SmallSet::Short] {
            let order = order(5, small_set);
            let stream: Vec<_> = (0..30).flat_map(|i| order.batch(i)).collect();
            let epochs: Vec<_> = stream.chunks_exact(5).collect();
            for epoch in &epochs {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2, 3, 4]);
            }
            assert!(epochs.windows(2).any(|pair| pair[0] != pair[1]), "never shuffled");
        }
    }

    #[test]
    fn short_batches_end_an_epoch() {
        let order = order(5, SmallSet::Short);
        let lengths: Vec<_> = (0..6).map(|i| order.batch(i).len()).collect();
        assert_eq!(lengths, [2, 2, 1, 2, 2, 1]);
    }

    #[test]
    fn streams_and_steps_are_independent() {
        let draw = |stream, index| step_rng(42, stream, index).uniform(2);
        assert_ne!(draw(Stream::Batch, 0), draw(Stream::Batch, 1));
        assert_ne!(draw(Stream::Batch, 0), draw(Stream::Order, 0));
    }
}
