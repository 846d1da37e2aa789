//! The settings of a flow-matching schedule, and the noise levels they give.

use serde::Deserialize;
use serde_json::Value;

use super::super::config::{self, error};
use crate::models::LoadError;

pub(super) const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

/// Steps of the schedule that is tried when settings are read.
const CHECKED_STEPS: usize = 50;

/// The keys of `scheduler_config.json`, with the defaults of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub(super) num_train_timesteps: usize,
    pub(super) shift: f64,
    pub(super) use_dynamic_shifting: bool,
    pub(super) base_shift: f64,
    pub(super) max_shift: f64,
    pub(super) base_image_seq_len: usize,
    pub(super) max_image_seq_len: usize,
    pub(super) shift_terminal: Option<f64>,
    pub(super) time_shift_type: String,
    pub(super) invert_sigmas: bool,
    pub(super) use_karras_sigmas: Option<bool>,
    pub(super) use_exponential_sigmas: Option<bool>,
    pub(super) use_beta_sigmas: Option<bool>,
    pub(super) stochastic_sampling: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            shift_terminal: None,
            time_shift_type: "exponential".to_owned(),
            invert_sigmas: false,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            stochastic_sampling: false,
        }
    }
}

impl Config {
    pub(super) fn read(config: &Value) -> Result<Self, LoadError> {
        let config: Self = config::read(config, &[CLASS])?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), LoadError> {
        let forms = [
            ("invert_sigmas", self.invert_sigmas),
            ("use_karras_sigmas", self.use_karras_sigmas == Some(true)),
            ("use_exponential_sigmas", self.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", self.use_beta_sigmas == Some(true)),
            ("stochastic_sampling", self.stochastic_sampling),
        ];
        if let Some((key, _)) = forms.iter().find(|(_, on)| *on) {
            return Err(error(format!(
                "`{key}` must be false: only plain Euler steps are supported"
            )));
        }
        let kind = &self.time_shift_type;
        if !["exponential", "linear"].contains(&kind.as_str()) {
            return Err(error(format!(
                "`time_shift_type` must be `exponential` or `linear`, but is `{kind}`"
            )));
        }
        let n = self.num_train_timesteps;
        if !(1..=1_000_000).contains(&n) {
            return Err(error(format!(
                "`num_train_timesteps` must be from 1 to 1000000, but is {n}"
            )));
        }
        if !(self.shift > 0.0 && self.shift.is_finite()) {
            return Err(error(format!("`shift` must be positive, but is {}", self.shift)));
        }
        let terminal = self.shift_terminal.unwrap_or_default();
        if !(0.0..1.0).contains(&terminal) {
            return Err(error(format!(
                "`shift_terminal` must be from 0 to below 1, but is {terminal}"
            )));
        }
        self.check_dynamic_shift()?;
        self.check_sigmas()
    }

    fn check_dynamic_shift(&self) -> Result<(), LoadError> {
        let (base, max) = (self.base_image_seq_len, self.max_image_seq_len);
        if base >= max {
            return Err(error(format!(
                "`max_image_seq_len` must be above `base_image_seq_len`, but they are {max} and {base}"
            )));
        }
        for (key, shift) in [("base_shift", self.base_shift), ("max_shift", self.max_shift)] {
            if !shift.is_finite() {
                return Err(error(format!("`{key}` must be a finite number")));
            }
        }
        Ok(())
    }

    /// Whether steps go from noise to data: where the line of a dynamic shift is stated, and
    /// stretched as well.
    fn check_sigmas(&self) -> Result<(), LoadError> {
        let steps = CHECKED_STEPS.min(self.num_train_timesteps);
        let shifts = match self.dynamic_shift() {
            Some(Shift { base, max, base_len, max_len }) => {
                vec![("base_shift", base, base_len), ("max_shift", max, max_len)]
            }
            None => vec![("shift", self.shift, 0)],
        };
        let terminal = self.shift_terminal.map(|terminal| ("shift_terminal", terminal));
        for (key, shift, positions) in shifts {
            let mut sigmas = self.shifted_sigmas(steps, positions);
            let mut wrong = (!fall(&sigmas)).then_some((key, shift));
            self.stretch(&mut sigmas);
            wrong = wrong.or(terminal.filter(|_| !fall(&sigmas)));
            if let Some((key, value)) = wrong {
                return Err(error(format!(
                    "`{key}` must give noise levels that fall from 1 to above 0, but {value:?} does not"
                )));
            }
        }
        Ok(())
    }

    /// The shift of a schedule that depends on the size of the clip.
    pub(super) fn dynamic_shift(&self) -> Option<Shift> {
        self.use_dynamic_shifting.then_some(Shift {
            base: self.base_shift,
            max: self.max_shift,
            base_len: self.base_image_seq_len,
            max_len: self.max_image_seq_len,
        })
    }

    /// Whether the schedule is plain, without a shift: what a linear-quadratic one replaces.
    pub(super) fn check_unshifted(&self) -> Result<(), LoadError> {
        let rules = [
            ("use_dynamic_shifting", "false", !self.use_dynamic_shifting),
            ("shift", "1", (self.shift - 1.0).abs() < f64::EPSILON),
            ("shift_terminal", "null", self.shift_terminal.unwrap_or_default() <= 0.0),
        ];
        match rules.into_iter().find(|(.., holds)| !holds) {
            Some((key, wanted, _)) => Err(error(format!(
                "`{key}` must be {wanted} for the sampler `flow_condition`, which has a schedule of \
                 its own"
            ))),
            None => Ok(()),
        }
    }

    /// Starts of the steps, falling from 1, and 0 at the end.
    pub(super) fn sigmas(&self, spacing: Spacing, num_steps: usize, positions: usize) -> Vec<f32> {
        assert!(
            (1..=self.num_train_timesteps).contains(&num_steps),
            "sampling takes from 1 to {} steps, but is asked for {num_steps}",
            self.num_train_timesteps
        );
        let mut sigmas = match spacing {
            Spacing::Even => self.even_sigmas(num_steps, positions),
            Spacing::LinearQuadratic => linear_quadratic(num_steps),
        };
        sigmas.push(0.0);
        sigmas.into_iter().map(|sigma| sigma as f32).collect()
    }

    fn even_sigmas(&self, num_steps: usize, positions: usize) -> Vec<f64> {
        let mut sigmas = self.shifted_sigmas(num_steps, positions);
        self.stretch(&mut sigmas);
        sigmas
    }

    fn shifted_sigmas(&self, num_steps: usize, positions: usize) -> Vec<f64> {
        let n = num_steps as f64;
        (0..num_steps).map(|i| self.shifted((n - i as f64) / n, positions)).collect()
    }

    /// Has the last step start at `shift_terminal`.
    fn stretch(&self, sigmas: &mut [f64]) {
        let reach = 1.0 - sigmas.last().copied().unwrap_or(1.0);
        // One step alone starts at 1 and has nothing to stretch; the reference divides by zero.
        if let Some(terminal) = self.shift_terminal.filter(|terminal| *terminal > 0.0)
            && reach > 0.0
        {
            for sigma in sigmas {
                *sigma = 1.0 - (1.0 - *sigma) * (1.0 - terminal) / reach;
            }
        }
    }

    fn shifted(&self, sigma: f64, positions: usize) -> f64 {
        match self.dynamic_shift() {
            Some(shift) => {
                let mu = shift.at(positions);
                let mu = if self.time_shift_type == "linear" { mu } else { mu.exp() };
                mu / (mu + 1.0 / sigma - 1.0)
            }
            None => self.shift * sigma / (1.0 + (self.shift - 1.0) * sigma),
        }
    }
}

/// Whether these are noise levels of steps from noise to data, as the steps take them.
fn fall(sigmas: &[f64]) -> bool {
    let sigmas: Vec<f32> = sigmas.iter().map(|sigma| *sigma as f32).collect();
    sigmas.iter().all(|sigma| *sigma > 0.0 && *sigma <= 1.0)
        && sigmas.windows(2).all(|pair| pair[1] < pair[0])
}

/// Where the steps of a run start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    /// Evenly, then shifted.
    Even,
    /// Evenly within a small share of the way, then ever farther apart.
    LinearQuadratic,
}

/// Half of the steps go evenly over the first fortieth of the way, the others along a parabola that
/// goes on with the same slope and ends at 0.
fn linear_quadratic(num_steps: usize) -> Vec<f64> {
    const THRESHOLD: f64 = 0.025;
    if num_steps < 2 {
        return vec![1.0];
    }
    let (steps, linear) = (num_steps as f64, (num_steps / 2) as f64);
    let quadratic = steps - linear;
    let rest = linear - THRESHOLD * steps;
    let curve = rest / (linear * quadratic * quadratic);
    let slope = THRESHOLD / linear - 2.0 * rest / (quadratic * quadratic);
    let offset = curve * linear * linear;
    let gone = |i: usize| {
        let at = i as f64;
        if i < num_steps / 2 {
            at * THRESHOLD / linear
        } else {
            curve * at * at + slope * at + offset
        }
    };
    (0..num_steps).map(|i| 1.0 - gone(i)).collect()
}

/// How strongly a schedule leans to noise, as a linear function of the clip's latent positions that
/// goes on beyond both of its points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shift {
    pub(super) base: f64,
    pub(super) max: f64,
    pub(super) base_len: usize,
    pub(super) max_len: usize,
}

impl Shift {
    pub(super) fn at(self, positions: usize) -> f64 {
        let slope = (self.max - self.base) / (self.max_len as f64 - self.base_len as f64);
        self.base + (positions as f64 - self.base_len as f64) * slope
    }
}
