//! Whether the files of models and adapters are what stages need, told before anything runs:
//! configurations and headers are looked at, each once however many stages name it, and no tensor
//! is read.

use std::{cell::RefCell, collections::HashMap, path::Path, rc::Rc};

use super::{
    super::{Stage, WeightsUsed},
    AdapterFile, Cause, CheckError, ModelParts,
};
use crate::models::{FileError, LoadError, ModelRef, ModelSource, PartRead, Shapes, lora};

/// A model by its name, and what takes the place of its parts.
type Used = (String, usize);

/// An adapter: the root of its path, the path, and the model it is for, if that is stated.
type AdapterUse = (String, String, Option<Used>);

/// What was found of the models and adapters of a pipeline so far. What takes the place of parts
/// must live as long: it is told apart by where it is.
#[derive(Default)]
pub struct Examined {
    sources: RefCell<HashMap<Used, Opened>>,
    parts: RefCell<HashMap<(Used, PartRead), Option<FileError>>>,
    shapes: RefCell<HashMap<Used, Option<Rc<Shapes>>>>,
    adapters: RefCell<HashMap<AdapterUse, Option<FileError>>>,
}

/// A model as stages use it.
#[derive(Clone)]
enum Opened {
    Here(Rc<ModelSource>),
    /// It may be on another machine, which is told of elsewhere.
    Elsewhere,
    Wrong(FileError),
}

impl Opened {
    fn find(model: &ModelRef, on_port: &ModelParts) -> Self {
        match on_port.source(model) {
            Ok(source) => Self::Here(Rc::new(source)),
            Err(_) if model.is_elsewhere() => Self::Elsewhere,
            Err(error) => Self::Wrong(error.into()),
        }
    }
}

impl Examined {
    /// What is wrong with the parts of the model that `param` names, those that come from the port
    /// `model` apart; nothing is said where it is not known which those are.
    pub(in crate::stages) fn model(
        &self,
        param: &'static str,
        WeightsUsed { model, parts }: WeightsUsed<'_>,
        on_port: Option<&ModelParts>,
    ) -> Vec<CheckError> {
        let Some(on_port) = on_port.filter(|_| !model.is_builtin()) else { return Vec::new() };
        let used = (model.0.clone(), on_port.id());
        let opened = self.opened(model, on_port, &used);
        let errors: Vec<FileError> = match opened {
            Opened::Elsewhere => Vec::new(),
            Opened::Wrong(error) => vec![error],
            Opened::Here(source) => {
                let own = parts.iter().filter(|part| on_port.get(part.folder()).is_none());
                own.filter_map(|part| self.part(model, &source, &used, *part)).collect()
            }
        };
        each_once(Cause::Param(param), errors)
    }

    /// What is wrong with adapter files below `root`, beside the model that they are for, if that
    /// is known.
    pub(in crate::stages) fn adapters(
        &self,
        root: &Path,
        files: &[String],
        model: Option<&ModelRef>,
        on_port: Option<&ModelParts>,
    ) -> Vec<CheckError> {
        // A folder that is not there is told of elsewhere.
        if !root.is_dir() {
            return Vec::new();
        }
        let model = model.zip(on_port);
        let used = model.map(|(model, on_port)| (model.0.clone(), on_port.id()));
        let errors = files.iter().filter_map(|file| {
            let case = (root.display().to_string(), file.clone(), used.clone());
            let error = || {
                let shapes = model.and_then(|(model, on_port)| self.shapes(model, on_port));
                error_of_adapter(root, file, shapes.as_deref())
            };
            self.adapters.borrow_mut().entry(case).or_insert_with(error).clone()
        });
        each_once(Cause::Param("files"), errors.collect())
    }

    /// What is wrong with adapter files that reach a stage through its ports, beside its model, if
    /// both are known; each with the file. What is wrong with them alone is told of the stage that
    /// names them.
    pub fn adapters_on_ports<'f>(
        &self,
        work: &dyn Stage,
        files: &'f [AdapterFile],
        on_port: Option<&ModelParts>,
    ) -> Vec<(&'f AdapterFile, CheckError)> {
        let (Some(WeightsUsed { model, parts }), Some(on_port)) = (work.weights(), on_port) else {
            return Vec::new();
        };
        if files.is_empty() || !parts.contains(&PartRead::Transformer) {
            return Vec::new();
        }
        let found = files.iter().filter_map(|file| {
            let AdapterFile { stage, root, file: name } = file;
            let alone = || self.adapters(root, std::slice::from_ref(name), None, None);
            let errors = |model, on_port| {
                self.adapters(root, std::slice::from_ref(name), Some(model), Some(on_port))
            };
            let CheckError { message, help, .. } = errors(model, on_port).pop()?;
            let error = CheckError {
                cause: Cause::Param("inputs"),
                message: format!(
                    "{message}; `{stage}` names the file, and the model is `{}`",
                    model.0
                ),
                help,
            };
            alone().is_empty().then_some((file, error))
        });
        found.collect()
    }

    fn opened(&self, model: &ModelRef, on_port: &ModelParts, used: &Used) -> Opened {
        let find = || Opened::find(model, on_port);
        self.sources.borrow_mut().entry(used.clone()).or_insert_with(find).clone()
    }

    fn part(
        &self,
        model: &ModelRef,
        source: &ModelSource,
        used: &Used,
        part: PartRead,
    ) -> Option<FileError> {
        let error = || {
            // Of a model of the hub, only some parts may have been fetched.
            let absent = model.repository().is_some()
                && matches!(source.check(&[part.name()]), Err(LoadError::Missing { .. }));
            if absent { None } else { source.file_error(part.name()) }
        };
        self.parts.borrow_mut().entry((used.clone(), part)).or_insert_with(error).clone()
    }

    /// The tensors of a model's transformer, if they are known.
    fn shapes(&self, model: &ModelRef, on_port: &ModelParts) -> Option<Rc<Shapes>> {
        let used = (model.0.clone(), on_port.id());
        let opened = self.opened(model, on_port, &used);
        let wanted = || match opened {
            Opened::Here(source) => source.wanted("transformer").ok().map(Rc::new),
            Opened::Elsewhere | Opened::Wrong(_) => None,
        };
        self.shapes.borrow_mut().entry(used).or_insert_with(wanted).clone()
    }
}

/// Each error once: one file can spoil several parts.
fn each_once(cause: Cause, found: Vec<FileError>) -> Vec<CheckError> {
    let mut errors: Vec<CheckError> = Vec::new();
    for FileError { message, help } in found {
        let error = CheckError { cause, message, help };
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    errors
}

fn error_of_adapter(root: &Path, file: &str, model: Option<&Shapes>) -> Option<FileError> {
    let error =
        |message: String, help: &str| Some(FileError { message, help: Some(help.to_owned()) });
    if let Some(refused) = lora::refused_name(file) {
        return error(format!("`{file}` {refused}"), "save the adapter as safetensors");
    }
    let path = root.join(file);
    if !path.exists() {
        let message = format!("there is no file `{file}` in `{}`", root.display());
        return error(message, "name files as they lie below `root`");
    }
    lora::check_outline(&path, file, model).err().map(FileError::from)
}
