//! The schedule of CogVideoX and its two samplers.
//!
//! Follows `CogVideoXDDIMScheduler`, `src/diffusers/schedulers/scheduling_ddim_cogvideox.py`, and
//! `CogVideoXDPMScheduler`, `src/diffusers/schedulers/scheduling_dpm_cogvideox.py`, at v0.42.1.
//! With `a` = cumulative product of `1 - beta` at a timestep and `a'` at the step's end:
//!
//! - clean latents from the prediction `v`: `x0 = sqrt(a) x - sqrt(1 - a) v`
//! - DDIM: `x' = A x + (sqrt(a') - A sqrt(a)) x0` with `A = sqrt((1 - a') / (1 - a))`
//! - DPM (second order, stochastic), with `lambda = ln sqrt(a / (1 - a))`, `h = lambda' - lambda`,
//!   `r = (lambda - lambda_before) / h`: `x' = m1 x - m2 D + mn noise`, where
//!   `m1 = sqrt((1 - a') / (1 - a)) e^-h`, `m2 = expm1(-2 h) sqrt(a')`,
//!   `mn = sqrt(1 - a') sqrt(1 - e^-2h)`, and `D = x0` in the first and the last step, else
//!   `D = (1 + 1 / 2r) x0 - (1 / 2r) x0_before`
//!
//! Schedule and coefficients are f64; what multiplies tensors is f32. Where `a = 0` (the first
//! timestep, infinite `h`) or `a' = 1` (the last), limits are stated, not computed.

mod config;
mod run;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use self::{config::Config, run::Run};
use super::{
    NoiseScheduler, Quantile, SamplingRun, TimestepDistribution, config::error, logistic,
    logit_normal,
};
use crate::{
    models::{LoadError, Sampler},
    rng::TorchRng,
};

/// Reads diffusers' `scheduler_config.json`.
///
/// The class in the file does not matter, since both samplers share their settings; `sampler`
/// decides. A key that is not known, or a value that would need other formulas, is an error.
pub fn cogvideox(config: &Value, sampler: Sampler) -> Result<Box<dyn NoiseScheduler>, LoadError> {
    let schedule = Schedule::new(&Config::read(config)?)?;
    Ok(Box::new(CogVideoXScheduler { schedule: Arc::new(schedule), sampler }))
}

/// The share of the clean signal's variance at each timestep, falling.
#[derive(Debug)]
struct Schedule {
    alphas: Vec<f64>,
    /// After the last step.
    final_alpha: f64,
}

impl Schedule {
    fn new(config: &Config) -> Result<Self, LoadError> {
        let (first, last) = (config.beta_start.sqrt(), config.beta_end.sqrt());
        let step = (last - first) / (config.num_train_timesteps - 1) as f64;
        let shift = config.snr_shift_scale;
        let mut product = 1.0;
        let mut alphas: Vec<f64> = (0..config.num_train_timesteps)
            .map(|i| {
                product *= 1.0 - (first + step * i as f64).powi(2);
                product / (shift + (1.0 - shift) * product)
            })
            .collect();
        if config.rescale_betas_zero_snr {
            let (first, last) = (alphas[0].sqrt(), alphas[alphas.len() - 1].sqrt());
            for a in &mut alphas {
                *a = ((a.sqrt() - last) * (first / (first - last))).powi(2);
            }
        }
        let falling = alphas.windows(2).all(|pair| pair[1] < pair[0]);
        if !falling || alphas[0] >= 1.0 || alphas.iter().any(|a| !a.is_finite()) {
            return Err(error("the betas do not give a schedule of rising noise"));
        }
        let final_alpha = if config.set_alpha_to_one { 1.0 } else { alphas[0] };
        Ok(Self { alphas, final_alpha })
    }

    /// `T, T - T/N, ...` rounded half to even, less 1. (For some N, such as 61, rounding errors
    /// make the reference add a step at timestep -1; here it is always N steps.)
    fn timesteps(&self, num_steps: usize) -> Vec<usize> {
        let train = self.alphas.len();
        assert!(
            (1..=train).contains(&num_steps),
            "sampling takes from 1 to {train} steps, but is asked for {num_steps}"
        );
        let start = train as f64;
        let delta = (start - start / num_steps as f64) - start;
        (0..num_steps).map(|i| (start + i as f64 * delta).round_ties_even() as usize - 1).collect()
    }

    /// `sqrt(a)` and `sqrt(1 - a)` per sample, `[B, 1, 1, 1, 1]` each.
    fn mix(&self, timesteps: &[f32], device: &Device) -> [Tensor<5>; 2] {
        let alphas: Vec<f64> = timesteps.iter().map(|t| self.alphas[*t as usize]).collect();
        [|a: f64| a, |a: f64| 1.0 - a].map(|share| {
            let values: Vec<f32> = alphas.iter().map(|a| share(*a).sqrt() as f32).collect();
            Tensor::from_data(TensorData::new(values, [timesteps.len(), 1, 1, 1, 1]), device)
        })
    }
}

/// [`NoiseScheduler`] of CogVideoX 1.0 and 1.5.
struct CogVideoXScheduler {
    schedule: Arc<Schedule>,
    sampler: Sampler,
}

const NO_SHIFT: &str = "CogVideoX has no schedule that shifts with the size of the clip";

impl CogVideoXScheduler {
    /// The timestep at a share of the schedule.
    fn whole(&self, share: f64) -> f32 {
        let len = self.schedule.alphas.len();
        ((share * len as f64) as usize).min(len - 1) as f32
    }
}

impl NoiseScheduler for CogVideoXScheduler {
    fn timesteps(&self, num_steps: usize, _positions: usize) -> Vec<f32> {
        self.schedule.timesteps(num_steps).into_iter().map(|t| t as f32).collect()
    }

    fn num_train_timesteps(&self) -> usize {
        self.schedule.alphas.len()
    }

    fn draw_timesteps(
        &self,
        distribution: TimestepDistribution,
        _positions: usize,
        samples: usize,
        rng: &mut TorchRng,
    ) -> Vec<f32> {
        match distribution {
            TimestepDistribution::Uniform => {
                let len = self.schedule.alphas.len() as u64;
                rng.randint(len, samples).iter().map(|t| *t as f32).collect()
            }
            TimestepDistribution::LogitNormal => {
                let shares = logit_normal(0.0, samples, rng).into_iter();
                shares.map(|share| self.whole(share)).collect()
            }
            TimestepDistribution::ShiftedLogitNormal => panic!("{NO_SHIFT}"),
        }
    }

    fn timestep_at(
        &self,
        distribution: TimestepDistribution,
        _positions: usize,
        quantile: Quantile,
    ) -> f32 {
        match distribution {
            TimestepDistribution::Uniform => self.whole(quantile.share),
            TimestepDistribution::LogitNormal => self.whole(logistic(quantile.normal)),
            TimestepDistribution::ShiftedLogitNormal => panic!("{NO_SHIFT}"),
        }
    }

    fn draw_noise(&self, shape: [usize; 5], rng: &mut TorchRng, device: &Device) -> Tensor<5> {
        rng.normal_latents(shape, device)
    }

    fn add_noise(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5> {
        let [signal, sigma] = self.schedule.mix(timesteps, &clean.device());
        clean * signal + noise * sigma
    }

    fn target(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5> {
        let [signal, sigma] = self.schedule.mix(timesteps, &clean.device());
        noise * signal - clean * sigma
    }

    fn start(&self, num_steps: usize, _positions: usize) -> Box<dyn SamplingRun> {
        Box::new(Run {
            timesteps: self.schedule.timesteps(num_steps),
            schedule: Arc::clone(&self.schedule),
            sampler: self.sampler,
            clean_before: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::device::testing;

    /// Smallest tolerance on a GPU, whose functions are rounded otherwise.
    const ROUNDED: f32 = 3e-5;

    /// Written by `tests/golden/schedulers/make.py`.
    const EXPECTED: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/schedulers/expected.safetensors"
    ));

    fn config(shift: f64) -> Value {
        json!({
            "_class_name": "CogVideoXDDIMScheduler", "_diffusers_version": "0.31.0",
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "clip_sample": false, "clip_sample_range": 1.0, "num_train_timesteps": 1000,
            "prediction_type": "v_prediction", "rescale_betas_zero_snr": true,
            "sample_max_value": 1.0, "set_alpha_to_one": true, "snr_shift_scale": shift,
            "steps_offset": 0, "timestep_spacing": "trailing", "trained_betas": null
        })
    }

    fn schedule(shift: f64) -> Schedule {
        Schedule::new(&Config::read(&config(shift)).unwrap()).unwrap()
    }

    fn run(num_steps: usize, sampler: Sampler) -> Run {
        let schedule = Arc::new(schedule(1.0));
        let timesteps = schedule.timesteps(num_steps);
        Run { schedule, sampler, timesteps, clean_before: None }
    }

    fn expected(name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = safetensors::SafeTensors::deserialize(EXPECTED).unwrap();
        let view = file.tensor(name).unwrap();
        let (values, _) = view.data().as_chunks::<4>();
        (values.iter().map(|b| f32::from_le_bytes(*b)).collect(), view.shape().to_vec())
    }

    /// A fixture `[B, F, C, H, W]` as `[B, C, F, H, W]`.
    fn latents(name: &str) -> Tensor<5> {
        let (values, shape) = expected(name);
        Tensor::<5>::from_data(TensorData::new(values, shape), &testing::device())
            .permute([0, 2, 1, 3, 4])
    }

    fn max_difference(a: Tensor<5>, b: Tensor<5>) -> f32 {
        (a - b).abs().max().into_scalar::<f32>()
    }

    #[test]
    fn alphas_equal_the_published_schedule() {
        let alphas = schedule(1.0).alphas;
        for (t, a) in [
            (0, 0.99915),
            (1, 0.998_233_446_1),
            (10, 0.989_793_733),
            (100, 0.886_761_284_5),
            (199, 0.738_700_107_4),
            (399, 0.393_544_057_5),
            (500, 0.241_018_782_8),
            (599, 0.128_447_723_9),
            (799, 0.017_883_163_87),
            (998, 1.967_888e-7),
        ] {
            assert!((alphas[t] / a - 1.0).abs() < 1e-6, "a[{t}] is {}", alphas[t]);
        }
        assert!(alphas[999].abs() < f64::MIN_POSITIVE);
    }

    #[test]
    fn timesteps_trail() {
        let schedule = schedule(1.0);
        assert_eq!(schedule.timesteps(5), [999, 799, 599, 399, 199]);
        assert_eq!(schedule.timesteps(50)[..3], [999, 979, 959]);
        assert_eq!(schedule.timesteps(50)[49], 19);
        assert_eq!(schedule.timesteps(16)[1], 937);
        for n in 1..=1000 {
            let timesteps = schedule.timesteps(n);
            assert_eq!(timesteps.len(), n);
            assert!(timesteps.windows(2).all(|pair| pair[1] < pair[0]), "{n} steps");
        }
    }

    #[test]
    fn dpm_coefficients_of_five_steps_equal_the_table() {
        let run = run(5, Sampler::Dpm);
        let table = [
            (0.0, -0.133_728, None, 0.991_018),
            (0.331_123, -0.314_116, Some((1.0, 0.0)), 0.873_997),
            (0.397_532, -0.484_857, Some((1.354_435, 0.354_435)), 0.684_633),
            (0.314_487, -0.662_189, Some((1.496_407, 0.496_407)), 0.448_687),
            (0.0, -1.0, None, 0.0),
        ];
        for (index, (m1, m2, second, mn)) in table.into_iter().enumerate() {
            let by = run.dpm(index);
            let (m3, m4) = second.unwrap_or((1.0, 0.0));
            let wanted = [m1, -m2 * m3, m2 * m4, mn];
            let found = [by.latents, by.clean, by.clean_before, by.noise];
            for (found, wanted) in found.into_iter().zip(wanted) {
                assert!((found - wanted).abs() < 2e-6, "step {index}: {found} is not {wanted}");
            }
        }
    }

    #[test]
    fn coefficients_are_finite_for_every_number_of_steps() {
        for n in 1..=1000 {
            let run = run(n, Sampler::Dpm);
            for index in [0, 1, n / 2, n - 1].into_iter().filter(|i| *i < n) {
                for by in [run.dpm(index), run.ddim(index)] {
                    let all = [by.latents, by.clean, by.clean_before, by.noise];
                    assert!(all.iter().all(|c| c.is_finite()), "{n} steps, step {index}: {by:?}");
                }
            }
        }
    }

    #[test]
    fn sampling_follows_the_reference() {
        for (name, sampler) in [("ddim", Sampler::Ddim), ("dpm", Sampler::Dpm)] {
            for (shift, text) in [(1.0, "1.0"), (3.0, "3.0")] {
                for steps in [1, 5, 7, 10, 50] {
                    let key = format!("{name}.{text}.{steps}");
                    let scheduler = cogvideox(&config(shift), sampler).unwrap();
                    assert_eq!(
                        scheduler.timesteps(steps, 1),
                        expected(&format!("{key}.timesteps")).0
                    );
                    let (mut run, mut rng) = (scheduler.start(steps, 1), TorchRng::new(3));
                    let mut x = latents(&format!("{key}.x0"));
                    for index in 0..steps {
                        let prediction = (x.clone() * 0.7 + 0.1).tanh();
                        x = run.step(index, prediction, x, &mut rng);
                        // Of many steps, the fixture has what is there halfway and at the end.
                        if steps >= 10 && (index + 1) % (steps / 2) != 0 {
                            continue;
                        }
                        let wanted = latents(&format!("{key}.x{}", index + 1));
                        let difference = max_difference(x.clone(), wanted);
                        assert!(
                            difference < testing::tolerance(5e-6, ROUNDED),
                            "{key} step {index}: {difference}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn noise_and_target_follow_the_reference() {
        for (shift, text) in [(1.0, "1.0"), (3.0, "3.0")] {
            let scheduler = cogvideox(&config(shift), Sampler::Dpm).unwrap();
            let draw =
                |seed| TorchRng::new(seed).normal_latents([4, 3, 2, 2, 2], &testing::device());
            let timesteps = [0.0, 17.0, 803.0, 999.0];
            let noisy = scheduler.add_noise(draw(1), draw(2), &timesteps);
            assert!(
                max_difference(noisy, latents(&format!("noisy.{text}")))
                    < testing::tolerance(3e-6, ROUNDED)
            );
            let target = scheduler.target(draw(1), draw(2), &timesteps);
            assert!(
                max_difference(target, latents(&format!("target.{text}")))
                    < testing::tolerance(3e-6, ROUNDED)
            );
        }
    }

    #[test]
    fn settings_that_need_other_formulas_are_errors() {
        for (key, value, wanted) in [
            ("prediction_type", json!("epsilon"), "v_prediction"),
            ("timestep_spacing", json!("leading"), "trailing"),
            ("beta_schedule", json!("linear"), "scaled_linear"),
            ("trained_betas", json!([0.1]), "null"),
            ("use_karras_sigmas", json!(true), "unknown field"),
            ("beta_end", json!(2.0), "between 0 and 1"),
            ("snr_shift_scale", json!(0.0), "positive"),
            ("num_train_timesteps", json!(1), "from 2"),
            ("_class_name", json!("EulerDiscreteScheduler"), "CogVideoXDPMScheduler"),
        ] {
            let mut config = config(1.0);
            config[key] = value;
            let message = cogvideox(&config, Sampler::Dpm).err().unwrap().to_string();
            assert!(message.contains(wanted), "{message}");
        }
        assert!(cogvideox(&json!([]), Sampler::Ddim).is_err());
    }
}
