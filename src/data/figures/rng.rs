//! Random numbers of the procedural world: the same everywhere, for every index on its own.

/// A counter-based generator: output `k` of a stream is the `SplitMix64` finaliser of
/// `key + (k + 1) * GAMMA`.
///
/// The key mixes domain, seed and index, so an item never depends on how many items are drawn, in
/// which order or on which thread. Only integer operations and exact float operations are used.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: u64,
}

/// The odd increment of `SplitMix64`: 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The 64-bit finaliser of `SplitMix64`.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Rng {
    /// The stream of item `index` of `domain` under `seed`.
    pub(super) fn new(domain: u64, seed: u64, index: u64) -> Self {
        let key = mix(mix(mix(domain.wrapping_add(GAMMA)) ^ seed).wrapping_add(GAMMA) ^ index);
        Self { state: key }
    }

    /// A stream of its own, so that more draws in one part do not move those of another.
    pub(super) fn fork(&self, tag: u64) -> Self {
        Self { state: mix(self.state ^ mix(tag.wrapping_add(GAMMA))) }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in [0, 1), 24 bits.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform in [low, high).
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Symmetric around 0, within `reach`, denser in the middle (a triangle).
    pub(super) fn around(&mut self, reach: f32) -> f32 {
        (self.unit() - self.unit()) * reach
    }

    /// Uniform in 0..count.
    pub(super) fn below(&mut self, count: usize) -> usize {
        (((self.next() >> 32) * count as u64) >> 32) as usize
    }

    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// 1 or -1.
    pub(super) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One of the choices, as often as its weight says.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(T, u32)]) -> T {
        let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
        let mut left = self.below(total as usize) as u32;
        for &(choice, weight) in choices {
            if left < weight {
                return choice;
            }
            left -= weight;
        }
        choices[choices.len() - 1].0
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Sine and cosine of an angle in degrees by polynomial: `f32::sin` differs between platforms in
/// its last bit, and a pixel at a rounding edge would follow.
pub(super) fn sin_cos(degrees: f32) -> (f32, f32) {
    let turns = f64::from(degrees) / 90.0;
    let quarter = turns.round();
    let x = (turns - quarter) * std::f64::consts::FRAC_PI_2;
    let xx = x * x;
    let sin = x * (1.0 - xx / 6.0 * (1.0 - xx / 20.0 * (1.0 - xx / 42.0 * (1.0 - xx / 72.0))));
    let cos = 1.0 - xx / 2.0 * (1.0 - xx / 12.0 * (1.0 - xx / 30.0 * (1.0 - xx / 56.0)));
    let (sin, cos) = match (quarter as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    };
    (sin as f32, cos as f32)
}

#[cfg(test)]
mod tests {
    use super::{Rng, sin_cos};

    #[test]
    fn sine_and_cosine_agree_with_the_library() {
        for step in -800..800 {
            let degrees = step as f32 * 1.37;
            let (sin, cos) = sin_cos(degrees);
            let expected = f64::from(degrees).to_radians().sin_cos();
            assert!((f64::from(sin) - expected.0).abs() < 1e-6, "sin {degrees}");
            assert!((f64::from(cos) - expected.1).abs() < 1e-6, "cos {degrees}");
        }
    }

    #[test]
    fn streams_differ_by_domain_seed_index_and_tag() {
        let mut firsts: Vec<u64> =
            [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)]
                .iter()
                .map(|&(domain, seed, index)| Rng::new(domain, seed, index).next())
                .collect();
        firsts.push(Rng::new(0, 0, 0).fork(1).next());
        firsts.push(Rng::new(0, 0, 0).fork(2).next());
        let count = firsts.len();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), count);
    }

    #[test]
    fn draws_stay_in_range_and_follow_their_weights() {
        let mut rng = Rng::new(3, 4, 5);
        let mut hits = [0u32; 3];
        for _ in 0..6000 {
            assert!((0.0..1.0).contains(&rng.unit()));
            hits[rng.weighted(&[(0, 1), (1, 2), (2, 3)])] += 1;
        }
        for (hit, expected) in hits.iter().zip([1000.0, 2000.0, 3000.0]) {
            assert!((*hit as f32 - expected).abs() < 150.0, "{hits:?}");
        }
    }
}
