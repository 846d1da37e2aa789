//! `torch.Generator("cpu")`: the same seed gives the same numbers, bit for bit.
//!
//! The engine is MT19937. What is drawn from it follows PyTorch 2.x:
//!
//! | call | engine words per value | value |
//! |---|---|---|
//! | `rand` (f32) | 1 | low 24 bits times 2^-24 |
//! | `randn` (f32), 16 values or more | 1 | Box-Muller on blocks of 16, f32 |
//! | `randn` (f32), fewer values | 4 for every two | Box-Muller in f64, the second value is kept |
//! | `randint` | 1, or 2 from 2^28 on | remainder |
//! | `randperm` | 1 | Fisher-Yates from the front |
//!
//! In `randn` of 16 values or more, a length that is no multiple of 16 draws 16 fresh words for its
//! last 16 values. The blocks use PyTorch's 8-lane logarithm and sine (polynomials of the Cephes
//! library, S. Moshier) as its AVX2 build computes them: multiplications and additions fused. A
//! fused step is written `mul_add` here, which is exact on every machine, so the numbers do not
//! depend on the processor.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// A Mersenne Twister that draws as PyTorch's CPU generator does.
///
/// Its whole state can be serialised, so that a resumed run goes on with the same numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "State", into = "State")]
pub struct TorchRng {
    state: Vec<u32>,
    next: usize,
    kept_normal: Option<f64>,
}

/// The serialised form of [`TorchRng`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the name in checkpoints")]
struct State {
    state: Vec<u32>,
    next: usize,
    kept_normal: Option<f64>,
}

impl From<TorchRng> for State {
    fn from(TorchRng { state, next, kept_normal }: TorchRng) -> Self {
        Self { state, next, kept_normal }
    }
}

impl TryFrom<State> for TorchRng {
    type Error = String;

    fn try_from(State { state, next, kept_normal }: State) -> Result<Self, String> {
        if state.len() != WORDS || next > WORDS {
            return Err(format!(
                "a generator has {WORDS} words and a position up to {WORDS}, but these are {} and {next}",
                state.len()
            ));
        }
        Ok(Self { state, next, kept_normal })
    }
}

impl TorchRng {
    /// `torch.Generator("cpu").manual_seed(seed)`; as there, only the low 32 bits count.
    pub fn new(seed: u64) -> Self {
        let mut state = vec![0_u32; WORDS];
        state[0] = (seed & 0xffff_ffff) as u32;
        for i in 1..WORDS {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: WORDS, kept_normal: None }
    }

    /// The next word of the engine.
    fn random(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        let state = &mut self.state;
        for i in 0..WORDS {
            let y = (state[i] & 0x8000_0000) | (state[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            state[i] = state[(i + SHIFT) % WORDS] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// Two words; the first is the high one.
    fn random64(&mut self) -> u64 {
        let high = u64::from(self.random());
        (high << 32) | u64::from(self.random())
    }

    fn uniform_f32(&mut self) -> f32 {
        (self.random() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    fn uniform_f64(&mut self) -> f64 {
        (self.random64() & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// `torch.rand(len)`: uniform in [0, 1).
    pub fn uniform(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.uniform_f32()).collect()
    }

    /// `torch.randn(len)` in f32, bit for bit.
    pub fn normal(&mut self, len: usize) -> Vec<f32> {
        if len < 16 {
            return (0..len).map(|_| self.normal_f64() as f32).collect();
        }
        let mut values = self.uniform(len);
        for block in values.chunks_exact_mut(16) {
            box_muller(block);
        }
        if !len.is_multiple_of(16) {
            let last = &mut values[len - 16..];
            last.fill_with(|| self.uniform_f32());
            box_muller(last);
        }
        values
    }

    /// `torch.randn(len, dtype=torch.bfloat16)`, bit for bit: [`Self::normal`] rounded, except that
    /// a length that is no multiple of 16 draws no words for the values its last block replaces.
    pub fn normal_bf16(&mut self, len: usize) -> Vec<half::bf16> {
        let mut values = self.normal(if len < 16 { len } else { len - len % 16 });
        if len >= 16 && !len.is_multiple_of(16) {
            values.truncate(len - 16);
            values.extend(self.normal(16));
        }
        values.into_iter().map(half::bf16::from_f32).collect()
    }

    /// One normal in f64; every second one was computed with the one before.
    fn normal_f64(&mut self) -> f64 {
        if let Some(kept) = self.kept_normal.take() {
            return kept;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * u1;
        self.kept_normal = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// `torch.randint(high, (len,))`; `high` must not be 0.
    pub fn randint(&mut self, high: u64, len: usize) -> Vec<u64> {
        assert!(high > 0, "randint needs at least one value to choose from");
        let wide = high >= 1 << 28;
        (0..len)
            .map(|_| if wide { self.random64() % high } else { u64::from(self.random()) % high })
            .collect()
    }

    /// `torch.randperm(len)`, which draws 64 bits for each place from a twentieth of 2^32 places
    /// on.
    pub fn randperm(&mut self, len: usize) -> Vec<usize> {
        let wide = len >= u32::MAX as usize / 20;
        let mut order: Vec<usize> = (0..len).collect();
        for i in 0..len.saturating_sub(1) {
            let drawn = if wide { self.random64() } else { u64::from(self.random()) };
            order.swap(i, i + (drawn % (len - i) as u64) as usize);
        }
        order
    }

    /// f32 noise for latents `[B, C, f, h, w]`, drawn in the order of the published CogVideoX
    /// pipeline, which keeps latents as `[B, f, C, h, w]`.
    pub fn normal_latents(&mut self, shape: [usize; 5], device: &Device) -> Tensor<5> {
        let values = self.normal(shape.iter().product());
        let [batch, channels, frames, height, width] = shape;
        let drawn_shape = [batch, frames, channels, height, width];
        let drawn = Tensor::<5>::from_data(TensorData::new(values, drawn_shape), device);
        drawn.permute([0, 2, 1, 3, 4])
    }

    /// f32 noise for a tensor of `shape`, drawn in its own row-major order.
    pub fn normal_tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let values = self.normal(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// 16 uniforms in [0, 1) to 16 normals, in place: value `j` and value `j + 8` make a pair.
fn box_muller(block: &mut [f32]) {
    const TWO_PI: f32 = std::f32::consts::TAU;
    let (first, second) = block.split_at_mut(8);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * ln(1.0 - *a)).sqrt();
        let (sin, cos) = sin_cos(TWO_PI * *b);
        *a = radius * cos;
        *b = radius * sin;
    }
}

/// Cephes' `logf` for a normal number in (0, 1], with fused steps.
#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "as Cephes states them")]
fn ln(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let exponent = (bits >> 23) as i32 - 0x7f;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0.5_f32.to_bits());
    let mut e = exponent as f32 + 1.0;
    let mut x = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        x += mantissa;
    }
    let z = x * x;
    let mut y = 7.0376836292E-2_f32;
    for p in [
        -1.1514610310E-1,
        1.1676998740E-1,
        -1.2420140846E-1,
        1.4249322787E-1,
        -1.6668057665E-1,
        2.0000714765E-1,
        -2.4999993993E-1,
        3.3333331174E-1,
    ] {
        y = y.mul_add(x, p);
    }
    y *= x;
    y = y.mul_add(z, e * -2.12194440e-4);
    y = (-0.5_f32).mul_add(z, y);
    e.mul_add(0.693359375, x + y)
}

/// Cephes' `sinf` and `cosf` for an angle in [0, 8192), with fused steps.
#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "as Cephes states them")]
fn sin_cos(angle: f32) -> (f32, f32) {
    let octant = ((angle * 1.27323954473516) as i32 + 1) & !1;
    let y = octant as f32;
    let mut x = y.mul_add(-0.78515625, angle);
    x = y.mul_add(-2.4187564849853515625e-4, x);
    x = y.mul_add(-3.77489497744594108e-8, x);
    let z = x * x;

    let mut cos = 2.443315711809948E-005_f32;
    cos = cos.mul_add(z, -1.388731625493765E-003);
    cos = cos.mul_add(z, 4.166664568298827E-002);
    cos *= z;
    cos = cos.mul_add(z, -(z * 0.5)) + 1.0;

    let mut sin = -1.9515295891E-4_f32;
    sin = sin.mul_add(z, 8.3321608736E-3);
    sin = sin.mul_add(z, -1.6666654611E-1);
    sin *= z;
    sin = sin.mul_add(x, x);

    let (sin, cos) = if octant & 2 == 0 { (sin, cos) } else { (cos, sin) };
    let sin = if octant & 4 == 0 { sin } else { -sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use safetensors::{SafeTensors, tensor::TensorView};

    use super::*;

    /// torch 2.15, seed 7.
    #[test]
    fn permutations_of_more_than_a_million_are_those_of_torch() {
        let order = TorchRng::new(7).randperm((1 << 20) + 5);
        assert_eq!(order[..4], [584_343, 185_913, 564_397, 532_421]);
        assert_eq!(order[order.len() - 4..], [151_333, 886_448, 698_712, 316_995]);
    }

    /// Written by `tests/golden/noise/make.py`.
    const EXPECTED: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/noise/expected.safetensors"
    ));

    fn f32s(view: &TensorView<'_>) -> Vec<f32> {
        view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn i64s(view: &TensorView<'_>) -> Vec<i64> {
        view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn every_fixture_of_one_draw_is_equal_bit_for_bit() {
        let file = SafeTensors::deserialize(EXPECTED).unwrap();
        let mut seen = 0;
        for (name, view) in file.iter() {
            let parts: Vec<_> = name.split('.').collect();
            let [what, seed, len] = parts[..] else { continue };
            let (mut rng, len) = (TorchRng::new(seed.parse().unwrap()), len.parse().unwrap());
            seen += 1;
            match what {
                "normal" => assert_eq!(bits(&rng.normal(len)), bits(&f32s(&view)), "{name}"),
                "uniform" => assert_eq!(bits(&rng.uniform(len)), bits(&f32s(&view)), "{name}"),
                "normal_bf16" => {
                    let values = rng.normal_bf16(len);
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    assert_eq!(bytes, view.data(), "{name}");
                }
                other => panic!("unknown fixture {other}"),
            }
        }
        assert!(seen >= 30, "only {seen} fixtures were compared");
    }

    #[test]
    fn a_sequence_of_different_draws_follows_torch() {
        let file = SafeTensors::deserialize(EXPECTED).unwrap();
        let expected = |name: &str| file.tensor(name).unwrap();
        let mut rng = TorchRng::new(5);
        let ints = |values: &[u64]| values.iter().map(|v| *v as i64).collect::<Vec<_>>();
        assert_eq!(bits(&rng.normal(3)), bits(&f32s(&expected("sequence.0"))));
        assert_eq!(ints(&rng.randint(1000, 7)), i64s(&expected("sequence.1")));
        assert_eq!(ints(&rng.randint(1 << 40, 3)), i64s(&expected("sequence.2")));
        assert_eq!(bits(&rng.normal(33)), bits(&f32s(&expected("sequence.3"))));
        let order: Vec<_> = rng.randperm(11).iter().map(|v| *v as i64).collect();
        assert_eq!(order, i64s(&expected("sequence.4")));
        assert_eq!(bits(&rng.normal(4)), bits(&f32s(&expected("sequence.5"))));
        assert_eq!(bits(&rng.uniform(2)), bits(&f32s(&expected("sequence.6"))));
    }

    #[test]
    fn a_saved_generator_goes_on_with_the_same_numbers() {
        let mut rng = TorchRng::new(42);
        rng.normal(3);
        let saved = serde_json::to_string(&rng).unwrap();
        let mut resumed: TorchRng = serde_json::from_str(&saved).unwrap();
        assert_eq!(rng.normal(2), resumed.normal(2));
        assert_eq!(rng.normal(700), resumed.normal(700));
        assert_eq!(rng, resumed);
    }

    #[test]
    fn a_cut_state_is_an_error() {
        let text = r#"{"state": [1, 2], "next": 0, "kept_normal": null}"#;
        assert!(serde_json::from_str::<TorchRng>(text).unwrap_err().to_string().contains("624"));
    }

    #[test]
    fn latents_are_drawn_frame_before_channel() {
        let device = Device::flex();
        let latents = TorchRng::new(3).normal_latents([1, 2, 3, 2, 2], &device);
        let drawn = TorchRng::new(3).normal(24);
        let value = latents.slice([0..1, 1..2, 2..3, 0..1, 1..2]).into_scalar::<f32>();
        assert_eq!(value.to_bits(), drawn[(2 * 2 + 1) * 4 + 1].to_bits());
    }
}
