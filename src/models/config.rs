//! What reading a part's `config.json` shares between families.
//!
//! A key that changes the mathematics and that this code does not know is an error, and so is a
//! value it has no code for; bookkeeping keys are ignored.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::LoadError;

/// Keys that say how the reference computes, not what.
const HARMLESS: &[&str] = &["dropout", "force_upcast"];

/// Reads a parsed file into its type.
pub fn parse<T: DeserializeOwned>(file: &str, config: &Value) -> Result<T, LoadError> {
    T::deserialize(config)
        .map_err(|error| LoadError::Config { file: file.to_owned(), message: error.to_string() })
}

/// Checks of one file.
#[derive(Clone, Copy, Debug)]
pub struct Check(pub &'static str);

impl Check {
    /// Requires that `key` has a value this code has formulas for.
    pub fn only(&self, key: &str, holds: bool, wanted: &str) -> Result<(), LoadError> {
        if holds {
            return Ok(());
        }
        let message = format!("`{key}` must be {wanted}");
        Err(LoadError::Config { file: self.0.to_owned(), message })
    }

    /// Requires sizes that nothing can be built with if they are zero.
    pub fn at_least_one(&self, sizes: &[(&str, usize)]) -> Result<(), LoadError> {
        sizes.iter().try_for_each(|(key, size)| self.only(key, *size > 0, "at least 1"))
    }

    /// Requires that the keys no field took are bookkeeping, or null.
    pub fn unknown(&self, keys: &BTreeMap<String, Value>) -> Result<(), LoadError> {
        let changes_maths = |key: &str| !key.starts_with('_') && !HARMLESS.contains(&key);
        match keys.iter().find(|(key, value)| changes_maths(key) && !value.is_null()) {
            None => Ok(()),
            Some((key, value)) => Err(LoadError::Config {
                file: self.0.to_owned(),
                message: format!("`{key} = {value}` is not a setting this version knows"),
            }),
        }
    }
}
