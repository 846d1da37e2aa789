//! The settings of CogVideoX's schedule.

use serde::Deserialize;
use serde_json::Value;

use super::super::config::{self, error};
use crate::models::LoadError;

const CLASSES: &[&str] = &["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"];

/// The keys of `scheduler_config.json`, with the defaults of diffusers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default = "thousand")]
    pub(super) num_train_timesteps: usize,
    #[serde(default = "first_beta")]
    pub(super) beta_start: f64,
    #[serde(default = "last_beta")]
    pub(super) beta_end: f64,
    #[serde(default = "scaled_linear")]
    pub(super) beta_schedule: String,
    #[serde(default)]
    pub(super) trained_betas: Option<Value>,
    #[serde(default = "yes")]
    pub(super) set_alpha_to_one: bool,
    #[serde(default)]
    pub(super) prediction_type: Option<String>,
    #[serde(default)]
    pub(super) timestep_spacing: Option<String>,
    #[serde(default)]
    pub(super) rescale_betas_zero_snr: bool,
    #[serde(default = "three")]
    pub(super) snr_shift_scale: f64,
    /// Used by the reference for leading timesteps only.
    #[serde(default, rename = "steps_offset")]
    pub(super) _steps_offset: Option<Value>,
    /// Not used by the reference.
    #[serde(default, rename = "clip_sample")]
    pub(super) _clip_sample: Option<Value>,
    /// Not used by the reference.
    #[serde(default, rename = "clip_sample_range")]
    pub(super) _clip_sample_range: Option<Value>,
    /// Not used by the reference.
    #[serde(default, rename = "sample_max_value")]
    pub(super) _sample_max_value: Option<Value>,
}

fn thousand() -> usize {
    1000
}

fn first_beta() -> f64 {
    0.00085
}

fn last_beta() -> f64 {
    0.012
}

fn scaled_linear() -> String {
    "scaled_linear".to_owned()
}

fn yes() -> bool {
    true
}

fn three() -> f64 {
    3.0
}

impl Config {
    pub(super) fn read(config: &Value) -> Result<Self, LoadError> {
        let config: Self = config::read(config, CLASSES)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), LoadError> {
        let only = |key: &str, found: Option<&str>, wanted: &str| {
            if found == Some(wanted) {
                return Ok(());
            }
            let found = found.unwrap_or("absent");
            Err(error(format!("`{key}` must be `{wanted}`, but is `{found}`")))
        };
        only("beta_schedule", Some(&self.beta_schedule), "scaled_linear")?;
        only("prediction_type", self.prediction_type.as_deref(), "v_prediction")?;
        only("timestep_spacing", self.timestep_spacing.as_deref(), "trailing")?;
        if self.trained_betas.is_some() {
            return Err(error(
                "`trained_betas` must be null: schedules by table are not supported",
            ));
        }
        if !(2..=1_000_000).contains(&self.num_train_timesteps) {
            let n = self.num_train_timesteps;
            return Err(error(format!(
                "`num_train_timesteps` must be from 2 to 1000000, but is {n}"
            )));
        }
        for (key, beta) in [("beta_start", self.beta_start), ("beta_end", self.beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(error(format!("`{key}` must lie between 0 and 1, but is {beta}")));
            }
        }
        if !(self.snr_shift_scale > 0.0 && self.snr_shift_scale.is_finite()) {
            let scale = self.snr_shift_scale;
            return Err(error(format!("`snr_shift_scale` must be positive, but is {scale}")));
        }
        Ok(())
    }
}
