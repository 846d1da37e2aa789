//! Stages named on the command line: `lora`, or cells of it, `lora[n=10, rank=32]`.

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

fn unknown_stage(pipeline: &Pipeline, stage: &str) -> SelectError {
    let mut names: Vec<&str> = pipeline.instances.iter().map(|i| i.stage.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let help = match similar(stage, &names) {
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
