//! Vector instructions chosen at run time, and what is common to loops that use them.
#![expect(clippy::inline_always, reason = "what is not inlined has no vector instructions")]

use pulp::Arch;

/// Partial sums, so that adding up can use vector instructions and loses less to rounding.
pub const LANES: usize = 16;

/// Runs a closure without arguments with the vector instructions of this processor.
///
/// Only what is inlined has them, and the compiler leaves large closures out of line unless told.
/// [`dispatch`] takes an `FnOnce` because a closure of another kind is called through a function
/// that cannot be told.
macro_rules! vectorized {
    (|| $body:expr) => {
        $crate::models::nn::fused::simd::dispatch(
            #[inline(always)]
            || $body,
        )
    };
}
pub(super) use vectorized;

/// What [`vectorized`] becomes.
#[inline(always)]
pub fn dispatch<R>(f: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(f)
}

/// The sum of `f` of each place and value.
#[inline(always)]
pub fn sum(values: &[f32], f: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = values.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(start + lane, values[start + lane]);
        }
    }
    let rest = (whole..values.len()).map(|i| f(i, values[i])).sum::<f32>();
    lanes.iter().sum::<f32>() + rest
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x` to about one unit in the last place, without branches.
///
/// `2^n e^r` with `|r| <= ln 2 / 2` and the polynomial of the Cephes library for `e^r`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    (p * r * r + r + 1.0) * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn processors_with_avx2_have_vector_instructions() {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            assert!(!matches!(Arch::new(), Arch::Scalar));
        }
    }

    #[test]
    fn the_exponential_is_exact_to_rounding() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let wanted = f64::from(x).exp();
            assert!((f64::from(exp(x)) / wanted - 1.0).abs() < 2e-7, "{x}");
        }
    }
}
