//! Flow matching: straight lines from data to noise, and Euler steps back along them.
//!
//! With `sigma` from 0 (data) to 1 (noise): `x = (1 - sigma) x0 + sigma noise`, the denoiser
//! predicts `noise - x0`, a step is `x' = x + (sigma' - sigma) prediction`, and the timestep is
//! 1000 `sigma`.
//!
//! Follows `FlowMatchEulerDiscreteScheduler`,
//! `src/diffusers/schedulers/scheduling_flow_match_euler_discrete.py` at v0.42.1, called as the LTX
//! pipelines do. A run starts from `sigma_i` = 1 .. 1/N, evenly spaced, and shifts it towards
//! noise:
//!
//! - dynamic, with `mu` a linear function of the clip's latent positions:
//!   `e^mu / (e^mu + 1/sigma - 1)`, or `mu / (mu + 1/sigma - 1)` of the linear type
//! - else `s sigma / (1 + (s - 1) sigma)`
//!
//! then stretches it, so that the last step starts at `shift_terminal`, and appends 0. The
//! condition pipeline has a schedule of its own instead, the linear-quadratic one.

mod config;

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use serde_json::Value;

use self::config::{Config, Shift, Spacing};
use super::{NoiseScheduler, Quantile, SamplingRun, TimestepDistribution, logistic, logit_normal};
use crate::{models::LoadError, rng::TorchRng};

/// The shift of shifted timesteps in training where the schedule states none of its own: that of
/// the published trainer.
const TRAINING_SHIFT: Shift = Shift { base: 0.95, max: 2.05, base_len: 1024, max_len: 4096 };

/// Reads diffusers' `scheduler_config.json`.
pub fn flow_matching(config: &Value) -> Result<Box<dyn NoiseScheduler>, LoadError> {
    let config = Arc::new(Config::read(config)?);
    Ok(Box::new(FlowMatching { config, spacing: Spacing::Even }))
}

/// The same with the schedule of LTX-Video's condition pipeline, which takes no shift beside it.
pub fn linear_quadratic(config: &Value) -> Result<Box<dyn NoiseScheduler>, LoadError> {
    let config = Arc::new(Config::read(config)?);
    config.check_unshifted()?;
    Ok(Box::new(FlowMatching { config, spacing: Spacing::LinearQuadratic }))
}

/// [`NoiseScheduler`] of flow-matching families.
struct FlowMatching {
    config: Arc<Config>,
    spacing: Spacing,
}

impl FlowMatching {
    fn train_timesteps(&self) -> f32 {
        self.config.num_train_timesteps as f32
    }

    /// How far training leans to noise for clips of a size.
    fn training_shift(&self, positions: usize) -> f64 {
        self.config.dynamic_shift().unwrap_or(TRAINING_SHIFT).at(positions)
    }

    /// The share of noise per sample, `[B, 1, 1, 1, 1]`.
    fn sigma(&self, timesteps: &[f32], device: &Device) -> Tensor<5> {
        let values: Vec<f32> = timesteps.iter().map(|t| t / self.train_timesteps()).collect();
        Tensor::from_data(TensorData::new(values, [timesteps.len(), 1, 1, 1, 1]), device)
    }
}

impl NoiseScheduler for FlowMatching {
    fn timesteps(&self, num_steps: usize, positions: usize) -> Vec<f32> {
        let mut sigmas = self.config.sigmas(self.spacing, num_steps, positions);
        sigmas.pop();
        sigmas.iter().map(|sigma| sigma * self.train_timesteps()).collect()
    }

    fn num_train_timesteps(&self) -> usize {
        self.config.num_train_timesteps
    }

    fn draw_timesteps(
        &self,
        distribution: TimestepDistribution,
        positions: usize,
        samples: usize,
        rng: &mut TorchRng,
    ) -> Vec<f32> {
        let sigmas = match distribution {
            TimestepDistribution::Uniform => {
                rng.uniform(samples).iter().map(|u| f64::from(*u)).collect()
            }
            TimestepDistribution::LogitNormal => logit_normal(0.0, samples, rng),
            TimestepDistribution::ShiftedLogitNormal => {
                logit_normal(self.training_shift(positions), samples, rng)
            }
        };
        let scale = f64::from(self.train_timesteps());
        sigmas.iter().map(|sigma| (sigma * scale) as f32).collect()
    }

    fn timestep_at(
        &self,
        distribution: TimestepDistribution,
        positions: usize,
        quantile: Quantile,
    ) -> f32 {
        let sigma = match distribution {
            TimestepDistribution::Uniform => quantile.share,
            TimestepDistribution::LogitNormal => logistic(quantile.normal),
            TimestepDistribution::ShiftedLogitNormal => {
                logistic(self.training_shift(positions) + quantile.normal)
            }
        };
        (sigma * f64::from(self.train_timesteps())) as f32
    }

    /// Whole timesteps, as the published trainer passes them.
    fn told(&self, timesteps: &[f32]) -> Vec<f32> {
        timesteps.iter().map(|t| t.round_ties_even()).collect()
    }

    fn draw_noise(&self, shape: [usize; 5], rng: &mut TorchRng, device: &Device) -> Tensor<5> {
        rng.normal_tensor(shape, device)
    }

    fn add_noise(&self, clean: Tensor<5>, noise: Tensor<5>, timesteps: &[f32]) -> Tensor<5> {
        let sigma = self.sigma(timesteps, &clean.device());
        clean * (sigma.clone() * -1.0 + 1.0) + noise * sigma
    }

    fn target(&self, clean: Tensor<5>, noise: Tensor<5>, _timesteps: &[f32]) -> Tensor<5> {
        noise - clean
    }

    fn start(&self, num_steps: usize, positions: usize) -> Box<dyn SamplingRun> {
        Box::new(Run { sigmas: self.config.sigmas(self.spacing, num_steps, positions) })
    }
}

/// One sampling run.
struct Run {
    sigmas: Vec<f32>,
}

impl SamplingRun for Run {
    fn step(
        &mut self,
        index: usize,
        prediction: Tensor<5>,
        latents: Tensor<5>,
        _rng: &mut TorchRng,
    ) -> Tensor<5> {
        let by = self.sigmas[index + 1] - self.sigmas[index];
        latents.cast(FloatDType::F32) + prediction.cast(FloatDType::F32) * by
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{config::CLASS, *};
    use crate::device::testing;

    /// Written by `tests/golden/ltx_video/make.py`.
    const EXPECTED: &[u8] = include_bytes!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/ltx_video/schedule.safetensors"
    ));

    /// As published with LTX-Video 0.9.0 and 0.9.1.
    fn published() -> Value {
        json!({
            "_class_name": CLASS, "_diffusers_version": "0.32.0", "base_image_seq_len": 1024,
            "base_shift": 0.95, "invert_sigmas": false, "max_image_seq_len": 4096,
            "max_shift": 2.05, "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.1,
            "use_beta_sigmas": false, "use_dynamic_shifting": true,
            "use_exponential_sigmas": false, "use_karras_sigmas": false
        })
    }

    fn config(change: &Value) -> Value {
        let mut config = published();
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    fn scheduler(change: &Value) -> Box<dyn NoiseScheduler> {
        flow_matching(&config(change)).unwrap()
    }

    fn expected(name: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(EXPECTED).unwrap();
        let view = file.tensor(name).unwrap();
        let (values, _) = view.data().as_chunks::<4>();
        values.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[track_caller]
    fn assert_close(found: &[f32], wanted: &[f32], tolerance: f32) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted}");
        }
    }

    #[test]
    fn sigmas_equal_the_published_schedule() {
        let config = Config::read(&published()).unwrap();
        let shift = config.dynamic_shift().unwrap();
        assert!((shift.at(660) - 0.819_661).abs() < 1e-6);
        let fifty = config.sigmas(Spacing::Even, 50, 660);
        assert_close(&fifty[..4], &[1.0, 0.991_608, 0.983_024, 0.974_242], 1e-6);
        assert_close(&fifty[47..], &[0.177_476, 0.139_674, 0.1, 0.0], 1e-6);
        let twenty = config.sigmas(Spacing::Even, 20, 660);
        assert_close(&twenty[..4], &[1.0, 0.977_167, 0.952_981, 0.927_317], 1e-6);
        assert_close(&twenty[17..], &[0.280_625, 0.1954, 0.1, 0.0], 1e-6);
    }

    #[test]
    fn schedules_and_steps_follow_the_reference() {
        let cases = [
            ("published", json!({})),
            (
                "static",
                json!({ "use_dynamic_shifting": false, "shift": 3.0, "shift_terminal": null }),
            ),
            ("linear", json!({ "time_shift_type": "linear" })),
        ];
        for (name, change) in cases {
            for (steps, positions) in [(2, 12), (5, 660), (20, 660), (7, 5000)] {
                let (scheduler, key) = (scheduler(&change), format!("{name}.{steps}.{positions}"));
                let timesteps = scheduler.timesteps(steps, positions);
                assert_close(&timesteps, &expected(&format!("{key}.timesteps")), 2e-3);
                let (mut run, mut rng) = (scheduler.start(steps, positions), TorchRng::new(3));
                let mut x = scheduler.draw_noise([1, 2, 3, 2, 2], &mut rng, &testing::device());
                for index in 0..steps {
                    x = run.step(index, (x.clone() * 0.7 + 0.1).tanh(), x, &mut rng);
                }
                let found = x.into_data().try_to_vec::<f32>().unwrap();
                let tolerance = testing::tolerance(3e-6, 3e-5);
                assert_close(&found, &expected(&format!("{key}.x")), tolerance);
            }
        }
    }

    #[test]
    fn one_step_goes_from_noise_to_data() {
        assert_eq!(Config::read(&published()).unwrap().sigmas(Spacing::Even, 1, 660), [1.0, 0.0]);
        for n in 1..=1000 {
            let sigmas = Config::read(&published()).unwrap().sigmas(Spacing::Even, n, 660);
            assert!(sigmas.windows(2).all(|pair| pair[1] < pair[0]), "{n} steps");
        }
    }

    #[test]
    fn noise_and_target_lie_on_a_straight_line() {
        let scheduler = scheduler(&json!({}));
        let draw = |seed| TorchRng::new(seed).normal_tensor([2, 2, 1, 2, 2], &Device::flex());
        let (clean, noise, timesteps) = (draw(1), draw(2), [0.0, 250.0]);
        let noisy = scheduler.add_noise(clean.clone(), noise.clone(), &timesteps);
        let target = scheduler.target(clean.clone(), noise, &timesteps);
        let sigma = Tensor::<5>::from_data([[[[[0.0f32]]]], [[[[0.25]]]]], &Device::flex());
        let difference = (noisy - clean - target * sigma).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
        assert_eq!(scheduler.told(&[0.4, 250.6, 999.9]), [0.0, 251.0, 1000.0]);
    }

    #[test]
    fn drawn_timesteps_have_their_distribution() {
        let scheduler = scheduler(&json!({}));
        let quantiles = |distribution, positions| {
            let mut rng = TorchRng::new(5);
            let mut drawn = scheduler.draw_timesteps(distribution, positions, 40_000, &mut rng);
            drawn.sort_by(f32::total_cmp);
            [drawn[10_000], drawn[20_000], drawn[30_000]]
        };
        // The sigmoid of the quartiles of a normal of deviation 1 around the mean.
        let normal = |mean: f64| {
            [-0.674_49, 0.0, 0.674_49].map(|z| (1000.0 / (1.0 + (-mean - z).exp())) as f32)
        };
        let third = Quantile { share: 0.75, normal: 0.674_49 };
        for (distribution, positions) in [
            (TimestepDistribution::Uniform, 660),
            (TimestepDistribution::LogitNormal, 660),
            (TimestepDistribution::ShiftedLogitNormal, 660),
            (TimestepDistribution::ShiftedLogitNormal, 4096),
        ] {
            let wanted = quantiles(distribution, positions)[2];
            assert_close(&[scheduler.timestep_at(distribution, positions, third)], &[wanted], 8.0);
        }
        let uniform = quantiles(TimestepDistribution::Uniform, 660);
        assert_close(&uniform, &[250.0, 500.0, 750.0], 10.0);
        let plain = quantiles(TimestepDistribution::LogitNormal, 660);
        assert_close(&plain, &normal(0.0), 6.0);
        for (positions, mean) in [(660, 0.819_661), (1024, 0.95), (4096, 2.05)] {
            let shifted = quantiles(TimestepDistribution::ShiftedLogitNormal, positions);
            assert_close(&shifted, &normal(mean), 6.0);
        }
    }

    #[test]
    fn settings_that_need_other_formulas_are_errors() {
        for (key, value, wanted) in [
            ("use_karras_sigmas", json!(true), "plain Euler steps"),
            ("invert_sigmas", json!(true), "plain Euler steps"),
            ("stochastic_sampling", json!(true), "plain Euler steps"),
            ("time_shift_type", json!("cubic"), "`exponential` or `linear`"),
            ("shift_terminal", json!(1.0), "below 1"),
            ("shift", json!(0.0), "positive"),
            ("max_image_seq_len", json!(1024), "above `base_image_seq_len`"),
            ("base_shift", json!(1e9), "`base_shift` must give noise levels that fall"),
            ("base_shift", json!(-1e9), "`base_shift` must give"),
            ("max_shift", json!(1e300), "but 1e300 does not"),
            ("shift_terminal", json!(0.999_999_999), "`shift_terminal` must give"),
            ("num_train_timesteps", json!(0), "from 1"),
            ("beta_start", json!(0.1), "unknown field"),
            ("_class_name", json!("CogVideoXDDIMScheduler"), CLASS),
        ] {
            let message = flow_matching(&config(&json!({ key: value }))).err().unwrap().to_string();
            assert!(message.contains(wanted), "{message}");
        }
        assert!(flow_matching(&json!([])).is_err());
        let alone = |change: &Value| {
            let mut config = config(change);
            config["use_dynamic_shifting"] = json!(false);
            flow_matching(&config).err().map(|error| error.to_string())
        };
        assert_eq!(alone(&json!({ "base_shift": 1e9 })), None, "it does nothing");
        assert!(alone(&json!({ "shift": 1e12 })).unwrap().contains("`shift` must give"));
        let linear = json!({ "time_shift_type": "linear", "base_shift": -1.0 });
        let message = flow_matching(&config(&linear)).err().unwrap().to_string();
        assert!(message.contains("`base_shift` must give"), "{message}");
    }
}
