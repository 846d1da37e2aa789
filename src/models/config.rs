//! What reading a part's `config.json` shares between families.
//!
//! A key that changes the mathematics and that this code does not know is an error, and so is a
//! value it has no code for; bookkeeping keys are ignored.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::LoadError;

/// Keys that say how the reference computes, not what.
const HARMLESS: &[&str] = &[DROPOUT, "force_upcast"];
/// The share of values that the reference drops in training.
const DROPOUT: &str = "dropout";

/// Reads a parsed file into its type, every key of which has a default.
pub fn parse<T: DeserializeOwned>(file: &str, config: &Value) -> Result<T, LoadError> {
    T::deserialize(config).map_err(|error| match unreadable::<T>(config) {
        Some(key) => {
            let message = format!("cannot be read: {error}");
            LoadError::Setting { file: file.to_owned(), key, message }
        }
        None => LoadError::Config { file: file.to_owned(), message: error.to_string() },
    })
}

/// The key that cannot be read even alone; the error does not name it.
fn unreadable<T: DeserializeOwned>(config: &Value) -> Option<String> {
    let entries = config.as_object()?.iter();
    let mut alone =
        entries.map(|(key, value)| (key, Map::from_iter([(key.clone(), value.clone())])));
    let (key, _) =
        alone.find(|(_, alone)| T::deserialize(Value::Object(alone.clone())).is_err())?;
    Some(key.clone())
}

/// Upper bounds, far beyond what is published: a foreign file must not decide over memory and time.
const MAX_SIZE: usize = 1 << 20;
const MAX_LAYERS: usize = 10_000;
/// Levels of an autoencoder, each of which halves the picture at most.
const MAX_LEVELS: usize = 16;
/// Pixels, or latents, on the side of a patch.
pub const MAX_PATCH: usize = 16;
/// Tokens of a prompt.
pub const MAX_TEXT: usize = 4096;
/// The sides of what a transformer was trained on, in latents, and its frames.
pub const MAX_SAMPLE: usize = 1 << 14;

/// Checks of one file.
#[derive(Clone, Copy, Debug)]
pub struct Check(pub &'static str);

impl Check {
    /// Requires that `key` has a value this code has formulas for.
    pub fn only(&self, key: &str, holds: bool, wanted: &str) -> Result<(), LoadError> {
        if holds {
            return Ok(());
        }
        Err(self.error(key, format!("must be {wanted}")))
    }

    fn error(&self, key: impl Into<String>, message: impl Into<String>) -> LoadError {
        LoadError::Setting { file: self.0.to_owned(), key: key.into(), message: message.into() }
    }

    /// Requires sizes that something can be built with.
    pub fn sizes(&self, sizes: &[(&str, usize)]) -> Result<(), LoadError> {
        sizes.iter().try_for_each(|(key, size)| {
            self.only(key, *size > 0, "at least 1")?;
            self.at_most(key, *size, MAX_SIZE)
        })
    }

    /// Requires numbers that something is multiplied or divided by.
    pub fn positive(&self, factors: &[(&str, f32)]) -> Result<(), LoadError> {
        factors.iter().try_for_each(|(key, factor)| {
            self.only(key, *factor > 0.0 && factor.is_finite(), "a positive number")
        })
    }

    /// Requires the epsilon of a norm.
    pub fn epsilon(&self, key: &str, epsilon: f64) -> Result<(), LoadError> {
        self.only(key, epsilon >= 0.0 && epsilon.is_finite(), "a number, not negative")
    }

    /// Requires that an autoencoder takes and gives red, green and blue.
    pub fn colors(&self, input: usize, output: usize) -> Result<(), LoadError> {
        self.only("in_channels", input == 3, "3")?;
        self.only("out_channels", output == 3, "3")
    }

    /// Requires numbers of layers that can be listed.
    pub fn layers(&self, key: &str, layers: &[usize]) -> Result<(), LoadError> {
        layers.iter().try_for_each(|layers| self.at_most(key, *layers, MAX_LAYERS))
    }

    /// Requires a list of levels that latents can have a size behind.
    pub fn levels(&self, key: &str, levels: usize) -> Result<(), LoadError> {
        self.only(key, levels <= MAX_LEVELS, &format!("a list of at most {MAX_LEVELS}"))
    }

    /// Requires that what a file says it is for, a name or a list of them, is one of `known`; it
    /// may say nothing.
    pub fn class(&self, config: &Value, key: &str, known: &[&str]) -> Result<(), LoadError> {
        let named = match config.get(key) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(names)) => names.as_slice(),
            Some(name) => std::slice::from_ref(name),
        };
        let is_known = |name: &&Value| name.as_str().is_some_and(|name| known.contains(&name));
        let Some(other) = named.iter().find(|name| !is_known(name)) else { return Ok(()) };
        let other = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
        let known = known.join("` or `");
        Err(self.error(key, format!("must be `{known}`, but is `{other}`")))
    }

    /// Requires that a number is not above a limit.
    pub fn at_most(&self, key: &str, found: usize, limit: usize) -> Result<(), LoadError> {
        self.only(key, found <= limit, &format!("at most {limit}"))
    }

    /// Requires that the keys no field took are bookkeeping, or null.
    pub fn unknown(&self, keys: &BTreeMap<String, Value>) -> Result<(), LoadError> {
        self.unknown_beside(keys, HARMLESS)
    }

    /// The same, where these keys say nothing about the mathematics either.
    pub fn unknown_beside(
        &self,
        keys: &BTreeMap<String, Value>,
        harmless: &[&str],
    ) -> Result<(), LoadError> {
        let drops =
            keys.get(DROPOUT).filter(|share| !share.is_null() && share.as_f64() != Some(0.0));
        self.only(DROPOUT, drops.is_none(), "0: no layer drops values in training here")?;
        let changes_maths = |key: &str| !key.starts_with('_') && !harmless.contains(&key);
        match keys.iter().find(|(key, value)| changes_maths(key) && !value.is_null()) {
            None => Ok(()),
            Some((key, value)) => {
                let message = "is not a setting this version knows";
                Err(self.error(format!("{key} = {value}"), message))
            }
        }
    }
}
