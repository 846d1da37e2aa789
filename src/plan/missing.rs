//! What stages need from outside the store and this machine does not have.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    Graph, PlanError, PlanOptions, Selection,
    gather::{own_parts, path_param},
};
use crate::{
    config::{Instance, Pipeline, Place},
    models::{LoadError, ModelRef, PartRead},
    stages::{Cause, CheckError, Examined, KnownAdapters, KnownParts, MODEL_PARAMS, WeightsUsed},
    sync::Unpoisoned,
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
    /// Files of adapters.
    #[error("the adapters of `{root}` cannot be used: {message}")]
    Adapters {
        /// Their folder.
        root: String,
        /// Why.
        message: String,
        /// What to do.
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

    /// What is wrong with the files of an instance's model or adapters.
    fn of_files(instance: &Instance, CheckError { cause, message, help }: CheckError) -> Self {
        match (instance.work.source_root(), instance.work.model()) {
            (Some(root), _) if cause == Cause::Param("files") => {
                Self::Adapters { root: root.display().to_string(), message, help }
            }
            (_, model) => {
                let model = model.map(|model| model.0.clone()).unwrap_or_default();
                Self::Weights { model, message, help }
            }
        }
    }

    fn data(root: &Path, param: Option<String>) -> Self {
        Self::Data { param, path: root.to_owned() }
    }

    /// A few words for a line of the plan.
    pub fn what(&self) -> String {
        match self {
            Self::Weights { model, .. } => format!("the model `{model}`"),
            Self::Adapters { root, .. } => format!("the adapters of `{root}`"),
            Self::Data { path, .. } => format!("the data folder `{}`", path.display()),
        }
    }

    /// How to get it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Weights { help, .. } | Self::Adapters { help, .. } => help.clone(),
            Self::Data { param: Some(param), .. } => {
                Some(format!("put the data there, or set `{param}` to its folder"))
            }
            Self::Data { param: None, .. } => Some("put the data there".to_owned()),
        }
    }
}

/// The models of the hub that the stages asked for name.
pub fn models_of_hub(
    pipeline: &Pipeline,
    wanted: &PlanOptions,
) -> Result<Vec<ModelRef>, PlanError> {
    let selection = Selection::new(pipeline, &Graph::new(pipeline), wanted)?;
    let needed = pipeline.instances.iter().zip(&selection.needed).filter(|(_, needed)| **needed);
    let mut models: Vec<ModelRef> = Vec::new();
    for model in needed.filter_map(|(instance, _)| instance.work.model()) {
        if model.0.starts_with("hf:") && !models.contains(model) {
            models.push(model.clone());
        }
    }
    Ok(models)
}

/// The models of the hub that the stages asked for need and this machine lacks, each with all parts
/// that are read of it, those that come from a port `model` apart; none where something else is
/// lacking, which no download mends.
pub fn absent_models(
    pipeline: &Pipeline,
    wanted: &PlanOptions,
) -> Result<Vec<(ModelRef, Vec<&'static str>)>, PlanError> {
    let selection = Selection::new(pipeline, &Graph::new(pipeline), wanted)?;
    let mut models: Vec<(ModelRef, Vec<&'static str>)> = Vec::new();
    let mut known = KnownParts::default();
    for (instance, needed) in pipeline.instances.iter().zip(&selection.needed) {
        let on_port = known.add(&instance.work, instance.inputs.get("model").copied());
        if !needed {
            continue;
        }
        if instance.work.source_root().is_some_and(|root| !root.is_dir()) {
            return Ok(Vec::new());
        }
        let Some(WeightsUsed { model, parts }) = instance.work.weights() else { continue };
        let given: Vec<String> = on_port.map(|parts| parts.names()).unwrap_or_default();
        let parts = own_parts(parts, &given);
        if let Some((_, known)) = models.iter_mut().find(|(known, _)| known == model) {
            known.extend(parts);
        } else {
            models.push((model.clone(), parts));
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
    /// Where the first of them names it.
    pub place: Option<Place>,
}

impl Lacking {
    /// Gathers equal lacks, in the order in which they first come.
    pub fn gather<'a>(found: impl IntoIterator<Item = (&'a Instance, Lack)>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (instance, lack) in found {
            let stage = instance.to_string();
            match all.iter_mut().find(|lacking| lacking.lack == lack) {
                Some(lacking) => lacking.stages.push(stage),
                None => all.push(Self { place: place(instance, &lack), lack, stages: vec![stage] }),
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
        let place = self.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{}{place}; needed by `{first}`{more}", self.lack)
    }
}

/// Where an instance names what it lacks.
fn place(instance: &Instance, lack: &Lack) -> Option<Place> {
    let param = match lack {
        Lack::Weights { model, .. } => {
            let named = |name: &str| instance.params.get(name).and_then(|value| value.as_str());
            let param = MODEL_PARAMS.into_iter().find(|name| named(name) == Some(model));
            param?.to_owned()
        }
        // Of a stage that is given them, the inputs.
        Lack::Adapters { .. } => match instance.work.adapter_files() {
            Some(_) => "files".to_owned(),
            None => "inputs".to_owned(),
        },
        Lack::Data { path, .. } => path_param(instance, path)?,
    };
    instance.places.get(&param)
}

/// What the instances of a pipeline lack; what a folder is called is found once, and so is each
/// model.
pub(super) struct Absences<'a> {
    pipeline: &'a Pipeline,
    /// The folders that are missing.
    folders: Mutex<HashMap<PathBuf, Lack>>,
    /// What is missing of models, by model and parts.
    models: Mutex<HashMap<Parts, Option<Lack>>>,
}

/// A model and the parts of it that are read.
type Parts = (String, &'static [PartRead]);

impl<'a> Absences<'a> {
    pub fn new(pipeline: &'a Pipeline) -> Self {
        Self { pipeline, folders: Mutex::default(), models: Mutex::default() }
    }

    /// What an instance needs from outside the store and cannot have; nothing is hashed.
    pub fn of(&self, instance: &Instance) -> Option<Lack> {
        self.data(instance).or_else(|| self.weights(instance))
    }

    /// What these instances lack.
    pub fn gather<'i>(&self, instances: impl IntoIterator<Item = &'i Instance>) -> Vec<Lacking> {
        let lack = |instance| Some((instance, self.of(instance)?));
        Lacking::gather(instances.into_iter().filter_map(lack))
    }

    /// The folder of data that is not there.
    pub fn data(&self, instance: &Instance) -> Option<Lack> {
        let root = instance.work.source_root().filter(|root| !root.is_dir())?;
        let mut folders = self.folders.lock().unpoisoned();
        let lack = folders.entry(root.to_owned()).or_insert_with(|| {
            let param = path_param(instance, root);
            let key = param.as_deref().and_then(|param| self.pipeline.key_of(instance, param));
            Lack::data(root, key.or(param))
        });
        Some(lack.clone())
    }

    fn weights(&self, instance: &Instance) -> Option<Lack> {
        let WeightsUsed { model, mut parts } = instance.work.weights()?;
        if instance.inputs.contains_key("model") {
            // Which parts the input will hold is not known yet; those may be left out of the model.
            parts = &[];
        }
        let mut models = self.models.lock().unpoisoned();
        models
            .entry((model.0.clone(), parts))
            .or_insert_with(|| {
                let checked =
                    model.resolve().and_then(|source| source.check(&PartRead::names(parts)));
                checked.err().map(|error| Lack::weights(model, &error))
            })
            .clone()
    }
}

/// What the stages of a pipeline need from outside and this machine does not have.
pub fn lacks(pipeline: &Pipeline) -> Vec<Lacking> {
    Absences::new(pipeline).gather(&pipeline.instances)
}

/// What keeps instances from running that shows in the files of their models and adapters:
/// configurations and headers are looked at, of those that are meant. What is not there at all is a
/// lack of another kind.
pub fn unusable(pipeline: &Pipeline, is_meant: impl Fn(usize) -> bool) -> Vec<Lacking> {
    let (examined, mut known) = (Examined::default(), KnownParts::default());
    let mut adapters = KnownAdapters::default();
    let mut found = Vec::new();
    for (index, instance) in pipeline.instances.iter().enumerate() {
        let on_port = known.add(&instance.work, instance.inputs.get("model").copied());
        let (work, inputs) = (&*instance.work, instance.inputs.values().copied());
        let behind = adapters.add((&instance.stage, work), instance.output(), inputs);
        if is_meant(index) {
            let errors = work.check_files(&examined, on_port.as_ref()).into_iter();
            found.extend(errors.map(|error| (instance, Lack::of_files(instance, error))));
            let on_ports = examined.adapters_on_ports(work, &behind, on_port.as_ref());
            found.extend(on_ports.into_iter().map(|(file, CheckError { message, help, .. })| {
                let root = file.root.display().to_string();
                (instance, Lack::Adapters { root, message, help })
            }));
        }
    }
    Lacking::gather(found)
}
