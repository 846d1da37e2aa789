//! Stages named on the command line: `lora`, or cells of it, `lora[n=10, rank=32]`.

use indexmap::IndexSet;

use crate::config::{Pipeline, pipeline::plain, similar};

/// Why a text names no stage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectError {
    message: String,
    /// What to write.
    pub help: String,
}

impl SelectError {
    fn new(message: String, help: impl Into<String>) -> Self {
        Self { message, help: help.into() }
    }
}

/// The instances a text means. In brackets, axes that are left out may have any value.
pub fn select(pipeline: &Pipeline, text: &str) -> Result<Vec<usize>, SelectError> {
    // A whole name needs no reading, whatever characters its values have.
    if let Some(index) = pipeline.instances.iter().position(|i| i.to_string() == text) {
        return Ok(vec![index]);
    }
    let (stage, axes) = parse(text)?;
    let of_stage: Vec<usize> = pipeline
        .instances
        .iter()
        .enumerate()
        .filter(|(_, instance)| instance.stage == stage)
        .map(|(index, _)| index)
        .collect();
    if of_stage.is_empty() {
        return Err(unknown_stage(pipeline, stage));
    }
    let fits = |index: &usize| {
        let cell = &pipeline.instances[*index].cell;
        axes.iter().all(|(axis, value)| cell.get(*axis).is_some_and(|v| plain(v) == *value))
    };
    let found: Vec<usize> = of_stage.iter().copied().filter(fits).collect();
    if let Some(wrong) = axes.iter().find_map(|axis| wrong_axis(pipeline, &of_stage, *axis)) {
        return Err(wrong);
    }
    if found.is_empty() {
        let cells = of_stage.iter().take(8).map(|i| format!("`{}`", pipeline.instances[*i]));
        let more = if of_stage.len() > 8 { ", ..." } else { "" };
        return Err(SelectError::new(
            format!("no cell of `{stage}` fits `{text}`"),
            format!("its cells are {}{more}", cells.collect::<Vec<_>>().join(", ")),
        ));
    }
    Ok(found)
}

/// What to say of an axis that no cell of a stage has, or has with another value.
fn wrong_axis(
    pipeline: &Pipeline,
    of_stage: &[usize],
    (axis, value): (&str, &str),
) -> Option<SelectError> {
    let first = &pipeline.instances[*of_stage.first()?];
    let stage = &first.stage;
    let names: Vec<&str> = first.cell.keys().map(String::as_str).collect();
    if !names.contains(&axis) {
        let help = match similar(axis, &names) {
            Some(name) => format!("did you mean `{name}`?"),
            None if names.is_empty() => format!("it has none: write `{stage}`"),
            None => format!("its axes are {}", listed(&names)),
        };
        return Some(SelectError::new(format!("`{stage}` has no axis `{axis}`"), help));
    }
    let values = of_stage.iter().filter_map(|index| pipeline.instances[*index].cell.get(axis));
    let values: IndexSet<String> = values.map(plain).collect();
    if values.contains(value) {
        return None;
    }
    let shown: Vec<&str> = values.iter().take(8).map(String::as_str).collect();
    let more = if values.len() > shown.len() { ", ..." } else { "" };
    let message = format!("no cell of `{stage}` has `{axis}={value}`");
    Some(SelectError::new(message, format!("`{axis}` can be {}{more}", listed(&shown))))
}

/// `` `a`, `b` ``.
fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn unknown_stage(pipeline: &Pipeline, stage: &str) -> SelectError {
    let mut names: Vec<&str> = pipeline.instances.iter().map(|i| i.stage.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let help = match similar(stage, &names) {
        _ if stage.contains('=') => {
            format!("an axis stands in brackets behind a stage: `STAGE[{stage}]`")
        }
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("its stages are {}", names.join(", ")),
    };
    SelectError::new(format!("the pipeline has no stage `{stage}`"), help)
}

type Axes<'a> = Vec<(&'a str, &'a str)>;

fn parse(text: &str) -> Result<(&str, Axes<'_>), SelectError> {
    let wrong = || {
        SelectError::new(
            format!("`{text}` does not name a stage"),
            "write `stage`, or `stage[axis=value, ...]` for one cell",
        )
    };
    let Some((stage, rest)) = text.split_once('[') else { return Ok((text.trim(), Vec::new())) };
    let list = rest.trim_end().strip_suffix(']').ok_or_else(wrong)?;
    let pairs = list.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (axis, value) = pair.split_once('=').ok_or_else(wrong)?;
        Ok((axis.trim(), value.trim()))
    });
    Ok((stage.trim(), pairs.collect::<Result<_, SelectError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_hold_axis_values() {
        assert_eq!(parse("lora").unwrap(), ("lora", vec![]));
        let (stage, axes) = parse("lora[n=10, rank=32]").unwrap();
        assert_eq!((stage, axes), ("lora", vec![("n", "10"), ("rank", "32")]));
        assert!(parse("lora[n=10").is_err());
        assert!(parse("lora[n]").is_err());
    }
}
