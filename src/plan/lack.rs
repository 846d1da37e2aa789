//! What stages need from outside the store and this machine does not have.

use std::path::{Path, PathBuf};

use super::{Graph, PlanError, PlanOptions, Selection};
use crate::{
    config::Pipeline,
    models::{LoadError, ModelRef},
};

/// Something a stage needs before it can even be decided whether it must run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The weights of a model.
    #[error("the model `{model}` cannot be read: {message}")]
    Weights {
        /// The model, as the file names it.
        model: String,
        /// Why.
        message: String,
        /// How to get it.
        help: Option<String>,
    },
    /// The folder of a stage's outside files.
    #[error("there is no data folder `{}`", path.display())]
    Data {
        /// The parameter that names the folder.
        param: Option<String>,
        /// The folder.
        path: PathBuf,
    },
}

impl Lack {
    pub(super) fn weights(model: &ModelRef, error: &LoadError) -> Self {
        let help = error.help().filter(|help| !help.is_empty()).map(str::to_owned);
        Self::Weights { model: model.0.clone(), message: error.to_string(), help }
    }

    pub(super) fn data(root: &Path, param: Option<String>) -> Self {
        Self::Data { param, path: root.to_owned() }
    }

    /// A few words for a line of the plan.
    pub fn what(&self) -> String {
        match self {
            Self::Weights { model, .. } => format!("the model `{model}`"),
            Self::Data { path, .. } => format!("the data folder `{}`", path.display()),
        }
    }

    /// How to get it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Weights { help, .. } => help.clone(),
            Self::Data { param: Some(param), .. } => {
                Some(format!("put the data there, or set `{param}` to its folder"))
            }
            Self::Data { param: None, .. } => Some("put the data there".to_owned()),
        }
    }
}

/// The models of the hub that the stages asked for need and this machine lacks, each with all parts
/// that are read of it; none where something else is lacking, which no download mends.
pub fn absent_models(
    pipeline: &Pipeline,
    wanted: &PlanOptions,
) -> Result<Vec<(ModelRef, Vec<&'static str>)>, PlanError> {
    let selection = Selection::new(pipeline, &Graph::new(pipeline), wanted)?;
    let mut models: Vec<(ModelRef, Vec<&'static str>)> = Vec::new();
    let needed = pipeline.instances.iter().zip(&selection.needed).filter(|(_, needed)| **needed);
    let needed: Vec<_> = needed.map(|(instance, _)| &instance.work).collect();
    if needed.iter().any(|work| work.source_root().is_some_and(|root| !root.is_dir())) {
        return Ok(models);
    }
    for (model, parts) in needed.iter().filter_map(|work| work.weights()) {
        if let Some((_, known)) = models.iter_mut().find(|(known, _)| known == model) {
            known.extend(parts);
        } else {
            models.push((model.clone(), parts.to_vec()));
        }
    }
    for (_, parts) in &mut models {
        parts.sort_unstable();
        parts.dedup();
    }
    models.retain(|(model, parts)| model.resolve().and_then(|found| found.check(parts)).is_err());
    let of_hub = models.iter().all(|(model, _)| model.0.starts_with("hf:"));
    Ok(if of_hub { models } else { Vec::new() })
}

/// One lack and the stages that have it.
#[derive(Clone, Debug)]
pub struct Lacking {
    /// What is missing.
    pub lack: Lack,
    /// The instances that need it, in the order of the plan.
    pub stages: Vec<String>,
}

impl Lacking {
    /// Gathers equal lacks, in the order in which they first come.
    pub fn gather(found: impl IntoIterator<Item = (String, Lack)>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (stage, lack) in found {
            match all.iter_mut().find(|lacking| lacking.lack == lack) {
                Some(lacking) => lacking.stages.push(stage),
                None => all.push(Self { lack, stages: vec![stage] }),
            }
        }
        all
    }

    /// What is missing, and for whom.
    pub fn message(&self) -> String {
        let first = self.stages.first().map_or("", String::as_str);
        let more = match self.stages.len() {
            0 | 1 => String::new(),
            stages => format!(" and {} more", stages - 1),
        };
        format!("{}; needed by `{first}`{more}", self.lack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lacks_are_told_once_with_their_stages() {
        let data = Lack::data(Path::new("coco"), Some("source.root".into()));
        let other = Lack::data(Path::new("arc"), None);
        let found = [("a", &data), ("b", &other), ("c", &data), ("d", &data)];
        let gathered = Lacking::gather(found.map(|(stage, lack)| (stage.to_owned(), lack.clone())));
        let lines: Vec<_> = gathered
            .iter()
            .map(|all| format!("{} ({})", all.message(), all.lack.help().unwrap_or_default()))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        there is no data folder `coco`; needed by `a` and 2 more (put the data there, or set `source.root` to its folder)
        there is no data folder `arc`; needed by `b` (put the data there)
        ");
    }
}
