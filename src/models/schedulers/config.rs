//! What reading `scheduler_config.json` shares between schedulers.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::models::LoadError;

const FILE: &str = "scheduler/scheduler_config.json";

/// An error of the file.
pub fn error(message: impl Into<String>) -> LoadError {
    LoadError::Config { file: FILE.to_owned(), message: message.into() }
}

/// Reads a parsed file of one of these classes into its type; bookkeeping keys are ignored.
pub fn read<T: DeserializeOwned>(config: &Value, classes: &[&str]) -> Result<T, LoadError> {
    let mut config = config.clone();
    let table = config.as_object_mut().ok_or_else(|| error("must be a JSON object"))?;
    let class = table.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    if !classes.contains(&class) {
        let known = classes.join("` or `");
        return Err(error(format!("`_class_name` must be `{known}`, but is `{class}`")));
    }
    table.retain(|key, _| !key.starts_with('_'));
    serde_json::from_value(config).map_err(|e| error(e.to_string()))
}
